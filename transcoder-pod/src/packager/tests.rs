use super::*;
use bytes::Buf as _;
use mp4_atom::{Any, Decode as _, EmsgTimestamp};

const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

fn whole(body: &Body) -> Bytes {
    body.clone().copy_to_bytes(body.remaining())
}

fn picture(slot: u64) -> Encoded {
    Encoded { start: slot * 3000, duration: 3000, sync: slot.is_multiple_of(60), data: Bytes::from_static(b"nal") }
}

fn sound(frame: u64) -> Encoded {
    Encoded { start: frame * 1024, duration: 1024, sync: true, data: Bytes::from_static(b"aac") }
}

fn packager() -> Packager {
    Packager::new(90_000, TWO, None, None)
}

fn in_parts(timescale: u32) -> Packager {
    Packager::new(timescale, TWO, Some(PartCount::LOW_LATENCY), None)
}

fn push_all(packager: &mut Packager, samples: impl IntoIterator<Item = Encoded>) -> Vec<Made> {
    samples.into_iter().flat_map(|sample| packager.push(sample).unwrap()).collect()
}

/// Numbers and durations of the segments that `slots` complete.
fn segments(packager: &mut Packager, slots: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let made = push_all(packager, slots.into_iter().map(picture));
    made.iter()
        .map(|made| if let Made::Segment(segment) = made { (segment.number.0, segment.duration.0) } else { panic!("{made:?}") })
        .collect()
}

fn parts(made: &[Made]) -> Vec<(u64, u32, u64, bool)> {
    let part = |made: &Made| match made {
        Made::Part(part) => Some((part.number.0, part.index, part.duration.0, part.independent)),
        Made::Segment(_) => None,
    };
    made.iter().filter_map(part).collect()
}

#[test]
fn a_segment_is_complete_with_its_last_sample() {
    let mut packager = packager();
    assert_eq!(segments(&mut packager, 60..119), []);
    assert_eq!(segments(&mut packager, 119..181), [(1, 180_000), (2, 180_000)]);
    let rest = packager.cut().unwrap();
    assert!(matches!(&rest[..], [Made::Segment(Segment { number: SegmentNumber(3), duration: Ticks(3000), parts: 0, .. })]), "{rest:?}");
}

#[test]
fn a_segment_that_begins_late_says_by_how_much() {
    let mut packager = packager();
    let made = push_all(&mut packager, [Encoded { sync: true, ..picture(70) }].into_iter().chain((71..181).map(picture)));
    let said = |made: &Made| if let Made::Segment(segment) = made { (segment.offset, segment.end(TWO)) } else { panic!("{made:?}") };
    assert_eq!(made.iter().map(said).collect::<Vec<_>>(), [(Ticks(30_000), Ticks(360_000)), (Ticks(0), Ticks(540_000))]);
}

#[test]
fn a_hole_within_a_segment_is_bridged() {
    let mut packager = packager();
    assert_eq!(segments(&mut packager, (0..10).chain(50..60)), [(0, 180_000)]);
}

#[test]
fn a_number_is_never_made_twice() {
    let mut packager = packager();
    segments(&mut packager, 0..30);
    assert_eq!(packager.cut().unwrap().len(), 1);
    assert_eq!(segments(&mut packager, 30..60), []);
    assert_eq!(packager.late(), 30);
    assert_eq!(segments(&mut packager, 60..121), [(1, 180_000)]);
}

#[test]
fn a_segment_opens_with_a_keyframe() {
    let mut packager = packager();
    assert_eq!(segments(&mut packager, 30..121), [(1, 180_000)]);
    assert_eq!(packager.late(), 30);
}

#[test]
fn a_new_init_section_starts_a_new_segment_and_the_same_one_does_not() {
    let mut packager = packager();
    segments(&mut packager, 0..20);
    assert!(packager.set_init(0).unwrap().is_empty());
    segments(&mut packager, 20..30);
    let made = packager.set_init(1).unwrap();
    assert!(matches!(&made[..], [Made::Segment(Segment { init: 0, .. })]), "{made:?}");
    let made = push_all(&mut packager, (60..120).map(picture));
    assert!(matches!(&made[..], [Made::Segment(Segment { init: 1, .. })]), "{made:?}");
}

#[test]
fn parts_are_made_at_once_and_joined_are_their_segment() {
    let mut packager = in_parts(90_000);
    assert_eq!(parts(&push_all(&mut packager, (60..69).map(picture))), []);
    let mut made = push_all(&mut packager, (69..70).map(picture));
    assert_eq!(parts(&made), [(1, 0, 30_000, true)]);
    made.extend(push_all(&mut packager, (70..120).map(picture)));
    assert_eq!(parts(&made)[1..], [1, 2, 3, 4, 5].map(|part| (1, part, 30_000, false)));
    let joined: Vec<u8> = made
        .iter()
        .filter_map(|made| if let Made::Part(part) = made { Some(whole(&part.body)) } else { None })
        .collect::<Vec<_>>()
        .concat();
    let Some(Made::Segment(segment)) = made.last() else { panic!("{made:?}") };
    assert_eq!((segment.number.0, segment.parts, segment.duration.0, &whole(&segment.body)[..]), (1, 6, 180_000, &joined[..]));
}

#[test]
fn sound_is_cut_at_the_same_times_to_a_frame() {
    let made = push_all(&mut in_parts(48_000), (0..200).map(sound));
    let parts = parts(&made);
    assert_eq!(parts.iter().filter(|(number, ..)| *number == 1).count(), 6);
    let frame = 1920;
    assert!(
        parts.iter().all(|(.., duration, independent)| *independent && (30_000 - frame..=30_000 + frame).contains(duration)),
        "{parts:?}"
    );
    for segment in 0..2 {
        let whole: u64 = parts.iter().filter(|(number, ..)| *number == segment).map(|(.., duration, _)| duration).sum();
        assert!((180_000 - frame..=180_000 + frame).contains(&whole), "{whole}");
    }
}

#[test]
fn a_hole_within_a_part_is_bridged_and_parts_count_on() {
    let made = push_all(&mut in_parts(90_000), (0..15).chain(45..60).map(picture));
    assert_eq!(parts(&made), [(0, 0, 30_000, true), (0, 1, 105_000, false), (0, 2, 15_000, false), (0, 3, 30_000, false)]);
    assert!(matches!(made.last(), Some(Made::Segment(Segment { duration: Ticks(180_000), parts: 4, .. }))));
}

#[test]
fn a_part_that_is_cut_off_is_published() {
    let mut packager = in_parts(90_000);
    push_all(&mut packager, (0..13).map(picture));
    let made = packager.cut().unwrap();
    assert_eq!(parts(&made), [(0, 1, 9_000, false)]);
    assert!(matches!(made.last(), Some(Made::Segment(Segment { parts: 2, .. }))));
}

/// The times of the event messages before each part.
fn said(made: &[Made]) -> Vec<(u64, u32, Vec<u64>)> {
    let events = |part: &Part| {
        let (mut rest, mut times) = (&whole(&part.body)[..], Vec::new());
        while let Ok(atom) = Any::decode(&mut rest) {
            if let Any::Emsg(emsg) = atom
                && let EmsgTimestamp::Absolute(at) = emsg.presentation_time
            {
                times.push(at);
            }
        }
        times
    };
    let part = |made: &Made| if let Made::Part(part) = made { Some((part.number.0, part.index, events(part))) } else { None };
    made.iter().filter_map(part).filter(|(.., times)| !times.is_empty()).collect()
}

#[test]
fn what_is_said_stands_before_the_part_of_its_time() {
    let mut packager = in_parts(48_000);
    let metadata = |at| TimedMetadata { at: Ticks(at), name: "onTextData".into(), value: "1".into() };
    let mut made = push_all(&mut packager, (0..94).map(sound));
    // The second segment begins with frame 94, at 180,480 ticks; its second part with frame 110, at 211,200.
    for at in [179_000, 180_480, 211_199, 211_200, 301_000] {
        packager.say(&metadata(at)).unwrap();
    }
    made.extend(push_all(&mut packager, (94..200).map(sound)));
    assert_eq!(said(&made), [(1, 0, vec![179_000, 180_480, 211_199]), (1, 1, vec![211_200]), (1, 3, vec![301_000])]);
}
