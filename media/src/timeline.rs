//! The one place where a publisher's stamps become times on the run's timeline.
//!
//! Publishers count milliseconds from wherever they like, in 32 bits, and start anew at each connection; a run has one
//! monotonic clock of 90 kHz from its epoch on. Rebasing anywhere else, or twice, corrupts streams silently. Nothing
//! here reads a clock: callers say what time it is.
//!
//! While a publisher's clock runs steadily, what it says is kept to the millisecond, and so is the distance between its
//! sound and its picture, however far they drift apart: the publisher alone knows what belongs together. Each track has a
//! mapping of its own, which it shares with the other one as long as their stamps are near each other. A mapping is made anew
//!
//! - at a connection's first stamp, and where a track's stamps go back (decode times never do);
//! - where they jump forward by more than [`MAX_JUMP_MILLIS`], or by more than [`UNCONFIRMED_JUMP`] further than the wall
//!   clock has come. A jump that the wall clock confirms is a publisher that dropped frames, and its hole stays.
//!
//! The new mapping is the other track's where that puts the stamp near the other track (both clocks were set, one after the
//! other), else it goes on at the present time, behind everything that came before. Every hole is told ([`Placed::gap`]).

use lectern_contract::Ticks;
use lectern_contract::feed::Track;
use lectern_contract::timeline::{ClockState, LaneState, TimelineState};

/// The earliest time that is given out: AAC priming, 2048 samples at most, must not reach below zero (an unsigned
/// `tfdt` would wrap).
pub const FIRST_TICK: Ticks = Ticks(90_000);
/// A step between two stamps of a track beyond which its clock is taken to have been set, in milliseconds; so far apart,
/// too, may the stamps of the two tracks be at the same moment and still be of one clock.
pub const MAX_JUMP_MILLIS: u32 = 10_000;
/// A step forward of a track that leads further than this ahead of the present time is a clock that was set.
pub const UNCONFIRMED_JUMP: Ticks = Ticks(2 * 90_000);
/// A step back by so much is jitter of a stamp and not a clock that was set, in milliseconds.
pub const JITTER_MILLIS: u32 = 250;
/// A hole in all of the media beyond which it is told.
pub const GAP: Ticks = Ticks(90_000);
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

/// An access unit's place, and whether something is missing before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Where it lies.
    pub stamp: Stamp,
    /// Nothing lies between this time and the access unit, for longer than [`GAP`], although the publisher is the same.
    pub gap: Option<Ticks>,
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
    video: Lane,
    audio: Lane,
    /// The connection's first stamp lies here or later.
    not_before: Ticks,
    /// The connection has placed something.
    begun: bool,
}

/// A track's own part of the timeline.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    end: TrackEnd,
    clock: Option<Clock>,
}

/// How a track's stamps map to the timeline: `first` (unwrapped milliseconds) lies at `base`.
#[derive(Debug, Clone, Copy)]
struct Clock {
    base: Ticks,
    first: i64,
    last: i64,
}

impl Clock {
    /// The stamp, unwrapped: what lies nearest to the last one.
    ///
    /// The step is taken in 32-bit arithmetic: what wraps around is a small step, not one of 49 days.
    fn unwrap(&self, millis: u32) -> i64 {
        self.last + i64::from(millis.wrapping_sub(self.last as u32) as i32)
    }

    fn time(&self, stamp: i64) -> Ticks {
        moved(self.base, stamp - self.first)
    }
}

impl Timeline {
    /// An empty timeline, at `now` ticks after the run's epoch.
    pub fn anchored(now: Ticks) -> Self {
        Self { video: Lane::default(), audio: Lane::default(), not_before: now, begun: false }
    }

    /// The timeline as another owner of the run had it; the publisher's next stamp is placed as that owner would have.
    pub fn resumed(state: &TimelineState) -> Self {
        let lane = |lane: &LaneState| Lane {
            end: TrackEnd(lane.end),
            clock: lane.clock.map(|ClockState { base, first, last }| Clock { base, first, last }),
        };
        Self { video: lane(&state.video), audio: lane(&state.audio), not_before: state.not_before, begun: state.begun }
    }

    /// What another owner resumes from.
    pub fn state(&self) -> TimelineState {
        let lane = |lane: &Lane| LaneState {
            end: lane.end.0,
            clock: lane.clock.map(|Clock { base, first, last }| ClockState { base, first, last }),
        };
        TimelineState { video: lane(&self.video), audio: lane(&self.audio), not_before: self.not_before, begun: self.begun }
    }

    /// A new connection begins: its first stamp, whatever it is, will lie at `now`, or behind all that came before.
    pub fn reconnected(&mut self, now: Ticks) {
        (self.video.clock, self.audio.clock) = (None, None);
        (self.not_before, self.begun) = (now, false);
    }

    /// Where everything seen so far ends; `None` before the first access unit.
    pub fn end(&self) -> Option<Ticks> {
        self.video.end.end().max(self.audio.end.end())
    }

    /// The newest DTS of either track.
    pub fn newest(&self) -> Option<Ticks> {
        self.video.end.newest().max(self.audio.end.newest())
    }

    /// Places the next access unit of `track`.
    ///
    /// `dts_millis` is the publisher's own stamp and may wrap; `composition_millis` is presentation minus decode time;
    /// `now` is the time since the run's epoch and counts only where the publisher's clock jumps.
    pub fn push(&mut self, track: Track, dts_millis: u32, composition_millis: i32, now: Ticks) -> Placed {
        let clock = self.clock_for(track, dts_millis, now);
        let before = self.end().filter(|_| self.begun);
        self.begun = true;
        let lane = self.lane(track);
        let earliest = lane.end.newest().map_or(FIRST_TICK, |newest| newest.plus(Ticks(1)));
        let dts = clock.time(clock.last).max(earliest);
        lane.clock = Some(clock);
        lane.end.saw(dts);
        let gap = before.filter(|before| dts.since(*before) > GAP);
        Placed { stamp: Stamp { dts, pts: moved(dts, i64::from(composition_millis)) }, gap }
    }

    /// The track's clock, with `last` moved to the stamp.
    fn clock_for(&mut self, track: Track, millis: u32, now: Ticks) -> Clock {
        let other = match track {
            Track::Video => self.audio.clock,
            Track::Audio => self.video.clock,
        };
        let confirmed = |time: Ticks, from: Ticks| time.since(from) <= UNCONFIRMED_JUMP || time.since(now) <= UNCONFIRMED_JUMP;
        if let Some(own) = self.lane(track).clock {
            let stamp = own.unwrap(millis);
            let step = stamp - own.last;
            let steady = (-i64::from(JITTER_MILLIS)..=i64::from(MAX_JUMP_MILLIS)).contains(&step);
            if steady && confirmed(own.time(stamp), own.time(own.last)) {
                return Clock { last: stamp.max(own.last), ..own };
            }
        }
        if let Some(other) = other {
            let stamp = other.unwrap(millis);
            let near = (stamp - other.last).unsigned_abs() <= u64::from(MAX_JUMP_MILLIS);
            // A clock that leads this track back, or to where it was, was set on the other track and not yet here.
            let onward = self.lane(track).end.newest().is_none_or(|newest| other.time(stamp) > newest);
            if near && onward && confirmed(other.time(stamp), other.time(other.last)) {
                return Clock { last: stamp, ..other };
            }
        }
        let floor = if self.begun { now } else { self.not_before };
        let base = floor.max(FIRST_TICK).max(self.end().unwrap_or_default());
        let stamp = i64::from(millis);
        Clock { base, first: stamp, last: stamp }
    }

    fn lane(&mut self, track: Track) -> &mut Lane {
        match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        }
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

    fn millis(count: u64) -> Ticks {
        Ticks::from_millis(count)
    }

    /// A publisher's stamps, in pairs of picture and sound 40 ms apart, placed as they come.
    fn publish(timeline: &mut Timeline, stamps: impl IntoIterator<Item = (u32, u32)>, mut now: Ticks) -> Vec<(Stamp, Stamp)> {
        let mut placed = Vec::new();
        for (picture, sound) in stamps {
            let pair = [(Track::Video, picture), (Track::Audio, sound)].map(|(track, stamp)| timeline.push(track, stamp, 0, now).stamp);
            placed.push((pair[0], pair[1]));
            now = now.plus(millis(40));
        }
        placed
    }

    #[test]
    fn the_first_stamp_lies_at_the_time_of_the_connection() {
        let mut timeline = Timeline::anchored(seconds(7));
        let placed = timeline.push(Track::Video, 123_456, 80, seconds(7));
        assert_eq!(placed.stamp, Stamp { dts: seconds(7), pts: Ticks(seconds(7).0 + 7_200) });
    }

    #[test]
    fn a_run_that_is_published_at_once_starts_a_second_in() {
        let mut timeline = Timeline::anchored(Ticks(0));
        assert_eq!(timeline.push(Track::Audio, 0, 0, Ticks(0)).stamp.dts, FIRST_TICK);
    }

    proptest! {
        /// An owner that goes on at any place puts everything where the one before would have put it.
        #[test]
        fn a_timeline_that_is_handed_over_goes_on_as_if_nothing_had_happened(
            steps in proptest::collection::vec((any::<bool>(), 0u32..3_000, -20i32..200), 2..120),
            at in 0usize..120,
            first: u32,
        ) {
            let mut whole = Timeline::anchored(seconds(3));
            let mut parted = whole.clone();
            let (mut stamp, mut now) = (first, seconds(3));
            for (index, (video, step, composition)) in steps.into_iter().enumerate() {
                if index == at {
                    parted = Timeline::resumed(&parted.state());
                }
                (stamp, now) = (stamp.wrapping_add(step), now.plus(millis(step.into())));
                let track = if video { Track::Video } else { Track::Audio };
                prop_assert_eq!(parted.push(track, stamp, composition, now), whole.push(track, stamp, composition, now));
            }
        }
    }

    #[test]
    fn a_stamp_that_wraps_around_is_a_small_step() {
        let mut timeline = Timeline::anchored(seconds(2));
        let before = timeline.push(Track::Video, u32::MAX - 9, 0, seconds(2)).stamp;
        let after = timeline.push(Track::Video, 30, 0, seconds(2)).stamp;
        assert_eq!(after.dts.since(before.dts), Ticks::from_millis(40));
    }

    #[test]
    fn a_reconnect_with_stamps_at_zero_continues_the_timeline() {
        let mut timeline = Timeline::anchored(seconds(2));
        timeline.push(Track::Video, 89_000, 0, seconds(2));
        let last = timeline.push(Track::Video, 89_040, 0, seconds(2)).stamp;
        timeline.reconnected(seconds(1)); // a clock that was set back must not turn time back
        let first = timeline.push(Track::Video, 0, 0, seconds(1)).stamp;
        assert_eq!(first.dts, last.dts.plus(Ticks::from_millis(40)));
    }

    #[test]
    fn a_reconnect_after_a_pause_keeps_the_pause() {
        let mut timeline = Timeline::anchored(seconds(2));
        timeline.push(Track::Video, 0, 0, seconds(2));
        timeline.reconnected(seconds(30));
        assert_eq!(timeline.push(Track::Video, 0, 0, seconds(30)).stamp.dts, seconds(30));
    }

    #[test]
    fn a_jump_of_the_publishers_clock_is_taken_out() {
        for jump in [60_000u32, 4_294_000_000, 0] {
            let mut timeline = Timeline::anchored(seconds(2));
            let last = timeline.push(Track::Video, 20_000, 0, seconds(2)).stamp;
            let next = timeline.push(Track::Video, jump, 0, seconds(3)).stamp;
            assert_eq!(next.dts, seconds(3), "after a jump from 20000 to {jump}");
            assert!(next.dts > last.dts);
        }
    }

    #[test]
    fn sound_that_starts_before_the_picture_keeps_its_distance() {
        let mut timeline = Timeline::anchored(seconds(5));
        let picture = timeline.push(Track::Video, 100, 0, seconds(5)).stamp;
        let sound = timeline.push(Track::Audio, 60, 0, seconds(5)).stamp;
        assert_eq!(picture.dts.since(sound.dts), Ticks::from_millis(40));
    }

    #[test]
    fn frames_that_a_publisher_dropped_leave_a_hole_that_is_told() {
        let mut timeline = Timeline::anchored(seconds(2));
        let last = timeline.push(Track::Video, 0, 0, seconds(2)).stamp;
        let next = timeline.push(Track::Video, 5_000, 0, seconds(7));
        assert_eq!(next.stamp.dts, seconds(7));
        assert_eq!(next.gap, Some(last.dts.plus(NOMINAL_FRAME)));
        assert_eq!(timeline.push(Track::Video, 5_040, 0, seconds(7)).gap, None);
    }

    #[test]
    fn a_jump_forward_that_the_wall_clock_does_not_confirm_is_taken_out() {
        let mut timeline = Timeline::anchored(seconds(2));
        let last = timeline.push(Track::Video, 0, 0, seconds(2)).stamp;
        let next = timeline.push(Track::Video, 9_000, 0, seconds(2)).stamp;
        assert_eq!(next.dts, last.dts.plus(NOMINAL_FRAME));
    }

    #[test]
    fn a_small_step_back_squeezes_nothing_after_it() {
        let mut timeline = Timeline::anchored(seconds(2));
        let placed = publish(&mut timeline, (0..100).map(|frame| (100_000 + frame * 40, 100_000 + frame * 40)), seconds(2));
        // The clock is set back by three seconds: the next hundred frames last as long as they did.
        let after = publish(&mut timeline, (0..100).map(|frame| (101_000 + frame * 40, 101_000 + frame * 40)), seconds(6));
        assert!(after[0].0.dts > placed[99].0.dts);
        assert_eq!(after[99].0.dts.since(after[0].0.dts), millis(99 * 40));
        assert_eq!(after[99].1.dts, after[99].0.dts);
    }

    #[test]
    fn a_clock_that_is_set_on_both_tracks_leaves_them_in_step() {
        for set_to in [5_000_000u32, 7] {
            let mut timeline = Timeline::anchored(seconds(2));
            publish(&mut timeline, (0..50).map(|frame| (90_000 + frame * 40, 90_015 + frame * 40)), seconds(2));
            let after = publish(&mut timeline, (0..50).map(|frame| (set_to + frame * 40, set_to + 15 + frame * 40)), seconds(4));
            for (picture, sound) in &after {
                assert_eq!(sound.dts.since(picture.dts), millis(15), "after the clock was set to {set_to}");
            }
        }
    }

    #[test]
    fn tracks_with_clocks_of_their_own_both_run_on() {
        let mut timeline = Timeline::anchored(seconds(2));
        let placed = publish(&mut timeline, (0..100).map(|frame| (500_000 + frame * 40, frame * 40)), seconds(2));
        let (first, last) = (placed[0], placed[99]);
        assert_eq!(last.0.dts.since(first.0.dts), millis(99 * 40));
        assert_eq!(last.1.dts.since(first.1.dts), millis(99 * 40));
        assert!(first.1.dts.since(first.0.dts) <= NOMINAL_FRAME);
    }

    #[test]
    fn sound_that_drifts_from_the_picture_is_left_as_it_is() {
        let mut timeline = Timeline::anchored(seconds(2));
        // A tenth of a percent too fast, for a quarter of an hour.
        let placed = publish(&mut timeline, (0..22_500).map(|frame| (frame * 40, frame * 40 + frame / 25)), seconds(2));
        let (picture, sound) = placed[22_499];
        assert_eq!(sound.dts.since(picture.dts), millis(22_499 / 25));
    }

    #[test]
    fn sound_alone_goes_on_while_the_picture_is_away_and_the_picture_finds_its_place_again() {
        let mut timeline = Timeline::anchored(seconds(2));
        publish(&mut timeline, [(0, 0)], seconds(2));
        for second in 1..60u32 {
            let placed = timeline.push(Track::Audio, second * 1_000, 0, seconds(2 + u64::from(second)));
            assert_eq!((placed.stamp.dts, placed.gap), (seconds(2 + u64::from(second)), None));
        }
        assert_eq!(timeline.push(Track::Video, 59_040, 0, seconds(61)).stamp.dts, seconds(61).plus(millis(40)));
    }

    #[test]
    fn pictures_in_another_order_keep_the_distance_of_their_times() {
        let mut timeline = Timeline::anchored(seconds(2));
        // I P B B as decoded; shown 0 120 40 80, a frame later each.
        let placed = [(0, 40), (40, 120), (80, 0), (120, 0)]
            .map(|(dts, composition)| timeline.push(Track::Video, dts, composition, seconds(2)).stamp);
        assert_eq!(placed.map(|stamp| stamp.pts.since(seconds(2)).as_millis()), [40, 160, 80, 120]);
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
                let stamp = timeline.push(track, dts, composition, Ticks(now)).stamp;
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
                let stamp = timeline.push(Track::Video, at, 0, seconds(9)).stamp;
                assert_eq!(stamp.dts, seconds(9).plus(Ticks::from_millis(elapsed)));
            }
        }
    }
}
