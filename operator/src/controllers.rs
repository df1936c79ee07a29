//! What the leader runs: both controllers and the task that keeps RouteSlices.

use crate::args::Args;
use crate::context::{Context, Error, bounded, retry};
use crate::events::{self, Events};
use crate::metrics::Metrics;
use crate::placement::Resident;
use crate::reports::{Change, Reports};
use crate::routes::Changes;
use crate::wakes::{from_pools, from_reports, in_turn, streams_where};
use crate::{lost_nodes, pool, routes, stream};
use futures::stream::{BoxStream, select_all};
use futures::{Stream, StreamExt, TryStreamExt, future};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, Action, ReconcileRequest, applier, trigger_self, trigger_with};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, predicates, watcher};
use kube::{Client, Resource, ResourceExt};
use lectern_contract::{ShardName, StreamRef};
use lectern_crds::{EncodingLadder, LiveStream, POOL_LABEL, StreamPool};
use lectern_podkit::Tasks;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Guarded<K> = DeserializeGuard<K>;

/// Reconciles that run at a time, of each kind.
const CONCURRENCY: u16 = 16;
/// How often streams are counted by phase.
const COUNT: Duration = Duration::from_secs(10);
/// Every phase, so that one that nobody is in any more goes to zero.
const PHASES: [&str; 9] = ["Pending", "Refused", "Waiting", "Receiving", "Live", "Interrupted", "Ending", "Ended", "Deleting"];

/// Starts everything that only the leader may run.
pub fn start(
    client: Client,
    args: &Args,
    reports: Arc<Reports>,
    changes: mpsc::UnboundedReceiver<Change>,
    metrics: Metrics,
    tasks: &mut Tasks,
) {
    let (streams, streams_writer) = reflector::store();
    let (pools, pools_writer) = reflector::store();
    let (ladders, ladders_writer) = reflector::store();
    let (events, noted) = Events::new(args.pod_name.clone());
    let stores = (streams, pools, ladders);
    let (namespace, url) = (args.pod_namespace.clone(), args.operator_url());
    let ctx = Arc::new(Context::new(client.clone(), namespace, url, reports, stores, events, metrics));
    let (stop, changed) = (tasks.stop(), Arc::new(Changes::default()));

    let (seen, note) = (ctx.clone(), changed.clone());
    let watched_streams = watcher(Api::<Guarded<LiveStream>>::all(client.clone()), in_pages())
        .default_backoff()
        .modify(slim)
        .reflect(streams_writer)
        .inspect(move |event| {
            seen.filled.streams.note(event);
            note.note(event);
            if let Ok(watcher::Event::Delete(stream)) = event {
                seen.looked_at(&reference(stream));
            }
        })
        .touched_objects();
    let filled = ctx.filled.clone();
    let watched_ladders = watcher(Api::<Guarded<EncodingLadder>>::all(client.clone()), everything())
        .default_backoff()
        .modify(slim)
        .reflect(ladders_writer)
        .inspect(move |event| filled.ladders.note(event))
        .touched_objects();
    let filled = ctx.filled.clone();
    let watched_pools = watcher(Api::<Guarded<StreamPool>>::all(client.clone()), everything())
        .default_backoff()
        .modify(slim)
        .reflect(pools_writer)
        .inspect(move |event| filled.pools.note(event))
        .touched_objects();

    // The pools' store feeds both controllers; what the pool controller sees is passed on to the streams.
    let (pool_seen, pools_seen) = mpsc::unbounded_channel::<String>();
    let watched_pools = watched_pools.inspect(move |pool| {
        if let Ok(pool) = pool {
            // The receiver goes only when the process does.
            let _ = pool_seen.send(pool.name_any());
        }
    });

    tasks.spawn(
        "routes",
        routes::run(client.clone(), ctx.namespace.clone(), (ctx.streams.clone(), ctx.filled.streams.clone()), changed, stop.clone()),
    );
    tasks.spawn(
        "lost nodes",
        lost_nodes::run(client.clone(), ctx.namespace.clone(), ctx.reports.clone(), ctx.metrics.clone(), stop.clone()),
    );
    tasks.spawn("events", events::write(client, noted, stop.clone()));
    tasks.spawn("first pass", first_pass(ctx.clone(), stop.clone()));
    tasks.spawn("phases", count_phases(ctx.clone(), stop.clone()));
    let (asked, pools_asked) = mpsc::unbounded_channel();
    tasks.spawn("pools", run_pools(watched_pools, pools_asked, ctx.clone(), stop.clone()));
    let triggers = Triggers { changes, asked, pools_seen };
    tasks.spawn("streams", run_streams(watched_streams, watched_ladders, triggers, ctx, stop));
}

/// Watches serve any version from the API server's cache: a controller needs to be told, not to be first.
fn everything() -> watcher::Config {
    watcher::Config::default().any_semantic()
}

/// The same where there may be ten thousand: in pages, which the API server cuts of its current state only. Answers in one piece would each
/// be held three times, as bytes, as JSON and as objects, and what is freed of that is seldom given back.
fn in_pages() -> watcher::Config {
    watcher::Config::default().page_size(100)
}

/// Managed fields are more than half of an object in memory, what `kubectl apply` keeps of it is as large as its spec, and nobody here reads them.
fn slim<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// What wakes a controller.
type Wakes<K> = BoxStream<'static, Result<ReconcileRequest<Guarded<K>>, watcher::Error>>;

/// Turns a controller until `stop`: kube's `Controller` without its builder, because that would keep a store of its own and
/// takes no triggers from outside.
async fn turn<K, F>(
    wakes: Vec<Wakes<K>>,
    store: Store<Guarded<K>>,
    reconcile: impl Fn(Arc<Guarded<K>>, Arc<Context>) -> F,
    on_error: impl Fn(Arc<Guarded<K>>, &Error, Arc<Context>) -> Action,
    (ctx, stop): (Arc<Context>, CancellationToken),
) where
    K: Resource<DynamicType = ()> + Clone + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let queue = select_all(wakes).map_ok(bare).take_until(stop.cancelled_owned());
    let turning = applier(move |object, ctx| Box::pin(reconcile(object, ctx)), on_error, ctx, store, queue, config);
    let tell = |turned: Result<_, controller::Error<Error, watcher::Error>>| {
        // What a reconcile says has been logged with its object; a watch that fails would be silent otherwise.
        if let Err(controller::Error::QueueError(error)) = turned {
            tracing::warn!(%error, "a watch failed; it is started again");
        }
        future::ready(())
    };
    turning.for_each(tell).await;
}

/// The scheduler holds a request twice until it is due: a name and a namespace are all that counts of it.
fn bare<K: Resource<DynamicType = ()>>(mut request: ReconcileRequest<K>) -> ReconcileRequest<K> {
    request.obj_ref.extra = Default::default();
    request
}

async fn run_pools<W>(
    watched: W,
    asked: mpsc::UnboundedReceiver<String>,
    ctx: Arc<Context>,
    stop: CancellationToken,
) -> Result<(), Infallible>
where
    W: Stream<Item = Result<Guarded<StreamPool>, watcher::Error>> + Send + 'static,
{
    let (client, namespace) = (ctx.client(), ctx.namespace.clone());
    let asked = futures::stream::unfold(asked, async |mut asked| Some((asked.recv().await?, asked)));
    let wakes = vec![
        asked.map(|pool| Ok(ObjectRef::new(&pool).into())).boxed(),
        // Its status is this controller's own word: with streams that come by the dozen it would wake itself by counting them.
        trigger_self(watched.predicate_filter(predicates::generation, Default::default()), ()).boxed(),
        parts(of_namespace::<StatefulSet>(&client, &namespace)),
        parts(of_namespace::<Deployment>(&client, &namespace)),
        parts(of_namespace::<Service>(&client, &namespace)),
        parts(of_namespace::<Pod>(&client, &namespace)),
    ];
    turn(wakes, ctx.pools.clone(), reconcile_pool, retry_pool, (ctx.clone(), stop)).await;
    Ok(())
}

/// Wakes the pool that an object says it is part of. The label and not the owner reference: that one says nothing of its
/// owner having no namespace.
fn parts<K>(api: Api<PartialObjectMeta<K>>) -> Wakes<StreamPool>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let watched = watcher(api, everything().labels(POOL_LABEL)).default_backoff().touched_objects();
    trigger_with(watched, |part: PartialObjectMeta<K>| part.labels().get(POOL_LABEL).map(|pool| ObjectRef::new(pool))).boxed()
}

fn of_namespace<K>(client: &Client, namespace: &str) -> Api<PartialObjectMeta<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    Api::namespaced(client.clone(), namespace)
}

async fn reconcile_pool(guarded: Arc<Guarded<StreamPool>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let name = (String::new(), guarded.name_any());
    match guarded.0.clone() {
        Ok(found) => bounded("StreamPool", name, &ctx, pool::reconcile(Arc::new(found), ctx.clone())).await,
        Err(invalid) => {
            tracing::error!(pool = name.1, error = invalid.error, "this StreamPool cannot be read; it waits for a change");
            Ok(Action::await_change())
        }
    }
}

fn retry_pool(pool: Arc<Guarded<StreamPool>>, error: &Error, ctx: Arc<Context>) -> Action {
    retry("StreamPool", (String::new(), pool.name_any()), error, &ctx)
}

struct Triggers {
    changes: mpsc::UnboundedReceiver<Change>,
    /// Where changes go that are for pools.
    asked: mpsc::UnboundedSender<String>,
    pools_seen: mpsc::UnboundedReceiver<String>,
}

async fn run_streams<S, L>(streams: S, ladders: L, triggers: Triggers, ctx: Arc<Context>, stop: CancellationToken) -> Result<(), Infallible>
where
    S: Stream<Item = Result<Guarded<LiveStream>, watcher::Error>> + Send + 'static,
    L: Stream<Item = Result<Guarded<EncodingLadder>, watcher::Error>> + Send + 'static,
{
    let by_ladder = {
        let streams = ctx.streams.clone();
        move |ladder: Guarded<EncodingLadder>| {
            let name = ladder.name_any();
            streams_where(&streams, move |stream| stream.spec.ladder.name.as_deref() == Some(name.as_str()))
        }
    };
    let wakes = vec![
        trigger_self(streams, ()).boxed(),
        trigger_with(ladders, by_ladder).boxed(),
        from_reports(triggers.changes, ctx.streams.clone(), triggers.asked).map(|stream| Ok(stream.into())).boxed(),
        from_pools(triggers.pools_seen, ctx.clone()).map(|stream| Ok(stream.into())).boxed(),
        in_turn(ctx.clone()).map(|stream| Ok(stream.into())).boxed(),
    ];
    turn(wakes, ctx.streams.clone(), reconcile_stream, retry_stream, (ctx.clone(), stop)).await;
    Ok(())
}

async fn reconcile_stream(guarded: Arc<Guarded<LiveStream>>, ctx: Arc<Context>) -> Result<Action, Error> {
    ready(&ctx).await;
    let outcome = reconcile_readable(&guarded, &ctx).await;
    ctx.looked_at(&reference(guarded.as_ref()));
    outcome
}

async fn reconcile_readable(guarded: &Guarded<LiveStream>, ctx: &Arc<Context>) -> Result<Action, Error> {
    let name = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    let found = match &guarded.0 {
        Ok(found) => Arc::new(found.clone()),
        Err(invalid) => {
            tracing::error!(
                namespace = name.0,
                name = name.1,
                error = invalid.error,
                "this LiveStream cannot be read; it waits for a change"
            );
            return Ok(Action::await_change());
        }
    };
    bounded("LiveStream", name, ctx, stream::reconcile(found, ctx.clone())).await
}

fn retry_stream(stream: Arc<Guarded<LiveStream>>, error: &Error, ctx: Arc<Context>) -> Action {
    retry("LiveStream", (stream.namespace().unwrap_or_default(), stream.name_any()), error, &ctx)
}

/// Waits until everything that a stream may name is known, and knows who is on which shard: a pool that has not been read
/// yet is not an unknown one, and a shard whose streams are not counted is not an empty one.
async fn ready(ctx: &Context) {
    tokio::join!(ctx.filled.pools.wait(), ctx.filled.ladders.wait(), ctx.filled.streams.wait());
    ctx.book.seed(|| ctx.streams.state().iter().filter_map(|guarded| entry(guarded.0.as_ref().ok()?)).collect());
    if ctx.first_pass.begin(|| ctx.streams.state().iter().map(|guarded| reference(guarded.as_ref())).collect()) {
        ctx.is_in_sync();
    }
}

fn entry(stream: &LiveStream) -> Option<(Resident, ShardName)> {
    // A stream that has a route is one that has a shard to hold.
    let route = routes::route(stream)?;
    Some((stream::resident(stream, stream.status.as_ref()), ShardName(route.shard)))
}

/// The streams that are there when everything is known are those of the first pass.
async fn first_pass(ctx: Arc<Context>, stop: CancellationToken) -> Result<(), Infallible> {
    if stop.run_until_cancelled(ready(&ctx)).await.is_some() {
        stop.cancelled().await;
    }
    Ok(())
}

fn reference(stream: &impl ResourceExt) -> StreamRef {
    StreamRef { namespace: stream.namespace().unwrap_or_default(), name: stream.name_any() }
}

async fn count_phases(ctx: Arc<Context>, stop: CancellationToken) -> Result<(), Infallible> {
    loop {
        if stop.run_until_cancelled(tokio::time::sleep(COUNT)).await.is_none() {
            return Ok(());
        }
        let mut phases: BTreeMap<&'static str, i64> = PHASES.iter().map(|phase| (*phase, 0)).collect();
        for stream in ctx.streams.state() {
            let phase = stream.0.as_ref().ok().and_then(|stream| stream.status.as_ref()?.phase.clone());
            let phase = PHASES.iter().find(|known| Some(**known) == phase.as_deref()).unwrap_or(&PHASES[0]);
            *phases.entry(phase).or_default() += 1;
        }
        ctx.metrics.streams(&phases);
    }
}
