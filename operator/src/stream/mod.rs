//! The LiveStream controller: observe, validate, place, plan, apply, write the status.

pub mod archive;
pub mod camera;
pub mod claims;
pub mod dispatch;
pub mod finish;
pub mod key;
pub mod observe;
pub mod owner;
pub mod place;
pub mod plan;
pub mod rotation;
pub mod run_id;
pub mod schedule;
pub mod status;
pub mod superseded;
pub mod tenants;
pub mod validate;

#[cfg(test)]
mod tests;

use crate::conditions::Truth;
use crate::context::{Context, Error};
use crate::placement::Resident;
use crate::wakes::TURN;
use crate::{apply, conditions};
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use lectern_contract::StreamRef;
use lectern_crds::{LiveStream, LiveStreamStatus};
use place::Place;
use plan::Access;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use validate::{Refusal, RefusalReason};

/// Held by every LiveStream: its objects in S3 are settled before it goes.
pub const FINALIZER: &str = "lectern.video/objects";

/// How often a stream that receives is looked at although nothing changed: its live edge is refreshed.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How often a stream is looked at whose shard or transcoder does not report.
const UNHEARD: Duration = Duration::from_secs(3);

/// How long the watch may take to tell of what was written, before the stream is looked at all the same.
const UNSEEN: Duration = Duration::from_secs(5);

/// How often a stream looks for its camera's Secret.
const CAMERA: Duration = Duration::from_secs(10);

/// How often it is looked whether there is room for a stream in its namespace's quota.
const QUOTA: Duration = Duration::from_secs(10);

/// How often a stream asks for a place on a full pool. One that ends wakes who has waited longest; what publishers send changes quietly.
const ROOM: Duration = Duration::from_secs(30);

/// How often an ending stream is looked at.
const ENDING: Duration = Duration::from_secs(2);

/// Brings one LiveStream closer to what its spec says.
pub async fn reconcile(stream: Arc<LiveStream>, ctx: Arc<Context>) -> Result<Action, Error> {
    if ctx.superseded.holds(&stream) {
        // The newer copy is on its way here and wakes the stream again.
        return Ok(Action::requeue(UNSEEN));
    }
    let Some(stream) = held(stream, &ctx).await? else { return Ok(Action::await_change()) };
    let uid = stream.uid().unwrap_or_default();
    let seen = observe::observe(&stream, &ctx).await?;
    if finish::is_due(&stream, &seen) {
        ctx.waiting.forget(&uid);
        return finish::clean_up(&stream, &seen, &ctx).await;
    }
    if conditions::holds(&status_of(&stream).conditions, claims::ENDED) && !is_deleting(&stream) {
        // Nothing that could be changed would change anything of the lecture.
        ctx.waiting.forget(&uid);
        let mut told = LiveStreamStatus { observed_generation: stream.metadata.generation, ..status_of(&stream) };
        if let Some(entry) = told.ingest.as_mut().and_then(|ingest| ingest.camera_credentials.take()) {
            camera::remove(&entry, &stream.spec.pool_name, &ctx).await?;
        }
        let next = archive::pursue(&stream, &seen, &mut told, &ctx).await?;
        status::write(&stream, &told, &ctx).await?;
        return Ok(next.map_or_else(Action::await_change, Action::requeue));
    }
    let wanted = match validate::validate(&stream, &seen) {
        Ok(wanted) => wanted,
        Err(refusal) => return refuse(&stream, &seen, &refusal, &ctx).await,
    };
    let has_room = seen.settled && ctx.reports.roomiest(&wanted.pool_name, &wanted.ladder, Instant::now()).is_some();
    let seen = observe::Seen { has_room, ..seen };
    let place = place::place(&stream, &wanted, &seen, &ctx.book);
    if let Place::Full(why) = &place {
        // Before it has keys: with an address for each shard there is none to publish to.
        return wait_for_room(&stream, &seen, why, &ctx).await;
    }
    let url = wanted.pool.ingest.url_of(place.shard().unwrap_or_default());
    let access = match access(&stream, &url, &seen, &ctx).await? {
        Ok(access) => access,
        Err(refusal) => return refuse(&stream, &seen, &refusal, &ctx).await,
    };
    let plan = plan::plan(&stream, &wanted, &seen, &access, &place);
    if !(is_waiting(&plan.status) || schedule::is_expected(&stream, seen.now)) {
        ctx.waiting.forget(&uid);
    } else if ctx.waiting.note(&uid, &wanted.pool_name, &wanted.ladder) {
        ctx.reports.wake(&wanted.pool_name);
    }
    let written = status::write(&stream, &plan.status, &ctx).await?;
    if let Some(job) = &plan.send {
        // The attempt is written down; only now may anybody hear of it.
        dispatch::send(&written, job, &wanted, &ctx).await?;
    }
    let next = next_look(&plan.status, &stream, &seen);
    // What can wait for its turn has no timer of its own: kube's would take 600 bytes of each stream.
    Ok(if next < TURN { Action::requeue(next) } else { Action::await_change() })
}

/// The Secrets of the stream: its keys, and its camera's credentials.
async fn access(stream: &LiveStream, url: &str, seen: &observe::Seen, ctx: &Context) -> Result<Result<Access, Refusal>, Error> {
    let key = match key::ensure(stream, url, seen.now, ctx).await? {
        Ok(key) => key,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(camera::ensure(stream, seen, ctx).await?.map(|camera| Access { key, camera }))
}

/// The stream with its finalizer, or `None` for one that is going and not ours to hold.
async fn held(stream: Arc<LiveStream>, ctx: &Context) -> Result<Option<Arc<LiveStream>>, Error> {
    if stream.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Some(stream));
    }
    if stream.meta().deletion_timestamp.is_some() {
        return Ok(None);
    }
    let written = apply::add_finalizer(&api(&stream, ctx), &stream, FINALIZER).await?;
    ctx.superseded.note(&stream, &written);
    Ok(Some(Arc::new(written)))
}

async fn wait_for_room(stream: &LiveStream, seen: &observe::Seen, why: &str, ctx: &Context) -> Result<Action, Error> {
    ctx.waiting.forget(&stream.uid().unwrap_or_default());
    status::write(stream, &status::unplaced(stream, seen, why), ctx).await?;
    Ok(Action::requeue(if is_deleting(stream) { ENDING } else { ROOM }))
}

async fn refuse(stream: &LiveStream, seen: &observe::Seen, refusal: &Refusal, ctx: &Context) -> Result<Action, Error> {
    let uid = stream.uid().unwrap_or_default();
    ctx.waiting.forget(&uid);
    if status_of(stream).placement.is_none() {
        leave_shard(stream, ctx);
    }
    status::write(stream, &status::refused(stream, refusal, seen.now), ctx).await?;
    Ok(match refusal.reason {
        // A deleted stream waits for its time to be cleaned up.
        _ if is_deleting(stream) => Action::requeue(ENDING),
        // Secrets are not watched.
        RefusalReason::BadKeySecret => Action::requeue(REFRESH),
        RefusalReason::BadCameraSecret => Action::requeue(CAMERA),
        // Nor are namespaces, and that another stream has ended wakes nobody else.
        RefusalReason::NotATenant | RefusalReason::QuotaExceeded => Action::requeue(QUOTA),
        // A pool or a ladder that appears wakes the stream, and so does a change of its spec.
        _ => Action::await_change(),
    })
}

fn next_look(status: &LiveStreamStatus, stream: &LiveStream, seen: &observe::Seen) -> Duration {
    let pace = if is_deleting(stream) {
        Duration::from_secs(1)
    } else if seen.ending {
        ENDING
    } else if !seen.settled {
        Duration::from_secs(5)
    } else if is_unheard(status) || seen.arriving {
        // A pod that comes back without the run in its report names no stream that could be woken.
        UNHEARD
    } else if conditions::holds(&status.conditions, claims::RECEIVING) {
        REFRESH
    } else {
        TURN
    };
    // Secrets are not watched, and the end of an overlap is no event.
    let camera = camera::next_look(stream).unwrap_or(pace);
    let overlap = status.ingest.as_ref().and_then(|ingest| ingest.previous_key_until.as_ref()).map_or(pace, |until| {
        let left = until.0.duration_since(seen.now);
        Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1)
    });
    let bell = schedule::next_bell(stream, seen.now).unwrap_or(pace);
    pace.min(camera).min(overlap).min(bell)
}

/// Nobody has taken its job yet.
fn is_waiting(status: &LiveStreamStatus) -> bool {
    conditions::reason(&status.conditions, claims::TRANSCODING) == Some("WaitingForTranscoder")
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

/// The stream as far as its place is concerned, with this status.
pub fn resident(stream: &LiveStream, status: Option<&LiveStreamStatus>) -> Resident {
    Resident {
        uid: stream.uid().unwrap_or_default(),
        stream: stream_ref(stream),
        pool: stream.spec.pool_name.clone(),
        bits: status.and_then(|status| status.received.as_ref()).map(|received| received.bitrate.unsigned_abs()),
        since: stream.creation_timestamp().map_or(0, |made| made.0.as_second()),
    }
}

/// Takes the stream off its shard, and wakes the one that there may be room for now.
pub fn leave_shard(stream: &LiveStream, ctx: &Context) {
    if let Some(next) = ctx.book.remove(&resident(stream, None)) {
        ctx.reports.wake_stream(next);
    }
}

/// The stream's status, empty where it has none yet.
pub fn status_of(stream: &LiveStream) -> LiveStreamStatus {
    stream.status.clone().unwrap_or_default()
}
