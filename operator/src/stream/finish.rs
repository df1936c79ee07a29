//! The end of a LiveStream that was deleted: its run ends first, then its objects are settled, then it may go.

use super::claims::{self, ENDED};
use super::observe::Seen;
use super::{FINALIZER, api, is_deleting, status, status_of, stream_ref};
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
    is_deleting(stream)
        && (conditions::holds(&status.conditions, ENDED) || status.dispatch.is_none() || seen.pool.is_none() || patience_is_over)
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
    ctx.events.publish(&stream.object_ref(&()), &note).await;
    apply::remove_finalizer(&api(stream, ctx), &written, FINALIZER).await?;
    forget(stream, ctx);
    Ok(Action::await_change())
}

async fn settle(stream: &LiveStream, seen: &Seen, ctx: &Context) -> Result<Outcome, CloudError> {
    let status = status_of(stream);
    let Some(run) = status.run_id.filter(|_| status.dispatch.is_some()).map(RunId) else { return Ok(Outcome::Nothing) };
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
    ctx.book.remove(&uid);
    ctx.sent.forget(&uid);
    ctx.keys.forget(&stream.namespace().unwrap_or_default(), &super::key::secret_name(&stream.name_any()));
}
