//! How picture and sound come to end in the same segment. Pure.
//!
//! A publisher stops between two frames of one track and two of the other. Where a boundary lies between their last ones, one track would
//! have a segment of a few milliseconds that the other does not have.

use super::audio_grid::FRAME;
use lectern_contract::{SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks};
use lectern_media::cmaf::AUDIO_TIMESCALE;

/// A track that ended longer before the other than this did not stop with it.
const TOGETHER: Ticks = Ticks::from_millis(1_000);

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The last picture goes on until this time.
    pub hold: Option<Ticks>,
    /// Silence follows until this sample.
    pub silence: Option<u64>,
}

/// Of renditions whose last pictures start at `pictures`, and whose last sound frame starts at sample `sound`.
pub fn tail(pictures: impl Iterator<Item = Ticks> + Clone, sound: Option<u64>, duration: SegmentDuration) -> Tail {
    let heard = sound.map(|sample| Ticks(sample * TICKS_PER_SECOND / u64::from(AUDIO_TIMESCALE)));
    let last = pictures.clone().chain(heard).map(|start| SegmentNumber::of(start, duration)).max().unwrap_or_default();
    let begin = last.start(duration);
    let lacks = |start: Ticks| start < begin && begin.since(start) <= TOGETHER;
    let first_sample = (begin.0 * u64::from(AUDIO_TIMESCALE)).div_ceil(TICKS_PER_SECOND).next_multiple_of(FRAME as u64);
    Tail {
        hold: pictures.into_iter().any(lacks).then_some(Ticks(begin.0 + 1)),
        silence: heard.is_some_and(lacks).then_some(first_sample + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

    fn of(pictures: &[u64], sound: Option<u64>) -> (Option<u64>, Option<u64>) {
        let tail = tail(pictures.iter().map(|start| Ticks(*start)), sound, TWO);
        (tail.hold.map(|until| until.0), tail.silence)
    }

    #[test]
    fn tracks_that_end_in_one_segment_are_left_alone() {
        assert_eq!(of(&[177_000, 174_000], Some(93 * 1024)), (None, None));
        assert_eq!(of(&[], Some(1024)), (None, None), "sound alone");
        assert_eq!(of(&[180_000], None), (None, None), "a picture alone");
    }

    #[test]
    fn the_one_that_stops_before_a_boundary_is_carried_over_it() {
        assert_eq!(of(&[180_000], Some(93 * 1024)), (None, Some(94 * 1024 + 1)));
        assert_eq!(of(&[177_000], Some(94 * 1024)), (Some(180_001), None));
        assert_eq!(of(&[180_000, 174_000], Some(94 * 1024)), (Some(180_001), None), "a rendition with fewer frames a second");
    }

    #[test]
    fn one_that_had_stopped_long_before_is_not() {
        assert_eq!(of(&[80_000], Some(94 * 1024)), (None, None));
    }

    proptest! {
        #[test]
        fn with_what_is_missing_both_end_in_the_same_segment(picture in 0..9_000_000u64, off in -80_000i64..80_000) {
            let frame = |ticks: u64| ticks * 48 / 90 / 1024 * 1024;
            let sound = frame(picture.saturating_add_signed(off));
            let (hold, silence) = of(&[picture], Some(sound));
            let last = |ticks: u64| SegmentNumber::of(Ticks(ticks), TWO);
            let picture = hold.map_or(picture, |until| until - 1);
            let sound = silence.map_or(sound, |until| (until - 1) / 1024 * 1024);
            prop_assert_eq!(last(picture), last(sound * 90 / 48));
        }
    }
}
