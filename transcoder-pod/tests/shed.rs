//! A rendition that is shed goes on with the pictures of the one below it, and comes back, without a hole or a repetition.
#![allow(clippy::unwrap_used)]

mod common;

use common::engine::{Made, TWO, inputs, is_whole, transcode_inputs};
use common::{lecture, small_ladder as ladder};
use lectern_contract::feed::Track;
use lectern_contract::{Ladder, SegmentNumber, Ticks, VideoCodec, VideoRendition};
use lectern_transcoder_pod::engine::Input;
use std::collections::BTreeMap;

const START: Ticks = Ticks(90_000);
/// See `engine.rs`.
const SHOWN: u64 = 96_000;

fn second(seconds: u64) -> Ticks {
    Ticks(seconds * 90_000)
}

/// The lecture, with `extra` before what is decoded at its time.
fn with(name: &str, seconds: u32, extra: Vec<(Ticks, Input)>) -> Vec<Input> {
    let (mut all, mut extra) = (Vec::new(), extra.into_iter().peekable());
    for input in inputs(lecture(name, seconds, START, &[])) {
        if let Input::Unit(unit) = &input
            && unit.track == Track::Video
        {
            while let Some((_, input)) = extra.next_if(|(at, _)| *at <= unit.dts) {
                all.push(input);
            }
        }
        all.push(input);
    }
    all
}

fn starts(seconds: std::ops::Range<u64>) -> std::ops::Range<u64> {
    seconds.start * 90_000..seconds.end * 90_000
}

/// What is coded of the pictures that start in `time`.
fn coded(made: &Made, time: std::ops::Range<u64>) -> Vec<&bytes::Bytes> {
    made.samples.iter().zip(&made.coded).filter(|(sample, _)| time.contains(&sample.0)).map(|(_, coded)| coded).collect()
}

/// Every picture is there once, nothing but a segment's start has a keyframe, and all of it is whole.
fn is_all(name: &str, made: &BTreeMap<usize, Made>, pictures: usize, inits: &[usize]) {
    is_whole(name, made, inits);
    for at in 0..inits.len() {
        let made = &made[&at];
        let ends = |sample: &(u64, u32, bool)| sample.0 + u64::from(sample.1);
        assert_eq!(made.samples.last().map(ends).unwrap() - made.samples[0].0, pictures as u64 * 3000, "rendition {at}");
        let keys = made.samples.iter().filter(|sample| sample.2).map(|sample| sample.0);
        assert!(keys.skip(1).all(|start| start % TWO.ticks().0 == 0), "rendition {at}: a keyframe within a segment");
        assert_eq!(made.segments[0].number, SegmentNumber::of(START, TWO), "rendition {at}");
    }
}

#[test]
fn a_rendition_that_is_shed_goes_on_with_the_picture_below() {
    let sent = with("shed", 12, vec![(second(5), Input::Shed), (second(7), Input::Restore)]);
    let made = transcode_inputs(ladder(), sent, Ticks(0));
    is_all("shed", &made, 360, &[3, 1]);
    let (above, below) = (&made[&0], &made[&1]);
    assert_eq!(above.init[0], above.init[2], "its own again");
    assert_eq!(above.init[1], below.init[0], "those of the one below");
    assert_eq!(coded(above, starts(6..8)), coded(below, starts(6..8)));
    assert_eq!(coded(above, starts(6..8)).len(), 60);
    let hurried = above.samples.iter().filter(|sample| starts(5..6).contains(&sample.0)).count();
    assert!(hurried < 20, "{hurried} pictures in the second before, which is all that a slow encoder has to make");
    for own in [0..6, 8..14] {
        assert!(coded(above, starts(own.clone())).iter().zip(coded(below, starts(own))).all(|(above, below)| *above != below));
    }
    assert_eq!(made[&2].samples.len(), transcode_inputs(ladder(), inputs(lecture("whole", 12, START, &[])), Ticks(0))[&2].samples.len());
}

#[test]
fn the_one_that_stands_in_may_be_shed_as_well() {
    let small = VideoRendition { name: "54p".into(), width: 96, height: 54, ..ladder().video[1].clone() };
    let ladder = Ladder { video: [ladder().video, vec![small]].concat(), ..ladder() };
    let at = [(3, Input::Shed), (7, Input::Shed), (11, Input::Restore), (15, Input::Restore)];
    let sent = with("shed-both", 18, at.into_iter().map(|(at, input)| (second(at), input)).collect());
    let made = transcode_inputs(ladder, sent, Ticks(0));
    // Its own, the middle's, the lowest's, the middle's, its own.
    is_all("shed-both", &made, 540, &[5, 3, 1]);
    assert_eq!(coded(&made[&0], starts(8..12)), coded(&made[&2], starts(8..12)), "what the middle one shows is the lowest");
    assert_eq!(coded(&made[&0], starts(4..16)), coded(&made[&1], starts(4..16)));
}

#[test]
fn each_codec_sheds_within_itself() {
    let of =
        |codec| ladder().video.into_iter().map(move |video| VideoRendition { name: format!("{codec:?}-{}", video.name), codec, ..video });
    let video = [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1].into_iter().flat_map(of).collect();
    let sent = with("shed-codecs", 8, vec![(second(3), Input::Shed); 3].into_iter().chain(vec![(second(5), Input::Restore); 3]).collect());
    let made = transcode_inputs(Ladder { video, ..ladder() }, sent, Ticks(0));
    is_all("shed-codecs", &made, 240, &[3, 1, 3, 1, 3, 1]);
}

#[test]
fn a_lecture_that_ends_or_falls_silent_meanwhile_is_whole() {
    let mut sent = with("shed-end", 6, vec![(second(3), Input::Shed)]);
    // The slate until 9 s, then the end.
    sent.extend([Input::Fill(Track::Video, second(9)), Input::Cut]);
    let made = transcode_inputs(ladder(), sent, Ticks(0));
    let pictures = usize::try_from((second(9).0 - SHOWN) / 3000).unwrap();
    is_all("shed-end", &made, pictures, &[2, 1]);
    assert_eq!(coded(&made[&0], starts(4..9)), coded(&made[&1], starts(4..9)), "the slate is the small one's, too");
}

#[test]
fn more_than_there_is_to_shed_is_not_shed() {
    let sent = with("shed-more", 6, vec![(second(2), Input::Shed), (second(2), Input::Shed), (second(3), Input::Restore)]);
    let made = transcode_inputs(ladder(), sent, Ticks(0));
    is_all("shed-more", &made, 180, &[3, 1]);
}
