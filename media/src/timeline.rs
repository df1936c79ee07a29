//! The one place where a publisher's stamps become times on the run's timeline.
//!
//! Publishers count milliseconds from wherever they like, in 32 bits, and start anew at each connection; a run has one
//! monotonic clock of 90 kHz from its epoch on. Rebasing anywhere else, or twice, corrupts streams silently. Nothing
//! here reads a clock: callers say what time it is.

use lectern_contract::Ticks;
use lectern_contract::feed::Track;

/// The earliest time that is given out: AAC priming, 2048 samples at most, must not reach below zero (an unsigned
/// `tfdt` would wrap).
pub const FIRST_TICK: Ticks = Ticks(90_000);
/// A step between two stamps of one connection beyond which the publisher's clock is taken to have been set, in
/// milliseconds.
pub const MAX_JUMP_MILLIS: u32 = 10_000;
/// How long an access unit lasts if no other tells: a thirtieth of a second.
pub const NOMINAL_FRAME: Ticks = Ticks(3_000);
/// A step of DTS beyond which it says nothing about an access unit's duration: a second.
const LONGEST_FRAME: Ticks = Ticks(90_000);

/// Where and when an access unit lies on the run's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Decode time; grows strictly within a track.
    pub dts: Ticks,
    /// Presentation time.
    pub pts: Ticks,
}

/// The end of what has been seen of a track: its newest DTS, and a guess at how long that access unit lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackEnd(Option<(Ticks, Ticks)>);

impl TrackEnd {
    /// Takes note of the next access unit's DTS.
    pub fn saw(&mut self, dts: Ticks) {
        let duration = match self.0 {
            Some((last, duration)) => match dts.since(last) {
                step if step == Ticks(0) || step > LONGEST_FRAME => duration,
                step => step,
            },
            None => NOMINAL_FRAME,
        };
        self.0 = Some((dts, duration));
    }

    /// The newest DTS.
    pub fn newest(&self) -> Option<Ticks> {
        self.0.map(|(dts, _)| dts)
    }

    /// Where the newest access unit ends.
    pub fn end(&self) -> Option<Ticks> {
        self.0.map(|(dts, duration)| dts.plus(duration))
    }
}

/// A run's timeline.
#[derive(Debug, Clone)]
pub struct Timeline {
    video: TrackEnd,
    audio: TrackEnd,
    connection: Connection,
}

/// How the current connection's stamps map to the timeline.
#[derive(Debug, Clone, Copy)]
enum Connection {
    /// Nothing has come yet; the first stamp will lie here or later.
    Fresh { not_before: Ticks },
    /// `first` (unwrapped milliseconds) lies at `base`.
    Mapped { base: Ticks, first: i64, last: i64 },
}

impl Timeline {
    /// An empty timeline, at `now` ticks after the run's epoch.
    pub fn anchored(now: Ticks) -> Self {
        let mut timeline =
            Self { video: TrackEnd::default(), audio: TrackEnd::default(), connection: Connection::Fresh { not_before: now } };
        timeline.reconnected(now);
        timeline
    }

    /// A new connection begins: its first stamp, whatever it is, will lie at `now`, or behind all that came before.
    pub fn reconnected(&mut self, now: Ticks) {
        self.connection = Connection::Fresh { not_before: now };
    }

    /// Where everything seen so far ends; `None` before the first access unit.
    pub fn end(&self) -> Option<Ticks> {
        self.video.end().max(self.audio.end())
    }

    /// The newest DTS of either track.
    pub fn newest(&self) -> Option<Ticks> {
        self.video.newest().max(self.audio.newest())
    }

    /// Places the next access unit of `track`.
    ///
    /// `dts_millis` is the publisher's own stamp and may wrap; `composition_millis` is presentation minus decode time;
    /// `now` is the time since the run's epoch and counts only where the publisher's clock jumps.
    pub fn push(&mut self, track: Track, dts_millis: u32, composition_millis: i32, now: Ticks) -> Stamp {
        let (base, first, stamp) = match self.connection {
            Connection::Fresh { not_before } => self.rebased(dts_millis, not_before),
            Connection::Mapped { base, first, last } => {
                // The step in 32-bit arithmetic: what wraps around is a small step, not one of 49 days.
                let step = dts_millis.wrapping_sub(last as u32) as i32;
                if step.unsigned_abs() > MAX_JUMP_MILLIS { self.rebased(dts_millis, now) } else { (base, first, last + i64::from(step)) }
            }
        };
        self.connection = Connection::Mapped { base, first, last: stamp };

        let end = match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        };
        let earliest = end.newest().map_or(FIRST_TICK, |newest| newest.plus(Ticks(1)));
        let dts = moved(base, stamp - first).max(earliest);
        end.saw(dts);
        Stamp { dts, pts: moved(dts, i64::from(composition_millis)) }
    }

    fn rebased(&self, dts_millis: u32, now: Ticks) -> (Ticks, i64, i64) {
        let base = now.max(FIRST_TICK).max(self.end().unwrap_or_default());
        (base, i64::from(dts_millis), i64::from(dts_millis))
    }
}

/// `time` moved by `millis` either way, not below zero.
fn moved(time: Ticks, millis: i64) -> Ticks {
    let span = Ticks::from_millis(millis.unsigned_abs());
    if millis < 0 { time.since(span) } else { time.plus(span) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Ticks = Ticks(90_000);

    fn seconds(count: u64) -> Ticks {
        Ticks(count * SECOND.0)
    }

    #[test]
    fn the_first_stamp_lies_at_the_time_of_the_connection() {
        let mut timeline = Timeline::anchored(seconds(7));
        let stamp = timeline.push(Track::Video, 123_456, 80, seconds(7));
        assert_eq!(stamp, Stamp { dts: seconds(7), pts: Ticks(seconds(7).0 + 7_200) });
    }

    #[test]
    fn a_run_that_is_published_at_once_starts_a_second_in() {
        let mut timeline = Timeline::anchored(Ticks(0));
        assert_eq!(timeline.push(Track::Audio, 0, 0, Ticks(0)).dts, FIRST_TICK);
    }

    #[test]
    fn a_stamp_that_wraps_around_is_a_small_step() {
        let mut timeline = Timeline::anchored(seconds(2));
        let before = timeline.push(Track::Video, u32::MAX - 9, 0, seconds(2));
        let after = timeline.push(Track::Video, 30, 0, seconds(2));
        assert_eq!(after.dts.since(before.dts), Ticks::from_millis(40));
    }

    #[test]
    fn a_reconnect_with_stamps_at_zero_continues_the_timeline() {
        let mut timeline = Timeline::anchored(seconds(2));
        timeline.push(Track::Video, 89_000, 0, seconds(2));
        let last = timeline.push(Track::Video, 89_040, 0, seconds(2));
        timeline.reconnected(seconds(1)); // a clock that was set back must not turn time back
        let first = timeline.push(Track::Video, 0, 0, seconds(1));
        assert_eq!(first.dts, last.dts.plus(Ticks::from_millis(40)));
    }

    #[test]
    fn a_reconnect_after_a_pause_keeps_the_pause() {
        let mut timeline = Timeline::anchored(seconds(2));
        timeline.push(Track::Video, 0, 0, seconds(2));
        timeline.reconnected(seconds(30));
        assert_eq!(timeline.push(Track::Video, 0, 0, seconds(30)).dts, seconds(30));
    }

    #[test]
    fn a_jump_of_the_publishers_clock_is_taken_out() {
        for jump in [60_000u32, 4_294_000_000, 0] {
            let mut timeline = Timeline::anchored(seconds(2));
            let last = timeline.push(Track::Video, 20_000, 0, seconds(2));
            let next = timeline.push(Track::Video, jump, 0, seconds(3));
            assert_eq!(next.dts, seconds(3), "after a jump from 20000 to {jump}");
            assert!(next.dts > last.dts);
        }
    }

    #[test]
    fn sound_that_starts_before_the_picture_keeps_its_distance() {
        let mut timeline = Timeline::anchored(seconds(5));
        let picture = timeline.push(Track::Video, 100, 0, seconds(5));
        let sound = timeline.push(Track::Audio, 60, 0, seconds(5));
        assert_eq!(picture.dts.since(sound.dts), Ticks::from_millis(40));
    }

    proptest! {
        #[test]
        fn decode_times_of_a_track_always_grow(
            steps in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<i32>(), 0u64..1 << 40, 0u8..8), 1..200)
        ) {
            let mut timeline = Timeline::anchored(Ticks(0));
            let mut newest = [Ticks(0); 2];
            for (is_video, dts, composition, now, event) in steps {
                if event == 0 {
                    timeline.reconnected(Ticks(now));
                }
                let track = if is_video { Track::Video } else { Track::Audio };
                let stamp = timeline.push(track, dts, composition, Ticks(now));
                assert!(stamp.dts > newest[usize::from(is_video)] && stamp.dts >= FIRST_TICK);
                newest[usize::from(is_video)] = stamp.dts;
            }
        }

        #[test]
        fn a_steady_publisher_is_mapped_without_drift(start in any::<u32>(), steps in proptest::collection::vec(1u32..100, 1..100)) {
            let mut timeline = Timeline::anchored(seconds(9));
            let (mut at, mut elapsed) = (start, 0u64);
            timeline.push(Track::Video, at, 0, seconds(9));
            for step in steps {
                at = at.wrapping_add(step);
                elapsed += u64::from(step);
                let stamp = timeline.push(Track::Video, at, 0, seconds(9));
                assert_eq!(stamp.dts, seconds(9).plus(Ticks::from_millis(elapsed)));
            }
        }
    }
}
