//! What the cluster, the pods' reports and S3 say of a stream.

use super::claims::ENDED;
use super::place::Fleet;
use super::tenants::{self, Tenancy};
use super::{run_id, schedule, status_of, stream_ref};
use crate::cloud::within;
use crate::conditions;
use crate::context::{Context, Error};
use crate::placement::shards_of;
use crate::reports::{ShardSaid, Standing, TranscoderSaid};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::report::TranscoderState;
use lectern_contract::{Epoch, RunId, StreamRef};
use lectern_crds::{EncodingLadderSpec, LiveStream, LiveStreamStatus, PlacementStatus, StreamPoolSpec};
use std::time::Duration;
use tokio::time::Instant;

/// How long S3 may take to say what a run's head is.
const HEAD: Duration = Duration::from_secs(4);
/// How long a shard that a stream has moved to may take to see its publisher, before that counts as gone: the routes have to
/// reach the shards, and the publisher the new one.
const HANDOVER: SignedDuration = SignedDuration::from_secs(5);

/// Everything that a plan may depend on besides the stream itself: the world, the time, and a throw of the dice.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was seen.
    pub now: Timestamp,
    /// Pods that live had time to report to this operator; before, silence says nothing.
    pub settled: bool,
    /// The stream is to end: somebody said so, deleted it, or its time is over.
    pub ending: bool,
    /// The stream's pool, if it exists.
    pub pool: Option<StreamPoolSpec>,
    /// The names of all pools.
    pub pools: Vec<String>,
    /// What its namespace has of the pool.
    pub tenancy: Tenancy,
    /// The ladder that the stream names, if it exists.
    pub ladder: Option<EncodingLadderSpec>,
    /// The names of all ladders.
    pub ladders: Vec<String>,
    /// What the stream's shard says.
    pub shard: ShardSaid,
    /// The stream has just moved there: that the shard has not seen its publisher yet says nothing.
    pub arriving: bool,
    /// The pool's shards.
    pub fleet: Fleet,
    /// What the stream's transcoder says.
    pub transcoder: Option<TranscoderSaid>,
    /// A pod has room for the stream's job.
    pub has_room: bool,
    /// What S3 says, asked only where no report answers.
    pub head: HeadSeen,
    /// The last attempt that this process knows to be in the queue, written down or not.
    pub sent: Option<u32>,
    /// The namespace of the pools' pods.
    pub namespace: String,
    /// The name of the run, should the stream have none yet.
    pub fresh_run: RunId,
}

impl Seen {
    /// The shard keeps the original, and may still be storing the last of it.
    pub fn is_recording(&self) -> bool {
        matches!(&self.shard, ShardSaid::Run(run) if run.recording.is_some())
    }
}

/// What S3 says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadSeen {
    /// There was no need to ask.
    NotAsked,
    /// Nobody has claimed the run yet.
    Absent,
    /// It is claimed and goes on.
    Open,
    /// It is complete.
    Ended,
    /// S3 did not say.
    Unreadable(String),
}

/// Looks at the world. Talks to S3 only while a run ends whose transcoder nobody hears of.
pub async fn observe(stream: &LiveStream, ctx: &Context) -> Result<Seen, Error> {
    let (now, status) = (Instant::now(), status_of(stream));
    let run = status.run_id.clone().map(RunId);
    let ending = schedule::is_to_end(stream, Timestamp::now());
    let pool = named(&ctx.pools, &stream.spec.pool_name).map(|pool| pool.spec);
    let transcoder = run.as_ref().and_then(|run| ctx.reports.transcoder(run, now));
    let complete = conditions::holds(&status.conditions, ENDED) || transcoder.as_ref().is_some_and(says_ended);
    let head = match (&pool, &run) {
        (Some(pool), Some(run)) if ending && !complete && status.dispatch.is_some() => read_head(&stream_ref(stream), run, pool, ctx).await,
        _ => HeadSeen::NotAsked,
    };
    let shard = match (&run, &status.placement) {
        (Some(run), Some(placement)) => ctx.reports.shard(&placement.shard, run, now),
        _ => ShardSaid::Silent,
    };
    let settled = ctx.is_settled();
    let fleet = match &pool {
        Some(pool) => look_at_shards(stream, pool, &status, (settled, now), ctx).await?,
        None => Fleet::default(),
    };
    let tenancy = tenants::look(stream, pool.as_ref().map(|pool| pool.tenants.as_slice()).unwrap_or_default(), ctx).await?;
    let ladder = stream.spec.ladder.name.as_ref().and_then(|name| named(&ctx.ladders, name)).map(|ladder| ladder.spec);
    Ok(Seen {
        now: Timestamp::now(),
        settled,
        ending,
        pools: if pool.is_some() { Vec::new() } else { names(&ctx.pools) },
        ladders: if ladder.is_some() { Vec::new() } else { names(&ctx.ladders) },
        pool,
        tenancy,
        ladder,
        arriving: is_arriving(status.placement.as_ref(), Timestamp::now()),
        fleet,
        shard,
        transcoder,
        has_room: false,
        head,
        sent: stream.uid().and_then(|uid| ctx.sent.attempt(&uid)),
        namespace: ctx.namespace.clone(),
        fresh_run: run_id::run_id(Timestamp::now(), rand::random(), stream.spec.viewing),
    })
}

/// How the pool's shards stand. The API server is asked only for the pod of a shard that is silent.
async fn look_at_shards(
    stream: &LiveStream,
    pool: &StreamPoolSpec,
    status: &LiveStreamStatus,
    (settled, now): (bool, Instant),
    ctx: &Context,
) -> Result<Fleet, Error> {
    let zones = ctx.zones.of(&stream.spec.pool_name);
    let mut shards = shards_of(&stream.spec.pool_name, pool.ingest.shards);
    for shard in &mut shards {
        shard.zone = zones.get(&shard.name.0).cloned();
    }
    let standing = ctx.reports.standing(shards.iter().map(|shard| &shard.name), now);
    let mut fleet = Fleet { shards: shards.into_iter().zip(standing).collect(), ..Fleet::default() };
    let (Some(held), Some(run)) = (&status.placement, &status.run_id) else { return Ok(fleet) };
    let is_silent = |(shard, standing): &(crate::placement::Shard, Standing)| shard.name.0 == held.shard && *standing == Standing::Silent;
    if settled && fleet.shards.iter().any(is_silent) {
        fleet.adopter = ctx.reports.adopter(&RunId(run.clone()), Epoch(u64::try_from(held.epoch).unwrap_or(0)), now);
        fleet.owner_is_down = ctx.shard_pods.is_down(&held.shard, ctx.client(), &ctx.namespace).await?;
    }
    Ok(fleet)
}

fn is_arriving(placement: Option<&PlacementStatus>, now: Timestamp) -> bool {
    let moved = placement.filter(|placement| placement.epoch > 1).and_then(|placement| placement.since.as_ref());
    // Another's clock may be a little ahead; one that is far ahead says nothing.
    moved.is_some_and(|since| now.duration_since(since.0).abs() < HANDOVER)
}

/// Whether these words say that the run is complete. Old ones count, too: a run does not become incomplete again.
pub fn says_ended(said: &TranscoderSaid) -> bool {
    matches!(said.run.state, TranscoderState::Ended { .. })
}

async fn read_head(stream: &StreamRef, run: &RunId, pool: &StreamPoolSpec, ctx: &Context) -> HeadSeen {
    let objects = ctx.clouds.objects(pool).await;
    let key = RunPrefix::of(stream, run).key(&ObjectName::Head);
    match within(HEAD, &format!("bucket {}", pool.bucket.name), objects.get(&key)).await {
        Ok(None) => HeadSeen::Absent,
        Ok(Some(object)) => match serde_json::from_slice::<Head>(&object.body) {
            Ok(head) if head.ended => HeadSeen::Ended,
            Ok(_) => HeadSeen::Open,
            Err(error) => HeadSeen::Unreadable(format!("{key} is no head: {error}")),
        },
        Err(error) => HeadSeen::Unreadable(error.message),
    }
}

fn named<K>(store: &Store<DeserializeGuard<K>>, name: &str) -> Option<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name))?.0.clone().ok()
}

fn names<K>(store: &Store<DeserializeGuard<K>>) -> Vec<String>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let mut names: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
    names.sort();
    names
}
