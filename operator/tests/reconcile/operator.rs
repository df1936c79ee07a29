//! An operator that leads, whose shards report, over a server that is a script.

use crate::server::{Server, Step, ok};
use k8s_openapi::ByteString;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, Lookup, Store};
use kube::runtime::watcher;
use lectern_cloud::Keys;
use lectern_contract::cost::{Budget, Class, Needs};
use lectern_contract::job::LiveJob;
use lectern_contract::report::{IngestRun, Publisher, Report, Role};
use lectern_contract::{KeyHash, StreamRef, Ticks, WallMillis};
use lectern_crds::{DEFAULT_LADDER, LiveStream, LiveStreamStatus, StreamPool};
use lectern_operator::cloud::Clouds;
use lectern_operator::conditions;
use lectern_operator::context::{Context, Error, bounded, retry};
use lectern_operator::events::{Events, Written};
use lectern_operator::metrics::Metrics;
use lectern_operator::reports::{Change, Reports};
use lectern_operator::stream::{FINALIZER, reconcile};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

pub const SHARD: &str = "lectern-ingest-default-0";

pub struct Operator {
    pub server: Server,
    client: Client,
    pools: Vec<StreamPool>,
    ctx: Arc<Context>,
    noted: Written,
    changes: UnboundedReceiver<Change>,
    /// What the shard says it receives.
    runs: Vec<IngestRun>,
}

/// How a reconcile went.
#[derive(Debug)]
pub struct Look {
    /// What it failed with.
    pub error: Option<Error>,
    /// What the controller does next.
    pub next: Action,
    /// The bodies of its requests.
    pub bodies: Vec<Value>,
}

impl Operator {
    /// One that has led for long enough to have heard of everything.
    pub fn with(pools: impl IntoIterator<Item = StreamPool>) -> Self {
        let (server, client) = Server::new();
        let pools: Vec<_> = pools.into_iter().collect();
        let (ctx, noted, changes) = leading(&client, &pools);
        Self { server, client, pools, ctx, noted, changes, runs: Vec::new() }
    }

    /// One that has placed the stream `algebra` in this pool.
    pub async fn with_algebra_in(pool: StreamPool) -> Self {
        let mut operator = Self::with([pool]);
        let mut new = stream("algebra", json!({}));
        new["metadata"]["finalizers"] = json!([FINALIZER]);
        operator.server.hold("livestreams/algebra", new);
        operator.looks_at("algebra", [ok("POST secrets"), ok("PATCH livestreams/algebra/status")]).await;
        operator
    }

    /// Another process takes its place, which knows what the server holds and nothing else.
    pub fn is_replaced(&mut self) {
        (self.ctx, self.noted, self.changes) = leading(&self.client, &self.pools);
    }

    /// Somebody publishes to the stream from now on.
    pub fn hears_a_publisher_of(&mut self, name: &str) {
        let publisher = Publisher::Publishing {
            remote: "192.0.2.1:9".into(),
            backup: false,
            codecs: vec!["avc1.64001f".into(), "mp4a.40.2".into()],
            picture: Some((1280, 720)),
            bitrate: 2_000_000,
            newest: Ticks(0),
        };
        let stream = StreamRef { namespace: "school".into(), name: name.to_owned() };
        let run = self.status(name).run_id.unwrap().as_str().into();
        self.runs.push(IngestRun { stream, run, publisher, standby: None, recording: None });
    }

    /// A transcoder pod reports a free slot; three seconds later that is forgotten.
    pub fn hears_of_a_free_slot_in(&self, pod: &str) {
        let (class, budget, taken) = (Class::Software, Budget::default(), Needs::default());
        let role = Role::Transcoder { slots: 1, class, budget, taken, runs: Vec::new(), jobs: Vec::new() };
        self.ctx.reports.take(Report { pod: pod.into(), pool: "default".into(), began: WallMillis(1), role }, Instant::now());
    }

    /// The jobs in the answer to a report of the pod.
    pub fn gives(&self, pod: &str) -> Vec<LiveJob> {
        self.ctx.reports.answer(pod, Instant::now()).jobs
    }

    /// Reconciles the stream as the server holds it; `script` is all that may be asked, in this order.
    pub async fn looks_at<const N: usize>(&mut self, name: &str, script: [Step; N]) -> Look {
        let copy = self.copy(name);
        self.looks_at_copy(copy, script).await
    }

    /// The same of a copy that may be older.
    pub async fn looks_at_copy<const N: usize>(&mut self, copy: LiveStream, script: [Step; N]) -> Look {
        let role = Role::Ingest { runs: self.runs.clone(), draining: false, orphans: Vec::new() };
        self.ctx.reports.take(Report { pod: SHARD.into(), pool: "default".into(), began: WallMillis(1), role }, Instant::now());
        let key = || ("school".to_owned(), copy.metadata.name.clone().unwrap());
        let (mut script, mut bodies) = (script.into_iter(), Vec::new());
        let mut look = pin!(bounded("LiveStream", key(), &self.ctx, reconcile(Arc::new(copy.clone()), self.ctx.clone())));
        let outcome = loop {
            tokio::select! {
                outcome = &mut look => break outcome,
                () = tokio::time::sleep(seconds(60)) => panic!("it does not come to an end"),
                asked = self.server.asked() => bodies.push(self.server.answer(asked, script.next()).await),
            }
        };
        let left: Vec<_> = script.collect();
        assert!(left.is_empty(), "never asked: {left:?}; {outcome:?}");
        match outcome {
            Ok(next) => Look { error: None, next, bodies },
            Err(error) => Look { next: retry("LiveStream", key(), &error, &self.ctx), error: Some(error), bodies },
        }
    }

    /// The stream as the server holds it.
    pub fn copy(&self, name: &str) -> LiveStream {
        serde_json::from_value(self.server.get(&format!("livestreams/{name}")).unwrap().clone()).unwrap()
    }

    pub fn status(&self, name: &str) -> LiveStreamStatus {
        self.copy(name).status.unwrap_or_default()
    }

    /// Status, reason and message of a condition.
    pub fn told(&self, name: &str, kind: &str) -> (String, String, String) {
        let status = self.status(name);
        let condition = conditions::find(&status.conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    /// The Events since the last call, each with its reason and text.
    pub fn noted(&mut self) -> Vec<(String, String)> {
        let of = |event: Event| (event.reason.unwrap(), event.note.unwrap());
        std::iter::from_fn(|| self.noted.try_recv().ok()).map(of).collect()
    }

    /// The streams that were woken since the last call.
    pub fn woken(&mut self) -> Vec<String> {
        let of = |change| match change {
            Change::Stream(stream) => Some(stream.name),
            Change::Shard(_) | Change::Pool(_) => None,
        };
        std::iter::from_fn(|| self.changes.try_recv().ok()).filter_map(of).collect()
    }
}

fn leading(client: &Client, pools: &[StreamPool]) -> (Arc<Context>, Written, UnboundedReceiver<Change>) {
    let (reports, changes) = Reports::new();
    let (events, noted) = Events::new("lectern-operator-0".into());
    let pools = pools.iter().map(|pool| serde_json::to_value(pool).unwrap());
    let stores = (store([]), store(pools), store([ladder()]));
    let (namespace, url) = ("lectern".to_owned(), "http://lectern-operator.lectern.svc:7100".to_owned());
    let mut ctx = Context::new(client.clone(), namespace, url, reports, stores, events, Metrics::default());
    ctx.leading_since = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
    ctx.clouds = Clouds::with_keys(Keys { id: "id".into(), secret: "secret".into() });
    (Arc::new(ctx), noted, changes)
}

/// A store that its watch has filled.
fn store<K>(objects: impl IntoIterator<Item = Value>) -> Store<DeserializeGuard<K>>
where
    K: Clone + DeserializeOwned + 'static,
    DeserializeGuard<K>: Lookup<DynamicType: Default + Eq + Hash + Clone> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::Apply(DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))));
    }
    store
}

/// A pool of one shard; `ingest` comes on top of what it says of ingest.
pub fn pool(name: &str, ingest: Value) -> StreamPool {
    let mut pool: StreamPool = serde_yaml::from_str(include_str!("../golden/pool.yaml")).unwrap();
    let mut spec = serde_json::to_value(&pool.spec.ingest).unwrap();
    spec["shards"] = json!(1);
    spec.as_object_mut().unwrap().extend(ingest.as_object().unwrap().clone());
    pool.spec.ingest = serde_json::from_value(spec).unwrap();
    pool.metadata.name = Some(name.to_owned());
    pool
}

fn ladder() -> Value {
    json!({
        "apiVersion": "lectern.video/v1alpha1", "kind": "EncodingLadder", "metadata": { "name": DEFAULT_LADDER },
        "spec": {
            "video": [{ "name": "360p", "width": 640, "height": 360, "bitrate": 600_000 }],
            "audio": [{ "name": "audio", "bitrate": 96_000 }],
        },
    })
}

/// A LiveStream as somebody has just created it.
pub fn stream(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream",
        "metadata": { "name": name, "namespace": "school", "uid": format!("uid-of-{name}"), "generation": 1 },
        "spec": spec,
    })
}

/// The hash of the key in a Secret.
pub fn key_hash(secret: &Value) -> String {
    let key: ByteString = serde_json::from_value(secret["data"]["key"].clone()).unwrap();
    KeyHash::of(std::str::from_utf8(&key.0).unwrap()).0
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
