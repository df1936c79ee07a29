//! What every reconcile shares, and how one can fail.

use crate::backoff::Backoff;
use crate::cloud::{CloudError, Clouds};
use crate::events::Events;
use crate::first_pass::FirstPass;
use crate::metrics::Metrics;
use crate::placement::Book;
use crate::placement::zones::Zones;
use crate::pool::checks::Checks;
use crate::reports::{Reports, STALE};
use crate::stores::Filled;
use crate::stream::key::KeyBook;
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use lectern_contract::StreamRef;
use lectern_crds::{EncodingLadder, LiveStream, StreamPool};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a whole reconcile may take.
pub const RECONCILE: Duration = Duration::from_secs(20);

/// What every reconcile shares.
#[derive(Debug)]
pub struct Context {
    /// The API server.
    pub client: DebugClient,
    /// The namespace of the operator and of the pools' pods.
    pub namespace: String,
    /// Where pods report to.
    pub operator_url: String,
    /// What pods said last.
    pub reports: Arc<Reports>,
    /// When this process began to lead: until reports had time to arrive, silence means nothing.
    pub leading_since: Instant,
    /// All LiveStreams.
    pub streams: Store<DeserializeGuard<LiveStream>>,
    /// All StreamPools.
    pub pools: Store<DeserializeGuard<StreamPool>>,
    /// All EncodingLadders.
    pub ladders: Store<DeserializeGuard<EncodingLadder>>,
    /// Which of these three are filled.
    pub filled: AllFilled,
    /// Which LiveStreams were not looked at yet.
    pub first_pass: FirstPass,
    /// What the pools' objects were when they were applied last.
    pub applied: crate::apply::Applied,
    /// Who is on which shard.
    pub book: Book,
    /// In which zones the shards are.
    pub zones: Zones,
    /// Stream keys as they were read last.
    pub keys: KeyBook,
    /// When cameras' credentials were carried over last.
    pub cameras: crate::stream::camera::CameraBook,
    /// The pods of silent shards as they were seen last.
    pub shard_pods: crate::stream::owner::ShardPods,
    /// Copies of LiveStreams that are older than what this process has written.
    pub superseded: crate::stream::superseded::Superseded,
    /// Jobs that this process has sent.
    pub sent: crate::stream::dispatch::Sent,
    /// The labels of namespaces.
    pub namespaces: crate::stream::tenants::Namespaces,
    /// Streams that wait for a transcoder.
    pub waiting: crate::pool::waiting::Waiting,
    /// How many transcoder pods were needed of late.
    pub peaks: crate::pool::demand::Peaks,
    /// Queues and buckets.
    pub clouds: Clouds,
    /// What the pools' queues and buckets said last.
    pub checks: Checks,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Failures in a row by kind, namespace and name.
    pub backoff: Backoff<(&'static str, String, String)>,
}

/// All LiveStreams, StreamPools and EncodingLadders.
pub type Stores = (Store<DeserializeGuard<LiveStream>>, Store<DeserializeGuard<StreamPool>>, Store<DeserializeGuard<EncodingLadder>>);

/// When each of the stores has been filled.
#[derive(Debug, Clone, Default)]
pub struct AllFilled {
    /// LiveStreams.
    pub streams: Filled,
    /// StreamPools.
    pub pools: Filled,
    /// EncodingLadders.
    pub ladders: Filled,
}

/// A client that can stand in a `Debug` struct.
#[derive(Clone)]
pub struct DebugClient(pub Client);

impl std::fmt::Debug for DebugClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Context {
    /// Of a process that begins to lead now and remembers nothing.
    pub fn new(
        client: Client,
        namespace: String,
        operator_url: String,
        reports: Arc<Reports>,
        (streams, pools, ladders): Stores,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        Self {
            client: DebugClient(client),
            namespace,
            operator_url,
            reports,
            leading_since: Instant::now(),
            streams,
            pools,
            ladders,
            applied: Default::default(),
            book: Default::default(),
            zones: Default::default(),
            keys: Default::default(),
            cameras: Default::default(),
            shard_pods: Default::default(),
            superseded: Default::default(),
            sent: Default::default(),
            namespaces: Default::default(),
            waiting: Default::default(),
            peaks: Default::default(),
            filled: Default::default(),
            first_pass: Default::default(),
            clouds: Default::default(),
            checks: Default::default(),
            events,
            metrics,
            backoff: Default::default(),
        }
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// `stream` was looked at, or is gone: with the last of those that were there at the beginning this process is in sync.
    pub fn looked_at(&self, stream: &StreamRef) {
        if self.first_pass.looked_at(stream) {
            self.is_in_sync();
        }
    }

    /// Says that every LiveStream was looked at.
    pub fn is_in_sync(&self) {
        self.metrics.in_sync();
        tracing::info!(after_ms = self.leading_since.elapsed().as_millis(), "in sync: every LiveStream was looked at");
    }

    /// Whether pods that live had time to report to this leader: the Service has to find us (a second or two), then a
    /// report comes every second.
    pub fn is_settled(&self) -> bool {
        self.leading_since.elapsed() >= STALE + Duration::from_secs(2)
    }
}

/// Why a reconcile did not come to its end. All of these are tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// S3 or SQS.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// A pool's certificates.
    #[error(transparent)]
    Trust(#[from] crate::trust::TrustError),
    /// It took too long.
    #[error("the reconcile did not end within {RECONCILE:?}")]
    TooLong,
}

impl Error {
    /// One of a closed set, for metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Kube(error) if crate::apply::is_conflict(error) => "conflict",
            Self::Kube(_) => "api",
            Self::Cloud(_) => "cloud",
            Self::Trust(_) => "trust",
            Self::TooLong => "timeout",
        }
    }
}

/// Wraps a reconcile: bounded in time, counted, a stale copy tried again at once instead of being called a failure.
pub async fn bounded(
    kind: &'static str,
    key: (String, String),
    ctx: &Context,
    reconcile: impl Future<Output = Result<Action, Error>>,
) -> Result<Action, Error> {
    let outcome = tokio::time::timeout(RECONCILE, reconcile).await.unwrap_or(Err(Error::TooLong));
    ctx.metrics.reconcile(kind, outcome.as_ref().map_or_else(Error::outcome, |_| "ok"));
    match outcome {
        Err(Error::Kube(error)) if crate::apply::is_conflict(&error) => {
            tracing::debug!(kind, namespace = key.0, name = key.1, "decided on an old copy; again with the new one");
            Ok(Action::requeue(Duration::from_millis(200)))
        }
        Ok(action) => {
            ctx.backoff.succeeded(&(kind, key.0, key.1));
            Ok(action)
        }
        Err(error) => Err(error),
    }
}

/// What follows a failed reconcile: a longer wait with each failure of the same object.
pub fn retry(kind: &'static str, key: (String, String), error: &Error, ctx: &Context) -> Action {
    let wait = ctx.backoff.failed((kind, key.0.clone(), key.1.clone()));
    tracing::warn!(kind, namespace = key.0, name = key.1, %error, wait_s = wait.as_secs(), "reconcile failed; trying again");
    Action::requeue(wait)
}
