//! What Lectern asks of an SQS.
#![allow(clippy::unwrap_used)]

mod by_hand;

use aws_sdk_sqs::types::QueueAttributeName;
use lectern_cloud::testing::{Backend, Calls};
use lectern_cloud::{Delivery, Depth, FailureKind, Queue, Receipt};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_message_that_nobody_deletes_comes_again() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send("work").await.unwrap();
    let first = queue.receive(SHORT).await.unwrap().unwrap();
    assert_eq!((first.body.as_str(), first.received), ("work", 1));
    assert_eq!(queue.receive_within(SHORT, secs(1)).await.unwrap(), None, "it is invisible");
    let again = queue.receive_within(SHORT, secs(5)).await.unwrap().unwrap();
    assert_eq!((again.body.as_str(), again.received), ("work", 2));
}

#[tokio::test]
async fn a_message_that_is_sent_for_later_is_counted_anew() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send("work").await.unwrap();
    let first = queue.receive(LONG).await.unwrap().unwrap();
    let since = Instant::now();
    queue.send_after(&first.body, secs(2)).await.unwrap();
    queue.delete(&first.receipt).await.unwrap();
    let again = queue.receive_within(LONG, secs(10)).await.unwrap().unwrap();
    assert_eq!((again.body.as_str(), again.received), ("work", 1));
    assert!(since.elapsed() >= secs(1), "it came after {:?}", since.elapsed());
}

#[tokio::test]
async fn what_was_delivered_in_vain_is_counted_and_can_be_sent_again() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send("poison").await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), Depth { waiting: 1, in_flight: 0, delayed: 0 });
    for time in 1..=10 {
        let delivery = queue.receive_within(LONG, secs(5)).await.unwrap().unwrap();
        assert_eq!((delivery.received, queue.depth().await.unwrap().in_flight), (time, 1));
        assert!(delivery.age < LONG, "{:?}", delivery.age);
        queue.extend(&delivery.receipt, Duration::ZERO).await.unwrap();
    }
    assert_eq!(queue.receive_within(SHORT, secs(1)).await.unwrap(), None, "it is dead");
    let dead = queue.dead();
    assert_eq!((queue.depth().await.unwrap().all(), dead.depth().await.unwrap().waiting), (0, 1));
    let letter = dead.receive_within(LONG, secs(5)).await.unwrap().unwrap();
    queue.send(&letter.body).await.unwrap();
    dead.delete(&letter.receipt).await.unwrap();
    let again = queue.receive_within(LONG, secs(5)).await.unwrap().unwrap();
    assert_eq!((again.body.as_str(), again.received, dead.depth().await.unwrap().all()), ("poison", 1, 0));
}

#[tokio::test]
async fn what_is_buried_is_as_it_came_with_a_reason_that_is_bounded() {
    const BODY: &str = "{\"caf\u{e9}\":\"\u{1f56f}\"}\t<&>\r\n ";
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send(BODY).await.unwrap();
    let delivery = queue.receive_within(LONG, secs(5)).await.unwrap().unwrap();
    queue.bury(&delivery, &format!("caf\u{e9}:\u{1}\n{}", "\u{1f56f}".repeat(1_000))).await.unwrap();
    let letter = queue.dead().receive_within(LONG, secs(5)).await.unwrap().unwrap();
    assert_eq!((letter.body.as_str(), letter.reason), (BODY, Some(format!("caf\u{e9}:{}", "\u{1f56f}".repeat(495)))));
    assert_eq!(queue.depth().await.unwrap().all(), 0);
}

#[tokio::test]
async fn what_cannot_be_buried_stays_and_what_is_not_deleted_then_is_there_twice() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send("poison").await.unwrap();
    let mut last = None;
    for time in 1..=10 {
        let delivery = queue.receive_within(LONG, secs(5)).await.unwrap().unwrap();
        assert_eq!(delivery.is_last(), time == 10);
        queue.extend(&delivery.receipt, Duration::ZERO).await.unwrap();
        last = Some(delivery);
    }
    let last = last.unwrap();
    backend.delete_queue("jobs-dead").await.unwrap();
    assert_eq!(queue.bury(&last, "it is no job").await.unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(queue.depth().await.unwrap().all(), 1, "it has nowhere else to be");

    queue.ensure(true).await.unwrap();
    // Another's receipt, so that its own message is not deleted.
    let _ = queue.bury(&Delivery { receipt: Receipt("another".into()), ..last }, "it is no job").await;
    assert_eq!(queue.receive_within(SHORT, secs(1)).await.unwrap(), None, "the queue has given it up by itself");
    let dead = queue.dead();
    let mut letters = Vec::new();
    for _ in 0..2 {
        let letter = dead.receive_within(LONG, secs(5)).await.unwrap().unwrap();
        letters.push((letter.body, letter.reason));
    }
    letters.sort();
    assert_eq!(letters, [("poison".to_owned(), None), ("poison".to_owned(), Some("it is no job".to_owned()))]);
}

#[tokio::test]
async fn an_extended_message_stays_away_and_a_deleted_one_never_comes() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    queue.send("work").await.unwrap();
    let delivery = queue.receive(SHORT).await.unwrap().unwrap();
    queue.extend(&delivery.receipt, LONG).await.unwrap();
    assert_eq!(queue.receive_within(SHORT, secs(4)).await.unwrap(), None, "it was extended");
    queue.extend(&delivery.receipt, Duration::ZERO).await.unwrap();
    let again = queue.receive_within(SHORT, secs(2)).await.unwrap().unwrap();
    queue.delete(&again.receipt).await.unwrap();
    assert_eq!(queue.receive_within(SHORT, secs(4)).await.unwrap(), None, "it was deleted");
}

#[tokio::test]
async fn a_poll_that_is_dropped_gives_its_message_back() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(300), queue.receive_within(LONG, secs(10))).await;
    assert!(dropped.is_err(), "nothing was there to receive");
    queue.send("work").await.unwrap();
    let since = Instant::now();
    let delivery = queue.receive_within(LONG, secs(15)).await.unwrap().expect("the dropped poll kept the message");
    assert_eq!(delivery.body, "work");
    assert!(since.elapsed() < secs(15));
}

#[tokio::test]
async fn a_queue_made_after_its_users_is_found() {
    let backend = Backend::ministack().await.unwrap();
    let early = Queue::connect_with(&backend.queue_at("jobs"), &backend.keys()).await;
    assert_eq!(early.ensure(false).await.unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(early.send("lost").await.unwrap_err().kind, FailureKind::NotFound);
    let made = early.clone().ensure(true).await.unwrap();
    assert_eq!(early.ensure(true).await.unwrap(), made, "ensuring twice makes one queue");
    early.send("work").await.unwrap();
    assert_eq!(early.receive(SHORT).await.unwrap().unwrap().body, "work");
}

/// What the operator asks of a queue that is as it should be: no more than to look at both.
async fn looks(queue: &Queue) -> bool {
    let calls = Calls::default();
    let there = queue.watched_by(&calls).ensure(true).await.unwrap();
    assert!(there.redrives && there.dead.is_some(), "{there:?}");
    calls.seen().iter().eq(["SQS.GetQueueAttributes"])
}

#[tokio::test]
async fn a_queue_that_somebody_deletes_is_made_again_and_so_is_the_one_of_dead_letters() {
    let backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    assert!(looks(&queue).await);
    for name in ["jobs", "jobs-dead"] {
        backend.delete_queue(name).await.unwrap();
        assert!(!looks(&queue).await, "{name} was not made");
        assert!(looks(&queue).await, "{name} was made twice");
    }
    queue.send("poison").await.unwrap();
    for _ in 1..=10 {
        let delivery = queue.receive_within(LONG, secs(5)).await.unwrap().unwrap();
        queue.extend(&delivery.receipt, Duration::ZERO).await.unwrap();
    }
    assert_eq!(queue.receive_within(SHORT, secs(1)).await.unwrap(), None, "it is dead");
    assert_eq!(queue.ensure(true).await.unwrap().dead.unwrap().waiting, 1);
}

#[tokio::test]
async fn what_somebody_changes_of_a_queue_is_set_again_and_an_adopted_one_is_left() {
    let backend = Backend::ministack().await.unwrap();
    let (queue, by_hand) = (backend.queue("jobs").await.unwrap(), by_hand::sqs(&backend).await);
    let set = async |name, attribute: QueueAttributeName, value: &str| {
        let request = by_hand.set_queue_attributes().queue_url(url(&by_hand, name).await);
        request.attributes(attribute, value).send().await.unwrap();
    };
    let policy = async || {
        let request =
            by_hand.get_queue_attributes().queue_url(url(&by_hand, "jobs").await).attribute_names(QueueAttributeName::RedrivePolicy);
        request.send().await.unwrap().attributes.unwrap_or_default().remove(&QueueAttributeName::RedrivePolicy)
    };
    let ours = policy().await.unwrap();
    let theirs = ours.replace("10", "3");
    assert_ne!(ours, theirs);
    set("jobs", QueueAttributeName::RedrivePolicy, &theirs).await;
    assert!(queue.ensure(false).await.unwrap().redrives);
    assert_eq!(policy().await.unwrap(), theirs, "it is not ours");
    queue.ensure(true).await.unwrap();
    assert_eq!(policy().await.unwrap(), ours);
    set("jobs-dead", QueueAttributeName::MessageRetentionPeriod, "60").await;
    assert!(!looks(&queue).await && looks(&queue).await, "the dead letters' time was set once");

    let plain = by_hand.create_queue().queue_name("theirs").send().await.unwrap();
    let adopted = Queue::connect_with(&backend.queue_at("theirs"), &backend.keys()).await.ensure(false).await.unwrap();
    assert_eq!((Some(adopted.url), adopted.redrives, adopted.dead), (plain.queue_url, false, None));
}

async fn url(by_hand: &aws_sdk_sqs::Client, name: &str) -> String {
    by_hand.get_queue_url().queue_name(name).send().await.unwrap().queue_url.unwrap()
}

#[tokio::test]
async fn a_server_that_dies_is_unreachable_until_it_is_back() {
    let mut backend = Backend::ministack().await.unwrap();
    let queue = backend.queue("jobs").await.unwrap();
    backend.kill();
    assert_eq!(queue.send("lost").await.unwrap_err().kind, FailureKind::Unreachable);
    assert_eq!(queue.receive(SHORT).await.unwrap_err().kind, FailureKind::Unreachable);
    backend.restart().await.unwrap();
    queue.ensure(true).await.unwrap(); // MiniStack forgets its queues
    queue.send("work").await.unwrap();
    assert_eq!(queue.receive(SHORT).await.unwrap().unwrap().body, "work");
}
