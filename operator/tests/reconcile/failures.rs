//! An API server that refuses, fails, or does not answer.

use crate::operator::{Look, Operator, key_hash, pool, seconds, stream};
use crate::server::{fails, never, ok};
use kube::runtime::controller::Action;
use lectern_operator::context::Error;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const FINALIZER: &str = "PATCH livestreams/algebra";
const SECRET: &str = "POST secrets";
const STATUS: &str = "PATCH livestreams/algebra/status";

fn new() -> Operator {
    let mut operator = Operator::with([pool("default", json!({}))]);
    operator.server.hold("livestreams/algebra", stream("algebra", json!({})));
    operator
}

/// The next try after a conflict, which is no failure.
const AT_ONCE: Duration = Duration::from_millis(200);

#[tokio::test(start_paused = true)]
async fn a_conflict_is_no_failure_and_the_newer_copy_is_decided_on_at_once() {
    let mut operator = new();
    let look = operator.looks_at("algebra", [ok(FINALIZER), ok(SECRET), fails(STATUS, 409)]).await;
    assert!(look.error.is_none() && look.next == Action::requeue(AT_ONCE), "{look:?}");
    let old = operator.copy("algebra");
    operator.server.touch("livestreams/algebra", "/spec", json!({ "title": "Algebra I" }));
    let look = operator.looks_at_copy(old, [ok(STATUS)]).await;
    assert!(look.error.is_none() && look.next == Action::requeue(AT_ONCE), "the server has a newer one: {look:?}");
    assert!(operator.copy("algebra").status.is_none());

    let look = operator.looks_at("algebra", [fails(STATUS, 500)]).await;
    assert_eq!(look.next, Action::requeue(seconds(1)), "the first failure so far");
    operator.looks_at("algebra", [ok(STATUS)]).await;
    assert!(operator.status("algebra").placement.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_written_before_it_had_its_finalizer_is_looked_at_again_at_once() {
    let mut operator = new();
    let old = operator.copy("algebra");
    operator.server.touch("livestreams/algebra", "/spec", json!({ "title": "Algebra I" }));
    let look = operator.looks_at_copy(old, [ok(FINALIZER)]).await;
    assert!(look.error.is_none() && look.next == Action::requeue(AT_ONCE), "{look:?}");
    assert!(operator.copy("algebra").metadata.finalizers.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_written_over_is_not_decided_on() {
    let mut operator = new();
    let first = operator.copy("algebra");
    operator.looks_at("algebra", [ok(FINALIZER), ok(SECRET), ok(STATUS)]).await;
    let look = operator.looks_at_copy(first, []).await;
    assert!(look.error.is_none() && look.next == Action::requeue(seconds(5)), "the watch is about to tell of the newer: {look:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_asked_again_after_longer_and_longer_waits_from_where_it_stopped() {
    let mut operator = new();
    let waits = |look: Look, wanted: u64| {
        assert!(matches!(look.error, Some(Error::Kube(_))) && look.next == Action::requeue(seconds(wanted)), "{look:?}");
    };
    waits(operator.looks_at("algebra", [fails(FINALIZER, 500)]).await, 1);
    waits(operator.looks_at("algebra", [ok(FINALIZER), fails(SECRET, 429)]).await, 2);
    waits(operator.looks_at("algebra", [ok(SECRET), fails(STATUS, 503)]).await, 4);
    waits(operator.looks_at("algebra", [fails(STATUS, 429)]).await, 8);
    assert!(operator.copy("algebra").status.is_none());
    operator.looks_at("algebra", [ok(STATUS)]).await;
    assert!(operator.status("algebra").placement.is_some());

    operator.server.touch("livestreams/algebra", "/spec", json!({ "ended": true }));
    waits(operator.looks_at("algebra", [fails(STATUS, 500)]).await, 1); // what is over is not held against it
}

#[tokio::test(start_paused = true)]
async fn the_operator_that_comes_after_one_that_failed_takes_the_secret_that_is_there() {
    let mut operator = new();
    operator.looks_at("algebra", [ok(FINALIZER), ok(SECRET), fails(STATUS, 500)]).await;
    let secret = operator.server.get("secrets/algebra-stream-key").unwrap().clone();
    operator.is_replaced();
    let script = [fails(SECRET, 409), ok("GET secrets/algebra-stream-key"), ok(STATUS)];
    let look = operator.looks_at("algebra", script).await;
    assert!(look.error.is_none(), "{look:?}");
    assert_eq!(operator.server.get("secrets/algebra-stream-key"), Some(&secret));
    assert_eq!(operator.status("algebra").ingest.unwrap().key_hash, key_hash(&secret));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_holds_a_reconcile_up_for_twenty_seconds_and_no_longer() {
    let (mut operator, since) = (new(), Instant::now());
    let look = operator.looks_at("algebra", [ok(FINALIZER), never(SECRET)]).await;
    assert!(matches!(look.error, Some(Error::TooLong)) && look.next == Action::requeue(seconds(1)), "{look:?}");
    assert!(since.elapsed() >= seconds(20) && since.elapsed() < seconds(21), "{:?}", since.elapsed());
    let look = operator.looks_at("algebra", [ok(SECRET), ok(STATUS)]).await;
    assert!(look.error.is_none(), "{look:?}");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_told_once_the_status_that_it_is_about_is_written() {
    let mut operator = Operator::with_algebra_in(pool("default", json!({}))).await;
    operator.server.touch("livestreams/algebra", "/spec", json!({ "ended": true }));
    operator.looks_at("algebra", [fails(STATUS, 500)]).await;
    assert_eq!(operator.noted(), []);
    operator.looks_at("algebra", [ok(STATUS)]).await;
    assert_eq!(operator.noted().into_iter().map(|(reason, _)| reason).collect::<Vec<_>>(), ["Ended"]);
}
