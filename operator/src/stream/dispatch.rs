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
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lectern_contract::job::LiveJob;
use lectern_contract::report::TranscoderState;
use lectern_crds::{LiveStream, LiveStreamStatus};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::observe::Seen;

/// What becomes of a stream's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: there is no job, or it is in good hands.
    Leave,
    /// A new attempt: write it down, then send it.
    Send(i32),
    /// This attempt is written down, and nobody knows whether it was sent: send it.
    SendAgain(i32),
    /// This attempt was sent, and only the time is not written down yet.
    WasSent(i32),
}

/// Decides, from the status as it stands and what was seen.
pub fn decide(old: &LiveStreamStatus, seen: &Seen, publishing: bool) -> Decision {
    if conditions::holds(&old.conditions, claims::ENDED) {
        return Decision::Leave;
    }
    let Some(dispatch) = &old.dispatch else {
        return if publishing && !seen.ending { Decision::Send(1) } else { Decision::Leave };
    };
    let attempt = dispatch.attempt;
    let said = seen.transcoder.as_ref().filter(|said| said.fresh && i64::from(said.run.attempt) >= i64::from(attempt));
    if dispatch.at.is_none() {
        let sent = said.is_some() || seen.sent.is_some_and(|sent| i64::from(sent) >= i64::from(attempt));
        return if sent { Decision::WasSent(attempt) } else { Decision::SendAgain(attempt) };
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
pub struct Sent(Mutex<HashMap<String, u32>>);

impl Sent {
    /// The last attempt sent.
    pub fn attempt(&self, uid: &str) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    fn note(&self, uid: String, attempt: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, attempt);
    }

    /// The stream is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Sends `job`, whose attempt stands in `stream`'s status, and writes down when, or why not.
pub async fn send(stream: &LiveStream, job: &LiveJob, wanted: &Wanted, ctx: &Context) -> Result<(), Error> {
    let text = serde_json::to_string(job).map_err(Error::Job)?;
    let queue = ctx.clouds.queue(&wanted.pool).await;
    let sent = within(CALL, &format!("queue {}", wanted.pool.queue.name), queue.send(&text)).await;
    let mut told = super::status_of(stream);
    match sent {
        Ok(()) => {
            ctx.sent.note(stream.uid().unwrap_or_default(), job.attempt);
            tracing::info!(stream = %job.stream, run = %job.run, attempt = job.attempt, "the job is in the queue");
            if let Some(dispatch) = &mut told.dispatch {
                dispatch.at = Some(Time(conditions::whole_second(Timestamp::now())));
            }
            apply::status(&api(stream, ctx), stream, &told).await?;
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
