//! The pools' queues and buckets: one client each, made at first use and kept.

use lectern_cloud::{BucketAt, FailureKind, Keys, Objects, Queue, QueueAt};
use lectern_crds::StreamPoolSpec;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// No call to the cloud may hold a reconcile up for longer.
pub const CALL: Duration = Duration::from_secs(6);

/// Clients by place.
#[derive(Default)]
pub struct Clouds {
    buckets: Mutex<HashMap<BucketAt, Objects>>,
    queues: Mutex<HashMap<QueueAt, Queue>>,
    keys: Option<Keys>,
}

/// Why the cloud did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CloudError {
    /// A condition's reason: Unreachable, Throttled, Denied, NotFound or Failed.
    pub reason: &'static str,
    /// For people: what was tried, and what came back.
    pub message: String,
}

impl std::fmt::Debug for Clouds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clouds")
    }
}

impl Clouds {
    /// Clients with an access key given outright, for servers started by tests.
    pub fn with_keys(keys: Keys) -> Self {
        Self { keys: Some(keys), ..Self::default() }
    }

    /// The bucket of a pool.
    pub async fn objects(&self, pool: &StreamPoolSpec) -> Objects {
        let at = BucketAt::new(&pool.bucket.name, &pool.bucket.region, pool.bucket.endpoint.clone());
        if let Some(known) = lock(&self.buckets).get(&at) {
            return known.clone();
        }
        let made = match &self.keys {
            Some(keys) => Objects::connect_with(&at, keys).await,
            None => Objects::connect(&at).await,
        };
        lock(&self.buckets).insert(at, made.clone());
        made
    }

    /// The queue of a pool's lectures.
    pub async fn queue(&self, pool: &StreamPoolSpec) -> Queue {
        self.queue_at(queue_of(pool)).await
    }

    /// The queue of what a pool's idle slots are for.
    pub async fn archive_queue(&self, pool: &StreamPoolSpec) -> Queue {
        self.queue_at(queue_of(pool).archive()).await
    }

    async fn queue_at(&self, at: QueueAt) -> Queue {
        if let Some(known) = lock(&self.queues).get(&at) {
            return known.clone();
        }
        let made = match &self.keys {
            Some(keys) => Queue::connect_with(&at, keys).await,
            None => Queue::connect(&at).await,
        };
        lock(&self.queues).insert(at, made.clone());
        made
    }
}

fn queue_of(pool: &StreamPoolSpec) -> QueueAt {
    QueueAt::new(&pool.queue.name, &pool.queue.region, pool.queue.endpoint.clone())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a call to the cloud, but not for longer than `limit`. `what` names it for people: `the queue lectern-jobs`.
pub async fn within<T, E>(limit: Duration, what: &str, call: impl Future<Output = Result<T, E>>) -> Result<T, CloudError>
where
    E: Failure,
{
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CloudError { reason: error.reason(), message: error.to_string() }),
        Err(_) => Err(CloudError { reason: "Unreachable", message: format!("{what} did not answer within {limit:?}") }),
    }
}

/// An error of the cloud with a kind.
pub trait Failure: std::error::Error {
    /// Its kind as a condition's reason.
    fn reason(&self) -> &'static str;
}

impl Failure for lectern_cloud::StorageError {
    fn reason(&self) -> &'static str {
        reason(self.kind)
    }
}

impl Failure for lectern_cloud::QueueError {
    fn reason(&self) -> &'static str {
        reason(self.kind)
    }
}

fn reason(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Unreachable => "Unreachable",
        FailureKind::Throttled => "Throttled",
        FailureKind::Skewed => "ClockSkewed",
        FailureKind::Denied => "Denied",
        FailureKind::NotFound => "NotFound",
        FailureKind::Other => "Failed",
    }
}
