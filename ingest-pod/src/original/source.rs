//! Pieces out of a run.

use crate::metrics::Metrics;
use crate::stream::{Batch, Reader, Run};
use bytes::BytesMut;
use lectern_contract::Ticks;
use lectern_contract::feed::FeedFrame;
use lectern_media::original::{Cutter, Limits, Piece};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Reads a run and cuts it into pieces.
#[derive(Debug)]
pub(super) struct Source {
    run: Arc<Run>,
    metrics: Metrics,
    stop: CancellationToken,
    reader: Reader,
    /// What was read and not cut yet: whole frames.
    input: BytesMut,
    last: bool,
    cutter: Cutter,
}

impl Source {
    /// The pieces of `run` until it ends, or until `stop` and what there is by then.
    pub(super) fn new(run: Arc<Run>, metrics: Metrics, stop: CancellationToken) -> Self {
        // All that is kept; but one that goes on for another recorder of the same run would store some of it twice.
        let from = run.recording().is_none().then_some(Ticks(0));
        run.note_recording(|_| {});
        let reader = run.reader(from);
        Self { run, metrics, stop, reader, input: BytesMut::new(), last: false, cutter: Cutter::new(Limits::default()) }
    }

    /// Waits until the run's time can be relied on; not beyond `stop`.
    pub(super) async fn is_settled(&self) {
        self.stop.run_until_cancelled(self.run.is_settled()).await;
    }

    /// Waits for the next piece; `None` once nothing follows.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        loop {
            // The frames are this process's own: none is malformed.
            while let Ok(Some(frame)) = FeedFrame::decode(&mut self.input) {
                if let FeedFrame::AccessUnit(unit) = &frame
                    && self.run.is_inherited(unit.track, unit.dts)
                {
                    continue; // the owner before stores it
                }
                if let Some(piece) = self.cutter.push(frame) {
                    return Some(piece);
                }
            }
            if self.last {
                return self.cutter.finish();
            }
            tokio::select! {
                biased; // what is there is taken before a stop is heard
                batch = self.reader.next(&mut self.input) => self.take(&batch),
                () = self.stop.cancelled() => self.last = true,
            }
        }
    }

    fn take(&mut self, batch: &Batch) {
        self.last = batch.closed.is_some();
        if let Some(from) = batch.lapsed {
            self.lapsed(from);
        }
    }

    /// S3 was away for longer than the history lasts. A reader that lapsed goes on at the newest keyframe, which is right
    /// for who wants to be live; a recording goes on with the oldest that is kept.
    fn lapsed(&mut self, from: Ticks) {
        self.reader = self.run.reader(Some(from));
        tracing::warn!(run = %self.run.id(), stream = %self.run.stream(), %from, "the original has a gap: S3 was away for too long");
        self.metrics.original.gaps.inc();
        self.run.note_recording(|recording| recording.gaps += 1);
        self.input.clear();
        FeedFrame::Gap { from, reason: "S3 was away for too long".to_owned() }.encode(&mut self.input);
    }
}
