//! A run's pieces on their way to S3, one after the other.

use crate::metrics::{Counted, Metrics};
use crate::stream::Run;
use bytes::Bytes;
use lectern_cloud::{Objects, PutIfError, StorageError};
use lectern_contract::Ticks;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_media::original::Piece;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Pauses between attempts: the first, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where the pieces of a run go.
#[derive(Debug)]
pub(super) struct Store {
    objects: Objects,
    prefix: RunPrefix,
    run: Arc<Run>,
    metrics: Metrics,
    give_up: CancellationToken,
}

/// What became of an attempt.
enum Outcome {
    /// These bytes are there.
    Stored,
    /// The key has other bytes: another shard that held itself for the owner had the same time. Nothing is overwritten.
    Taken,
}

impl Store {
    pub(super) fn new(objects: Objects, prefix: RunPrefix, run: Arc<Run>, metrics: Metrics, give_up: CancellationToken) -> Self {
        Self { objects, prefix, run, metrics, give_up }
    }

    /// Tries until S3 has confirmed the piece, or until there is no more time for it.
    pub(super) async fn store(&self, piece: Piece) {
        let (name, end) = (piece.name(), piece.end());
        let body = match piece.write() {
            Ok(body) => body,
            Err(error) => return self.lost(name, format!("the original cannot be written: {error}")),
        };
        drop(piece); // and with it the payloads that the history has let go of
        let size = body.len() as u64;
        tokio::select! {
            biased;
            () = self.put(name, body) => {}
            () = self.give_up.cancelled() => return self.lost(name, "the shard stopped before S3 took the last of the original".to_owned()),
        }
        self.metrics.original.objects.inc();
        self.metrics.original.bytes.inc_by(size);
        self.run.note_recording(|recording| {
            recording.stored = recording.stored.max(Some(end));
            recording.trouble = None;
        });
    }

    async fn put(&self, mut name: Ticks, body: Bytes) {
        let (mut pause, mut waiting) = (FIRST_PAUSE, None);
        for attempt in 0u32.. {
            let since = Instant::now();
            let outcome = self.attempt(&self.prefix.key(&ObjectName::Original(name)), &body).await;
            match outcome {
                Ok(Outcome::Stored) => {
                    self.metrics.original.waited.inc_by(since.elapsed().as_secs_f64());
                    return;
                }
                Ok(Outcome::Taken) => name = name.plus(Ticks(1)),
                Err(error) => {
                    waiting.get_or_insert_with(|| Counted::up(&self.metrics.original.waiting));
                    self.complain(&error, attempt);
                }
            }
            tokio::time::sleep(pause.mul_f64(0.75 + 0.25 * rand::random::<f64>())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.metrics.original.waited.inc_by(since.elapsed().as_secs_f64());
        }
    }

    async fn attempt(&self, key: &str, body: &Bytes) -> Result<Outcome, StorageError> {
        match self.objects.put_new(key, body.clone(), None).await {
            Ok(_) => Ok(Outcome::Stored),
            // Of an earlier attempt only the answer may have been lost.
            Err(PutIfError::Conflict { .. }) => match self.objects.get(key).await? {
                Some(there) if there.body == *body => Ok(Outcome::Stored),
                _ => Ok(Outcome::Taken),
            },
            Err(PutIfError::Storage(error)) => Err(error),
        }
    }

    fn complain(&self, error: &StorageError, attempt: u32) {
        if attempt.is_multiple_of(16) {
            tracing::warn!(run = %self.run.id(), stream = %self.run.stream(), %error, "a piece of the original waits for S3");
        }
        self.run.note_recording(|recording| recording.trouble = Some(format!("the original cannot be stored: {error}")));
    }

    fn lost(&self, name: Ticks, why: String) {
        tracing::error!(run = %self.run.id(), stream = %self.run.stream(), from = %name, why, "the original has a gap");
        self.metrics.original.gaps.inc();
        self.run.note_recording(|recording| {
            recording.gaps += 1;
            recording.trouble = Some(why);
        });
    }
}
