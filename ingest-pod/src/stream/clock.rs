//! A run's time, and what becomes of it where the machine's clock is wrong: readers that come from another owner know better.

use super::bitrate::Bitrate;
use super::history::History;
use super::said::Saying;
use super::{Run, State};
use lectern_contract::{Ticks, WallMillis};
use lectern_media::timeline::Timeline;
use lectern_podkit::clock::wall_now;
use std::time::Instant;

/// How far ahead of the media a reader may ask with nothing wrong: from the beginning of a segment that it is to take over and that has not begun, of 4 s at
/// most, and by what machines' clocks and publishers' differ. As far may a reader's time lie behind.
const READERS_DIFFER: Ticks = Ticks(6 * 90_000);

/// Media of a run whose readers have not come to say what time it is that a recorder waits for. No piece is whole before.
const SETTLES: Ticks = Ticks(10 * 90_000);

/// The time since a run's epoch. The wall clock is read once: should it be set later, the run does not notice. Should it have been wrong, readers
/// that come from another owner tell ([`Run::has_come_to`], [`Run::is_now_at`]).
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    then: Ticks,
    since: Instant,
}

impl Clock {
    pub(super) fn anchored(anchor: WallMillis) -> Self {
        Self { then: Ticks::from_millis(wall_now().0.saturating_sub(anchor.0)), since: Instant::now() }
    }

    pub(super) fn now(&self) -> Ticks {
        self.at(Instant::now())
    }

    pub(super) fn at(&self, now: Instant) -> Ticks {
        let passed = now.saturating_duration_since(self.since);
        self.then.plus(Ticks::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Run {
    /// A reader has the run's media up to `reached`, from an owner before this shard. Where that lies ahead of this shard's time (its wall clock is
    /// behind the former owner's, or the publisher's runs fast), all that is placed here would be taken for what is known already: so the run's time
    /// goes on from there, at the publisher's next keyframe.
    pub fn has_come_to(&self, reached: Ticks) {
        let mut state = self.lock();
        let now = state.clock.now();
        if reached <= now.max(state.timeline.end().unwrap_or_default()).plus(READERS_DIFFER) {
            return;
        }
        let behind = reached.since(now);
        tracing::warn!(run = %self.id, stream = %self.stream, %behind, "this shard's clock is behind the run's former owner: the run's time is set forward");
        state.clock.then = state.clock.then.plus(behind);
        state.gap("the clock of the stream's new shard is behind".to_owned());
        state.heard_anew(reached);
        drop(state);
        self.tell(true);
    }

    /// For a reader that has had the run's media from an owner before this shard the run is at `reached`. Where that lies far behind this shard's time (its wall clock
    /// is ahead of the former owner's), the run would have a hole: so its time is set back, and what was placed already is forgotten; from the publisher's next keyframe
    /// on it is placed anew. Only as long as nobody has had any of it: for whoever had it the hole is there.
    pub fn is_now_at(&self, reached: Ticks) {
        let mut state = self.lock();
        let ahead = state.clock.now().since(reached);
        if state.is_read || ahead <= READERS_DIFFER {
            return;
        }
        tracing::warn!(run = %self.id, stream = %self.stream, %ahead, "this shard's clock is ahead of the run's former owner: the run's time is set back");
        state.clock.then = state.clock.then.since(ahead);
        // What was inherited lies where the former owner had it.
        if state.timeline.end().is_none_or(|end| end > reached.plus(READERS_DIFFER)) {
            state.begins_anew(History::new(self.shared.limits, self.shared.memory.clone()), reached);
        }
        drop(state);
        self.tell(true);
    }

    /// Returns once the run's time is what it will be: who shows the lecture has come, and has said where he is ([`Run::is_now_at`]), or does not come while
    /// there is room for what he misses. Who keeps what is published for ever waits for it: a former owner's time is an hour away where a machine's clock is.
    pub async fn is_settled(&self) {
        let mut version = self.version.subscribe();
        let settled = |state: &State| {
            let newest = state.timeline.newest().unwrap_or_default();
            state.is_read || state.closed.is_some() || state.history.has_kept(SETTLES, newest)
        };
        while !settled(&self.lock()) {
            // The sender lives in the run: it cannot be gone.
            let _ = version.changed().await;
        }
    }
}

impl State {
    /// Nothing has been placed yet.
    fn begins_anew(&mut self, history: History, now: Ticks) {
        self.timeline = Timeline::anchored(now);
        (self.history, self.saying, self.bitrate) = (history, Saying::default(), Bitrate::default());
        self.heard_anew(now);
    }
}
