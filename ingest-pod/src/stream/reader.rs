//! A reader's end of a run.

use super::history::Cursor;
use super::{Closing, Run};
use lectern_contract::feed::FeedFrame;
use lectern_contract::{ShardName, Ticks};
use std::sync::Arc;
use tokio::sync::watch;

/// Payload bytes that are handed out at once, about; small enough that a reader is not far ahead of its socket.
const BATCH: usize = 256 * 1024;

/// A reader of a run; drops nothing unless it is too slow for the ring.
#[derive(Debug)]
pub struct Reader {
    run: Arc<Run>,
    cursor: Cursor,
    version: watch::Receiver<u64>,
}

/// Frames in order.
#[derive(Debug, Default)]
pub struct Batch {
    /// At least one.
    pub frames: Vec<FeedFrame>,
    /// Nothing follows.
    pub last: bool,
    /// With the last: the shard that owns the run now.
    pub moved: Option<ShardName>,
    /// This reader had been too slow; the first frame is the gap, and the others go on at the newest keyframe.
    pub lapsed: bool,
}

impl Reader {
    pub(super) fn new(run: Arc<Run>, from: Option<Ticks>) -> Self {
        let version = run.version.subscribe();
        Self { run, cursor: Cursor::new(from), version }
    }

    /// Waits for what follows. May be cancelled without loss. After a batch that says `last`, it is at once another such.
    pub async fn next(&mut self) -> Batch {
        loop {
            self.version.borrow_and_update();
            let batch = self.take();
            if !batch.frames.is_empty() {
                return batch;
            }
            // The sender lives in the run, which this reader holds: it cannot be gone.
            let _ = self.version.changed().await;
        }
    }

    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        let state = self.run.lock();
        batch.lapsed = state.history.read(&mut self.cursor, &mut batch.frames, BATCH);
        if batch.lapsed {
            self.run.shared.metrics.feed_lapses.inc();
        }
        if batch.frames.is_empty()
            && let Some(closing) = &state.closed
        {
            batch.last = true;
            if let Closing::Moved(owner) = closing {
                batch.moved = Some(owner.clone());
            }
            batch.frames.push(match closing {
                Closing::Ended => FeedFrame::End,
                other => FeedFrame::Refused { reason: other.to_string() },
            });
        }
        batch
    }
}
