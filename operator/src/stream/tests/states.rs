//! LiveStreams and StreamPools in each of their states, as whoever reads them from the API server finds them: what others make of them is tried on these
//! (`charts/tests/health`).

use super::*;
use crate::cloud::CloudError;
use crate::pool::checks::{Cloud, Notes};
use crate::pool::observe::Seen as SeenPool;
use crate::pool::pods;
use crate::pool::status::status as status_of_pool;
use crate::stream::claims;
use crate::stream::status::{replace, unplaced};
use serde_json::Value;

/// A live lecture's second after its last look.
const NEXT: i64 = 20;

/// What the lecture is after one look more.
fn after(mut lecture: Lecture, seen: Seen) -> LiveStream {
    lecture.look(seen);
    lecture.stream
}

fn changed(mut stream: LiveStream) -> LiveStream {
    stream.metadata.generation = Some(2);
    stream
}

fn refused_one() -> LiveStream {
    let stream = stream(json!({ "poolName": "gpus" }));
    let refusal = validate(&stream, &Seen { pool: None, pools: vec!["default".into()], ..seen(0) }).unwrap_err();
    LiveStream { status: Some(refused(&stream, &refusal, seen(0).now)), ..stream }
}

fn without_a_queue() -> LiveStream {
    let mut lecture = Lecture::new();
    lecture.look(Seen { shard: publishing(), ..seen(1) });
    let mut stream = lecture.stream;
    let claim = claims::queue_unreachable(&[], "the queue lectern-jobs: connection refused");
    replace(stream.status.as_mut().unwrap(), &claim, Some(1), seen(1).now);
    stream
}

fn streams() -> Vec<(&'static str, LiveStream)> {
    let failed = || said(1, TranscoderState::Failed { reason: "no decoder".into() });
    let starting = || said(1, TranscoderState::Starting { waiting_for: None });
    let ended = || said(1, TranscoderState::Ended { first: Some(SegmentNumber(3)), last: Some(SegmentNumber(9)) });
    let full = stream(json!({}));
    let status = unplaced(&full, &seen(0), "no shard of the pool has room: 2 of 2 streams");
    let mut nowhere = Lecture { stream: stream(json!({})), plan: None };
    nowhere.go(seen(0), &Place::Nowhere);
    let mut deleted = Lecture::live();
    deleted.stream.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(seen(NEXT).now));
    vec![
        ("unseen", stream(json!({}))),
        ("changed", changed(Lecture::live().stream)),
        ("refused", refused_one()),
        ("full", LiveStream { status: Some(status), ..full }),
        ("nowhere", nowhere.stream),
        ("waiting", Lecture::new().stream),
        ("received", after(Lecture::new(), Seen { shard: publishing(), ..seen(1) })),
        ("without-a-queue", without_a_queue()),
        ("starting", after(Lecture::new(), Seen { shard: publishing(), transcoder: starting(), ..seen(1) })),
        ("failed", after(Lecture::new(), Seen { shard: publishing(), transcoder: failed(), ..seen(1) })),
        ("begun", after(Lecture::new(), Seen { shard: publishing(), transcoder: said(1, running(None)), ..seen(1) })),
        ("live", Lecture::live().stream),
        ("failed-on-air", after(Lecture::live(), Seen { shard: publishing(), transcoder: failed(), ..seen(NEXT) })),
        ("without-a-transcoder", after(Lecture::live(), Seen { shard: publishing(), ..seen(NEXT) })),
        ("interrupted", after(Lecture::live(), Seen { shard: gone(), transcoder: said(1, running(Some(9))), ..seen(NEXT) })),
        ("silent", after(Lecture::live(), Seen { shard: ShardSaid::Silent, ..seen(NEXT) })),
        ("deleting", after(deleted, Seen { shard: publishing(), transcoder: said(1, running(Some(9))), ..seen(NEXT) })),
        ("ending", after(Lecture::live(), Seen { ending: true, transcoder: said(1, running(Some(9))), ..seen(NEXT) })),
        ("ended", after(Lecture::live(), Seen { ending: true, transcoder: ended(), ..seen(NEXT) })),
        ("never-begun", after(Lecture::new(), Seen { ending: true, ..seen(NEXT) })),
        ("incomplete", after(Lecture::live(), Seen { ending: true, transcoder: failed(), ..seen(NEXT) })),
    ]
}

fn pools() -> Vec<(&'static str, StreamPool)> {
    let pod = || vec![pods::testing::pod("t", "", true, None)];
    let all = || SeenPool { shards: 2, origins: 2, pods: pod(), ..SeenPool::default() };
    let well = || Cloud { queue: Ok("http://queue".into()), bucket: Ok(()), dead: 0, notes: Notes::default() };
    let denied = || CloudError { reason: "Denied", message: "the bucket lectern-objects: access denied".into() };
    let away = || CloudError { reason: "Unreachable", message: "the queue lectern-jobs: connection refused".into() };
    let told = |seen: &SeenPool, cloud: &Cloud| {
        let mut pool = pool();
        pool.metadata.generation = Some(1);
        pool.status = Some(status_of_pool(&pool, seen, cloud));
        // These dates are the clock's.
        for condition in &mut pool.status.as_mut().unwrap().conditions {
            condition.last_transition_time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(super::seen(0).now);
        }
        pool
    };
    let mut changed = told(&all(), &well());
    changed.metadata.generation = Some(2);
    vec![
        ("unseen", pool()),
        ("ready", told(&all(), &well())),
        ("changed", changed),
        ("without-origins", told(&SeenPool { origins: 0, ..all() }, &well())),
        ("without-transcoders", told(&SeenPool { pods: vec![], ..all() }, &well())),
        ("without-a-queue", told(&all(), &Cloud { queue: Err(away()), ..well() })),
        ("without-a-bucket", told(&all(), &Cloud { bucket: Err(denied()), ..well() })),
    ]
}

#[test]
fn every_state_is_as_written_down() {
    let named = |(name, mut object): (&str, Value)| {
        object["metadata"]["name"] = json!(name);
        serde_yaml::to_string(&object).unwrap()
    };
    let streams = streams().into_iter().map(|(name, stream)| (name, serde_json::to_value(stream).unwrap()));
    let pools = pools().into_iter().map(|(name, pool)| (name, serde_json::to_value(pool).unwrap()));
    let now = streams.chain(pools).map(named).collect::<Vec<_>>().join("---\n");
    let path = "tests/golden/states.yaml";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(golden, now, "{path} has changed; UPDATE_GOLDEN=1 takes the change over");
}
