//! A stream that was deleted.

use crate::operator::{Operator, SHARD, pool, seconds, stream};
use crate::server::{fails, ok};
use kube::runtime::controller::Action;
use lectern_operator::stream::FINALIZER;
use lectern_operator::stream::claims::ENDED;
use serde_json::{Value, json};

const STATUS: &str = "PATCH livestreams/algebra/status";
const LETS_GO: &str = "PATCH livestreams/algebra";

/// One that was on air, deleted just now.
fn deleted(pools: impl IntoIterator<Item = lectern_crds::StreamPool>, finalizers: Value) -> Operator {
    let mut operator = Operator::with(pools);
    let mut gone = stream("algebra", json!({}));
    gone["metadata"]["finalizers"] = finalizers;
    gone["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
    let placement = json!({ "shard": SHARD, "reason": "", "epoch": 1, "anchorMillis": 0 });
    gone["status"] = json!({ "runId": "run-1", "placement": placement, "dispatch": { "attempt": 1, "at": "2027-01-15T08:00:00Z" } });
    operator.server.hold("livestreams/algebra", gone);
    operator
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_whose_pool_is_gone_says_what_stays_behind_and_then_goes() {
    let mut operator = deleted([], json!([FINALIZER]));
    let look = operator.looks_at("algebra", [ok(STATUS), ok(LETS_GO)]).await;
    assert!(look.error.is_none() && look.next == Action::await_change(), "{look:?}");
    assert_eq!(operator.server.all(), [""; 0], "nothing holds it");
    let conditions = look.bodies[0]["status"]["conditions"].as_array().unwrap();
    let ended = conditions.iter().find(|condition| condition["type"] == ENDED).unwrap();
    assert_eq!((ended["status"].as_str(), ended["reason"].as_str()), (Some("True"), Some("ObjectsOrphaned")));
    let (_, text) = operator.noted().into_iter().find(|(reason, _)| reason == "ObjectsOrphaned").unwrap();
    assert!(text.contains("the StreamPool is gone") && text.contains("school/algebra/run-1/"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_that_could_not_be_taken_off_is_taken_off_later_and_nobody_elses_with_it() {
    let mut operator = deleted([], json!(["backup.example/keep", FINALIZER]));
    let look = operator.looks_at("algebra", [ok(STATUS), fails(LETS_GO, 500)]).await;
    assert!(look.error.is_some() && look.next == Action::requeue(seconds(1)), "{look:?}");
    let look = operator.looks_at("algebra", [ok(LETS_GO)]).await;
    assert!(look.error.is_none(), "{look:?}");
    assert_eq!(operator.copy("algebra").metadata.finalizers.unwrap(), ["backup.example/keep"]);
    let look = operator.looks_at("algebra", []).await;
    assert!(look.error.is_none() && look.next == Action::await_change(), "it is not ours any more: {look:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_that_was_on_air_is_held_while_its_pool_is_there_and_its_run_goes_on() {
    let mut operator = deleted([pool("default", json!({}))], json!([FINALIZER]));
    let look = operator.looks_at("algebra", [ok("POST secrets"), ok(STATUS)]).await;
    assert!(look.error.is_none(), "{look:?}");
    assert_eq!(operator.status("algebra").phase.as_deref(), Some("Deleting"));
    assert_eq!(operator.copy("algebra").metadata.finalizers.unwrap(), [FINALIZER]);
}
