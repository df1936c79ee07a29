//! Waiting for S3.

use super::document::{Outcome, Written};
use crate::retry::Backoff;
use crate::status::Status;
use bytes::Bytes;
use lectern_cloud::StorageError;
use lectern_contract::SegmentNumber;
use lectern_contract::document::Mark;
use lectern_contract::keys::ObjectName;
use std::time::Duration;
use tokio::time::Instant;

/// Waits for S3 to take an object of the books, and tells of it, for as long as there is time.
#[derive(Debug)]
pub struct Patient {
    status: Status,
    name: ObjectName,
    since: Instant,
    patience: Duration,
    backoff: Backoff,
    gave_up: bool,
}

impl Patient {
    /// For so long, from now on.
    pub fn new(status: &Status, name: ObjectName, patience: Duration) -> Self {
        Self { status: status.clone(), name, since: Instant::now(), patience, backoff: Backoff::default(), gave_up: false }
    }

    /// Writes a document; whether a newer owner of the run has.
    pub async fn write(
        mut self,
        document: &mut Written,
        to: Option<SegmentNumber>,
        mut text: impl FnMut(Mark, Option<&[u8]>) -> Bytes,
    ) -> bool {
        loop {
            match document.write(to, &mut text).await {
                Ok(outcome) => return matches!(outcome, Outcome::Overtaken(_)),
                Err(error) if self.gives_up(&error).await => return false,
                Err(_) => {}
            }
        }
    }

    /// Waits before another try; `true`, and says so, where there is no time left for one.
    pub async fn gives_up(&mut self, error: &StorageError) -> bool {
        let name = &self.name;
        self.status.trouble("books", Some(format!("{name} cannot be stored: {error}")));
        self.gave_up = self.since.elapsed() > self.patience;
        if self.gave_up {
            tracing::error!(%error, %name, "given up");
        } else {
            tokio::time::sleep(self.backoff.next_wait()).await;
        }
        self.gave_up
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        if !self.gave_up {
            self.status.trouble("books", None);
        }
    }
}
