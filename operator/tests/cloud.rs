//! What the operator makes of a pool's queue and bucket, on real servers.
#![allow(clippy::unwrap_used)]

use lectern_cloud::testing::{Backend, REGION};
use lectern_cloud::{Objects, Queue, Upkeep};
use lectern_crds::{BucketSpec, QueueSpec, StreamPool};
use lectern_operator::cloud::Clouds;
use lectern_operator::metrics::Metrics;
use lectern_operator::pool::checks::{Checks, Cloud, Notes};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::time::Duration;

fn pool(jobs: &Backend, lectures: &Backend, create: bool) -> StreamPool {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/streampool.yaml");
    let mut pool: StreamPool = serde_yaml::from_str(&std::fs::read_to_string(sample).unwrap()).unwrap();
    pool.spec.queue = QueueSpec { name: "jobs".into(), region: REGION.into(), endpoint: Some(jobs.endpoint()), create };
    pool.spec.bucket = BucketSpec {
        name: "lectures".into(),
        region: REGION.into(),
        endpoint: Some(lectures.endpoint()),
        create,
        retention_days: create.then_some(30),
        manifest_function_arn: None,
    };
    pool
}

/// A look with nothing in memory.
async fn look(pool: &StreamPool, clouds: &Clouds) -> Cloud {
    Checks::default().look(pool, clouds, &Metrics::default()).await
}

#[tokio::test]
async fn a_queue_and_a_bucket_that_are_deleted_by_hand_are_made_again_as_they_were() {
    let backend = Backend::ministack().await.unwrap();
    let (ours, adopted) = (pool(&backend, &backend, true), pool(&backend, &backend, false));
    let clouds = Clouds::with_keys(backend.keys());
    for _ in ["made", "made again"] {
        let missing = look(&adopted, &clouds).await;
        let reasons = (missing.queue.unwrap_err().reason, missing.bucket.unwrap_err().reason);
        assert_eq!(reasons, ("NotFound", "NotFound"), "what is not ours is not made");

        let made = look(&ours, &clouds).await;
        assert!(made.is_well() && made.notes == Notes::default(), "{made:?}");
        let queue = Queue::connect_with(&backend.queue_at("jobs"), &backend.keys()).await.ensure(false).await.unwrap();
        assert!(queue.redrives && queue.dead.is_some(), "{queue:?}");
        let objects = Objects::connect_with(&backend.bucket_at("lectures"), &backend.keys()).await;
        let settings = objects.ensure_settings(Some(30)).await;
        assert!(settings.iter().all(|(_, upkeep)| *upkeep == Upkeep::Kept), "{settings:?}");
        assert!(look(&adopted, &clouds).await.is_well());

        backend.delete_queue("jobs").await.unwrap();
        backend.delete_queue("jobs-dead").await.unwrap();
        backend.delete_bucket("lectures").await.unwrap();
    }
}

#[tokio::test]
async fn what_a_server_does_not_have_and_what_an_adopted_queue_lacks_is_told_and_the_pool_is_well() {
    let (ministack, seaweedfs) = (Backend::ministack().await.unwrap(), Backend::seaweedfs().await.unwrap());
    drop(seaweedfs.objects("lectures").await.unwrap()); // waits until all of the server is there
    let clouds = Clouds::with_keys(ministack.keys());
    let mut pool = pool(&ministack, &seaweedfs, true);
    let told = look(&pool, &clouds).await;
    assert!(told.is_well(), "{told:?}");
    assert_eq!(told.notes, Notes { queue: None, bucket: Some("its server does not have the public access block".into()) });

    pool.spec.queue.create = false;
    pool.spec.queue.name = "jobs-dead".into(); // a queue that has nowhere to give up to
    let told = look(&pool, &clouds).await;
    assert!(told.is_well() && told.notes.queue.is_some_and(|note| note.starts_with("it has no dead-letter queue")));
}

/// The states that a message is counted in.
const STATES: [&str; 4] = ["waiting", "in_flight", "delayed", "dead"];

/// Puts so many messages of each of the states into a queue that is empty.
async fn fill(queue: &Queue, [waiting, in_flight, delayed, dead]: [u64; 4]) {
    let (long, soon) = (Duration::from_secs(600), Duration::from_secs(5));
    for _ in 0..in_flight {
        queue.send("job").await.unwrap();
        queue.receive_within(long, soon).await.unwrap().unwrap();
    }
    for _ in 0..waiting {
        queue.send("job").await.unwrap();
    }
    for _ in 0..delayed {
        queue.send_after("job", long).await.unwrap();
    }
    for _ in 0..dead {
        queue.dead().send("job").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_in_a_pools_queues_is_counted_by_kind_and_state() {
    let backend = Backend::ministack().await.unwrap();
    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let mut wanted = Vec::new();
    for (kind, name, counts) in [("live", "jobs", [2, 1, 3, 4]), ("archive", "jobs-archive", [1, 3, 0, 2])] {
        fill(&backend.queue(name).await.unwrap(), counts).await;
        let line =
            |(state, count): (&str, u64)| format!(r#"lectern_operator_jobs{{pool="default",kind="{kind}",state="{state}"}} {count}"#);
        wanted.extend(STATES.into_iter().zip(counts).map(line));
    }
    let told = Checks::default().look(&pool(&backend, &backend, true), &Clouds::with_keys(backend.keys()), &metrics).await;
    assert!(told.is_well() && told.dead == 6, "{told:?}");
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let mut counted: Vec<_> = text.lines().filter(|line| line.starts_with("lectern_operator_jobs{")).collect();
    counted.sort();
    wanted.sort();
    assert_eq!(counted, wanted, "{text}");
}
