//! Asks the queue for jobs while there is a free slot.

use super::VISIBILITY;
use super::slot::{Admission, ELSEWHERE, Slots};
use crate::retry::Backoff;
use lectern_cloud::Queue;
use lectern_podkit::health::Readiness;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long the queue may wait for a message. A receive is never cancelled (it would hide the message all the same), so
/// this is also how long a stopping pod may have to wait.
const WAIT: Duration = Duration::from_secs(5);

/// A pod that could not take a job leaves the queue to others for this long, or until there is more room: else it would take the same job
/// again and again from under their noses.
const ASIDE: Duration = Duration::from_secs(ELSEWHERE.as_secs() * 3);

/// Receives until `stop`, then waits for the jobs to be handed over.
pub async fn run(queue: Queue, slots: Arc<Slots>, count: u32, readiness: Readiness, stop: CancellationToken) -> Result<(), Infallible> {
    let free = Arc::new(Semaphore::new(count as usize));
    let (mut jobs, mut number, mut backoff) = (JoinSet::new(), 0, Backoff::default());
    let room = slots.purse.given_back();
    readiness.not_ready("the queue has not answered yet");
    while !stop.is_cancelled() {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = free.clone().acquire_owned() => permit,
        };
        while jobs.try_join_next().is_some() {}
        match queue.receive_within(VISIBILITY, WAIT).await {
            Ok(delivery) => {
                if backoff.failures() > 0 {
                    tracing::info!("the queue answers again");
                }
                backoff.reset();
                readiness.ready();
                let Some(delivery) = delivery else { continue };
                match slots.admit(&delivery).await {
                    Admission::Job(job, share) => {
                        number += 1;
                        let (slots, stop) = (slots.clone(), stop.clone());
                        jobs.spawn(async move {
                            slots.work(*job, share, number, (delivery.receipt, delivery.received), stop).await;
                            drop(permit);
                        });
                    }
                    Admission::NoJob => {}
                    Admission::DoesNotFit => tokio::select! {
                        () = stop.cancelled() => {}
                        () = room.notified() => {}
                        () = tokio::time::sleep(ASIDE) => {}
                    },
                }
            }
            Err(error) => {
                if backoff.failures().is_multiple_of(16) {
                    tracing::warn!(%error, "the queue does not answer; trying on");
                }
                // Running jobs need no queue to be served, and a pod that cannot take more says so here.
                readiness.not_ready(format!("the queue does not answer: {error}"));
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(backoff.next_wait()) => {}
                }
            }
        }
    }
    readiness.not_ready("stopping");
    while jobs.join_next().await.is_some() {}
    Ok(())
}
