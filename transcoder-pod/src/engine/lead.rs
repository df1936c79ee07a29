//! How picture and sound come to begin in the same segment. Pure.
//!
//! A publisher's first sound is some milliseconds before or after its first picture, and AAC needs a frame before what is heard (priming). Where a boundary lies
//! between them, one track would have a segment of a few milliseconds that the other does not have. `tail.rs` is its counterpart.

use super::audio_grid::FRAME;
use lectern_contract::{SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks};
use lectern_media::cmaf::AUDIO_TIMESCALE;

/// The sample that sound begins with where the pictures begin at `picture`: a frame after the first that is put out.
pub fn lead(picture: Ticks, duration: SegmentDuration) -> u64 {
    let samples = |time: Ticks| (u128::from(time.0) * u128::from(AUDIO_TIMESCALE)).div_ceil(u128::from(TICKS_PER_SECOND));
    let frame = |samples: u128| u64::try_from(samples).unwrap_or(u64::MAX) / FRAME as u64;
    let boundary = samples(SegmentNumber::of(picture, duration).start(duration)).next_multiple_of(FRAME as u128);
    frame(samples(picture)).max(frame(boundary).saturating_add(1)).saturating_mul(FRAME as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_frame_that_is_put_out_is_in_the_pictures_segment_and_near_to_them(millis in 0..600_000_u64, long in prop::sample::select(vec![2_000_u32, 4_000, 6_000])) {
            let (picture, duration) = (Ticks::from_millis(millis), SegmentDuration::try_from(long).unwrap());
            let sample = lead(picture, duration);
            prop_assert!(sample.is_multiple_of(FRAME as u64));
            let ticks = |sample: u64| Ticks(sample * TICKS_PER_SECOND / u64::from(AUDIO_TIMESCALE));
            let put_out = ticks(sample - FRAME as u64);
            prop_assert_eq!(SegmentNumber::of(put_out, duration), SegmentNumber::of(picture, duration));
            prop_assert!(ticks(sample).0.abs_diff(picture.0) <= 2 * 1_920, "{sample} and {picture}");
        }
    }
}
