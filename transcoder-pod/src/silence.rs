//! When a track has been silent for too long, and until when its renditions go on without it. Pure: callers say what time it is.

use lectern_contract::Ticks;
use lectern_contract::feed::Track;
use lectern_contract::job::LiveJob;
use std::time::Duration;
use tokio::time::Instant;

/// A track is missed after so long, while its shard is there to say that nothing comes: what comes later than that is lost.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// The same at most where players have segments in hand to wait with.
const LONG_PATIENCE: Duration = Duration::from_secs(3);
/// As long as the shard itself is away: it has what the lecturer sends meanwhile, and another takes over within this.
pub const WITHOUT_SHARD: Duration = Duration::from_secs(5);
/// A source of few pictures a second is missed after so many of them.
const MISSED: u32 = 3;
/// What is filled at once at most: sound is made of memory.
const STEP: Ticks = Ticks::from_millis(1_000);
/// Where a successor's source begins later than its predecessor left off, and by no more than this, what lies between is filled. After more nobody has waited.
const LONGEST_HOLE: Ticks = Ticks::from_millis(60_000);
/// A step of the stamps beyond this says nothing of how often something comes.
const LONGEST_STEP: Duration = Duration::from_secs(10);

/// How long media may be late before the slate has its place, while its shard is there and its publisher, too: as long as the players of `job` do not notice. They keep three
/// segments from the live edge (RFC 8216 §6.3.3), or three parts and a little.
pub fn patience(job: &LiveJob) -> Duration {
    match job.parts {
        Some(_) => PATIENCE,
        None => Duration::from(job.segment_duration).clamp(PATIENCE, LONG_PATIENCE),
    }
}

/// What was heard of a run's tracks.
#[derive(Debug, Default)]
pub struct Silence {
    video: Option<Heard>,
    audio: Option<Heard>,
    /// A time that the run had reached at some moment, whatever was heard.
    reached: Option<(Ticks, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    /// The newest stamp, and when it came.
    dts: Ticks,
    at: Instant,
    /// How far stamps are apart, on average.
    step: Duration,
    /// Until when the renditions have gone on without it.
    filled: Ticks,
}

impl Silence {
    /// Nothing heard yet. `reached`: as far as a predecessor is known to have come by `now`; what it was fed may end long before, where the
    /// source has been away for a while.
    pub fn new(reached: Option<Ticks>, now: Instant) -> Self {
        Self { reached: reached.map(|reached| (reached, now)), ..Self::default() }
    }

    /// What is to be filled before a unit of `track`, stamped `dts`, is given on, in order. Before the first one: its shard may know of nothing earlier, because it has
    /// become the run's owner since. Before any other: that may have happened sooner than a shard that is away is given up, and what was sent meanwhile is lost with the
    /// one that died.
    pub fn begins(&mut self, track: Track, dts: Ticks) -> Vec<(Track, Ticks)> {
        let (left, patience) = match (*self.slot(track), self.reached) {
            (Some(heard), _) => (heard.filled.max(heard.dts), PATIENCE.max(heard.step * MISSED)),
            (None, Some((reached, _))) => (reached, Duration::ZERO),
            (None, None) => return Vec::new(),
        };
        let hole = dts.since(left);
        if hole > LONGEST_HOLE || Duration::from_millis(hole.as_millis()) <= patience {
            return Vec::new();
        }
        steps(left, dts).map(|until| (track, until)).collect()
    }

    fn slot(&mut self, track: Track) -> &mut Option<Heard> {
        match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        }
    }

    /// An access unit came.
    pub fn heard(&mut self, track: Track, dts: Ticks, at: Instant) {
        let slot = self.slot(track);
        let step = match slot {
            Some(before) => (before.step * 7 + Duration::from_millis(dts.since(before.dts).as_millis()).min(LONGEST_STEP)) / 8,
            None => Duration::ZERO,
        };
        let filled = slot.map_or(Ticks(0), |before| before.filled);
        *slot = Some(Heard { dts, at, step, filled });
    }

    /// Nothing comes of a track, and nothing will: it is to be filled from `since` on, which is `now`, at once.
    pub fn misses(&mut self, track: Track, since: Ticks, now: Instant) {
        let slot = self.slot(track);
        let long_ago = now.checked_sub(WITHOUT_SHARD).unwrap_or(now);
        slot.get_or_insert(Heard {
            dts: since.since(Ticks::from_millis(WITHOUT_SHARD.as_millis() as u64)),
            at: long_ago,
            step: Duration::ZERO,
            filled: since,
        });
    }

    /// What is to be filled `now`, in order: a track, and until when. Each is told once.
    ///
    /// The run's time goes on with the clock on the wall, from where the newest unit of either track left it.
    pub fn fill(&mut self, now: Instant, patience: impl Fn(Track) -> Duration) -> Vec<(Track, Ticks)> {
        if let Some((reached, since)) = self.reached
            && (self.video.is_none() && self.audio.is_none() && now.duration_since(since) >= WITHOUT_SHARD)
        {
            // Nobody has the run's media. It was there for the predecessor, so both tracks are missed.
            let left = Heard { dts: reached, at: since, step: Duration::ZERO, filled: reached };
            (self.video, self.audio) = (Some(left), Some(left));
        }
        let time = |(ticks, at): (Ticks, Instant)| ticks.plus(Ticks::from_millis(now.duration_since(at).as_millis() as u64)); // not 500 million years
        let heard = self.video.iter().chain(&self.audio).map(|heard| (heard.dts, heard.at));
        let clock = heard.chain(self.reached).map(time).max().unwrap_or_default();
        let mut due = Vec::new();
        for (track, slot) in [(Track::Video, &mut self.video), (Track::Audio, &mut self.audio)] {
            let Some(heard) = slot else { continue };
            if now.duration_since(heard.at) < patience(track).max(heard.step * MISSED) {
                continue;
            }
            let filled = heard.filled.max(heard.dts);
            due.extend(steps(filled, clock).map(|until| (track, until)));
            heard.filled = filled.max(clock);
        }
        due
    }
}

/// From `from` (exclusive) to `until`.
pub(crate) fn steps(from: Ticks, until: Ticks) -> impl Iterator<Item = Ticks> {
    let next = move |at: Ticks| (at < until).then(|| at.plus(STEP).min(until));
    std::iter::successors(next(from), move |at| next(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A second of both tracks, ending at `dts` and `start`.
    fn lecture(start: Instant, step: u64) -> Silence {
        let mut silence = Silence::default();
        for n in 0..=1000 / step {
            silence.heard(Track::Video, Ticks::from_millis(5000 + n * step), start - millis(1000 - n * step));
            silence.heard(Track::Audio, Ticks::from_millis(5000 + n * step), start - millis(1000 - n * step));
        }
        silence
    }

    #[test]
    fn silence_is_filled_after_a_second_and_then_as_time_goes() {
        let start = Instant::now() + millis(10_000);
        let mut silence = lecture(start, 40);
        assert_eq!(silence.fill(start + millis(999), |_| PATIENCE), []);
        let both = |until: u64| [(Track::Video, Ticks::from_millis(until)), (Track::Audio, Ticks::from_millis(until))];
        assert_eq!(silence.fill(start + millis(1000), |_| PATIENCE), both(7000));
        assert_eq!(silence.fill(start + millis(1000), |_| PATIENCE), []);
        assert_eq!(silence.fill(start + millis(1100), |_| PATIENCE), both(7100));
        // It comes back, where the clock is by now: nothing is filled until it is away again.
        silence.heard(Track::Video, Ticks::from_millis(7200), start + millis(1200));
        assert_eq!(silence.fill(start + millis(1250), |_| PATIENCE), both(7250)[1..]);
        silence.heard(Track::Audio, Ticks::from_millis(7200), start + millis(1250));
        assert_eq!(silence.fill(start + millis(2199), |_| PATIENCE), []);
    }

    #[test]
    fn one_track_is_filled_beside_the_other() {
        let start = Instant::now() + millis(10_000);
        let mut silence = lecture(start, 40);
        silence.heard(Track::Audio, Ticks::from_millis(7000), start + millis(1000));
        assert_eq!(silence.fill(start + millis(1000), |_| PATIENCE), [(Track::Video, Ticks::from_millis(7000))]);
    }

    #[test]
    fn a_source_of_few_pictures_is_given_time() {
        let start = Instant::now() + millis(10_000);
        let mut silence = Silence::default();
        for n in 0..20 {
            silence.heard(Track::Video, Ticks::from_millis(n * 1000), start + millis(n * 1000));
        }
        let last = start + millis(19_000);
        assert_eq!(silence.fill(last + millis(1500), |_| PATIENCE), []);
        assert_eq!(silence.fill(last + millis(3000), |_| PATIENCE).len(), 3, "in steps of a second");
    }

    #[test]
    fn a_successor_goes_on_where_its_predecessor_was() {
        let start = Instant::now() + millis(10_000);
        let mut silence = Silence::new(Some(Ticks::from_millis(30_000)), start);
        // The source left long ago, and the feed is what it was then.
        silence.heard(Track::Video, Ticks::from_millis(5_000), start);
        let filled = silence.fill(start + millis(1_000), |_| PATIENCE);
        assert_eq!(filled.last(), Some(&(Track::Video, Ticks::from_millis(31_000))));
        assert!(filled.windows(2).all(|pair| pair[0].1.plus(STEP) >= pair[1].1), "{filled:?}");
    }

    #[test]
    fn a_source_that_begins_later_than_its_predecessor_left_off_has_that_filled() {
        let start = Instant::now() + millis(10_000);
        let mut silence = Silence::new(Some(Ticks::from_millis(30_000)), start);
        let video = |at| (Track::Video, Ticks::from_millis(at));
        assert_eq!(silence.begins(Track::Video, Ticks::from_millis(32_500)), [video(31_000), video(32_000), video(32_500)]);
        silence.heard(Track::Video, Ticks::from_millis(32_500), start);
        assert_eq!(silence.begins(Track::Video, Ticks::from_millis(33_500)), [], "it has begun");
        assert_eq!(silence.begins(Track::Audio, Ticks::from_millis(29_000)), [], "nothing is missing");
        assert_eq!(silence.begins(Track::Audio, Ticks::from_millis(90_001)), [], "a lecture that was left for a while");
        assert_eq!(Silence::default().begins(Track::Audio, Ticks::from_millis(90_000)), [], "a run's first");
    }

    #[test]
    fn what_was_lost_with_a_shard_that_was_replaced_quickly_is_filled() {
        let start = Instant::now() + millis(10_000);
        let mut silence = lecture(start, 40);
        let back = start + millis(3_200);
        assert_eq!(silence.fill(back, |_| WITHOUT_SHARD), [], "a shard that is away is waited for longer");
        let video = |at| (Track::Video, Ticks::from_millis(at));
        let filled = silence.begins(Track::Video, Ticks::from_millis(9_200));
        assert_eq!(filled, [video(7_000), video(8_000), video(9_000), video(9_200)], "from 6000 on");
        silence.heard(Track::Video, Ticks::from_millis(9_200), back);
        assert_eq!(silence.begins(Track::Video, Ticks::from_millis(9_240)), []);
        assert_eq!(silence.begins(Track::Audio, Ticks::from_millis(6_900)), [], "a hole of less is none");
        assert_eq!(silence.begins(Track::Audio, Ticks::from_millis(9_240)).len(), 4);
    }

    #[test]
    fn a_successor_whose_run_nobody_serves_fills_both_tracks() {
        let start = Instant::now() + millis(10_000);
        let mut silence = Silence::new(Some(Ticks::from_millis(30_000)), start);
        assert_eq!(
            silence.fill(start + millis(4_999), |_| PATIENCE),
            [],
            "a shard has the run's media, perhaps, and cannot be reached yet"
        );
        let filled = silence.fill(start + WITHOUT_SHARD, |_| PATIENCE);
        assert_eq!(filled.len(), 10);
        assert_eq!((filled[0], filled[9]), ((Track::Video, Ticks::from_millis(31_000)), (Track::Audio, Ticks::from_millis(35_000))));
        assert_eq!(silence.begins(Track::Video, Ticks::from_millis(36_000)), [], "it is under way");
    }

    #[test]
    fn what_was_never_heard_is_not_missed() {
        assert_eq!(Silence::default().fill(Instant::now(), |_| PATIENCE), []);
    }
}
