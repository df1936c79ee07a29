//! The engine and the packager on a real lecture, judged by ffprobe and ffmpeg.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::{Buf as _, Bytes};
use common::engine::{Made, TWO, every_codec, inputs, likeness, number_after, numbers, transcode, transcode_by, transcode_inputs, write};
use common::lift::{encoded, original};
use common::{folder, ladder, lecture, tool};
use lectern_contract::feed::{Codec, FeedFrame, Track};
use lectern_contract::{SegmentNumber, Ticks, VideoCodec};
use lectern_media::cmaf;
use lectern_transcoder_pod::engine::{Backend, Input};
use lectern_transcoder_pod::packager::Segment;

const START: Ticks = Ticks(90_000);
/// The first picture waits for two B-frames' worth of reordering.
const SHOWN: Ticks = Ticks(96_000);

#[test]
fn a_lecture_becomes_segments_that_decode_without_an_error() {
    let made = transcode(lecture("decode", 6, START, &[]), Ticks(0));
    assert_eq!(made.len(), 3, "two pictures and a sound");
    let folder = folder("decode-out");
    for (rendition, made) in &made {
        assert!(made.ended);
        assert_eq!(made.init.len(), 1);
        assert_eq!(numbers(made), [0, 1, 2, 3], "rendition {rendition}: from 1 s to 7 s");
        let path = write(&folder, &rendition.to_string(), &made.init[0], &made.segments);
        let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
        assert_eq!(complaints.trim(), "", "rendition {rendition}");
        // Another reader with another demuxer; it ends with an error where it cannot go on.
        let read = format!("filesrc location={path} ! qtdemux ! decodebin ! fakesink sync=false");
        let complaints = tool("gst-launch-1.0", &[&["-q"], read.split(' ').collect::<Vec<_>>().as_slice()].concat());
        assert!(!complaints.to_lowercase().contains("error"), "rendition {rendition}: {complaints}");
    }
    for rendition in [0, 1] {
        let samples = &made[&rendition].samples;
        assert_eq!(samples.len(), 180);
        assert_eq!(samples[0].0, SHOWN.0);
        assert!(samples.windows(2).all(|pair| pair[0].0 + 3000 == pair[1].0), "a picture is missing or doubled");
        let keys: Vec<u64> = samples.iter().filter(|sample| sample.2).map(|sample| sample.0).collect();
        assert_eq!(keys, [SHOWN.0, 180_000, 360_000, 540_000], "a keyframe at the start and on each boundary, and no others");
    }
    let sound = &made[&2].samples;
    assert!(sound.windows(2).all(|pair| pair[0].0 + 1024 == pair[1].0), "a sound frame is missing or doubled");
    assert!(sound.iter().all(|sample| sample.0 % 1024 == 0), "sound is off the grid");
    let shape = tool(
        "ffprobe",
        &["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0", folder.join("1.mp4").to_str().unwrap()],
    );
    assert_eq!(shape.trim(), "h264,320,180");
}

#[test]
fn the_decode_time_of_a_segment_is_its_number_times_its_duration() {
    let made = transcode(lecture("tfdt", 6, START, &[]), Ticks(0));
    for segment in &made[&0].segments[1..3] {
        assert_eq!(segment.duration, TWO.ticks());
        assert_eq!(decode_time(&segment.body.clone().copy_to_bytes(segment.body.remaining())), segment.number.start(TWO).0);
    }
}

#[test]
fn both_tracks_end_in_the_same_segment() {
    let boundary = SegmentNumber(3).start(TWO);
    // The last picture is shown 30 ms after a boundary. One track loses what comes after 50 ms before it.
    let without = |track: Track| {
        let early = Ticks(boundary.0 - 4_500);
        let stays = |frame: &FeedFrame| !matches!(frame, FeedFrame::AccessUnit(unit) if unit.track == track && unit.pts >= early);
        lecture("tail", 5, START, &[]).into_iter().filter(stays).collect::<Vec<_>>()
    };
    for track in [Track::Audio, Track::Video] {
        let made = transcode(without(track), Ticks(0));
        for (rendition, made) in &made {
            assert_eq!(numbers(made), [0, 1, 2, 3], "rendition {rendition}, where the {track:?} stops first");
        }
    }
}

/// Wherever the boundary lies between the first of the one and the first of the other.
#[test]
fn both_tracks_begin_in_the_same_segment() {
    for millis in [1_900, 1_950, 1_970, 1_980, 1_990, 1_999, 2_000, 2_001, 2_010, 2_030, 2_060, 2_100] {
        let frames = lecture("head", 3, Ticks::from_millis(millis), &[]);
        let first = frames.iter().position(|frame| matches!(frame, FeedFrame::AccessUnit(unit) if unit.track == Track::Video)).unwrap();
        let (configs, from_keyframe): (Vec<_>, Vec<_>) =
            frames.into_iter().enumerate().partition(|(at, frame)| *at < first && matches!(frame, FeedFrame::Config { .. }));
        let feed = configs.into_iter().chain(from_keyframe.into_iter().filter(|(at, _)| *at >= first)).map(|(_, frame)| frame);
        let made = transcode(feed.collect(), Ticks(0));
        let begins: Vec<u64> = made.values().map(|made| numbers(made)[0]).collect();
        assert!(begins.iter().all(|number| *number == begins[0]), "{begins:?}, where the lecture begins at {millis} ms");
    }
}

fn decode_time(mut segment: &[u8]) -> u64 {
    use mp4_atom::{Any, Decode};
    loop {
        if let Any::Moof(moof) = Any::decode(&mut segment).unwrap() {
            return moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time;
        }
    }
}

#[test]
fn an_engine_that_started_later_makes_interchangeable_segments() {
    let frames = lecture("two", 8, START, &[]);
    let late_from = SegmentNumber(2).start(TWO);
    let asked = late_from.since(START); // a second earlier, as the child does, for reordered pictures
    // As the feed does it: parameters, then from the last keyframe at or before the wanted time.
    let key = frames
        .iter()
        .rposition(|frame| matches!(frame, FeedFrame::AccessUnit(unit) if unit.track == Track::Video && unit.keyframe && unit.dts <= asked))
        .unwrap();
    let configs = frames[..key].iter().filter(|frame| matches!(frame, FeedFrame::Config { .. }));
    let late: Vec<FeedFrame> = configs.cloned().chain(frames[key..].iter().cloned()).collect();
    let first = transcode_inputs(every_codec(), inputs(frames), Ticks(0));
    let second = transcode_inputs(every_codec(), inputs(late), late_from);
    let folder = folder("two-out");
    for rendition in 0..4 {
        let (a, b) = (&first[&rendition], &second[&rendition]);
        assert_eq!(a.init, b.init, "init sections of rendition {rendition}");
        assert_eq!(numbers(a), [0, 1, 2, 3, 4]);
        assert_eq!(numbers(b), [2, 3, 4]);
        let later = |made: &Made| made.samples.iter().filter(|sample| sample.0 >= b.samples[0].0).copied().collect::<Vec<_>>();
        assert_eq!(later(a), later(b), "stamps of rendition {rendition}");
        let spliced: Vec<Segment> = [&a.segments[..2], &b.segments[..1], &a.segments[3..4], &b.segments[2..]].concat();
        let path = write(&folder, &rendition.to_string(), &a.init[0], &spliced);
        let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
        assert_eq!(complaints.trim(), "", "spliced rendition {rendition}");
    }
}

#[test]
fn a_rendition_of_every_codec_shows_what_was_sent() {
    let folder = folder("codecs");
    let made = transcode_inputs(every_codec(), inputs(encoded("codecs", Codec::H264, 6.0, START)), Ticks(0));
    for (at, rendition) in every_codec().video.iter().enumerate() {
        let (made, codec) = (&made[&at], rendition.codec);
        let stamps: Vec<u64> = made.samples.iter().map(|sample| sample.0).collect();
        assert_eq!(stamps, (0..180).map(|n| START.0 + n * 3000).collect::<Vec<_>>(), "{codec:?}: a picture is missing, doubled or moved");
        let keys: Vec<u64> = made.samples.iter().filter(|sample| sample.2).map(|sample| sample.0).collect();
        assert_eq!(keys, [START.0, 180_000, 360_000, 540_000], "{codec:?}: a keyframe at the start and on each boundary, and no others");
        let name = cmaf::codec_of_init(&made.init[0]).unwrap();
        let prefix = ["avc1.", "hvc1.1.6.L", "av01.0."][at];
        assert!(name.starts_with(prefix), "{codec:?} is called {name}");
        let path = write(&folder, &format!("{codec:?}"), &made.init[0], &made.segments);
        let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
        assert_eq!(complaints.trim(), "", "{codec:?}");
        let likeness = likeness(&path, &original(Codec::H264, 6.0));
        assert!(likeness > 27.0, "{codec:?}: {likeness} dB is not the picture that was sent");
    }
}

/// There is no driver here, so that much of NVENC can be seen: it is asked, it refuses, and nothing is missing.
#[test]
fn without_a_gpu_the_cpu_goes_on_and_says_so() {
    let sent = || inputs(encoded("nvenc", Codec::H264, 3.0, START));
    let made = transcode_by(Backend::Nvenc, every_codec(), sent(), Ticks(0));
    for (at, rendition) in every_codec().video.iter().enumerate() {
        let said = &made[&at].degraded;
        match rendition.codec {
            VideoCodec::Av1 => assert_eq!(said.len(), 0, "{said:?}"),
            _ => assert!(
                said.len() == 1 && said[0].starts_with("NVENC cannot be opened") && said[0].ends_with("the CPU encodes"),
                "{said:?}"
            ),
        }
        assert_eq!(made[&at].samples.len(), 90, "{:?}", rendition.codec);
    }
    let software = transcode_inputs(every_codec(), sent(), Ticks(0));
    assert!(software.values().all(|made| made.degraded.is_empty()));
}

#[test]
fn a_source_without_sound_makes_pictures_only() {
    let made = transcode(lecture("silent", 3, START, &["-an"]), Ticks(0));
    assert_eq!(made.keys().copied().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_source_without_picture_makes_sound_only() {
    let made = transcode(lecture("dark", 3, START, &["-vn"]), Ticks(0));
    assert_eq!(made.keys().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_broken_unit_is_skipped() {
    let mut frames = lecture("broken", 4, START, &[]);
    let mut broken = 0;
    for frame in frames.iter_mut().skip(40).step_by(17) {
        if let FeedFrame::AccessUnit(unit) = frame {
            unit.payload = Bytes::from_static(b"\0\0\0\x05noise and more noise");
            broken += 1;
        }
    }
    assert!(broken > 5);
    let made = transcode(frames, Ticks(0));
    assert_eq!(numbers(&made[&0]), [0, 1, 2]);
    assert!(made[&0].ended && made[&2].ended);
}

#[test]
fn a_hole_is_jumped_and_the_numbers_go_on() {
    let mut frames = lecture("hole", 2, START, &[]);
    frames.push(FeedFrame::Gap { from: START, reason: "the publisher left".into() });
    frames.extend(lecture("hole-after", 3, Ticks::from_millis(21_300), &[]));
    let made = transcode(frames, Ticks(0));
    for (rendition, made) in made {
        assert_eq!(numbers(&made), [0, 1, 10, 11, 12], "rendition {rendition}");
    }
}

#[test]
fn the_slate_fills_what_nobody_sends_until_the_lecturer_is_back() {
    let mut all = inputs(lecture("slate", 2, START, &[]));
    all.push(Input::Gap);
    for until in [3500, 4000, 5000, 6200].map(Ticks::from_millis) {
        all.extend([Input::Fill(Track::Video, until), Input::Fill(Track::Audio, until)]);
    }
    all.extend(inputs(lecture("slate-after", 3, Ticks::from_millis(6_300), &[])));
    let made = transcode_inputs(ladder(), all, Ticks(0));
    let folder = folder("slate-out");
    for (rendition, made) in &made {
        assert_eq!(numbers(made), [0, 1, 2, 3, 4], "rendition {rendition}: from 1 s to 9.3 s");
        let step = if *rendition == 2 { 1024 } else { 3000 };
        assert!(made.samples.windows(2).all(|pair| pair[0].0 + step == pair[1].0), "rendition {rendition} has a hole");
        let path = write(&folder, &rendition.to_string(), &made.init[0], &made.segments);
        let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
        assert_eq!(complaints.trim(), "", "rendition {rendition}");
    }
    // The card is dark, and only where it belongs; the sound is silent there.
    let measure = |rendition: usize, from: &str, filter: &str, name: &str| {
        let path = folder.join(format!("{rendition}.mp4"));
        let graph = format!("{filter},metadata=print");
        let said =
            tool("ffmpeg", &["-v", "info", "-ss", from, "-i", path.to_str().unwrap(), "-t", "0.5", "-filter:v", &graph, "-f", "null", "-"]);
        number_after(&said, name)
    };
    for rendition in [0, 1] {
        let [before, card, after] = ["1", "4", "7"].map(|from| measure(rendition, from, "signalstats", "lavfi.signalstats.YAVG="));
        assert!(before > 80.0 && after > 80.0 && (34.0..50.0).contains(&card), "rendition {rendition}: {before}, {card}, {after}");
    }
    let sound = folder.join("2.mp4");
    let loud = |from: &str| {
        let said =
            tool("ffmpeg", &["-v", "info", "-ss", from, "-t", "1", "-i", sound.to_str().unwrap(), "-af", "astats", "-f", "null", "-"]);
        let (_, level) = said.rsplit_once("RMS level dB: ").unwrap();
        level.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(loud("4"), "-inf");
    assert!(loud("7").parse::<f64>().is_ok_and(|level| level > -34.0), "{}", loud("7"));
}

/// A successor whose source begins in the middle of what it has to make.
#[test]
fn a_slate_can_come_before_all_that_is_sent() {
    let mut all: Vec<Input> = [3_000, 4_000, 5_000, 5_300]
        .map(Ticks::from_millis)
        .into_iter()
        .flat_map(|until| [Input::Fill(Track::Video, until), Input::Fill(Track::Audio, until)])
        .collect();
    all.extend(inputs(lecture("slate-first", 3, Ticks::from_millis(5_300), &[])));
    // It was asked for from a second before on.
    let made = transcode_inputs(ladder(), all, Ticks::from_millis(4_000));
    for (rendition, made) in &made {
        assert_eq!(numbers(made), [2, 3, 4], "rendition {rendition}: from 4 s to 8.3 s");
        let (step, first) = if *rendition == 2 { (1024, 192_000_u64.next_multiple_of(1024)) } else { (3000, 360_000) };
        assert_eq!(made.samples[0].0, first, "rendition {rendition}");
        assert!(made.samples.windows(2).all(|pair| pair[0].0 + step == pair[1].0), "rendition {rendition} has a hole");
    }
}

#[test]
fn every_video_codec_becomes_the_ladders_pictures() {
    let folder = folder("videos");
    for codec in Codec::ALL.into_iter().filter(|codec| codec.track() == Track::Video) {
        let made = transcode(encoded("video", codec, 1.5, START), Ticks(0));
        assert_eq!(made.keys().copied().collect::<Vec<_>>(), [0, 1], "{codec:?}");
        let small = &made[&1];
        let stamps: Vec<u64> = small.samples.iter().map(|sample| sample.0).collect();
        let wanted: Vec<u64> = (0..45).map(|n| START.0 + n * 3000).collect();
        assert_eq!(stamps, wanted, "{codec:?}: a picture is missing, doubled or moved");
        let path = write(&folder, &format!("{codec:?}"), &small.init[0], &small.segments);
        let likeness = likeness(&path, &original(codec, 1.5));
        assert!(likeness > 27.0, "{codec:?}: {likeness} dB is not the picture that was sent");
    }
}

#[test]
fn every_sound_codec_becomes_the_ladders_sound() {
    let folder = folder("sounds");
    for codec in Codec::ALL.into_iter().filter(|codec| codec.track() == Track::Audio) {
        let made = transcode(encoded("sound", codec, 1.5, START), Ticks(0));
        assert_eq!(made.keys().copied().collect::<Vec<_>>(), [2], "{codec:?}");
        let sound = &made[&2];
        assert!(sound.samples.windows(2).all(|pair| pair[0].0 + 1024 == pair[1].0), "{codec:?}: sound is missing or doubled");
        let frames = sound.samples.len();
        assert!((68..=74).contains(&frames), "{codec:?}: {frames} frames are not 1.5 s");
        let path = write(&folder, &format!("{codec:?}"), &sound.init[0], &sound.segments);
        let said = tool("ffmpeg", &["-v", "info", "-ss", "0.3", "-t", "0.8", "-i", &path, "-af", "astats", "-f", "null", "-"]);
        let (loud, crossings) = (number_after(&said, "RMS level dB: "), number_after(&said, "Zero crossings rate: "));
        assert!((-34.0..-17.0).contains(&loud), "{codec:?}: the tone came out with {loud} dB");
        assert!((crossings * 24_000.0 - 440.0).abs() < 4.0, "{codec:?}: the tone of 440 Hz came out with {} Hz", crossings * 24_000.0);
    }
}

#[test]
fn a_source_that_changes_its_codecs_goes_on_in_the_same_renditions() {
    let second = Ticks(START.0 + 135_000);
    let third = Ticks(second.0 + 135_000);
    let mut frames = Vec::new();
    for (video, audio, start) in
        [(Codec::Hevc, Codec::Aac, START), (Codec::Av1, Codec::Opus, second), (Codec::H264, Codec::PcmMulaw, third)]
    {
        let both = [encoded("change", video, 1.5, start), encoded("change", audio, 1.5, start)].concat();
        let (configs, mut units): (Vec<_>, Vec<_>) = both.into_iter().partition(|frame| matches!(frame, FeedFrame::Config { .. }));
        units.sort_by_key(|frame| if let FeedFrame::AccessUnit(unit) = frame { unit.dts } else { Ticks(0) });
        frames.extend(configs.into_iter().chain(units));
    }
    let made = transcode(frames, Ticks(0));
    let folder = folder("change-out");
    for (rendition, made) in &made {
        assert_eq!(made.init.len(), 1, "rendition {rendition} was opened once");
        assert_eq!(numbers(made), [0, 1, 2], "rendition {rendition}: from 1 s to 5.5 s");
        let path = write(&folder, &rendition.to_string(), &made.init[0], &made.segments);
        let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
        assert_eq!(complaints.trim(), "", "rendition {rendition}");
    }
    let stamps: Vec<u64> = made[&1].samples.iter().map(|sample| sample.0).collect();
    assert_eq!(stamps, (0..135).map(|n| START.0 + n * 3000).collect::<Vec<_>>(), "a picture was lost between two codecs");
    let sound = &made[&2].samples;
    assert!(sound.windows(2).all(|pair| pair[0].0 + 1024 == pair[1].0), "sound was lost between two codecs");
}

#[test]
fn parameters_that_no_decoder_takes_wait_for_better_ones() {
    let mut frames = encoded("unusable", Codec::Hevc, 0.5, START);
    frames.insert(0, FeedFrame::Config { track: Track::Video, codec: Codec::Av1, config: Bytes::from_static(b"noise") });
    frames.insert(1, FeedFrame::Config { track: Track::Audio, codec: Codec::Ac3, config: Bytes::from_static(b"noise") });
    let made = transcode(frames, Ticks(0));
    assert_eq!(made.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(made[&1].samples.len(), 15);
}
