//! What `lectern-operator redrive` makes of dead letters, on a real server.
#![allow(clippy::unwrap_used)]

use lectern_cloud::testing::Backend;
use lectern_cloud::{Depth, Queue};
use lectern_contract::job::LiveJob;
use lectern_contract::message::Message as _;
use lectern_operator::redrive::{RedriveArgs, redrive};
use serde_json::json;
use std::time::Duration;

/// Longer than a test takes.
const HELD: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(5);
/// Of a schema that this build does not know.
const NEWER: &str = r#"{"version":9,"kind":"live","run":"r2"}"#;

fn job() -> LiveJob {
    let fields = json!({
        "stream": { "namespace": "school", "name": "algebra" }, "title": "", "run": "r1", "attempt": 2, "anchor": 0, "feed": "",
        "ladder": { "video": [], "audio": [] }, "segmentDuration": 2000, "prefix": "0a/school/algebra/r1", "idleAfterMs": 1,
    });
    serde_json::from_value(fields).unwrap()
}

/// A queue whose dead letters are a job that ten transcoders have had in vain, and a message for newer ones.
async fn with_dead_letters(backend: &Backend) -> Queue {
    let queue = backend.queue("jobs").await.unwrap();
    queue.send(&job().to_message()).await.unwrap();
    for _ in 1..=10 {
        let delivery = queue.receive_within(HELD, SOON).await.unwrap().unwrap();
        queue.extend(&delivery.receipt, Duration::ZERO).await.unwrap();
    }
    assert_eq!(queue.receive_within(HELD, Duration::from_secs(1)).await.unwrap(), None, "it is dead");
    queue.dead().send(NEWER).await.unwrap();
    queue
}

#[tokio::test]
async fn a_dead_letter_brings_the_reason_along_and_loses_it_on_the_way_back() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send(NEWER).await.unwrap();
    let delivery = queue.receive_within(HELD, SOON).await.unwrap().unwrap();
    assert!(!delivery.is_last() && delivery.reason.is_none());
    queue.bury(&delivery, "it is for a build of next year").await.unwrap();
    assert_eq!(depths(&queue).await, (waiting(0), waiting(1)));
    assert!(told(&queue, true).await.contains(&format!("no job, it is for a build of next year: {NEWER}")));
    told(&queue, false).await;
    let back = queue.receive_within(HELD, SOON).await.unwrap().unwrap();
    assert_eq!((back.body.as_str(), back.reason), (NEWER, None));
}

/// The lines that are printed, in an order of their own: SQS promises none.
async fn told(queue: &Queue, list: bool) -> Vec<String> {
    let (args, mut out) = (RedriveArgs { pool: "default".into(), archive: false, list }, Vec::<u8>::new());
    redrive(queue, &args, &mut out).await.unwrap();
    let mut lines: Vec<_> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// How much is in the queue, and among its dead letters.
async fn depths(queue: &Queue) -> (Depth, Depth) {
    (queue.depth().await.unwrap(), queue.dead().depth().await.unwrap())
}

fn waiting(waiting: u64) -> Depth {
    Depth { waiting, ..Depth::default() }
}

#[tokio::test]
async fn a_list_says_of_each_dead_letter_what_it_is_and_why_it_is_there_and_leaves_it() {
    let backend = Backend::ministack().await.unwrap();
    let queue = with_dead_letters(&backend).await;
    let lines = [
        format!("messages in {}: 2", queue.dead().at()),
        format!("no job, its schema is version 9, and this build knows 1: it is for a newer one: {NEWER}"),
        "school/algebra, run r1, attempt 2: delivered 10 times in vain".to_owned(),
    ];
    assert_eq!(told(&queue, true).await, lines);
    assert_eq!(depths(&queue).await, (waiting(0), waiting(2)), "for whoever looks next");
}

#[tokio::test]
async fn dead_letters_go_back_to_the_queue_and_one_that_is_no_job_does_with_a_warning() {
    let backend = Backend::ministack().await.unwrap();
    let queue = with_dead_letters(&backend).await;
    let newer = "its schema is version 9, and this build knows 1: it is for a newer one";
    let lines = [
        format!("2 of the messages in {} went to {}", queue.dead().at(), queue.at()),
        format!("no job, {newer}: {NEWER}; it goes back all the same, and comes here again unless a transcoder knows better"),
        "school/algebra, run r1, attempt 2: delivered 10 times in vain".to_owned(),
    ];
    assert_eq!(told(&queue, false).await, lines);
    assert_eq!(depths(&queue).await, (waiting(2), waiting(0)));
    let mut back = Vec::new();
    for _ in 0..2 {
        let delivery = queue.receive_within(HELD, SOON).await.unwrap().unwrap();
        assert_eq!(delivery.received, 1, "its tries are counted anew: {}", delivery.body);
        back.push(delivery.body);
    }
    back.sort();
    assert_eq!(back, [job().to_message(), NEWER.to_owned()], "as they were");
}
