//! Keeps a running job's message hidden, and knows when that has failed for too long.

use super::{HEARTBEAT, VISIBILITY};
use lectern_cloud::{Queue, QueueError, Receipt};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// The message is somebody else's after the visibility; this much before, the job must be gone here (facts/aws.md).
const MARGIN: Duration = Duration::from_secs(2);

/// Beats until it is dropped; without a receipt there is nothing to be kept hidden, and nothing to fail. Resolves when the job must be given up: no beat has succeeded for the visibility less two
/// seconds, by the monotonic clock.
pub async fn beat(queue: Queue, receipt: Option<Receipt>) {
    let Some(receipt) = receipt else { return std::future::pending().await };
    let (told, mut last) = watch::channel(Instant::now());
    let beating = async move {
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
    };
    let fence = async move {
        loop {
            let until = *last.borrow_and_update() + (VISIBILITY - MARGIN);
            sleep_until(until).await;
            if *last.borrow() + (VISIBILITY - MARGIN) <= Instant::now() {
                return;
            }
        }
    };
    tokio::select! {
        () = beating => {}
        () = fence => {}
    }
}

/// Waits for a call to the queue, but not for longer than `limit`; why it failed, for the log.
pub async fn in_time(limit: Duration, call: impl Future<Output = Result<(), QueueError>>) -> Result<(), String> {
    match timeout(limit, call).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
