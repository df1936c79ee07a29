//! The job of a stream that somebody publishes to. The queue is a listener of this test's own, so that time goes by itself while one waits for it.

use crate::operator::{Operator, pool, seconds};
use crate::server::{Log, fails, ok};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use lectern_contract::job::LiveJob;
use lectern_operator::context::Error;
use lectern_operator::stream::claims::TRANSCODING;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const STATUS: &str = "PATCH livestreams/algebra/status";
const SENT: &str = "AmazonSQS.SendMessage";

/// A queue that writes down what it is asked in the same log as the API server.
#[derive(Clone, Default)]
struct Queue {
    log: Log,
    jobs: Arc<Mutex<Vec<LiveJob>>>,
    refuses: Arc<AtomicBool>,
}

async fn answer(State(queue): State<Queue>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let action = headers["x-amz-target"].to_str().unwrap();
    if action != SENT {
        return (StatusCode::OK, json!({ "QueueUrl": "http://127.0.0.1/lectern-jobs" }).to_string());
    }
    queue.log.lock().unwrap().push(action.to_owned());
    if queue.refuses.load(Ordering::Relaxed) {
        let denied = json!({ "__type": "com.amazonaws.sqs#AccessDeniedException", "message": "not yours" });
        return (StatusCode::BAD_REQUEST, denied.to_string());
    }
    let asked: Value = serde_json::from_str(&body).unwrap();
    queue.jobs.lock().unwrap().push(serde_json::from_str(asked["MessageBody"].as_str().unwrap()).unwrap());
    (StatusCode::OK, json!({ "MessageId": "1" }).to_string())
}

/// An operator that has placed the stream and then hears of a publisher.
async fn publishing() -> (Operator, Queue) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let operator = publishing_with_a_queue_at(listener.local_addr().unwrap()).await;
    let queue = Queue { log: operator.server.log.clone(), ..Queue::default() };
    let router = Router::new().fallback(answer).with_state(queue.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (operator, queue)
}

async fn publishing_with_a_queue_at(address: SocketAddr) -> Operator {
    let mut pool = pool("default", json!({}));
    pool.spec.queue.endpoint = Some(format!("http://{address}"));
    let mut operator = Operator::with_algebra_in(pool).await;
    operator.hears_a_publisher_of("algebra");
    operator.server.log.lock().unwrap().clear();
    operator
}

fn log(queue: &Queue) -> Vec<String> {
    std::mem::take(&mut queue.log.lock().unwrap())
}

#[tokio::test]
async fn a_job_is_sent_after_its_attempt_is_written_and_before_the_time_of_sending_is() {
    let (mut operator, queue) = publishing().await;
    let look = operator.looks_at("algebra", [ok(STATUS), ok(STATUS)]).await;
    assert!(look.error.is_none(), "{look:?}");
    assert_eq!(log(&queue), [STATUS, SENT, STATUS]);
    let dispatch = |body: &Value| (body["status"]["dispatch"]["attempt"].clone(), body["status"]["dispatch"]["at"].is_string());
    assert_eq!(look.bodies.iter().map(dispatch).collect::<Vec<_>>(), [(json!(1), false), (json!(1), true)]);
    let run = operator.status("algebra").run_id.unwrap();
    assert_eq!(queue.jobs.lock().unwrap().iter().map(|job| (job.attempt, job.run.0.clone())).collect::<Vec<_>>(), [(1, run)]);
    operator.looks_at("algebra", []).await;
    assert_eq!(log(&queue), [""; 0], "it is in good hands");
}

#[tokio::test]
async fn a_job_whose_attempt_cannot_be_written_is_not_sent() {
    for status in [409, 500] {
        let (mut operator, queue) = publishing().await;
        operator.looks_at("algebra", [fails(STATUS, status)]).await;
        assert_eq!(log(&queue), [STATUS]);
    }
}

#[tokio::test]
async fn a_job_whose_time_of_sending_could_not_be_written_is_not_sent_twice_by_the_same_operator_but_by_the_next() {
    for (is_replaced, asked) in [(false, vec![STATUS]), (true, vec![SENT, STATUS])] {
        let (mut operator, queue) = publishing().await;
        operator.looks_at("algebra", [ok(STATUS), fails(STATUS, 500)]).await;
        log(&queue);
        if is_replaced {
            operator.is_replaced();
        }
        let look = operator.looks_at("algebra", [ok(STATUS)]).await;
        assert!(look.error.is_none(), "{look:?}");
        assert_eq!(log(&queue), asked);
        assert!(queue.jobs.lock().unwrap().iter().all(|job| job.attempt == 1), "the same attempt: the head lets one of two write");
        assert!(operator.status("algebra").dispatch.unwrap().at.is_some());
    }
}

#[tokio::test]
async fn a_queue_that_refuses_a_job_is_told_of_and_the_same_attempt_is_sent_once_it_takes_it() {
    let (mut operator, queue) = publishing().await;
    queue.refuses.store(true, Ordering::Relaxed);
    let look = operator.looks_at("algebra", [ok(STATUS), ok(STATUS)]).await;
    assert!(matches!(look.error, Some(Error::Cloud(_))), "{look:?}");
    assert_eq!(log(&queue), [STATUS, SENT, STATUS]);
    assert_eq!(operator.told("algebra", TRANSCODING).1, "QueueUnreachable");
    assert!(operator.status("algebra").dispatch.unwrap().at.is_none());

    queue.refuses.store(false, Ordering::Relaxed);
    let look = operator.looks_at("algebra", [ok(STATUS)]).await;
    assert!(look.error.is_none(), "{look:?}");
    assert_eq!(log(&queue), [SENT, STATUS]);
    assert_eq!(queue.jobs.lock().unwrap().iter().map(|job| job.attempt).collect::<Vec<_>>(), [1]);
    assert!(operator.status("algebra").dispatch.unwrap().at.is_some());
}

#[tokio::test]
async fn a_job_whose_queue_cannot_be_reached_for_five_seconds_goes_to_a_pod_and_the_status_says_to_which() {
    // Bound, and nobody listens: who connects is refused, and no other test gets the port.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut operator = publishing_with_a_queue_at(nobody.local_addr().unwrap()).await;
    operator.hears_of_a_free_slot_in("transcoder-0");
    let look = operator.looks_at("algebra", [ok(STATUS), ok(STATUS)]).await;
    assert!(matches!(look.error, Some(Error::Cloud(_))), "{look:?}");
    assert_eq!(operator.told("algebra", TRANSCODING).1, "QueueUnreachable");
    assert_eq!(operator.gives("transcoder-0"), [], "the queue may be back in a moment");

    // In one step, and not while anything waits for a socket: that takes the time that it takes.
    tokio::time::pause();
    tokio::time::advance(seconds(5)).await;
    tokio::time::resume();
    operator.hears_of_a_free_slot_in("transcoder-0");
    let look = operator.looks_at("algebra", [ok(STATUS)]).await;
    assert!(look.error.is_none(), "{look:?}");
    let words = "the queue cannot be reached; the job is given to transcoder-0 directly";
    let (status, reason, message) = operator.told("algebra", TRANSCODING);
    assert_eq!((status.as_str(), reason.as_str(), message.as_str()), ("False", "WaitingForTranscoder", words));
    let status = operator.status("algebra");
    assert!(status.dispatch.unwrap().at.is_some());
    let given: Vec<_> = operator.gives("transcoder-0").into_iter().map(|job| (job.attempt, job.run.0)).collect();
    assert_eq!(given, [(1, status.run_id.unwrap())]);

    operator.looks_at("algebra", [ok(STATUS)]).await; // that there is no error any more
    assert_eq!((operator.status("algebra").last_error, operator.told("algebra", TRANSCODING).2.as_str()), (None, words));
    operator.looks_at("algebra", []).await;
}
