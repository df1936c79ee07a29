//! S3 behind the memory: one request for all that ask for the same key at the same time.

use crate::cache::ByteCache;
use crate::metrics::{FetchResult, Metrics};
use crate::public::Public;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use lectern_cloud::{FailureKind, Objects, StorageError};
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long an answer about an object that may change is given to others: a fraction of a playlist's life, and enough
/// to keep a thousand waiting players from asking S3 a thousand times.
const ANSWER_HOLDS: Duration = Duration::from_millis(500);

/// What S3 said: the object, none, or an error that all who asked get.
pub type Answer = Result<Option<Bytes>, Arc<StorageError>>;
type Flight = Shared<BoxFuture<'static, Answer>>;

/// The bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    objects: Objects,
    lately: ByteCache,
    flights: Mutex<HashMap<String, Flight>>,
    metrics: Metrics,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("at", self.objects.at()).finish_non_exhaustive()
    }
}

impl Store {
    /// The bucket behind `objects`, with `memory` bytes for segments that were lately read.
    pub fn new(objects: Objects, memory: usize, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { objects, lately: ByteCache::new(memory), flights: Mutex::default(), metrics }))
    }

    /// The object at `key`, which is a `what`.
    pub async fn get(&self, key: &str, what: Public) -> Answer {
        if let Some(body) = self.lately(key, what) {
            return Ok(Some(body));
        }
        let flight = {
            let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(key) {
                Some(flight) => flight.clone(),
                None => {
                    // Asked again under the lock: a flight that landed in between has left its object here.
                    if let Some(body) = self.lately(key, what) {
                        return Ok(Some(body));
                    }
                    let flight = self.start(key.to_owned(), what);
                    flights.insert(key.to_owned(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn lately(&self, key: &str, what: Public) -> Option<Bytes> {
        what.is_immutable().then(|| self.0.lately.get(key)).flatten()
    }

    /// In a task of its own: players that hang up must not cancel it for those that wait.
    fn start(&self, key: String, what: Public) -> Flight {
        let (hand_over, arrival) = tokio::sync::oneshot::channel();
        let inner = self.0.clone();
        let lost = key.clone();
        tokio::spawn(async move {
            let answer = inner.fetch(&key).await;
            let kept = match &answer {
                Ok(Some(body)) if what.is_immutable() => {
                    inner.lately.put(&key, body.clone());
                    true
                }
                _ => false,
            };
            let _ = hand_over.send(answer); // all who asked may have hung up
            if !kept {
                tokio::time::sleep(ANSWER_HOLDS).await;
            }
            inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
        let gone = move |gone| Arc::new(StorageError { kind: FailureKind::Other, what: format!("get of {lost}"), source: Box::new(gone) });
        arrival.map(|answer| answer.map_err(gone)?).boxed().shared()
    }

    /// The head of the run at `prefix`, read anew; `None` where the run has none.
    pub(crate) async fn head(&self, prefix: &RunPrefix) -> Result<Option<Head>, StorageError> {
        let key = prefix.key(&ObjectName::Head);
        let Some(object) = self.0.objects.get(&key).await? else { return Ok(None) };
        let malformed = |what: String| StorageError { kind: FailureKind::Other, what: format!("reading of {key}"), source: what.into() };
        let head: Head = serde_json::from_slice(&object.body).map_err(|error| malformed(error.to_string()))?;
        if head.run != prefix.run() {
            return Err(malformed(format!("it is the head of run {}", head.run)));
        }
        Ok(Some(head))
    }
}

impl Inner {
    async fn fetch(&self, key: &str) -> Answer {
        let answer = self.objects.get(key).await;
        self.metrics.fetch(match &answer {
            Ok(Some(_)) => FetchResult::Found,
            Ok(None) => FetchResult::Missing,
            Err(_) => FetchResult::Failed,
        });
        match answer {
            Ok(object) => Ok(object.map(|object| object.body)),
            Err(error) => {
                tracing::warn!(%error, "S3 gave no answer");
                Err(Arc::new(error))
            }
        }
    }
}
