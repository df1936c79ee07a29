//! A stream that comes, is placed, or has to wait.

use crate::operator::{Operator, SHARD, key_hash, pool, seconds, stream};
use crate::server::ok;
use kube::runtime::controller::Action;
use lectern_operator::stream::FINALIZER;
use lectern_operator::stream::claims::{ACCEPTED, ENDED, NO_CAPACITY, PLACED};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_new_stream_gets_its_finalizer_then_its_secret_then_its_status_and_nothing_else_is_asked() {
    let mut operator = Operator::with([pool("default", json!({}))]);
    operator.server.hold("livestreams/algebra", stream("algebra", json!({})));
    // Two writes to the LiveStream, as docs/scale.md counts them, and one to its Secret.
    let script = [ok("PATCH livestreams/algebra"), ok("POST secrets"), ok("PATCH livestreams/algebra/status")];
    let look = operator.looks_at("algebra", script).await;
    assert!(look.error.is_none() && look.next == Action::await_change(), "it has its turn, and no timer: {look:?}");

    let [finalizer, secret, status] = look.bodies.try_into().unwrap();
    let unchanged = json!({ "op": "test", "path": "/metadata/resourceVersion", "value": "1" });
    assert_eq!(finalizer, json!([unchanged, { "op": "add", "path": "/metadata/finalizers", "value": [FINALIZER] }]));
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "uid-of-algebra", "it goes with its stream");
    assert_eq!(status["metadata"]["resourceVersion"], "2", "on the copy with the finalizer and no other");

    let told = operator.status("algebra");
    let (placement, ingest) = (told.placement.unwrap(), told.ingest.unwrap());
    assert_eq!((placement.shard.as_str(), placement.epoch), (SHARD, 1));
    assert_eq!(ingest.key_hash, key_hash(&secret));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_as_it_should_be_costs_the_api_server_nothing() {
    let mut operator = Operator::with_algebra_in(pool("default", json!({}))).await;
    let next = operator.looks_at("algebra", []).await.next;
    assert_eq!(next, Action::await_change());
    operator.is_replaced();
    let look = operator.looks_at("algebra", []).await;
    assert!(look.error.is_none(), "{look:?}");
    assert_eq!(operator.noted(), []);
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_told_which_pools_there_are_once_and_gets_no_secret() {
    let mut operator = Operator::with([pool("maths", json!({})), pool("physics", json!({}))]);
    operator.server.hold("livestreams/algebra", stream("algebra", json!({ "poolName": "math" })));
    let script = [ok("PATCH livestreams/algebra"), ok("PATCH livestreams/algebra/status")];
    assert_eq!(operator.looks_at("algebra", script).await.next, Action::await_change(), "a pool that comes wakes it");
    let (status, reason, message) = operator.told("algebra", ACCEPTED);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "UnknownPool"));
    assert!(message.contains(r#"there are "maths", "physics""#), "{message}");
    assert_eq!(operator.noted(), [("Refused".to_owned(), message)]);
    assert_eq!(operator.server.all(), ["livestreams/algebra"]);

    assert_eq!(operator.looks_at("algebra", []).await.next, Action::await_change());
    assert_eq!(operator.noted(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_full_pool_gets_no_secret_until_another_has_ended_and_is_woken_then() {
    let mut operator = Operator::with_algebra_in(pool("default", json!({ "capacity": { "streams": 1 } }))).await;
    operator.server.hold("livestreams/biology", stream("biology", json!({})));
    let script = [ok("PATCH livestreams/biology"), ok("PATCH livestreams/biology/status")];
    assert_eq!(operator.looks_at("biology", script).await.next, Action::requeue(seconds(30)));
    let (status, reason, message) = operator.told("biology", PLACED);
    assert_eq!((status.as_str(), reason.as_str()), ("False", NO_CAPACITY));
    assert!(message.contains("1 of 1 streams"), "{message}");
    assert_eq!(operator.looks_at("biology", []).await.next, Action::requeue(seconds(30)), "and says so once");
    assert_eq!(operator.server.all(), ["livestreams/algebra", "livestreams/biology", "secrets/algebra-stream-key"]);
    assert_eq!(operator.woken(), [""; 0]);

    operator.server.touch("livestreams/algebra", "/spec", json!({ "ended": true }));
    operator.looks_at("algebra", [ok("PATCH livestreams/algebra/status")]).await;
    assert_eq!(operator.told("algebra", ENDED).0, "True");
    assert_eq!(operator.woken(), ["biology"]);
    operator.looks_at("biology", [ok("POST secrets"), ok("PATCH livestreams/biology/status")]).await;
    assert_eq!((operator.told("biology", PLACED).0.as_str(), operator.status("biology").last_error), ("True", None));
}
