//! What a run's next owner goes on with: the newest media, and how the publisher's stamps go on.
//!
//! Without it the next owner would begin at the publisher's next keyframe, at a time of its own: up to a group of pictures would be
//! missing, and what follows would lie a little beside where it was. With it, its feed goes on where the one before stopped, to the
//! access unit: readers ask for what they have not got, and both owners have given it the same times.

use super::{Run, State};
use bytes::{Bytes, BytesMut};
use lectern_contract::Ticks;
use lectern_contract::feed::{FeedFrame, Track};
use lectern_contract::timeline::TimelineState;
use lectern_media::timeline::Timeline;

/// So much of the past is handed over, from the keyframe before: for transcoders that lag, and for those that begin just then.
const PAST: Ticks = Ticks(6 * 90_000);
/// Bytes of it at most, cut at keyframes.
pub const MOST_PAST: usize = 8 << 20;

/// What a run's next owner goes on with.
#[derive(Clone, PartialEq, Eq)]
pub struct Heritage {
    /// How the publisher's stamps go on.
    pub timeline: TimelineState,
    /// Whole frames of the feed, from a keyframe on.
    pub past: Bytes,
}

impl std::fmt::Debug for Heritage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heritage").field("timeline", &self.timeline).field("past", &self.past.len()).finish()
    }
}

impl Run {
    /// What the publisher of this number takes along to the run's next owner. `None` unless the run has moved while it was heard.
    pub(super) fn heritage(&self, number: u64) -> Option<Heritage> {
        let state = self.lock();
        if state.heir != Some(number) {
            return None;
        }
        let mut past = BytesMut::new();
        let mut cursor = state.history.tail(state.timeline.newest()?.since(PAST), MOST_PAST)?;
        state.history.read(&mut cursor, &mut past, usize::MAX);
        Some(Heritage { timeline: state.timeline.state(), past: past.freeze() })
    }

    /// Goes on with what the publisher of this number has brought from the owner before. Does nothing where another is heard, or where
    /// something is here already: then it is a publisher like any other.
    pub(super) fn inherit(&self, number: u64, heritage: &Heritage) {
        let span = self.shared.memory.span(self.shared.limits.span);
        let mut state = self.lock();
        let is_heard = state.seats.heard().is_some_and(|live| live.number == number);
        if !is_heard || state.timeline.newest().is_some() {
            tracing::info!(run = %self.id, stream = %self.stream, is_heard, "what the owner before has handed over is not needed");
            return;
        }
        state.history.keep(span);
        state.inherit(heritage);
        let ends = [heritage.timeline.video, heritage.timeline.audio].map(|lane| lane.end.map(|(newest, _)| newest));
        // Nobody else has set it: there was nothing here before.
        let _ = self.inherited.set(ends);
        drop(state);
        tracing::info!(run = %self.id, stream = %self.stream, bytes = heritage.past.len(), "goes on where the owner before stopped");
        self.tell(true);
    }

    /// Whether the owner before has had this access unit, too.
    pub fn is_inherited(&self, track: Track, dts: Ticks) -> bool {
        let ends = self.inherited.get();
        ends.and_then(|ends| ends[usize::from(track == Track::Audio)]).is_some_and(|newest| dts <= newest)
    }
}

impl State {
    fn inherit(&mut self, heritage: &Heritage) {
        let mut input = BytesMut::from(&heritage.past[..]);
        // What cannot be read of it ends it: another shard wrote it, and has been let in as one.
        while let Ok(Some(frame)) = FeedFrame::decode(&mut input) {
            match frame {
                FeedFrame::Config { track, codec, config } => self.config(track, codec, config),
                FeedFrame::AccessUnit(unit) => {
                    let start = self.is_start(unit.track, unit.keyframe, unit.dts);
                    self.history.push(&unit, start, &self.configs);
                }
                other => self.history.note(&other),
            }
        }
        self.timeline = Timeline::resumed(&heritage.timeline);
        if let Some(live) = self.seats.heard_mut() {
            live.keyframe_seen = self.history.newest_start().is_some() && live.video.is_some();
        }
    }
}
