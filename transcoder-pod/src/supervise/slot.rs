//! One job from its delivery to its end: starts the child, passes on what it says, decides about the message.

use super::board::Board;
use super::budget::{Purse, Share};
use super::heart;
use crate::child::{ChildJob, ChildSays};
use crate::engine::Backend;
use crate::retry::Backoff;
use lectern_cloud::{BucketAt, Delivery, Queue, Receipt};
use lectern_contract::Owner;
use lectern_contract::job::LiveJob;
use lectern_contract::report::TranscoderState;
use lectern_podkit::PodArgs;
use lectern_podkit::telemetry::{LogFormat, TelemetryArgs};
use prometheus_client::metrics::gauge::Gauge;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// A child that was asked to hand over has this long. A pod has 30 s in all by default.
const HAND_OVER: Duration = Duration::from_secs(20);
/// A job that was delivered this often and whose child crashes is the crash's cause (or the fleet is sick: people decide).
const MOST_DELIVERIES: u32 = 8;

/// How long a job that does not fit into a pod stays out of all pods' sight.
pub const ELSEWHERE: Duration = Duration::from_secs(1);

/// What becomes of a message.
#[derive(Debug)]
pub enum Admission {
    /// A job, and its share of what the pod has.
    Job(Box<LiveJob>, Share),
    /// A job that costs more than is left here; it was passed on.
    DoesNotFit,
    /// Nothing that anybody understands.
    NoJob,
}

/// What jobs need of the pod.
#[derive(Debug)]
pub struct Slots {
    /// The queue that jobs come from.
    pub queue: Queue,
    /// The bucket that objects go to.
    pub bucket: BucketAt,
    /// Who this pod is.
    pub pod: PodArgs,
    /// What encodes.
    pub encoder: Backend,
    /// Whether a source may be passed on as a rendition that it agrees with.
    pub passthrough: bool,
    /// What is shown while nothing comes from the lecturer; `None`: a card with the title.
    pub slate_picture: Option<PathBuf>,
    /// Where the pod's certificate for shards is.
    pub peer_tls_dir: Option<PathBuf>,
    /// What the report says.
    pub board: Board,
    /// What jobs may cost.
    pub purse: Purse,
    /// Jobs under way.
    pub busy: Gauge<i64>,
    /// What they cost.
    pub taken: Gauge<i64>,
    /// How children log.
    pub log: TelemetryArgs,
}

/// How a child went.
enum Outcome {
    /// The job is done with.
    Done,
    /// It let go in good order: another takes it now.
    HandedOver,
    /// It died.
    Crashed(String),
    /// Its message is somebody else's by now.
    Fenced,
}

impl Slots {
    /// Looks at a message. A job that does not fit goes to the end of the queue: others get a chance, and deliveries are not counted against it
    /// (the tenth would be its last). A job that is there twice does no harm.
    pub async fn admit(&self, delivery: &Delivery) -> Admission {
        let Delivery { body, receipt, received } = delivery;
        let job: LiveJob = match serde_json::from_str(body) {
            Ok(job) => job,
            // The queue's redrive policy takes it to the dead-letter queue, where people look.
            Err(error) => {
                tracing::error!(%error, "a message is no job; left to the dead-letter queue");
                return Admission::NoJob;
            }
        };
        match self.purse.take(&job.ladder) {
            Ok(share) => {
                tracing::info!(stream = %job.stream, run = %job.run, attempt = job.attempt, received, "a job is taken");
                Admission::Job(Box::new(job), share)
            }
            Err(lacks) => {
                tracing::info!(stream = %job.stream, run = %job.run, lacks, "a job does not fit here now");
                match self.queue.send_after(body, ELSEWHERE).await {
                    Ok(()) => self.delete(receipt).await,
                    Err(error) => tracing::warn!(%error, "a job cannot be passed on; it comes again by itself in some seconds"),
                }
                Admission::DoesNotFit
            }
        }
    }

    /// Does `job`, the pod's `number`th, to its end here. Its message was delivered for the `received`th time.
    pub async fn work(&self, job: LiveJob, share: Share, number: u64, (receipt, received): (Receipt, u32), stop: CancellationToken) {
        self.busy.inc();
        self.count_taken();
        self.board.begin(number, &job);
        let outcome = match self.child(&job, number, &receipt, stop).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Crashed(format!("it cannot be started: {error}")),
        };
        match outcome {
            Outcome::Done => {
                self.delete(&receipt).await;
                self.board.end(number, true);
            }
            Outcome::HandedOver => self.give_back(&receipt, number, Duration::ZERO).await,
            Outcome::Crashed(how) if received >= MOST_DELIVERIES => {
                let reason = format!("the transcoder process crashed {received} times; last: {how}");
                tracing::error!(stream = %job.stream, run = %job.run, reason, "a job is given up");
                self.board.says(number, &ChildSays { epoch: lectern_contract::Epoch(0), state: TranscoderState::Failed { reason } });
                self.delete(&receipt).await;
                self.board.end(number, true);
            }
            Outcome::Crashed(how) => {
                tracing::error!(stream = %job.stream, run = %job.run, how, "a child died; its job goes to the next free slot");
                // At once for the first time; what crashes again and again must not spin.
                self.give_back(&receipt, number, Duration::from_secs(received.saturating_sub(1).into())).await;
            }
            Outcome::Fenced => {
                tracing::error!(stream = %job.stream, run = %job.run, "no heartbeat reached the queue; the child was stopped");
                self.board.end(number, false);
            }
        }
        drop(share);
        self.busy.dec();
        self.count_taken();
    }

    fn count_taken(&self) {
        self.taken.set(i64::try_from(self.purse.taken().pixels.0).unwrap_or(i64::MAX));
    }

    async fn child(&self, job: &LiveJob, number: u64, receipt: &Receipt, stop: CancellationToken) -> io::Result<Outcome> {
        let mut child = self.start()?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the child has no pipes"));
        };
        let given = ChildJob {
            encoder: self.encoder,
            passthrough: self.passthrough,
            slate_picture: self.slate_picture.clone(),
            job: job.clone(),
            owner: Owner(format!("{}/{number}", self.pod.pod_name)),
            pod_ip: self.pod.pod_ip,
            bucket: self.bucket.name.clone(),
            bucket_region: self.bucket.region.clone(),
            bucket_endpoint: self.bucket.endpoint.clone(),
            pool: self.pod.pool.clone(),
            peer_tls_dir: self.peer_tls_dir.clone(),
        };
        let mut line = serde_json::to_vec(&given)?;
        line.push(b'\n');
        input.write_all(&line).await?;

        let mut lines = BufReader::new(output).lines();
        let fence = heart::beat(self.queue.clone(), receipt.clone());
        tokio::pin!(fence);
        let mut input = Some(input); // its end asks the child to hand over
        let mut asked = None;
        let mut last: Option<ChildSays> = None;
        loop {
            let patience = asked.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => match serde_json::from_str::<ChildSays>(&line) {
                        Ok(says) => {
                            self.board.says(number, &says);
                            last = Some(says);
                        }
                        Err(error) => tracing::warn!(%error, line, "a child says what nobody understands"),
                    },
                    None => break,
                },
                () = &mut fence => {
                    child.kill().await?;
                    return Ok(Outcome::Fenced);
                }
                () = stop.cancelled(), if asked.is_none() => {
                    input.take();
                    asked = Some(tokio::time::Instant::now() + HAND_OVER);
                }
                () = tokio::time::sleep_until(patience) => {
                    tracing::warn!(run = %job.run, "a child does not hand over; killed");
                    child.kill().await?;
                    return Ok(Outcome::HandedOver);
                }
            }
        }
        let status = child.wait().await?;
        Ok(match (status.success(), last) {
            (true, Some(says)) if says.is_final() => Outcome::Done,
            (true, _) => Outcome::HandedOver,
            (false, _) => Outcome::Crashed(status.to_string()),
        })
    }

    fn start(&self) -> io::Result<Child> {
        let format = match self.log.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        Command::new(std::env::current_exe()?)
            .args(["--log", &self.log.log, "--log-format", format, "child"])
            .env("SVT_LOG", "1") // errors only: its banner is no line of a log
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
    }

    /// Deletes a message. What cannot be deleted comes again, and finds the run ended or idle: harmless.
    async fn delete(&self, receipt: &Receipt) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.queue.delete(receipt).await {
            if !error.is_transient() || backoff.failures() > 10 {
                return tracing::warn!(%error, "a message cannot be deleted; it will come again");
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn give_back(&self, receipt: &Receipt, number: u64, after: Duration) {
        self.board.end(number, false);
        if let Err(error) = self.queue.extend(receipt, after).await {
            tracing::warn!(%error, "a message cannot be given back; it comes again by itself in some seconds");
        }
    }
}
