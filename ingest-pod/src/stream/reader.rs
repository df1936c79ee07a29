//! A reader's end of a run.

use super::history::Cursor;
use super::{Closing, Run};
use bytes::BytesMut;
use lectern_contract::Ticks;
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes that are handed out at once, about: they are copied under the run's lock, which its publisher needs, too.
const BATCH: usize = 64 * 1024;

/// A reader of a run; drops nothing unless it is too slow for the ring.
#[derive(Debug)]
pub struct Reader {
    run: Arc<Run>,
    cursor: Cursor,
    version: watch::Receiver<u64>,
}

/// What a reader was given, beside frames.
#[derive(Debug, Default)]
pub struct Batch {
    /// Why nothing follows, and then no frames came.
    pub closed: Option<Closing>,
    /// This reader had been too slow: it has read up to here; the first frame is the gap, and the others go on at the newest
    /// keyframe.
    pub lapsed: Option<Ticks>,
}

impl Reader {
    pub(super) fn new(run: Arc<Run>, from: Option<Ticks>) -> Self {
        let version = run.version.subscribe();
        Self { run, cursor: Cursor::new(from), version }
    }

    /// Waits for what follows, and appends it to `out`: whole frames, as [`FeedFrame::encode`] writes them. May be cancelled
    /// without loss. After a batch that says why nothing follows, it is at once another such.
    ///
    /// [`FeedFrame::encode`]: lectern_contract::feed::FeedFrame::encode
    pub async fn next(&mut self, out: &mut BytesMut) -> Batch {
        let before = out.len();
        loop {
            self.version.borrow_and_update();
            let batch = self.take(out);
            if out.len() > before || batch.closed.is_some() {
                return batch;
            }
            // The sender lives in the run, which this reader holds: it cannot be gone.
            let _ = self.version.changed().await;
        }
    }

    fn take(&mut self, out: &mut BytesMut) -> Batch {
        let before = out.len();
        let mut state = self.run.lock();
        let lapsed = state.history.read(&mut self.cursor, out, BATCH);
        if lapsed.is_some() {
            self.run.shared.metrics.feed_lapses.inc();
        }
        state.is_read |= out.len() > before;
        let closed = if out.len() == before { state.closed.clone() } else { None };
        Batch { closed, lapsed }
    }
}
