//! The LiveStream controller: observe, validate, place, plan, apply, write the status.

pub mod claims;
pub mod dispatch;
pub mod finish;
pub mod key;
pub mod observe;
pub mod plan;
pub mod run_id;
pub mod status;
pub mod validate;

#[cfg(test)]
mod tests;

use crate::conditions::Truth;
use crate::context::{Context, Error};
use crate::{apply, conditions};
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use lectern_contract::StreamRef;
use lectern_crds::{LiveStream, LiveStreamStatus};
use std::sync::Arc;
use std::time::Duration;
use validate::{Refusal, RefusalReason};

/// Held by every LiveStream: its objects in S3 are settled before it goes.
pub const FINALIZER: &str = "lectern.video/objects";

/// How often a stream that receives is looked at although nothing changed: its live edge is refreshed.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How often a stream is looked at whose shard or transcoder does not report.
const UNHEARD: Duration = Duration::from_secs(3);

/// How often an ending stream is looked at.
const ENDING: Duration = Duration::from_secs(2);

/// Brings one LiveStream closer to what its spec says.
pub async fn reconcile(stream: Arc<LiveStream>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(stream) = held(stream, &ctx).await? else { return Ok(Action::await_change()) };
    let seen = observe::observe(&stream, &ctx).await?;
    if finish::is_due(&stream, &seen) {
        return finish::clean_up(&stream, &seen, &ctx).await;
    }
    if conditions::holds(&status_of(&stream).conditions, claims::ENDED) && !is_deleting(&stream) {
        // Nothing that could be changed would change anything.
        let told = LiveStreamStatus { observed_generation: stream.metadata.generation, ..status_of(&stream) };
        status::write(&stream, &told, &ctx).await?;
        return Ok(Action::await_change());
    }
    let wanted = match validate::validate(&stream, &seen) {
        Ok(wanted) => wanted,
        Err(refusal) => return refuse(&stream, &seen, &refusal, &ctx).await,
    };
    let key = match key::ensure(&stream, &wanted, &ctx).await? {
        Ok(key) => key,
        Err(refusal) => return refuse(&stream, &seen, &refusal, &ctx).await,
    };
    let place = plan::place(&stream, &wanted, &ctx.book);
    let plan = plan::plan(&stream, &wanted, &seen, &key, &place);
    let written = status::write(&stream, &plan.status, &ctx).await?;
    if let Some(job) = &plan.send {
        // The attempt is written down; only now may anybody hear of it.
        dispatch::send(&written, job, &wanted, &ctx).await?;
    }
    Ok(next_look(&plan.status, &stream, &seen))
}

/// The stream with its finalizer, or `None` for one that is going and not ours to hold.
async fn held(stream: Arc<LiveStream>, ctx: &Context) -> Result<Option<Arc<LiveStream>>, Error> {
    if stream.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Some(stream));
    }
    if stream.meta().deletion_timestamp.is_some() {
        return Ok(None);
    }
    Ok(Some(Arc::new(apply::add_finalizer(&api(&stream, ctx), &stream, FINALIZER).await?)))
}

async fn refuse(stream: &LiveStream, seen: &observe::Seen, refusal: &Refusal, ctx: &Context) -> Result<Action, Error> {
    status::write(stream, &status::refused(stream, refusal, seen.now), ctx).await?;
    Ok(match refusal.reason {
        // A deleted stream waits for its time to be cleaned up.
        _ if is_deleting(stream) => Action::requeue(ENDING),
        // Secrets are not watched.
        RefusalReason::BadKeySecret => Action::requeue(REFRESH),
        // A pool or a ladder that appears wakes the stream, and so does a change of its spec.
        _ => Action::await_change(),
    })
}

fn next_look(status: &LiveStreamStatus, stream: &LiveStream, seen: &observe::Seen) -> Action {
    if is_deleting(stream) {
        Action::requeue(Duration::from_secs(1))
    } else if seen.ending {
        Action::requeue(ENDING)
    } else if !seen.settled {
        Action::requeue(Duration::from_secs(5))
    } else if is_unheard(status) {
        // A pod that comes back without the run in its report names no stream that could be woken.
        Action::requeue(UNHEARD)
    } else if conditions::holds(&status.conditions, claims::RECEIVING) {
        Action::requeue(REFRESH)
    } else {
        Action::requeue(Duration::from_secs(300))
    }
}

fn is_unheard(status: &LiveStreamStatus) -> bool {
    let unknown = |kind| conditions::find(&status.conditions, kind).is_some_and(|condition| condition.status == Truth::Unknown.as_str());
    unknown(claims::RECEIVING) || unknown(claims::TRANSCODING)
}

/// The API of the stream's namespace.
pub fn api(stream: &LiveStream, ctx: &Context) -> Api<LiveStream> {
    Api::namespaced(ctx.client(), &stream.namespace().unwrap_or_default())
}

/// The stream's place in the cluster.
pub fn stream_ref(stream: &LiveStream) -> StreamRef {
    StreamRef { namespace: stream.namespace().unwrap_or_default(), name: stream.name_any() }
}

/// Somebody has deleted the stream; it goes once its finalizer is off.
pub fn is_deleting(stream: &LiveStream) -> bool {
    stream.meta().deletion_timestamp.is_some()
}

/// The stream's status, empty where it has none yet.
pub fn status_of(stream: &LiveStream) -> LiveStreamStatus {
    stream.status.clone().unwrap_or_default()
}
