//! Sending a run to a transcoder, at least once.
//!
//! The attempt is written to the status before its message is sent, and the time of sending after. Whoever finds an attempt
//! without a time sends it again: after a crash in between there are two messages of one attempt, never none. Two do no
//! harm, because the head of the run lets one transcoder write only.

use super::claims::{self, TRANSCODING};
use super::validate::Wanted;
use super::{api, status};
use crate::apply;
use crate::cloud::{CALL, within};
use crate::conditions;
use crate::context::{Context, Error};
use crate::reports::{ShardSaid, TranscoderSaid, is_working};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lectern_contract::Epoch;
use lectern_contract::job::LiveJob;
use lectern_contract::message::Message as _;
use lectern_contract::report::TranscoderState;
use lectern_crds::{LiveStream, LiveStreamStatus};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::observe::Seen;

/// `kubectl annotate livestream NAME lectern.video/move=now`: another transcoder takes the stream over from the one that it has, without a
/// gap. It is taken off once the successor is called.
pub const MOVE_ANNOTATION: &str = "lectern.video/move";

/// Whether somebody wants `stream` to move.
pub fn is_to_move(stream: &LiveStream) -> bool {
    stream.annotations().contains_key(MOVE_ANNOTATION)
}

/// A queue that has not taken a job by then is gone past: a pod with room for it gets it in the answer to its report.
const PAST_THE_QUEUE_AFTER: Duration = Duration::from_secs(5);
/// And so is one that has taken a successor's job, which no pod has then spoken of: a queue can give it to a receive of the pod that is dead, and shows it to
/// others only after seconds in which students wait. Where two take it after all, one finds that the other owns the run.
const SUCCESSOR_PAST_THE_QUEUE_AFTER: Duration = Duration::from_millis(500);
/// A run that no transcoder has spoken of for so long is not to be waited for: longer than the queue takes to give a job to another pod.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(10);

/// An attempt has come to something by then, or to nothing: the owner before a move that failed has the run still, and is who counts again.
const OUTCOME: SignedDuration = SignedDuration::from_secs(60);

/// A job that no pod has taken for so long although one has room for it has got lost.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// What becomes of a stream's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: there is no job, or it is in good hands.
    Leave,
    /// A new attempt: write it down, then send it.
    Send(i32),
    /// The same, for a successor of the living owner of this epoch.
    Move(i32, Epoch),
    /// This attempt is written down, and nobody knows whether it was sent: send it.
    SendAgain(i32),
    /// This attempt was sent, and only the time is not written down yet.
    WasSent(i32),
}

/// Decides, from the status as it stands and what was seen; `moving`: somebody wants another transcoder for the stream.
pub fn decide(old: &LiveStreamStatus, seen: &Seen, publishing: bool, moving: bool) -> Decision {
    if conditions::holds(&old.conditions, claims::ENDED) {
        return Decision::Leave;
    }
    let Some(dispatch) = &old.dispatch else {
        return if publishing && !seen.ending { Decision::Send(1) } else { Decision::Leave };
    };
    let attempt = dispatch.attempt;
    let is_past = |bound| dispatch.at.as_ref().is_some_and(|at| conditions::is_past(at.0, bound, seen.now));
    let is_newest = |said: &TranscoderSaid| i64::from(said.run.attempt) >= i64::from(attempt);
    let answering = seen.transcoder.as_ref().filter(|said| is_newest(said) || is_past(OUTCOME));
    let said = answering.filter(|said| said.fresh);
    if dispatch.at.is_none() {
        let sent = said.is_some() || seen.sent.is_some_and(|sent| i64::from(sent) >= i64::from(attempt));
        return if sent { Decision::WasSent(attempt) } else { Decision::SendAgain(attempt) };
    }
    // Three reports are missing: its pod, its node or the way from there is gone. Not waiting for the queue to show the message again saves
    // seconds; where the transcoder is alive after all, the new one finds that out and stops. One that a newer attempt was sent after is not to be sent after again in vain.
    let is_lost =
        seen.settled && answering.is_some_and(|said| !said.fresh && is_working(&said.run.state) && (is_newest(said) || seen.has_room));
    // And nobody at all may know of the run any more: a child died whose message was deleted with a duplicate of it, or the queue was purged.
    let silence = conditions::find(&old.conditions, TRANSCODING).filter(|condition| condition.reason == "TranscoderSilent");
    let is_forgotten = seen.settled
        && said.is_none_or(|said| said.run.state == TranscoderState::Lost)
        && silence.is_some_and(|silence| conditions::is_past(silence.last_transition_time.0, FORGOTTEN, seen.now));
    // Or it waits in a queue that has lost it: there is room for it, and nobody comes.
    let is_waiting = conditions::reason(&old.conditions, TRANSCODING) == Some("WaitingForTranscoder");
    let is_mislaid = said.is_none() && is_waiting && is_past(OVERDUE) && seen.has_room;
    // A node may have taken the shard along: whoever published comes back elsewhere, and a successor that is there by then has the slate for students meanwhile.
    let was_publishing = matches!(seen.shard, ShardSaid::Silent) && old.received.is_some();
    let is_wanted = publishing || seen.ending;
    if is_lost && (is_wanted || was_publishing) || (is_forgotten || is_mislaid) && is_wanted {
        return Decision::Send(attempt.saturating_add(1));
    }
    if let Some(said) = said.filter(|said| moving && matches!(said.run.state, TranscoderState::Running { .. })) {
        return Decision::Move(attempt.saturating_add(1), said.run.epoch);
    }
    // A job that was given up, which people have looked into.
    if moving && conditions::reason(&old.conditions, TRANSCODING) == Some("Failed") && (publishing || seen.ending) {
        return Decision::Move(attempt.saturating_add(1), Epoch(0));
    }
    // An idle transcoder has let go. It says so for a minute; from then on the condition remembers it.
    let idle = match said {
        Some(said) => matches!(said.run.state, TranscoderState::Idle),
        None => conditions::reason(&old.conditions, TRANSCODING) == Some("Idle"),
    };
    // One that ends needs a transcoder, too: somebody has to close the playlists.
    if idle && (publishing || seen.ending) { Decision::Send(attempt.saturating_add(1)) } else { Decision::Leave }
}

/// The attempts that this process has sent, by the stream's uid: a reconcile that runs on a copy from before the time of
/// sending was written does not send again.
#[derive(Debug, Default)]
pub struct Sent(Mutex<HashMap<String, Attempts>>);

/// Of one stream.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    /// The last that was sent.
    last: Option<u32>,
    /// Since when the next one cannot be sent.
    failing: Option<Instant>,
}

impl Sent {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Attempts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last attempt sent.
    pub fn attempt(&self, uid: &str) -> Option<u32> {
        self.lock().get(uid)?.last
    }

    fn note(&self, uid: String, attempt: u32) {
        self.lock().insert(uid, Attempts { last: Some(attempt), failing: None });
    }

    /// Takes note that an attempt cannot be sent; for how long that has been so.
    fn failed(&self, uid: String, now: Instant) -> Duration {
        now.duration_since(*self.lock().entry(uid).or_default().failing.get_or_insert(now))
    }

    /// The stream is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

/// Sends `job`, whose attempt stands in `stream`'s status, and writes down when, or why not.
pub async fn send(stream: &LiveStream, job: &LiveJob, wanted: &Wanted, ctx: &Context) -> Result<(), Error> {
    if job.attempt > 1 && job.replaces.is_none() {
        let now = Instant::now();
        ctx.reports.give(&wanted.pool_name, job, now + SUCCESSOR_PAST_THE_QUEUE_AFTER, now);
    }
    let (queue, message) = (ctx.clouds.queue(&wanted.pool).await, job.to_message());
    let sent = within(CALL, &format!("queue {}", wanted.pool.queue.name), queue.send(&message)).await;
    let mut told = super::status_of(stream);
    let uid = stream.uid().unwrap_or_default();
    let past_the_queue = |_: &_| {
        let now = Instant::now();
        let patient = ctx.sent.failed(uid.clone(), now) < PAST_THE_QUEUE_AFTER;
        (!patient).then(|| ctx.reports.give(&wanted.pool_name, job, now, now)).flatten()
    };
    match sent.map(|()| None).or_else(|error| past_the_queue(&error).map(Some).ok_or(error)) {
        Ok(given) => {
            ctx.sent.note(uid, job.attempt);
            match &given {
                None => tracing::info!(stream = %job.stream, run = %job.run, attempt = job.attempt, "the job is in the queue"),
                Some(pod) => {
                    tracing::warn!(stream = %job.stream, run = %job.run, attempt = job.attempt, pod, "the queue is away: the job goes to a pod directly");
                    status::replace(&mut told, &claims::past_the_queue(pod), stream.metadata.generation, Timestamp::now());
                }
            }
            if let Some(dispatch) = &mut told.dispatch {
                dispatch.at = Some(Time(conditions::whole_second(Timestamp::now())));
            }
            let written = apply::status(&api(stream, ctx), stream, &told).await?;
            ctx.superseded.note(stream, &written);
            if job.replaces.is_some() {
                apply::remove_annotation(&api(stream, ctx), stream, MOVE_ANNOTATION).await?;
            }
            Ok(())
        }
        Err(error) => {
            let claim = claims::queue_unreachable(&told.conditions, &error.message);
            status::replace(&mut told, &claim, stream.metadata.generation, Timestamp::now());
            told.last_error = Some(claim.message);
            status::write(stream, &told, ctx).await?;
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::tests::seen;
    use serde_json::json;

    /// A job that was sent, and what was said of it, when the clock of whoever wrote it showed this second.
    fn written(reason: &str, second: i64) -> LiveStreamStatus {
        let at = seen(second).now.to_string();
        let said = json!({ "type": TRANSCODING, "status": "Unknown", "reason": reason, "message": "", "lastTransitionTime": at });
        serde_json::from_value(json!({ "dispatch": { "attempt": 1, "at": at }, "conditions": [said] })).unwrap()
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_a_forgotten_job_waiting() {
        for reason in ["TranscoderSilent", "WaitingForTranscoder"] {
            let decided = |second| decide(&written(reason, second), &seen(0), true, false);
            assert_eq!(decided(3600), Decision::Send(2), "{reason}: by a clock that is an hour ahead of ours");
            assert_eq!(decided(-60), Decision::Send(2), "{reason}: a minute ago, or just now by a clock that is a minute behind");
            assert_eq!(decided(-5), Decision::Leave, "{reason}: it has time");
            assert_eq!(decided(2), Decision::Leave, "{reason}: no two clocks are the same");
        }
    }

    #[test]
    fn a_job_cannot_be_sent_since_its_first_failure_until_it_is_sent() {
        let (sent, start) = (Sent::default(), Instant::now());
        let failed = |second| sent.failed("uid".into(), start + Duration::from_secs(second));
        assert_eq!([failed(10), failed(12), failed(15)], [0, 2, 5].map(Duration::from_secs));
        assert_eq!(sent.attempt("uid"), None);
        sent.note("uid".into(), 1);
        assert_eq!((sent.attempt("uid"), failed(20)), (Some(1), Duration::ZERO), "the next one has a time of its own");
    }
}
