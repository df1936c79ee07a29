//! Where jobs come from, while there is a free slot: the queue, and past it the operator.

use super::VISIBILITY;
use super::slot::{Admission, ELSEWHERE, Slots};
use crate::retry::Backoff;
use lectern_cloud::Queue;
use lectern_contract::RunId;
use lectern_contract::job::LiveJob;
use lectern_podkit::health::Readiness;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the queue may wait for a message. A receive is never cancelled (it would hide the message all the same), so
/// this is also how long a stopping pod may have to wait.
const WAIT: Duration = Duration::from_secs(5);

/// A pod that could not take a job leaves the queue to others for this long, or until there is more room: else it would take the same job
/// again and again from under their noses.
const ASIDE: Duration = Duration::from_secs(ELSEWHERE.as_secs() * 3);

/// Receives until `stop`, then waits for the jobs to be handed over.
pub async fn run(
    queue: Queue,
    slots: Arc<Slots>,
    free: Arc<Semaphore>,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (mut jobs, mut backoff) = (JoinSet::new(), Backoff::default());
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
                        let (slots, stop) = (slots.clone(), stop.clone());
                        jobs.spawn(async move {
                            slots.work(*job, share, &delivery, stop).await;
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
                drop(permit); // for what comes past the queue
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

/// Operators repeat a job for ten seconds; one that comes after so long is another matter.
const REPEATED_FOR: Duration = Duration::from_secs(15);

/// A job that came past the queue.
struct Known {
    attempt: u32,
    /// When it came last.
    at: Instant,
    is_under_way: bool,
}

/// Takes what operators give, which they repeat and of which two may have another attempt each, until `stop`; then waits for the jobs to be handed over.
pub async fn past_the_queue(
    mut given: mpsc::UnboundedReceiver<LiveJob>,
    slots: Arc<Slots>,
    free: Arc<Semaphore>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (mut jobs, mut known) = (JoinSet::new(), HashMap::<RunId, Known>::new());
    while let Some(Some(job)) = stop.run_until_cancelled(given.recv()).await {
        while let Some(ended) = jobs.try_join_next() {
            let Ok((run, attempt)) = ended else { continue };
            if let Some(known) = known.get_mut(&run).filter(|known| known.attempt == attempt) {
                known.is_under_way = false;
            }
        }
        known.retain(|_, known| known.is_under_way || known.at.elapsed() < REPEATED_FOR);
        let at = Instant::now();
        if let Some(known) = known.get_mut(&job.run).filter(|known| known.attempt >= job.attempt) {
            known.at = at;
            continue;
        }
        known.insert(job.run.clone(), Known { attempt: job.attempt, at, is_under_way: true });
        let (slots, free, stop) = (slots.clone(), free.clone(), stop.clone());
        jobs.spawn(async move {
            let taken = (job.run.clone(), job.attempt);
            // The semaphore is never closed; were it, there would be no slot.
            if let Some(Ok(_slot)) = stop.run_until_cancelled(free.acquire_owned()).await {
                slots.work_past_the_queue(job, stop).await;
            }
            taken
        });
    }
    while jobs.join_next().await.is_some() {}
    Ok(())
}
