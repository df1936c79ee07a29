//! The one clock of a run: 90 kHz ticks since the run's epoch, and segments as a function of it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU8;
use std::time::Duration;

/// Ticks in a second (RFC 3551 §5's video clock; MPEG-TS and CMAF tracks of ours use it as their timescale).
pub const TICKS_PER_SECOND: u64 = 90_000;

/// A time or a span on a run's timeline, in 90 kHz ticks since the run's epoch. Never negative: the timeline starts
/// late enough that AAC priming cannot push a stamp below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticks(pub u64);

impl Ticks {
    /// A span given in milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(TICKS_PER_SECOND / 1000))
    }

    /// The same span in milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / (TICKS_PER_SECOND / 1000)
    }

    /// The same span in seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / TICKS_PER_SECOND as f64
    }

    /// This time moved later by `span`; stays at the end of the range instead of wrapping (6.5 million years).
    pub const fn plus(self, span: Ticks) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Whether it is none at all.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The span from `earlier` to this time; zero where `earlier` is the later one.
    pub const fn since(self, earlier: Ticks) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.as_secs_f64())
    }
}

/// A wall-clock time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMillis(pub u64);

/// The duration of a segment: whole milliseconds, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentDuration(u32);

/// A segment duration that cannot be: zero, or longer than a minute.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a segment lasts 1 to 60000 milliseconds, not {0}")]
pub struct BadSegmentDuration(u32);

impl TryFrom<u32> for SegmentDuration {
    type Error = BadSegmentDuration;
    fn try_from(millis: u32) -> Result<Self, Self::Error> {
        if (1..=60_000).contains(&millis) { Ok(Self(millis)) } else { Err(BadSegmentDuration(millis)) }
    }
}

impl From<SegmentDuration> for u32 {
    fn from(duration: SegmentDuration) -> u32 {
        duration.0
    }
}

impl From<SegmentDuration> for Duration {
    fn from(duration: SegmentDuration) -> Duration {
        Duration::from_millis(duration.0.into())
    }
}

impl SegmentDuration {
    /// Two seconds, for `latency: Low`.
    pub const LOW_LATENCY: Self = Self(2_000);
    /// Four seconds, for `latency: Standard`.
    pub const STANDARD: Self = Self(4_000);

    /// In milliseconds.
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// In 90 kHz ticks; never zero.
    pub const fn ticks(self) -> Ticks {
        Ticks::from_millis(self.0 as u64)
    }
}

/// The number of a segment, counted from the run's epoch; the media sequence number of its playlists, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The segment that holds `pts`.
    ///
    /// The number is a function of time alone, so that two transcoders agree on it without talking
    /// (AWS calls this epoch locking).
    pub const fn of(pts: Ticks, duration: SegmentDuration) -> Self {
        Self(pts.0 / duration.ticks().0)
    }

    /// Where this segment starts.
    pub const fn start(self, duration: SegmentDuration) -> Ticks {
        Ticks(self.0.saturating_mul(duration.ticks().0))
    }

    /// The segment after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Into how many parts of equal length every segment is cut (draft-pantos-hls-rfc8216bis §4.4.4.9). A function of time
/// alone, like the number of a segment, so that all renditions and all transcoders cut at the same times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartCount(NonZeroU8);

impl PartCount {
    /// For `latency: Low`: a third of a second each.
    pub const LOW_LATENCY: Self = Self(NonZeroU8::MIN.saturating_add(5));

    /// How many.
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// Which part of its segment holds `at`, counted from zero.
    pub fn index(self, at: Ticks, duration: SegmentDuration) -> u64 {
        let span = duration.ticks().0; // 90 times 32 bits of milliseconds, so that the product has 47
        at.0 % span * u64::from(self.get()) / span
    }

    /// The length of a part, exactly: rounded up to a tick.
    pub fn nominal(self, duration: SegmentDuration) -> Ticks {
        Ticks(duration.ticks().0.div_ceil(u64::from(self.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_a_function_of_time() {
        let (two, six) = (SegmentDuration::LOW_LATENCY, PartCount::LOW_LATENCY);
        let first_of = |part: u64| Ticks(180_000 * 7 + 30_000 * part);
        for part in 0..6 {
            assert_eq!((six.index(first_of(part), two), six.index(Ticks(first_of(part + 1).0 - 1), two)), (part, part));
        }
        assert_eq!(six.nominal(two), Ticks(30_000));
        assert_eq!(serde_json::to_string(&six).unwrap(), "6");
        assert!(serde_json::from_str::<PartCount>("0").is_err());
    }

    #[test]
    fn a_boundary_belongs_to_the_segment_that_it_starts() {
        let two = SegmentDuration::LOW_LATENCY;
        assert_eq!(SegmentNumber::of(Ticks(179_999), two), SegmentNumber(0));
        assert_eq!(SegmentNumber::of(Ticks(180_000), two), SegmentNumber(1));
        assert_eq!(SegmentNumber(7).start(two), Ticks(1_260_000));
    }

    #[test]
    fn a_segment_duration_of_zero_cannot_be_made() {
        assert!(SegmentDuration::try_from(0).is_err());
        assert!(serde_json::from_str::<SegmentDuration>("0").is_err());
        assert!(serde_json::from_str::<SegmentDuration>("2000").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn every_time_lies_within_its_segment(pts in 0u64..u64::MAX / 4, millis in 1u32..=60_000) {
            let duration = SegmentDuration::try_from(millis).unwrap();
            let number = SegmentNumber::of(Ticks(pts), duration);
            assert!(number.start(duration) <= Ticks(pts));
            assert!(Ticks(pts) < number.next().start(duration));
        }
    }
}
