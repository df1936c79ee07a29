//! Whether encoding keeps up with the feed, and what to do where it does not. Pure: it is told the time.
//!
//! Media that arrives late is no sign by itself, for the lecturer's line may be slow. The engine is behind where it keeps the feed waiting
//! **and** what is read from the feed becomes older and older.

use lectern_contract::{SegmentDuration, Ticks};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is judged.
const PERIOD: Duration = Duration::from_secs(1);
/// Older than this is too late. The ring in the shard holds some 60 s, players hold less.
const BOUND: Duration = Duration::from_millis(1_500);
/// The same of one that has just begun to encode a rendition again, and was in time before: it is known what it is too slow for.
const BOUND_ON_TRIAL: Duration = Duration::from_millis(250);
/// Younger than this is in time.
const IN_TIME: Duration = Duration::from_millis(500);
/// Bad periods in a row before anything is done: a moment's load passes.
const STRIKES: u32 = 2;
/// In time for so long before a rendition comes back; twice as long each time that this was too early.
const CALM: Duration = Duration::from_secs(30);
const MOST_CALM: Duration = Duration::from_secs(600);
/// Who falls behind within this time after a rendition came back was not ready for it: so long the rendition is on trial.
const TRIAL: Duration = Duration::from_secs(60);
/// The clocks of two machines may drift apart by so many microseconds a second without anybody being late.
const DRIFT: i64 = 200;

/// What should be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Encode less.
    Shed,
    /// Encode more again.
    Restore,
}

/// See the module.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    /// What was shed shows after this long: it goes at a segment's start, and what is late has to be caught up with.
    settle: Duration,
    /// How many steps down there are.
    steps: usize,
    taken: usize,
    /// The least age that media had on arrival, in microseconds on some scale.
    youngest: Option<i64>,
    age: i64,
    judged: Instant,
    /// Of the time since, how long the engine kept the feed waiting.
    waited: Duration,
    late: Duration,
    strikes: u32,
    calm: Duration,
    patience: Duration,
    changed: Option<(Verdict, Instant)>,
}

impl Pace {
    /// Of a job that can do with less in `steps` steps.
    pub fn new(steps: usize, segment: SegmentDuration, now: Instant) -> Self {
        Self {
            since: now,
            settle: Duration::from_millis(u64::from(segment.millis()) * 2) + Duration::from_secs(2),
            steps,
            taken: 0,
            youngest: None,
            age: 0,
            judged: now,
            waited: Duration::ZERO,
            late: Duration::ZERO,
            strikes: 0,
            calm: Duration::ZERO,
            patience: CALM,
            changed: None,
        }
    }

    /// Media of `dts` was read from the feed.
    pub fn heard(&mut self, dts: Ticks, now: Instant) {
        self.age = micros(now.duration_since(self.since)) - micros(Duration::from_millis(dts.as_millis()));
        self.youngest = Some(self.youngest.map_or(self.age, |youngest| youngest.min(self.age)));
    }

    /// The engine did not take the next input for `waited`.
    pub fn waited(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// How much older than it need be the newest media was when it was read.
    pub fn late(&self) -> Duration {
        let late = self.youngest.map_or(0, |youngest| self.age - youngest);
        Duration::from_micros(u64::try_from(late).unwrap_or_default())
    }

    /// Looks at the last second, once it is over.
    pub fn judge(&mut self, now: Instant) -> Option<Verdict> {
        let period = now.duration_since(self.judged);
        if period < PERIOD {
            return None;
        }
        let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        self.youngest = self.youngest.map(|youngest| youngest.saturating_add(seconds.saturating_mul(DRIFT)));
        let late = self.late();
        let before = std::mem::replace(&mut self.late, late);
        let busy = std::mem::take(&mut self.waited) >= period / 2;
        self.judged = now;
        let catches_up = late + period / 10 < before;
        let on_trial = matches!(self.changed, Some((Verdict::Restore, at)) if now.duration_since(at) < TRIAL);
        let bound = if on_trial { BOUND_ON_TRIAL } else { BOUND };
        self.strikes = if busy && late > bound && !catches_up { self.strikes + 1 } else { 0 };
        self.calm = if !busy && late < IN_TIME { self.calm + period } else { Duration::ZERO };
        // Having less to do shows late; having too much again shows by itself.
        let settled = self.changed.is_none_or(|(last, at)| last == Verdict::Restore || now.duration_since(at) >= self.settle);
        let verdict = match () {
            () if self.strikes >= STRIKES && settled && self.taken < self.steps => Verdict::Shed,
            () if self.calm >= self.patience && self.taken > 0 => Verdict::Restore,
            () => return None,
        };
        if verdict == Verdict::Shed {
            self.patience = if on_trial { (self.patience * 2).min(MOST_CALM) } else { CALM.max(self.patience / 2) };
            self.taken += 1;
        } else {
            self.taken -= 1;
        }
        (self.strikes, self.calm, self.changed) = (0, Duration::ZERO, Some((verdict, now)));
        Some(verdict)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const UNIT: Duration = Duration::from_millis(100);
    /// Units that may wait for the engine.
    const ROOM: usize = 10;

    /// A feed of 10 units a second before an engine of a given speed (1: real time).
    struct Model {
        pace: Pace,
        start: Instant,
        now: Duration,
        /// Media read so far.
        read: Duration,
        /// When the engine is done with the last units.
        done: VecDeque<Duration>,
        said: Vec<(u64, Verdict)>,
    }

    impl Model {
        fn new() -> Self {
            let start = Instant::now();
            let pace = Pace::new(2, SegmentDuration::STANDARD, start);
            let done = VecDeque::from([Duration::ZERO; ROOM]);
            Self { pace, start, now: Duration::ZERO, read: Duration::ZERO, done, said: Vec::new() }
        }

        /// Runs until `end` seconds; `speed` by the steps taken; what the lecturer sends arrives `delay` late.
        fn run(&mut self, end: u64, speed: impl Fn(usize) -> f64, delay: impl Fn(Duration) -> Duration) {
            while self.now < Duration::from_secs(end) {
                self.now = self.now.max(self.read + UNIT + delay(self.read));
                self.read += UNIT;
                self.pace.heard(Ticks::from_millis(u64::try_from(self.read.as_millis()).unwrap()), self.start + self.now);
                let room = self.done.pop_front().unwrap();
                self.pace.waited(room.saturating_sub(self.now));
                self.now = self.now.max(room);
                let begun = self.done.back().map_or(self.now, |last| self.now.max(*last));
                self.done.push_back(begun + UNIT.div_f64(speed(self.pace.taken)));
                if let Some(verdict) = self.pace.judge(self.start + self.now) {
                    self.said.push((self.now.as_secs(), verdict));
                }
            }
        }

        fn verdicts(&self) -> Vec<Verdict> {
            self.said.iter().map(|(_, verdict)| *verdict).collect()
        }
    }

    const fn in_time(_: Duration) -> Duration {
        Duration::ZERO
    }

    #[test]
    fn an_engine_that_keeps_up_is_left_alone() {
        let mut model = Model::new();
        model.run(300, |_| 1.2, in_time);
        assert_eq!(model.verdicts(), []);
    }

    #[test]
    fn an_engine_that_is_too_slow_sheds_until_it_is_not() {
        let mut model = Model::new();
        model.run(120, |taken| [0.6, 0.8, 1.5][taken], in_time);
        assert_eq!(model.verdicts()[..2], [Verdict::Shed, Verdict::Shed]);
        assert!(model.said[0].0 < 10 && model.said[1].0 < 25, "{:?}", model.said);
    }

    #[test]
    fn what_was_shed_comes_back_and_less_and_less_often_where_it_is_too_early() {
        let mut model = Model::new();
        model.run(1_800, |taken| [0.7, 1.5, 2.0][taken], in_time);
        let back: Vec<u64> = model.said.iter().filter(|(_, verdict)| *verdict == Verdict::Restore).map(|(at, _)| *at).collect();
        assert!(back.len() >= 3, "{:?}", model.said);
        assert!(back.windows(3).all(|three| three[2] - three[1] > three[1] - three[0]), "{back:?}");
        assert_eq!(model.pace.taken, 1);
        model.run(4_000, |_| 3.0, in_time);
        assert_eq!(model.pace.taken, 0, "with room for it, it stays");
    }

    /// Players have a few seconds in hand, and a trial that fails must not use them up.
    #[test]
    fn a_trial_that_fails_is_over_sooner_than_the_first_shedding_took() {
        let mut model = Model::new();
        model.run(120, |taken| [0.4, 1.5, 2.0][taken], in_time);
        let [(first, Verdict::Shed), (back, Verdict::Restore), (again, Verdict::Shed), ..] = model.said[..] else {
            panic!("{:?}", model.said)
        };
        assert!(again - back < first, "{:?}", model.said);
    }

    /// Opening an encoder takes a moment.
    #[test]
    fn a_rendition_that_comes_back_slowly_is_kept_where_it_catches_up() {
        let mut model = Model::new();
        let end = (1..120).find(|end| {
            model.run(*end, |taken| [0.5, 1.5, 2.0][taken], in_time);
            model.verdicts().ends_with(&[Verdict::Restore])
        });
        *model.done.back_mut().unwrap() += Duration::from_millis(1_500);
        model.run(end.unwrap() + 120, |_| 1.5, in_time);
        assert_eq!(model.verdicts(), [Verdict::Shed, Verdict::Restore]);
    }

    #[test]
    fn a_lecturer_with_a_slow_line_is_no_reason() {
        let mut model = Model::new();
        // Later and later, then all at once.
        model.run(120, |_| 1.5, |at| Duration::from_millis(u64::try_from(at.as_millis()).unwrap() % 20_000 / 4));
        assert_eq!(model.verdicts(), []);
    }

    #[test]
    fn clocks_that_drift_apart_are_no_reason() {
        let mut model = Model::new();
        model.run(4 * 3600, |_| 1.01, |at| at / 10_000);
        assert_eq!(model.verdicts(), []);
        assert!(model.pace.late() < IN_TIME, "{:?}", model.pace.late());
    }

    #[test]
    fn nothing_is_asked_for_that_cannot_be_done() {
        let mut model = Model::new();
        model.run(300, |_| 0.5, in_time);
        assert_eq!(model.verdicts(), [Verdict::Shed, Verdict::Shed]);
    }
}
