//! A source that is what a rendition is to be is passed on as that rendition, for as long as it is, without a hole or a repetition.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::engine::{Made, TWO, inputs, is_whole, made_of};
use common::{lecture, small_ladder};
use lectern_contract::feed::Track;
use lectern_contract::{PartCount, Ticks};
use lectern_transcoder_pod::engine::{Backend, Card, Input, Order, Predecessor};
use std::collections::BTreeSet;

const START: Ticks = Ticks(90_000);
/// As `small_ladder()`'s first is to be, but for the keyframes: one a second, from `START` on.
const LIKE: [&str; 14] =
    ["-s", "320x180", "-bf", "0", "-g", "30", "-sc_threshold", "0", "-b:v", "300k", "-maxrate", "300k", "-bufsize", "150k"];

/// Of two renditions, the first of the source's size.
fn order(passthrough: bool) -> Order {
    Order {
        ladder: small_ladder(),
        segment_duration: TWO,
        from: Ticks(0),
        card: Card::default(),
        encoder: Backend::Software,
        passthrough,
        parts: None,
        joints_until: Ticks(0),
        predecessor: Predecessor::default(),
    }
}

/// The lecture, late by so many milliseconds, and its pictures by 23 more: the time that AAC takes to begin.
fn sent(name: &str, seconds: u32, late: u64) -> Vec<Input> {
    inputs(lecture(name, seconds, START.plus(Ticks::from_millis(late)), &LIKE))
}

/// The same with its pictures where slots begin.
fn sent_in_time(name: &str, seconds: u32) -> Vec<Input> {
    inputs(lecture(name, seconds, START.since(Ticks::from_millis(23)), &LIKE))
}

/// The source's pictures.
fn pictures(sent: &[Input]) -> Vec<Bytes> {
    let picture = |input: &Input| match input {
        Input::Unit(unit) if unit.track == Track::Video => Some(unit.payload.clone()),
        _ => None,
    };
    sent.iter().filter_map(picture).collect()
}

/// The seconds of which all pictures of rendition 0 are the source's.
fn passed(made: &Made, source: &[Bytes]) -> Vec<u64> {
    let seconds = made.samples.iter().map(|sample| sample.0 / 90_000).collect::<BTreeSet<_>>();
    let of = |second: u64| made.samples.iter().zip(&made.coded).filter(move |(sample, _)| sample.0 / 90_000 == second);
    seconds.into_iter().filter(|second| of(*second).all(|(_, coded)| source.contains(coded))).collect()
}

#[test]
fn a_source_that_agrees_is_passed_on() {
    for late in [0, 10] {
        let name = format!("pass-{late}");
        let sent = sent(&name, 12, late);
        let source = pictures(&sent);
        let made = made_of(order(true), sent);
        is_whole(&name, &made, &[1, 1]);
        // It begins at 1 s: two segments from 2 s on are looked at, the next one is the encoder's.
        assert_eq!(passed(&made[&0], &source), (8..13).collect::<Vec<_>>(), "{late}");
        assert_eq!(passed(&made[&1], &source), [0; 0]);
    }
}

#[test]
fn a_source_that_is_too_late_for_its_segments_is_encoded() {
    let sent = sent("pass-late", 11, 20);
    let source = pictures(&sent);
    let made = made_of(order(true), sent);
    is_whole("pass-late", &made, &[1, 1]);
    assert_eq!(passed(&made[&0], &source), [0; 0]);
}

#[test]
fn unless_that_is_not_wanted_or_there_are_parts() {
    for order in [order(false), Order { parts: Some(PartCount::LOW_LATENCY), ..order(true) }] {
        let sent = sent("pass-never", 12, 0);
        let source = pictures(&sent);
        let made = made_of(order, sent);
        is_whole("pass-never", &made, &[1, 1]);
        assert_eq!(passed(&made[&0], &source), [0; 0]);
    }
}

#[test]
fn a_source_that_does_not_agree_is_encoded() {
    let others: [(&str, &[&str]); 4] = [
        ("gop", &["-g", "45"]),
        ("b-frames", &["-bf", "2"]),
        ("rate", &["-b:v", "900k", "-maxrate", "900k", "-bufsize", "450k"]),
        ("size", &["-s", "240x180"]),
    ];
    for (what, other) in others {
        let name = format!("pass-{what}");
        let sent = inputs(lecture(&name, 11, START, &[&LIKE[..], other].concat()));
        let source = pictures(&sent);
        let made = made_of(order(true), sent);
        is_whole(&name, &made, &[1, 1]);
        assert_eq!(passed(&made[&0], &source), [0; 0], "{what}");
    }
}

/// `sent` without the pictures from `from` to `to`, each in seconds; with `instead` in their place.
fn without(sent: Vec<Input>, from: f64, to: f64, instead: Vec<Input>) -> Vec<Input> {
    let within =
        |input: &Input| matches!(input, Input::Unit(unit) if unit.track == Track::Video && (from..to).contains(&unit.dts.as_secs_f64()));
    let at = sent.iter().position(within).unwrap();
    let (before, after) = sent.split_at(at);
    before.iter().cloned().chain(instead).chain(after.iter().filter(|input| !within(input)).cloned()).collect()
}

#[test]
fn where_the_source_breaks_off_the_encoder_goes_on() {
    let gap: [(&str, Vec<Input>); 3] =
        [("hole", Vec::new()), ("gap", vec![Input::Gap]), ("slate", vec![Input::Fill(Track::Video, Ticks(90_000 * 10))])];
    for (what, instead) in gap {
        for in_time in [false, true] {
            let name = format!("pass-{what}-{in_time}");
            let whole = if in_time { sent_in_time(&name, 22) } else { sent(&name, 22, 0) };
            let source = pictures(&whole);
            let made = made_of(order(true), without(whole, 9.5, 10.0, instead.clone()));
            is_whole(&name, &made, &[1, 1]);
            assert!(made[&0].samples.iter().all(|sample| sample.1 == 3000), "{name}: a picture stands still until its segment's end");
            let passed = passed(&made[&0], &source);
            assert!(passed.starts_with(&[8]) && !passed.contains(&10) && passed.ends_with(&[18, 19, 20, 21, 22]), "{name}: {passed:?}");
        }
    }
}

/// Its parameter sets have the id of the source's, which the init section has by then. (Here the driver refuses each time.)
#[test]
fn where_the_source_breaks_off_nvenc_that_has_failed_is_not_tried_again() {
    let whole = sent("pass-nvenc", 12, 0);
    let source = pictures(&whole);
    let made = made_of(Order { encoder: Backend::Nvenc, ..order(true) }, without(whole, 9.5, 10.0, Vec::new()));
    is_whole("pass-nvenc", &made, &[1, 1]);
    assert!(passed(&made[&0], &source).starts_with(&[8]));
    assert_eq!(made[&0].degraded.len(), 1, "{:?}", made[&0].degraded);
}

/// Without a slate a segment that breaks off is all that there will be of it.
#[test]
fn where_nothing_follows_the_source_the_segment_is_cut() {
    for (name, whole) in [("pass-cut", sent("pass-cut", 12, 0)), ("pass-cut-in-time", sent_in_time("pass-cut-in-time", 12))] {
        let made = made_of(order(true), without(whole, 9.5, 10.5, vec![Input::Gap, Input::Cut]));
        assert_eq!([made[&0].cut, made[&1].cut], [1, 1], "{name}");
    }
}

/// A shard that stood still goes on, and has all that was sent meanwhile.
#[test]
fn what_comes_when_the_slate_has_its_place_is_not_passed() {
    let mut all = sent("pass-burst", 30, 0);
    let source = pictures(&all);
    let at = all.iter().position(|input| matches!(input, Input::Unit(unit) if unit.dts.as_secs_f64() >= 9.5)).unwrap();
    all.insert(at, Input::Fill(Track::Video, Ticks(90_000 * 21)));
    let made = made_of(order(true), all);
    is_whole("pass-burst", &made, &[1, 1]);
    let passed = passed(&made[&0], &source);
    assert_eq!(passed, [8, 28, 29, 30], "from 9.5 s on there is the slate");
}

#[test]
fn a_keyframe_that_does_not_come_is_made() {
    // From 10.5 s on its keyframes are half a second late.
    let mut all = sent("pass-keyframe", 10, 0);
    all.truncate(all.iter().position(|input| matches!(input, Input::Unit(unit) if unit.dts.as_secs_f64() >= 10.5)).unwrap());
    let again = inputs(lecture("pass-keyframe-again", 6, Ticks(945_000), &LIKE));
    let source = pictures(&all);
    all.extend(again);
    let made = made_of(order(true), all);
    is_whole("pass-keyframe", &made, &[1, 1]);
    assert!(!passed(&made[&0], &source).contains(&12));
}

#[test]
fn what_is_passed_is_not_shed_and_what_is_shed_is_not_passed() {
    let mut all = sent("pass-shed", 16, 0);
    let at = |all: &[Input], second: f64| {
        all.iter().position(|input| matches!(input, Input::Unit(unit) if unit.dts.as_secs_f64() >= second)).unwrap()
    };
    let source = pictures(&all);
    all.insert(at(&all, 9.0), Input::Shed);
    let made = made_of(order(true), all.clone());
    is_whole("pass-shed", &made, &[1, 1]);
    assert_eq!(passed(&made[&0], &source), (8..17).collect::<Vec<_>>(), "there was nothing to shed");
    let made = made_of(order(true), without(all.clone(), 11.5, 12.0, Vec::new()));
    is_whole("pass-shed-later", &made, &[2, 1]);
    assert_eq!(passed(&made[&0], &source), [8, 9, 10], "then there was");

    let mut all = sent("pass-shed-first", 16, 0);
    all.insert(at(&all, 1.5), Input::Shed);
    let made = made_of(order(true), all);
    is_whole("pass-shed-first", &made, &[2, 1]);
    assert_eq!(passed(&made[&0], &source), [0; 0]);
}

#[test]
fn who_goes_on_after_another_passes_on_as_well() {
    let sent = sent("pass-successor", 16, 0);
    let source = pictures(&sent);
    let made = made_of(Order { from: Ticks(90_000 * 6), ..order(true) }, sent);
    is_whole("pass-successor", &made, &[1, 1]);
    assert_eq!(made[&0].samples[0].0, 90_000 * 6);
    assert_eq!(passed(&made[&0], &source), (8..17).collect::<Vec<_>>());
}

/// As a successor does that reaches no shard at first. It needs its predecessor's init section, else what that has stored and shown would have to be made anew.
#[test]
fn who_begins_with_a_slate_goes_on_with_its_predecessor_s_init_section() {
    let sent = sent("pass-slate-first", 16, 0);
    let source = pictures(&sent);
    let before = made_of(order(true), sent.clone());
    let second = |second: u64| Ticks(90_000 * second);
    let slate = [Input::Fill(Track::Video, second(9)), Input::Fill(Track::Audio, second(9))];
    let after = |predecessor| {
        let order = Order { from: second(6), predecessor, ..order(true) };
        made_of(order, slate.iter().chain(&sent).cloned().collect())
    };
    let known = Predecessor::default();
    known.is_known(small_ladder().video.into_iter().map(|it| it.name).zip(before.values().map(|made| made.init[0].clone())));
    let made = after(known);
    is_whole("pass-slate-first", &made, &[1, 1]);
    assert_eq!([&made[&0].init, &made[&1].init], [&before[&0].init, &before[&1].init]);
    // Two segments from 10 s on are looked at, the next one is the encoder's.
    assert_eq!(passed(&made[&0], &source), [16], "and passes the source on once that agrees");
    assert_ne!(after(Predecessor::default())[&0].init, before[&0].init, "without it nothing is known of the source");
}
