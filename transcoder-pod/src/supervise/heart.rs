//! Keeps a running job's message hidden, and knows when a job may have been given to another pod.

use super::{HEARTBEAT, VISIBILITY};
use lectern_cloud::{Queue, QueueError, Receipt};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// The message is somebody else's after the visibility; this much before, the job must be gone here (facts/aws.md).
const MARGIN: Duration = Duration::from_secs(2);

/// Who would give a job to another pod, if nothing was heard of this one.
#[derive(Debug, Clone)]
pub enum Giver {
    /// The queue, which keeps its message hidden while it hears beats.
    Queue(Queue, Receipt),
    /// The leading operator, for a job that came past the queue: when it took a report of this pod for the last time.
    Operator(watch::Receiver<Option<Instant>>),
}

/// Beats, where a queue is to hear it, until it is dropped. Resolves when the job must be given up, should S3 not say that it is still this pod's: the giver has heard nothing for the
/// visibility less two seconds, by the monotonic clock.
pub async fn beat(giver: Giver) {
    let (told, last) = watch::channel(Instant::now());
    let heard = async {
        match giver {
            Giver::Queue(queue, receipt) => beat_to_queue(queue, receipt, told).await,
            Giver::Operator(heard) => follow_reports(heard, told).await,
        }
    };
    tokio::select! {
        () = heard => {}
        () = silence_after(last) => {}
    }
}

async fn follow_reports(mut heard: watch::Receiver<Option<Instant>>, told: watch::Sender<Instant>) {
    heard.mark_unchanged(); // what was heard before counts for nothing: the job was given just now, or S3 has just said whose it is
    while heard.changed().await.is_ok() {
        if let Some(at) = *heard.borrow_and_update() {
            told.send_replace(at);
        }
    }
    std::future::pending().await // the pod stops
}

async fn beat_to_queue(queue: Queue, receipt: Receipt, told: watch::Sender<Instant>) {
    let mut complained = false;
    loop {
        let began = Instant::now();
        match in_time(HEARTBEAT, queue.extend(&receipt, VISIBILITY)).await {
            Ok(()) => {
                // The visibility counts from when the queue heard of it: not before the request was made.
                told.send_replace(began);
                complained = false;
                tokio::time::sleep(HEARTBEAT).await;
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(error, "a heartbeat failed; trying on");
                    complained = true;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Resolves when the giver has heard nothing for too long.
async fn silence_after(mut last: watch::Receiver<Instant>) {
    loop {
        let until = *last.borrow_and_update() + (VISIBILITY - MARGIN);
        sleep_until(until).await;
        if *last.borrow() + (VISIBILITY - MARGIN) <= Instant::now() {
            return;
        }
    }
}

/// Waits for a call to the queue, but not for longer than `limit`; why it failed, for the log.
pub async fn in_time(limit: Duration, call: impl Future<Output = Result<(), QueueError>>) -> Result<(), String> {
    match timeout(limit, call).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_cloud::testing::Backend;
    use tokio_util::task::AbortOnDropHandle;

    /// How long `beat` beats while the operator hears as much as `hears` sends.
    async fn lasts(hears: impl AsyncFn(&watch::Sender<Option<Instant>>)) -> Duration {
        let heard = watch::Sender::new(None);
        heard.send_replace(Some(Instant::now()));
        tokio::time::sleep(Duration::from_secs(10)).await; // the leader has been gone for long when the job is given
        let (mut of_the_pod, began) = (heard.subscribe(), Instant::now());
        of_the_pod.mark_changed(); // nobody has looked at it since the pod began
        tokio::join!(beat(Giver::Operator(of_the_pod)), hears(&heard));
        began.elapsed()
    }

    #[tokio::test]
    async fn a_message_stays_hidden_for_as_long_as_the_heart_beats_and_comes_again_once_it_is_dropped() {
        let backend = Backend::ministack().await.unwrap();
        let queue = backend.queue("jobs").await.unwrap();
        queue.send("a job").await.unwrap();
        let receive = async |within: Duration| queue.receive_within(within, VISIBILITY).await.unwrap();
        let delivery = receive(Duration::from_secs(5)).await.unwrap();
        let heart = AbortOnDropHandle::new(tokio::spawn(beat(Giver::Queue(queue.clone(), delivery.receipt))));
        assert!(receive(VISIBILITY + HEARTBEAT).await.is_none(), "it is kept");
        drop(heart);
        let again = receive(VISIBILITY + HEARTBEAT).await.expect("nobody keeps it");
        assert_eq!((again.body.as_str(), again.received), ("a job", 2));
    }

    #[tokio::test]
    async fn a_message_is_given_up_in_time_where_the_queue_hears_no_beat() {
        let backend = Backend::ministack().await.unwrap();
        let queue = backend.queue("jobs").await.unwrap();
        queue.send("a job").await.unwrap();
        let receipt = queue.receive_within(Duration::from_secs(5), VISIBILITY).await.unwrap().unwrap().receipt;
        drop(backend);
        tokio::time::pause();
        let began = Instant::now();
        beat(Giver::Queue(queue, receipt)).await;
        let late = began.elapsed().checked_sub(VISIBILITY - MARGIN).expect("not before it has to be");
        assert!(
            late < Duration::from_millis(5),
            "{late:?}: before the queue may show it to another; timers are rounded up to the millisecond"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_past_the_queue_is_fenced_when_the_operator_has_heard_nothing_since_it_began() {
        for _ in 0..20 {
            // The order in which two futures are asked is thrown anew each time.
            assert_eq!(lasts(async |_| {}).await.as_secs(), (VISIBILITY - MARGIN).as_secs());
        }
        let three_reports = async |heard: &watch::Sender<Option<Instant>>| {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                heard.send_replace(Some(Instant::now()));
            }
        };
        assert_eq!(lasts(three_reports).await.as_secs(), (VISIBILITY - MARGIN).as_secs() + 3);
    }
}
