//! One job from its delivery to its end: starts the child, passes on what it says, decides about the message.

use super::board::Board;
use super::budget::{Purse, Share};
use super::heart::{self, Giver};
use super::process;
use crate::caution::Caution;
use crate::child::{ChildJob, ChildSays};
use crate::engine::Backend;
use crate::head;
use crate::retry::Backoff;
use lectern_cloud::{BucketAt, Delivery, Objects, Queue, Receipt};
use lectern_contract::job::{FAREWELL, LiveJob};
use lectern_contract::keys::ObjectName;
use lectern_contract::message::{Message as _, NoJob};
use lectern_contract::report::TranscoderState;
use lectern_contract::{Epoch, Owner};
use lectern_podkit::PodArgs;
use lectern_podkit::telemetry::TelemetryArgs;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How soon a successor is called again for a job whose message is old.
const RENEWED_AGAIN: Duration = Duration::from_secs(600);
/// The same where none could be called, or nothing runs yet that one could go on with.
const NOT_RENEWED: Duration = Duration::from_secs(2);
/// How long a successor may take to be found, to get ready, and to go on, before a job is let go without one.
const SUCCESSION: Duration = Duration::from_secs(35);
/// A child that was asked to let go has this long.
const LET_GO: Duration = Duration::from_secs(15);
const _: () = assert!(SUCCESSION.as_secs() + LET_GO.as_secs() < FAREWELL.as_secs());
/// A child says how it goes twice a second, whatever it does. One that has said nothing for so long hangs, and another does its job from there: within
/// a GOP, so that what a student has in the buffer is about enough.
const DEAF: Duration = Duration::from_secs(2);
/// The same of its first word: a process has to be started for that, on whatever else the machine does.
const FIRST_WORD: Duration = Duration::from_secs(20);
/// A timer that fires so late says that this process did not run meanwhile.
const LATE: Duration = Duration::from_secs(1);
/// How long S3 may take to say who owns a run: less than is left of the message's visibility.
const LOOK_WITHIN: Duration = Duration::from_millis(1_500);
/// How soon that is asked again: what is back in time should be seen in time, so these pauses do not grow.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the queue may take to hear of a successor.
const CALL_WITHIN: Duration = Duration::from_secs(3);

/// How often a run that is to move is left to other pods: where there is none, or none has room, its own pod takes it.
const MOST_PASSED_ON: u32 = 5;
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
    /// The same, for a look at who owns a run.
    pub objects: Objects,
    /// When the leading operator took a report of this pod for the last time.
    pub reports: watch::Receiver<Option<Instant>>,
    /// Who this pod is.
    pub pod: PodArgs,
    /// What encodes.
    pub encoder: Backend,
    /// Whether a source may be passed on as a rendition that it agrees with.
    pub passthrough: bool,
    /// MiB of segments of each that may wait for S3; `None`: by its ladder.
    pub backlog_mib: Option<u32>,
    /// How old a job's message may get before the run moves, with a message of its own.
    pub renew_after: Duration,
    /// What is shown while nothing comes from the lecturer; `None`: a card with the title.
    pub slate_picture: Option<PathBuf>,
    /// Where the pod's certificate for shards is.
    pub peer_tls_dir: Option<PathBuf>,
    /// What the report says.
    pub board: Board,
    /// What jobs may cost.
    pub purse: Purse,
    /// How old jobs are when they are taken off the queue.
    pub ages: Histogram,
    /// Children so far.
    pub numbers: AtomicU64,
    /// Jobs under way: as long as there are fewer than slots, others may be used for what is not live.
    pub live: watch::Sender<u32>,
    /// The same for the metrics.
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

/// What comes of a message that is no job to this build: it goes back, for a pod of a newer one may take it, and from the last delivery to the dead letters, where people look.
pub async fn no_job(queue: &Queue, delivery: &Delivery, why: &NoJob) {
    tracing::error!(%why, received = delivery.received, "a message is no job here; it goes back, and after its last delivery to the dead letters");
    if delivery.is_last()
        && let Err(error) = queue.bury(delivery, &why.to_string()).await
    {
        tracing::warn!(%error, "why it is given up cannot be said; the queue gives it up by itself");
    }
}

impl Slots {
    /// Looks at a message. A job that does not fit goes to the end of the queue: others get a chance, and deliveries are not counted against it
    /// (the tenth would be its last). A job that is there twice does no harm.
    pub async fn admit(&self, delivery: &Delivery) -> Admission {
        let Delivery { body, receipt, received, age, .. } = delivery;
        self.ages.observe(age.as_secs_f64());
        let job = match LiveJob::of_message(body) {
            Ok(job) => job,
            Err(error) => {
                no_job(&self.queue, delivery, &error).await;
                return Admission::NoJob;
            }
        };
        // Who wants a run to move wants it in another pod, if there is one.
        if job.replaces.is_some() && job.passed_on < MOST_PASSED_ON && self.board.works_on(&job.run) {
            tracing::info!(stream = %job.stream, run = %job.run, "a run is to move, and it is here: another pod should take it");
            let passed_on = LiveJob { passed_on: job.passed_on + 1, ..job };
            self.pass_on(&passed_on.to_message(), receipt).await;
            return Admission::DoesNotFit;
        }
        match self.purse.take(&job.ladder) {
            Ok(share) => {
                tracing::info!(stream = %job.stream, run = %job.run, attempt = job.attempt, received, "a job is taken");
                Admission::Job(Box::new(job), share)
            }
            Err(lacks) => {
                tracing::info!(stream = %job.stream, run = %job.run, lacks, "a job does not fit here now");
                self.pass_on(body, receipt).await;
                Admission::DoesNotFit
            }
        }
    }

    async fn pass_on(&self, body: &str, receipt: &Receipt) {
        match self.queue.send_after(body, ELSEWHERE).await {
            Ok(()) => self.delete(receipt).await,
            Err(error) => tracing::warn!(%error, "a job cannot be passed on; it comes again by itself in some seconds"),
        }
    }

    /// Does `job`, which was delivered so, to its end here.
    ///
    /// The first child that dies is followed by another at once, in the same slot. From then on the pod may be the cause, and the job goes to the next slot that is free
    /// anywhere. What is given up goes to the dead letters.
    pub async fn work(&self, job: LiveJob, share: Share, delivery: &Delivery, stop: CancellationToken) {
        let Delivery { receipt, received, .. } = delivery;
        let mut crashes = if *received > 1 { *received } else { 0 };
        let (number, outcome) = loop {
            let (number, outcome) = self.do_it(&job, Some(receipt), crashes, stop.clone()).await;
            let Outcome::Crashed(how) = &outcome else { break (number, outcome) };
            crashes = crashes.saturating_add(1);
            if crashes > 1 || stop.is_cancelled() {
                break (number, outcome);
            }
            tracing::error!(stream = %job.stream, run = %job.run, how, "a child died; another follows in its slot");
            self.board.end(number, false);
        };
        match outcome {
            Outcome::Done => {
                self.delete(receipt).await;
                self.board.end(number, true);
            }
            Outcome::HandedOver => self.give_back(receipt, number, Duration::ZERO).await,
            Outcome::Crashed(how) if Caution::after(crashes).is_none() => {
                let reason = self.give_up(&job, number, &how, crashes);
                if let Err(error) = self.queue.bury(delivery, &reason).await {
                    // Kept in the queue it would go on to crash children; the stream's condition says why.
                    tracing::warn!(%error, "a job that is given up does not get to the dead letters");
                    self.delete(receipt).await;
                }
            }
            Outcome::Crashed(how) => {
                tracing::error!(stream = %job.stream, run = %job.run, how, "a child died; its job goes to the next free slot");
                // What crashes again and again must not spin.
                self.give_back(receipt, number, Duration::from_secs(received.saturating_sub(1).into())).await;
            }
            Outcome::Fenced => {
                tracing::error!(stream = %job.stream, run = %job.run, "no heartbeat reached the queue; the child was stopped");
                self.board.end(number, false);
            }
        }
        drop(share);
        self.count_taken();
    }

    /// Does `job`, which came past the queue, to its end here: nobody else need hear of it, so that a child that dies is followed by another here.
    pub async fn work_past_the_queue(&self, job: LiveJob, stop: CancellationToken) {
        let room = self.purse.given_back();
        let share = loop {
            match self.purse.take(&job.ladder) {
                Ok(share) => break share,
                Err(_) if stop.is_cancelled() => return,
                Err(lacks) => {
                    tracing::info!(stream = %job.stream, run = %job.run, lacks, "a job does not fit here now");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = room.notified() => {}
                        () = tokio::time::sleep(ELSEWHERE) => {}
                    }
                }
            }
        };
        tracing::info!(stream = %job.stream, run = %job.run, attempt = job.attempt, "a job is taken past the queue");
        let mut backoff = Backoff::default();
        loop {
            let (number, outcome) = self.do_it(&job, None, backoff.failures(), stop.clone()).await;
            if let Outcome::Fenced = outcome {
                tracing::error!(stream = %job.stream, run = %job.run, "no report reached the leading operator; the child was stopped");
            }
            let Outcome::Crashed(how) = outcome else {
                self.board.end(number, matches!(outcome, Outcome::Done));
                break;
            };
            let (pause, crashes) = (backoff.next_wait(), backoff.failures());
            if Caution::after(crashes).is_none() || stop.is_cancelled() {
                self.give_up(&job, number, &how, crashes);
                break;
            }
            tracing::error!(stream = %job.stream, run = %job.run, how, "a child died; another follows");
            self.board.end(number, false);
            tokio::time::sleep(pause).await;
        }
        drop(share);
        self.count_taken();
    }

    /// One child's life, after `crashes` of others, and its number here.
    async fn do_it(&self, job: &LiveJob, receipt: Option<&Receipt>, crashes: u32, stop: CancellationToken) -> (u64, Outcome) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        self.busy.inc();
        self.live.send_modify(|live| *live += 1);
        self.count_taken();
        self.board.begin(number, job);
        let outcome = match self.child(job, number, (receipt, crashes), stop).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Crashed(format!("it cannot be started: {error}")),
        };
        self.busy.dec();
        self.live.send_modify(|live| *live -= 1);
        (number, outcome)
    }

    /// Says why `job` is given up.
    fn give_up(&self, job: &LiveJob, number: u64, how: &str, crashes: u32) -> String {
        let reason = format!("the transcoder process crashed {crashes} times; last: {how}");
        tracing::error!(stream = %job.stream, run = %job.run, reason, "a job is given up");
        self.board
            .says(number, &ChildSays { epoch: Epoch(0), state: TranscoderState::Failed { reason: reason.clone() }, has_begun: false });
        self.board.end(number, true);
        reason
    }

    fn count_taken(&self) {
        self.taken.set(i64::try_from(self.purse.taken().pixels.0).unwrap_or(i64::MAX));
    }

    async fn child(
        &self,
        job: &LiveJob,
        number: u64,
        (receipt, crashes): (Option<&Receipt>, u32),
        stop: CancellationToken,
    ) -> io::Result<Outcome> {
        let mut given = ChildJob {
            deaf_to_pictures: false,
            caution: None,
            encoder: self.encoder,
            passthrough: self.passthrough,
            slate_picture: self.slate_picture.clone(),
            backlog_mib: self.backlog_mib,
            job: job.clone(),
            owner: Owner(format!("{}/{number}", self.pod.pod_name)),
            pod_ip: self.pod.pod_ip,
            bucket: self.bucket.name.clone(),
            bucket_region: self.bucket.region.clone(),
            bucket_endpoint: self.bucket.endpoint.clone(),
            pool: self.pod.pool.clone(),
            peer_tls_dir: self.peer_tls_dir.clone(),
        };
        // What was delivered too often is done with the greatest caution, should its child live this time.
        Caution::after(crashes).unwrap_or(Caution::SoundOnly).apply(&mut given);
        let (mut child, input, mut lines) = process::start("child", &given, &self.log).await?;
        let giver = match receipt {
            Some(receipt) => Giver::Queue(self.queue.clone(), receipt.clone()),
            None => Giver::Operator(self.reports.clone()),
        };
        // A task of its own: it beats while this one waits for an answer.
        let beat = || AbortOnDropHandle::new(tokio::spawn(heart::beat(giver.clone())));
        let mut fence = beat();
        let mut input = Some(input); // its end asks the child to let go
        let mut patience = None;
        let mut renewal = Instant::now() + self.renew_after;
        let mut last: Option<ChildSays> = None;
        let mut hangs = Instant::now() + FIRST_WORD;
        loop {
            let until = patience.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                biased; // words that came while this process stood still were said in time
                line = lines.next_line() => match line? {
                    Some(line) => match serde_json::from_str::<ChildSays>(&line) {
                        Ok(says) => {
                            hangs = Instant::now() + DEAF;
                            self.board.says(number, &says);
                            last = Some(says);
                        }
                        Err(error) => tracing::warn!(%error, line, "a child says what nobody understands"),
                    },
                    None => break,
                },
                _ = &mut fence => {
                    if !self.is_ours(job, &given.owner).await {
                        child.kill().await?;
                        return Ok(Outcome::Fenced);
                    }
                    fence = beat();
                }
                // Who wakes up late has stood still together with the child.
                () = sleep_until(hangs) => {
                    if hangs.elapsed() <= LATE {
                        child.kill().await?;
                        return Ok(Outcome::Crashed(format!("it hung: nothing was heard of it for {} s", DEAF.as_secs())));
                    }
                    hangs = Instant::now() + DEAF;
                }
                () = stop.cancelled(), if patience.is_none() => {
                    let called = self.call_one_after(job, last.as_ref()).await;
                    patience = Some(Instant::now() + if called { SUCCESSION } else { Duration::ZERO });
                }
                () = sleep_until(renewal), if patience.is_none() && receipt.is_some() => {
                    // Should nobody have room for it, the run goes on as one whose queue is away.
                    renewal = Instant::now() + if self.call_one_after(job, last.as_ref()).await { RENEWED_AGAIN } else { NOT_RENEWED };
                }
                () = sleep_until(until) => match input.take() {
                    Some(_) => patience = Some(Instant::now() + LET_GO),
                    None => {
                        tracing::warn!(run = %job.run, "a child does not let go; killed");
                        child.kill().await?;
                        return Ok(Outcome::HandedOver);
                    }
                },
            }
        }
        let status = child.wait().await?;
        Ok(match (status.success(), last) {
            (true, Some(says)) if says.is_final() => Outcome::Done,
            (true, _) => Outcome::HandedOver,
            (false, _) => Outcome::Crashed(status.to_string()),
        })
    }

    /// Whether S3 says that `owner` has the job's run. Then it may go on without the queue: the message may be given to others, who have to move the
    /// head before they write, and the owner's next move of it fails then.
    async fn is_ours(&self, job: &LiveJob, owner: &Owner) -> bool {
        let key = job.prefix.key(&ObjectName::Head);
        let looking = async {
            loop {
                match head::read(&self.objects, &key, job).await {
                    Ok(found) => return found.is_some_and(|(head, _)| head.owner == *owner && !head.ended),
                    // It may be back in time.
                    Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        };
        timeout(LOOK_WITHIN, looking).await.unwrap_or(false)
    }

    /// Has another pod get ready to go on with `job` after the child here, if that has begun a segment; whether the queue has taken the message.
    async fn call_one_after(&self, job: &LiveJob, last: Option<&ChildSays>) -> bool {
        let Some(&ChildSays { epoch, .. }) = last.filter(|says| says.has_begun) else { return false };
        let successor = LiveJob { replaces: Some(epoch), ..job.clone() };
        match heart::in_time(CALL_WITHIN, self.queue.send(&successor.to_message())).await {
            Ok(()) => {
                tracing::info!(stream = %job.stream, run = %job.run, %epoch, "a successor is called");
                true
            }
            Err(error) => {
                tracing::warn!(run = %job.run, error, "no successor can be called; the job is let go");
                false
            }
        }
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
