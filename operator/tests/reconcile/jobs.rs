//! The job of a stream that somebody publishes to. The queue is a listener of this test's own, so that time is not paused here.

use crate::operator::{Operator, pool};
use crate::server::{Log, fails, ok};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use lectern_contract::job::LiveJob;
use lectern_operator::context::Error;
use lectern_operator::stream::claims::TRANSCODING;
use serde_json::{Value, json};
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
    let mut pool = pool("default", json!({}));
    pool.spec.queue.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let mut operator = Operator::with_algebra_in(pool).await;
    let queue = Queue { log: operator.server.log.clone(), ..Queue::default() };
    let router = Router::new().fallback(answer).with_state(queue.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    operator.hears_a_publisher_of("algebra");
    queue.log.lock().unwrap().clear();
    (operator, queue)
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
