//! What idle slots are for: the archive's queue. A lecture that comes has its slot at once, and the archive goes on later, or elsewhere.

use super::heart::{self, Giver};
use super::process;
use super::slot::{ELSEWHERE, no_job};
use crate::archive::ArchiveChild;
use crate::publish::json;
use lectern_cloud::{BucketAt, Delivery, Objects, Queue};
use lectern_contract::job::ArchiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{Archive, ArchiveState};
use lectern_contract::message::Message as _;
use lectern_podkit::telemetry::TelemetryArgs;
use prometheus_client::metrics::gauge::Gauge;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long the queue may wait for a message.
const WAIT: Duration = Duration::from_secs(5);
/// A queue that is not there, or does not answer, is asked again after this: nobody waits for it.
const AWAY: Duration = Duration::from_secs(30);
/// A child says each segment that it has stored. One that has stored none for so long, at whatever priority, hangs.
const HANGS: Duration = Duration::from_secs(900);
/// After so many deliveries without an end it is not tried again.
const MOST_DELIVERIES: u32 = 5;
/// How long a job whose child died is left alone.
const AFTER_A_DEATH: Duration = Duration::from_secs(30);

/// What the archive's jobs need of the pod.
#[derive(Debug)]
pub struct Archives {
    /// Where they come from.
    pub archive: Queue,
    /// Where runs are.
    pub bucket: BucketAt,
    /// The same.
    pub objects: Objects,
    /// As of live jobs.
    pub slate_picture: Option<PathBuf>,
    /// Live jobs under way, and how many the pod can do.
    pub live: watch::Receiver<u32>,
    /// See there.
    pub slots: u32,
    /// 1 while an archive's job is under way.
    pub busy: Gauge<i64>,
    /// How children log.
    pub log: TelemetryArgs,
}

/// How a child went.
#[derive(Debug)]
enum Outcome {
    Done,
    /// A lecture needs the slot, or the pod stops.
    MadeWay,
    Died(String),
    /// The message is somebody else's by now.
    Fenced,
}

/// Waits until `holds` of the live jobs.
async fn is(live: &mut watch::Receiver<u32>, holds: impl Fn(u32) -> bool) {
    let _ = live.wait_for(|live| holds(*live)).await; // who counts them lives as long as the pod
}

impl Archives {
    /// Takes one job at a time while a slot is idle, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut is_away = false;
        while !stop.is_cancelled() {
            let slots = self.slots;
            if stop.run_until_cancelled(is(&mut self.live, |live| live < slots)).await.is_none() {
                break;
            }
            match self.archive.receive_within(super::VISIBILITY, WAIT).await {
                Ok(delivery) => {
                    is_away = false;
                    if let Some(delivery) = delivery {
                        self.take(delivery, &stop).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::info!(%error, "the archive's queue does not answer; lectures need none of it");
                    }
                    stop.run_until_cancelled(tokio::time::sleep(AWAY)).await;
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self, delivery: Delivery, stop: &CancellationToken) {
        let job = match ArchiveJob::of_message(&delivery.body) {
            Ok(job) => job,
            Err(error) => return no_job(&self.archive, &delivery, &error).await,
        };
        let Delivery { body, receipt, received, .. } = delivery;
        tracing::info!(stream = %job.stream, run = %job.run, received, "a job of the archive's is taken");
        self.busy.set(1);
        let outcome =
            self.child(&job, &receipt, stop).await.unwrap_or_else(|error| Outcome::Died(format!("it cannot be started: {error}")));
        self.busy.set(0);
        let told = match outcome {
            Outcome::Done => self.archive.delete(&receipt).await,
            // As a message of its own, so that having made way counts against no job.
            Outcome::MadeWay => match self.archive.send_after(&body, ELSEWHERE).await {
                Ok(()) => self.archive.delete(&receipt).await,
                Err(error) => Err(error),
            },
            Outcome::Died(how) if received >= MOST_DELIVERIES => {
                let reason = format!("the process that encodes died {received} times; last: {how}");
                tracing::error!(stream = %job.stream, run = %job.run, reason, "a job of the archive's is given up");
                self.give_up(&job, reason).await;
                self.archive.delete(&receipt).await
            }
            Outcome::Died(how) => {
                tracing::error!(stream = %job.stream, run = %job.run, how, "a child of the archive's died; another goes on later");
                self.archive.extend(&receipt, AFTER_A_DEATH).await
            }
            Outcome::Fenced => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the archive's queue does not hear how a job went; it comes again");
        }
    }

    async fn give_up(&self, job: &ArchiveJob, reason: String) {
        let said = Archive { run: job.run.clone(), state: ArchiveState::Failed { reason } };
        if let Err(error) = self.objects.put(&job.prefix.key(&ObjectName::Archive), json(&said)).await {
            tracing::warn!(%error, "it cannot be written down that a job of the archive's is given up");
        }
    }

    async fn child(&mut self, job: &ArchiveJob, receipt: &lectern_cloud::Receipt, stop: &CancellationToken) -> io::Result<Outcome> {
        let given = ArchiveChild {
            job: job.clone(),
            slate_picture: self.slate_picture.clone(),
            bucket: self.bucket.name.clone(),
            bucket_region: self.bucket.region.clone(),
            bucket_endpoint: self.bucket.endpoint.clone(),
        };
        let (mut child, _input, mut lines) = process::start("archive", &given, &self.log).await?;
        let (slots, mut hangs) = (self.slots, Instant::now() + HANGS);
        let fence = heart::beat(Giver::Queue(self.archive.clone(), receipt.clone()));
        tokio::pin!(fence);
        let outcome = loop {
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(_) => hangs = Instant::now() + HANGS,
                    None => {
                        let status = child.wait().await?;
                        return Ok(if status.success() { Outcome::Done } else { Outcome::Died(status.to_string()) });
                    }
                },
                () = stop.cancelled() => break Outcome::MadeWay,
                () = is(&mut self.live, |live| live >= slots) => {
                    tracing::info!(run = %job.run, "a lecture needs the slot of a job of the archive's");
                    break Outcome::MadeWay;
                }
                () = &mut fence => break Outcome::Fenced,
                () = sleep_until(hangs) => break Outcome::Died(format!("it hung: no segment for {} s", HANGS.as_secs())),
            }
        };
        child.kill().await?; // at any line: what is stored stays
        Ok(outcome)
    }
}
