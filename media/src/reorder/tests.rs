use super::*;
use lectern_contract::feed::Codec;
use proptest::prelude::*;

const FRAME: u32 = 3_000;

/// A group of pictures: how many B-frames before each anchor, and how long each picture is shown, in display order.
fn groups(longest: i64) -> impl Strategy<Value = Vec<(usize, Vec<i64>)>> {
    let group = (0usize..=4).prop_flat_map(move |between| (Just(between), proptest::collection::vec(900..=longest, between + 1)));
    proptest::collection::vec(group, 1..60)
}

/// Presentation times in decode order: an anchor, then its B-frames as a pyramid.
fn decode_order(groups: &[(usize, Vec<i64>)], start: i64) -> Vec<i64> {
    let (mut order, mut shown) = (vec![start], start);
    for (between, durations) in groups {
        let times: Vec<i64> = durations
            .iter()
            .map(|duration| {
                shown += duration;
                shown
            })
            .collect();
        order.push(times[*between]);
        pyramid(&times[..*between], &mut order);
    }
    order
}

fn pyramid(times: &[i64], order: &mut Vec<i64>) {
    if let Some(middle) = times.get(times.len() / 2) {
        order.push(*middle);
        pyramid(&times[..times.len() / 2], order);
        pyramid(&times[times.len() / 2 + 1..], order);
    }
}

fn true_depth(order: &[i64]) -> u8 {
    let before = |at: usize| order[..at].iter().filter(|other| **other > order[at]).count();
    (0..order.len()).map(before).max().unwrap_or_default() as u8
}

fn decode_times(reorder: &mut Reorder, order: &[i64]) -> Vec<i64> {
    order.iter().map(|pts| reorder.dts(*pts)).collect()
}

fn assert_good(order: &[i64], times: &[i64], longest: i64) {
    assert!(times.is_sorted_by(|a, b| a < b), "decode times do not grow: {times:?} of {order:?}");
    for (dts, pts) in times.iter().zip(order) {
        assert!(dts <= pts, "decoded at {dts}, after it is shown at {pts}: {order:?}");
        let bound = longest.max(i64::from(FRAME)) * 10;
        assert!(pts - dts <= bound, "{} ticks apart: {times:?} of {order:?}", pts - dts);
    }
}

proptest! {
    #[test]
    fn a_constant_rate_with_b_frames_gets_good_times(
        between in 0usize..=4, count in 1usize..100, start in -1_000_000i64..1 << 33, frame in 900i64..9_000
    ) {
        let order = decode_order(&vec![(between, vec![frame; between + 1]); count], start);
        for depth in [true_depth(&order), crate::avc::UNDECLARED_REORDER] {
            assert_good(&order, &decode_times(&mut Reorder::new(depth, FRAME), &order), frame);
        }
    }

    #[test]
    fn a_variable_rate_with_changing_b_frames_gets_good_times(groups in groups(18_000), start in -1_000_000i64..1 << 33) {
        let order = decode_order(&groups, start);
        for depth in [true_depth(&order), crate::avc::UNDECLARED_REORDER] {
            assert_good(&order, &decode_times(&mut Reorder::new(depth, FRAME), &order), 18_000);
        }
    }

    #[test]
    fn a_lost_picture_changes_nothing_for_the_others(groups in groups(6_000), lost in proptest::collection::vec(any::<bool>(), 300)) {
        let order = decode_order(&groups, 0);
        let depth = true_depth(&order);
        let received = |(at, lost): (usize, bool)| at == 0 || !lost; // nothing is decoded before the first keyframe
        let lost = lost.into_iter().enumerate().map(received);
        let left: Vec<i64> = order.into_iter().zip(lost).filter(|(_, received)| *received).map(|(pts, _)| pts).collect();
        let times = decode_times(&mut Reorder::new(depth, FRAME), &left);
        assert!(times.is_sorted_by(|a, b| a < b) && times.iter().zip(&left).all(|(dts, pts)| dts <= pts), "{times:?} of {left:?}");
    }

    #[test]
    fn a_wrong_depth_is_learned(between in 1usize..=4, frame in 900i64..9_000) {
        let order = decode_order(&vec![(between, vec![frame; between + 1]); 20], 0);
        let mut reorder = Reorder::new(0, FRAME);
        let times = decode_times(&mut reorder, &order);
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert_eq!(reorder.depth(), true_depth(&order));
        let learned = 2 * (between + 1) + 1; // after a group to learn from, and one to catch up
        assert!(times.iter().zip(&order).skip(learned).all(|(dts, pts)| dts <= pts), "{times:?} of {order:?}");
    }

    #[test]
    fn noise_grows_but_where_the_clock_was_set(stamps in proptest::collection::vec(any::<i64>(), 1..60), depth in any::<u8>()) {
        let mut reorder = Reorder::new(depth, u32::MAX);
        decode_times(&mut reorder, &stamps);
        assert!(reorder.depth() <= MAX_DEPTH && reorder.unused.len() <= usize::from(MAX_DEPTH));
    }
}

#[test]
fn pictures_in_order_keep_their_times() {
    let order: Vec<i64> = (0..10).map(|picture| picture * 3_600).collect();
    assert_eq!(decode_times(&mut Reorder::new(0, FRAME), &order), order);
}

#[test]
fn times_start_anew_where_the_clock_was_set() {
    for jump in [-10_000_000i64, 10_000_000] {
        let mut reorder = Reorder::new(2, FRAME);
        decode_times(&mut reorder, &[0, 9_000, 3_000, 6_000]);
        assert_eq!(reorder.dts(jump), jump - 6_000);
    }
}

#[test]
fn two_fields_of_a_picture_do_not_teach_a_depth() {
    let mut reorder = Reorder::new(0, FRAME);
    assert_eq!(decode_times(&mut reorder, &[0, 0, 3_000, 3_000]), [0, 1, 3_000, 3_001]);
    assert_eq!(reorder.depth(), 0);
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// x264, `-bf 3`: a pyramid.
const AVCC: &str = "0164000dffe1001a6764000dacd941419f9f0110000003001000000303c0f142996001000668ebe3cb22c0fdf8f800";
/// x265, `bframes=4`: VPS and SPS.
const HVCC: &str = "0101600000009000000000003cf000fcfdf8f800000f02a00001001840010c01ffff01600000030090000003000003003c959809\
    a10001002b42010101600000030090000003000003003ca00a080b9f796566924caf016808000003000800000300f040";

#[test]
fn the_depth_is_read_from_what_real_encoders_declare() {
    assert_eq!(depth(Codec::H264, &bytes(AVCC)), 2);
    assert_eq!(depth(Codec::Hevc, &bytes(HVCC)), 2);
    assert_eq!(depth(Codec::Aac, &[0x12, 0x10]), 0);
    // Baseline: x264 -profile:v baseline.
    assert_eq!(depth(Codec::H264, &bytes("0142c00dffe100196742c00dd901419f9f0110000003001000000303c0f142a48001000568cb83cb20")), 0);
}

#[test]
fn broken_records_get_the_careful_guess() {
    let (avcc, hvcc) = (bytes(AVCC), bytes(HVCC));
    for cut in 0..avcc.len().min(hvcc.len()) {
        assert!(depth(Codec::H264, &avcc[..cut]) <= MAX_DEPTH && depth(Codec::Hevc, &hvcc[..cut]) <= MAX_DEPTH);
    }
    assert_eq!(depth(Codec::Hevc, &[]), crate::avc::UNDECLARED_REORDER);
}

proptest! {
    #[test]
    fn any_bytes_have_some_depth(record in proptest::collection::vec(any::<u8>(), 0..200)) {
        assert!(depth(Codec::H264, &record) <= MAX_DEPTH && depth(Codec::Hevc, &record) <= MAX_DEPTH);
    }
}
