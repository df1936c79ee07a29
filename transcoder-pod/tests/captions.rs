//! Captions that the source's pictures carry, through the engine.
#![allow(clippy::unwrap_used)]

mod common;

use common::captions::{captioned, pop_on};
use common::engine::{Made, every_codec, inputs, transcode_inputs, write};
use common::lift::made;
use common::{folder, ladder, tool};
use lectern_contract::feed::{Codec, FeedFrame, Track};
use lectern_contract::{Ladder, Ticks, VideoCodec, VideoRendition};
use lectern_media::captions::{Triplet, carriage};
use lectern_transcoder_pod::engine::Input;

const START: Ticks = Ticks(90_000);

/// A source of `rate` pictures a second, reordered, in which every picture carries what `captions` says, by its place on the screen.
fn source(name: &str, codec: Codec, rate: u64, seconds: &str, start: Ticks, captions: impl Fn(u64) -> Vec<Triplet>) -> Vec<FeedFrame> {
    let (how, carrier) = match codec {
        Codec::Hevc => ("-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=2", VideoCodec::Hevc),
        _ => ("-c:v libx264 -preset ultrafast -bf 2", VideoCodec::H264),
    };
    let picture = format!("testsrc2=size=320x180:rate={rate}:duration={seconds}");
    let frames = made(name, &picture, &format!("-pix_fmt yuv420p -g 30 {how}"), codec, start);
    captioned(frames, carrier, rate, captions)
}

/// Two triplets that are like no other picture's.
fn numbered(place: u64) -> Vec<Triplet> {
    let [.., high, low] = place.to_be_bytes();
    vec![Triplet([0xfc, high, low]), Triplet([0xfd, high, low])]
}

fn all(places: std::ops::Range<u64>) -> Vec<Triplet> {
    places.flat_map(numbered).collect()
}

fn carried(codec: VideoCodec, made: &Made) -> Vec<Triplet> {
    made.coded.iter().flat_map(|unit| carriage::carried(codec, unit)).collect()
}

/// One codec, at rates below and above those of sources.
fn every_rate() -> Ladder {
    let of = |frame_rate| VideoRendition { name: format!("at-{frame_rate}"), frame_rate, ..ladder().video[1].clone() };
    Ladder { video: [10, 30, 60].map(of).to_vec(), ..ladder() }
}

#[test]
fn captions_come_out_of_every_codec_once_and_in_order() {
    let folder = folder("captions-codecs");
    for codec in [Codec::H264, Codec::Hevc] {
        let frames = source(&format!("captions-{codec:?}"), codec, 30, "1.5", START, numbered);
        let made = transcode_inputs(every_codec(), inputs(frames), Ticks(0));
        for (at, rendition) in every_codec().video.iter().enumerate() {
            let what = format!("{codec:?} to {:?}", rendition.codec);
            assert_eq!(carried(rendition.codec, &made[&at]), all(0..45), "{what}");
            let path = write(&folder, &what.replace(' ', "-"), &made[&at].init[0], &made[&at].segments);
            let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
            assert_eq!(complaints.trim(), "", "{what}");
            // libav finds them, too, in each picture.
            let seen = tool("ffprobe", &["-v", "error", "-show_entries", "frame_side_data=side_data_type", "-of", "csv=p=0", &path]);
            assert_eq!(seen.matches("ATSC A53 Part 4 Closed Captions").count(), 45, "{what}: {seen}");
        }
    }
}

#[test]
fn a_caption_that_was_sent_is_read_by_libav_in_every_rendition() {
    let frames = source("captions-read", Codec::H264, 30, "3", START, pop_on("Good morning", 30, 60));
    let made = transcode_inputs(every_rate(), inputs(frames), Ticks(0));
    let folder = folder("captions-read-out");
    for at in 0..3 {
        let path = write(&folder, &at.to_string(), &made[&at].init[0], &made[&at].segments);
        let graph = format!("movie={path}[out0+subcc]");
        let read = tool("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", &graph, "-map", "0:s", "-f", "webvtt", "-"]);
        assert!(read.contains("Good morning"), "rendition {at}: {read}");
    }
}

#[test]
fn dropped_and_repeated_pictures_lose_and_double_no_captions() {
    for (rate, seconds, places) in [(60, "1", 60), (24, "1", 24), (5, "2", 10)] {
        let frames = source(&format!("captions-{rate}"), Codec::H264, rate, seconds, START, numbered);
        let made = transcode_inputs(every_rate(), inputs(frames), Ticks(0));
        for (at, rendition) in every_rate().video.iter().enumerate() {
            let what = format!("{rate} to {}", rendition.frame_rate);
            let mut found = carried(VideoCodec::H264, &made[&at]);
            if found.len() < places * 2 {
                // The last pictures had no slot of their own: there is none after them to carry what they had.
                assert!(places * 2 - found.len() <= 2 * (rate as usize / 10), "{what}: {} of {}", found.len(), places * 2);
                found.extend(all(found.len() as u64 / 2..places as u64));
            }
            assert_eq!(found, all(0..places as u64), "{what}");
        }
    }
}

#[test]
fn padding_makes_room_for_what_has_a_meaning() {
    // As broadcasters send it: twenty triplets a picture, most of which fill their places.
    let full = |place| [numbered(place), vec![Triplet([0xfa, 0, 0]); 18]].concat();
    let frames = source("captions-full", Codec::H264, 30, "2", START, full);
    let made = transcode_inputs(every_rate(), inputs(frames), Ticks(0));
    let found: Vec<Triplet> = carried(VideoCodec::H264, &made[&0]).into_iter().filter(|triplet| triplet.is_valid()).collect();
    assert!(found.len() >= 116 && found == all(0..60)[..found.len()], "{found:?}");
    assert_eq!(carried(VideoCodec::H264, &made[&1]).len(), 60 * 20, "where nothing is dropped, all stays");
}

#[test]
fn the_slate_carries_nothing_and_a_successor_none_of_its_predecessors() {
    let mut sent = inputs(source("captions-before", Codec::H264, 30, "1", START, numbered));
    sent.push(Input::Gap);
    sent.push(Input::Fill(Track::Video, Ticks::from_millis(4_000)));
    sent.extend(inputs(source("captions-after", Codec::H264, 30, "1", Ticks::from_millis(4_100), |place| numbered(place + 30))));
    let from = Ticks::from_millis(1_500);
    let made = transcode_inputs(every_codec(), sent, from);
    for (at, rendition) in every_codec().video.iter().enumerate() {
        let made = &made[&at];
        assert!(made.samples.windows(2).all(|pair| pair[0].0 + 3000 == pair[1].0), "{:?} has a hole", rendition.codec);
        let found = carried(rendition.codec, made);
        let first = u64::from(found[0].0[2]);
        assert!((13..=15).contains(&first), "{first} was shown half a second after the start");
        assert_eq!(found, all(first..60), "{:?}", rendition.codec);
    }
}
