//! Which LiveStreams are woken by what happens elsewhere, in their pool and on its shards, and which because it is their turn.

use crate::conditions::holds;
use crate::context::Context;
use crate::placement::shards_of;
use crate::reports::Change;
use crate::stream::claims::ENDED;
use futures::{Stream, StreamExt};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use lectern_contract::ShardName;
use lectern_crds::{LiveStream, StreamPoolSpec};
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::interval;

/// How often every stream that has not ended is looked at, whatever happens.
pub const TURN: Duration = Duration::from_secs(300);

/// The streams that a report gives reason to look at; the pools go to `pools`.
pub fn from_reports(
    changes: mpsc::UnboundedReceiver<Change>,
    streams: Store<DeserializeGuard<LiveStream>>,
    pools: mpsc::UnboundedSender<String>,
) -> impl Stream<Item = ObjectRef<DeserializeGuard<LiveStream>>> {
    let refs = futures::stream::unfold(changes, move |mut changes| {
        let (streams, pools) = (streams.clone(), pools.clone());
        async move {
            let woken = match changes.recv().await? {
                Change::Pool(pool) => {
                    // The receiver goes only when the process does.
                    let _ = pools.send(pool);
                    Vec::new()
                }
                Change::Stream(stream) => vec![ObjectRef::new(&stream.name).within(&stream.namespace)],
                Change::Shard(shard) => streams_where(&streams, |stream| is_on(stream, &shard)),
            };
            Some((futures::stream::iter(woken), changes))
        }
    });
    refs.flatten()
}

/// The streams that have to be looked at because their pool came, went or got another spec. With ten thousand of them, those that a lost
/// shard leaves behind must not wait for all others.
pub fn from_pools(seen: mpsc::UnboundedReceiver<String>, ctx: Arc<Context>) -> impl Stream<Item = ObjectRef<DeserializeGuard<LiveStream>>> {
    let known: Arc<Mutex<HashMap<String, Option<StreamPoolSpec>>>> = Arc::default();
    let refs = futures::stream::unfold(seen, move |mut seen| {
        let (ctx, known) = (ctx.clone(), known.clone());
        async move {
            let name = seen.recv().await?;
            let pool = ctx.pools.get(&ObjectRef::new(&name)).and_then(|pool| Some(pool.0.as_ref().ok()?.spec.clone()));
            let before = known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), pool.clone()).flatten();
            let woken = match concern(before.as_ref(), pool.as_ref()) {
                Concern::Nobody => Vec::new(),
                Concern::Misplaced(shards) => {
                    let shards: BTreeSet<ShardName> = shards_of(&name, shards).into_iter().map(|shard| shard.name).collect();
                    streams_where(&ctx.streams, |stream| stream.spec.pool_name == name && is_misplaced(stream, &shards))
                }
                Concern::All => streams_where(&ctx.streams, |stream| stream.spec.pool_name == name),
            };
            Some((futures::stream::iter(woken), seen))
        }
    });
    refs.flatten()
}

/// Each stream that has not ended once in [`TURN`], in a second of its own: Secrets are not watched, so what is known of its key is doubted then.
pub fn in_turn(ctx: Arc<Context>) -> impl Stream<Item = ObjectRef<DeserializeGuard<LiveStream>>> {
    let seconds = futures::stream::unfold((interval(Duration::from_secs(1)), 0), async |(mut ticks, second)| {
        ticks.tick().await; // of seconds that were missed, each comes
        Some((second, (ticks, (second + 1) % TURN.as_secs())))
    });
    let woken = move |second| {
        let woken = streams_where(&ctx.streams, |stream| is_turn_of(stream, second));
        woken.iter().filter_map(|stream| stream.extra.uid.as_deref()).for_each(|uid| ctx.keys.doubt(uid));
        futures::stream::iter(woken)
    };
    seconds.flat_map(woken)
}

/// Whether this second of [`TURN`] is the stream's. Its uid says so: ten thousand are spread evenly.
fn is_turn_of(stream: &LiveStream, second: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    stream.uid().hash(&mut hasher);
    hasher.finish() % TURN.as_secs() == second && !stream.status.as_ref().is_some_and(|status| holds(&status.conditions, ENDED))
}

/// Whom the change of a pool concerns.
#[derive(Debug, PartialEq, Eq)]
enum Concern {
    /// Its status alone has changed.
    Nobody,
    /// It has so many shards now, or shards that take more or less: those without a shard of these.
    Misplaced(i32),
    /// All of its streams.
    All,
}

fn concern(before: Option<&StreamPoolSpec>, now: Option<&StreamPoolSpec>) -> Concern {
    let (Some(before), Some(now)) = (before, now) else { return if before == now { Concern::Nobody } else { Concern::All } };
    if before == now {
        return Concern::Nobody;
    }
    let mut resized = before.clone();
    resized.ingest.shards = now.ingest.shards;
    resized.ingest.capacity.clone_from(&now.ingest.capacity);
    if resized == *now { Concern::Misplaced(now.ingest.shards) } else { Concern::All }
}

/// It needs a shard, and has none of these.
fn is_misplaced(stream: &LiveStream, shards: &BTreeSet<ShardName>) -> bool {
    let Some(status) = &stream.status else { return true };
    let held = status.placement.as_ref().map(|placement| ShardName(placement.shard.clone()));
    !holds(&status.conditions, ENDED) && held.is_none_or(|held| !shards.contains(&held))
}

/// Whether it is the shard's business how the stream does: what has ended has nothing to fear from it.
fn is_on(stream: &LiveStream, shard: &ShardName) -> bool {
    let status = stream.status.as_ref().filter(|status| !holds(&status.conditions, ENDED));
    status.and_then(|status| status.placement.as_ref()).is_some_and(|placement| placement.shard == shard.0)
}

/// The streams that are so.
pub fn streams_where(
    streams: &Store<DeserializeGuard<LiveStream>>,
    fits: impl Fn(&LiveStream) -> bool,
) -> Vec<ObjectRef<DeserializeGuard<LiveStream>>> {
    let all = streams.state();
    all.iter().filter(|guarded| guarded.0.as_ref().is_ok_and(&fits)).map(|guarded| ObjectRef::from_obj(guarded.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_stream_has_a_second_of_its_own_unless_it_has_ended() {
        let seconds = |uid: &str, status: serde_json::Value| {
            let mut stream = stream(status);
            stream.metadata.uid = Some(uid.into());
            (0..TURN.as_secs()).filter(|second| is_turn_of(&stream, *second)).collect::<Vec<_>>()
        };
        let turns: BTreeSet<Vec<u64>> = (0..100).map(|number| seconds(&format!("uid-{number}"), json!(null))).collect();
        assert!(turns.iter().all(|turns| turns.len() == 1));
        assert!(turns.len() > 70, "they come in bursts: {turns:?}");
        let ended =
            json!({ "type": "Ended", "status": "True", "reason": "Ended", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        assert_eq!(seconds("uid-1", json!({ "conditions": [ended] })), Vec::<u64>::new());
    }

    fn pool(shards: i32, public_url: &str) -> StreamPoolSpec {
        let spec = json!({
            "images": { "ingest": "i", "transcoder": "t", "origin": "o" },
            "ingest": { "shards": shards, "publicUrl": public_url },
            "transcoder": { "pods": 1, "slots": 1 },
            "origin": { "replicas": 1, "publicUrl": "http://watch.example" },
            "queue": { "name": "jobs", "region": "us-east-1" },
            "bucket": { "name": "lectern", "region": "us-east-1" },
        });
        serde_json::from_value(spec).unwrap()
    }

    fn stream(status: serde_json::Value) -> LiveStream {
        serde_json::from_value(json!({ "metadata": { "name": "algebra" }, "spec": {}, "status": status })).unwrap()
    }

    #[test]
    fn a_pool_of_another_size_concerns_those_without_a_shard_and_every_other_change_all() {
        let (small, large) = (pool(2, "rtmp://in.example/live"), pool(3, "rtmp://in.example/live"));
        assert_eq!(concern(Some(&large), Some(&large)), Concern::Nobody);
        assert_eq!(concern(Some(&large), Some(&small)), Concern::Misplaced(2));
        assert_eq!(concern(Some(&small), Some(&pool(3, "rtmp://elsewhere.example/live"))), Concern::All);
        let mut roomier = small.clone();
        roomier.ingest.capacity = serde_json::from_value(json!({ "streams": 20 })).unwrap();
        assert_eq!(concern(Some(&small), Some(&roomier)), Concern::Misplaced(2));
        assert_eq!((concern(None, Some(&small)), concern(Some(&small), None)), (Concern::All, Concern::All));
    }

    #[test]
    fn a_stream_is_misplaced_without_a_shard_or_on_one_that_is_gone_unless_it_has_ended() {
        let shards: BTreeSet<ShardName> = shards_of("default", 2).into_iter().map(|shard| shard.name).collect();
        let on = |shard: &str| json!({ "shard": shard, "reason": "", "epoch": 1, "anchorMillis": 0 });
        assert!(is_misplaced(&stream(json!(null)), &shards));
        assert!(is_misplaced(&stream(json!({ "placement": on("lectern-ingest-default-2") })), &shards));
        assert!(!is_misplaced(&stream(json!({ "placement": on("lectern-ingest-default-1") })), &shards));
        let ended =
            json!({ "type": "Ended", "status": "True", "reason": "Ended", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        assert!(!is_misplaced(&stream(json!({ "placement": on("lectern-ingest-default-2"), "conditions": [ended] })), &shards));
    }
}
