//! The end of a LiveStream that was deleted: its run ends first, then its objects are settled, then it may go.

use super::claims::{self, ENDED};
use super::observe::Seen;
use super::{FINALIZER, api, camera, is_deleting, leave_shard, status, status_of, stream_ref};
use crate::apply;
use crate::cloud::{CloudError, within};
use crate::conditions::{self, Truth};
use crate::context::{Context, Error};
use crate::events::Note;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use lectern_contract::RunId;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_crds::{LiveStream, Retention, StreamPoolSpec};
use std::time::Duration;

/// How long a deleted stream's run has to end in good order.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one round of deleting objects may take; what it deleted stays deleted.
const SWEEP: Duration = Duration::from_secs(14);

/// The reason of `Ended` while the objects cannot be settled.
const UNREACHABLE: &str = "StorageUnreachable";

/// Whether the objects of a deleted stream can be settled now: its run has ended, never began, or had its time.
pub fn is_due(stream: &LiveStream, seen: &Seen) -> bool {
    let Some(deleted) = &stream.metadata.deletion_timestamp else { return false };
    let status = status_of(stream);
    let patience_is_over = seen.now.duration_since(deleted.0) >= jiff::SignedDuration::try_from(PATIENCE).unwrap_or_default();
    let is_over = conditions::holds(&status.conditions, ENDED) || status.dispatch.is_none();
    is_deleting(stream) && ((is_over && !is_storing(stream, seen)) || seen.pool.is_none() || patience_is_over)
}

/// The shard may still be storing the last piece of the original, which would come after everything was deleted.
fn is_storing(stream: &LiveStream, seen: &Seen) -> bool {
    seen.is_recording() && stream.spec.record.retention == Retention::Delete
}

/// What became of the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Nothing,
    Kept { place: String },
    Deleted { count: u64, place: String },
    Orphaned { prefix: String },
}

/// Settles the objects, says so, and lets the stream go. Where S3 does not answer the stream stays, and says why.
pub async fn clean_up(stream: &LiveStream, seen: &Seen, ctx: &Context) -> Result<Action, Error> {
    if let Some(entry) = status_of(stream).ingest.and_then(|ingest| ingest.camera_credentials) {
        camera::remove(&entry, &stream.spec.pool_name, ctx).await?;
    }
    let outcome = match settle(stream, seen, ctx).await {
        Ok(outcome) => outcome,
        Err(error) => {
            // A run that has ended stays ended: taking that back would send the stream through its ending once more.
            let ended = Truth::from(conditions::holds(&status_of(stream).conditions, ENDED));
            write(stream, seen, ended, UNREACHABLE, &error.message, Some(error.message.clone()), ctx).await?;
            return Err(error.into());
        }
    };
    let note = note(&outcome);
    let written = write(stream, seen, Truth::True, note.reason, &note.text, None, ctx).await?;
    ctx.events.publish(stream.object_ref(&()), note);
    apply::remove_finalizer(&api(stream, ctx), &written, FINALIZER).await?;
    forget(stream, ctx);
    Ok(Action::await_change())
}

async fn settle(stream: &LiveStream, seen: &Seen, ctx: &Context) -> Result<Outcome, CloudError> {
    let status = status_of(stream);
    // The original is stored by the shard, whether or not a transcoder was ever called.
    let is_stored = status.dispatch.is_some() || status.recording.is_some() || stream.spec.record.original;
    let Some(run) = status.run_id.filter(|_| is_stored).map(RunId) else { return Ok(Outcome::Nothing) };
    let prefix = RunPrefix::of(&stream_ref(stream), &run);
    let Some(pool) = &seen.pool else { return Ok(Outcome::Orphaned { prefix: prefix.to_string() }) };
    let place = format!("{prefix}/ in bucket {}", pool.bucket.name);
    match stream.spec.record.retention {
        Retention::Retain => Ok(Outcome::Kept { place }),
        Retention::Delete => Ok(Outcome::Deleted { count: delete(&prefix, pool, ctx).await?, place }),
    }
}

async fn delete(prefix: &RunPrefix, pool: &StreamPoolSpec, ctx: &Context) -> Result<u64, CloudError> {
    let objects = ctx.clouds.objects(pool).await;
    let sweep = async {
        // First what the Lambda goes by: from here on it takes back what it writes (manifest-lambda, `publish`).
        let ended = objects.delete_prefix(&prefix.key(&ObjectName::Ended)).await?;
        Ok::<_, lectern_cloud::StorageError>(ended + objects.delete_prefix(&format!("{prefix}/")).await?)
    };
    within(SWEEP, &format!("bucket {}", pool.bucket.name), sweep).await
}

fn note(outcome: &Outcome) -> Note {
    match outcome {
        Outcome::Nothing => Note::normal("NothingStored", "nothing was stored, so there is nothing to delete"),
        Outcome::Kept { place } => Note::normal("ObjectsKept", format!("the objects stay under {place}, as spec.record.retention says")),
        Outcome::Deleted { count, place } => Note::normal("ObjectsDeleted", format!("deleted {count} objects under {place}")),
        Outcome::Orphaned { prefix } => Note::warning(
            "ObjectsOrphaned",
            format!("the StreamPool is gone; objects under {prefix}/ stay in its bucket, if there are any"),
        ),
    }
}

async fn write(
    stream: &LiveStream,
    seen: &Seen,
    truth: Truth,
    reason: &'static str,
    message: &str,
    error: Option<String>,
    ctx: &Context,
) -> Result<LiveStream, Error> {
    let mut told = status_of(stream);
    // The words of an earlier failure stay: each has a request id of its own, and each change wakes the controller.
    let before = conditions::find(&told.conditions, ENDED).filter(|old| old.reason == reason && reason == UNREACHABLE);
    let message = before.map_or(message.to_owned(), |old| old.message.clone());
    told.last_error = error.map(|_| message.clone());
    told.phase = Some("Deleting".to_owned());
    told.observed_generation = stream.metadata.generation;
    status::replace(&mut told, &claims::claim(ENDED, truth, reason, message), stream.metadata.generation, seen.now);
    status::write(stream, &told, ctx).await
}

fn forget(stream: &LiveStream, ctx: &Context) {
    let uid = stream.uid().unwrap_or_default();
    leave_shard(stream, ctx);
    ctx.sent.forget(&uid);
    ctx.superseded.forget(&uid);
    ctx.keys.forget(&uid);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run_with, seen, stream};
    use super::*;
    use crate::reports::ShardSaid;
    use lectern_contract::report::{Publisher, Recording};
    use serde_json::json;

    /// An ended stream that was deleted at second 0, recorded as it came.
    fn deleted(retention: &str) -> LiveStream {
        let mut stream = stream(json!({ "record": { "retention": retention, "original": true }, "ended": true }));
        stream.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(seen(0).now));
        let ended =
            json!({ "type": ENDED, "status": "True", "reason": "Completed", "message": "", "lastTransitionTime": "2027-01-15T08:00:00Z" });
        let status = json!({ "runId": "run-1", "dispatch": { "attempt": 1, "at": "2027-01-15T08:00:00Z" }, "conditions": [ended] });
        stream.status = serde_json::from_value(status).unwrap();
        stream
    }

    #[test]
    fn objects_are_deleted_once_the_shard_stores_no_more_of_the_original() {
        let mut run = run_with(Publisher::Gone { reason: "the stream has ended".into() });
        run.recording = Some(Recording { stored: None, gaps: 0, trouble: None });
        let storing = |second| Seen { ending: true, shard: ShardSaid::Run(Box::new(run.clone())), ..seen(second) };
        assert!(!is_due(&deleted("Delete"), &storing(5)));
        assert!(is_due(&deleted("Delete"), &Seen { shard: ShardSaid::NoPublisher, ..storing(5) }));
        assert!(is_due(&deleted("Delete"), &storing(30)), "a shard that never comes to an end is not waited for");
        assert!(is_due(&deleted("Retain"), &storing(5)), "what stays may come later");
    }
}
