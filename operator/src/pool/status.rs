//! What is said of a pool.

use super::checks::Cloud;
use super::observe::Seen;
use crate::apply;
use crate::cloud::CloudError;
use crate::conditions::{self, Claim, Truth, find};
use crate::context::{Context, Error};
use crate::events::Note;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Resource};
use lectern_crds::{PoolStatus, StreamPool};

/// The queue is there.
pub const QUEUE_READY: &str = "QueueReady";
/// The bucket is there and its events are wired.
pub const BUCKET_READY: &str = "BucketReady";
/// Streams can run.
pub const READY: &str = "Ready";

/// The pool's status.
pub fn status(pool: &StreamPool, seen: &Seen, cloud: &Cloud) -> PoolStatus {
    let old = pool.status.clone().unwrap_or_default();
    let transcoders = seen.pods.iter().filter(|pod| pod.is_ready && !pod.is_going).count();
    let claims = claims(&old.conditions, seen, transcoders, cloud);
    PoolStatus {
        observed_generation: pool.metadata.generation,
        conditions: conditions::dated(&old.conditions, &claims, pool.metadata.generation, Timestamp::now()),
        ready_shards: seen.shards,
        ready_transcoders: i32::try_from(transcoders).unwrap_or(i32::MAX),
        streams: i32::try_from(seen.streams).unwrap_or(i32::MAX),
        // A queue that does not answer now keeps its URL.
        queue_url: cloud.queue.as_ref().ok().cloned().or(old.queue_url),
    }
}

fn claims(old: &[Condition], seen: &Seen, transcoders: usize, cloud: &Cloud) -> [Claim; 3] {
    let ready = match () {
        () if cloud.queue.is_err() => Err(("QueueNotReady", "the queue is not ready")),
        () if cloud.bucket.is_err() => Err(("BucketNotReady", "the bucket is not ready")),
        () if seen.shards < 1 => Err(("NoShardReady", "no ingest shard is ready")),
        () if transcoders < 1 => Err(("NoTranscoderReady", "no transcoder pod is ready")),
        () if seen.origins < 1 => Err(("NoOriginReady", "no origin is ready")),
        () => Ok(()),
    };
    let ready = match ready {
        Ok(()) => Claim { kind: READY, truth: Truth::True, reason: "Ready", message: String::new() },
        Err((reason, message)) => Claim { kind: READY, truth: Truth::False, reason, message: message.to_owned() },
    };
    let dead = (cloud.dead > 0).then(|| format!("{} jobs were given up; look at them with `lectern-operator redrive --list`", cloud.dead));
    let of_queue = [dead, cloud.notes.queue.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
    let of_bucket = cloud.notes.bucket.clone().unwrap_or_default();
    let queue = of_cloud(QUEUE_READY, old, cloud.queue.as_ref().err(), of_queue);
    [queue, of_cloud(BUCKET_READY, old, cloud.bucket.as_ref().err(), of_bucket), ready]
}

/// A failure's first words stay while its kind is the same: each has a request id of its own, and every change of a status
/// wakes the controller.
fn of_cloud(kind: &'static str, old: &[Condition], error: Option<&CloudError>, note: String) -> Claim {
    let Some(error) = error else { return Claim { kind, truth: Truth::True, reason: "Found", message: note } };
    let before = find(old, kind).filter(|condition| condition.reason == error.reason);
    let message = before.map_or_else(|| error.message.clone(), |condition| condition.message.clone());
    Claim { kind, truth: Truth::False, reason: error.reason, message }
}

/// Writes the status where it says something new.
pub async fn write(pool: &StreamPool, status: &PoolStatus, ctx: &Context) -> Result<(), Error> {
    let old = pool.status.clone().unwrap_or_default();
    if old == *status {
        return Ok(());
    }
    apply::status(&Api::<StreamPool>::all(ctx.client()), pool, status).await?;
    for note in news(&old, status) {
        ctx.events.publish(pool.object_ref(&()), note);
    }
    Ok(())
}

fn news(old: &PoolStatus, new: &PoolStatus) -> Vec<Note> {
    let words = |status: &PoolStatus, kind| find(&status.conditions, kind).map(|c| (c.status.clone(), c.reason.clone()));
    let changed = [QUEUE_READY, BUCKET_READY, READY].into_iter().filter(|kind| words(old, kind) != words(new, kind));
    changed
        .filter_map(|kind| match find(&new.conditions, kind)? {
            condition if condition.status == "True" => Some(Note::normal(kind, "")),
            condition => Some(Note::warning(kind, format!("{}: {}", condition.reason, condition.message))),
        })
        .filter(|note| note.warning || note.reason == READY)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::checks::Notes;
    use super::super::pods;
    use super::*;

    fn well() -> Cloud {
        Cloud { queue: Ok("http://queue".into()), bucket: Ok(()), dead: 0, notes: Notes::default() }
    }

    fn unreachable(request: u32) -> CloudError {
        CloudError { reason: "Unreachable", message: format!("connection refused (request {request})") }
    }

    fn running() -> Seen {
        Seen { shards: 1, origins: 1, pods: vec![pods::testing::pod("t", "", true, None)], ..Seen::default() }
    }

    #[test]
    fn a_pool_is_ready_when_each_part_of_it_is() {
        assert_eq!(claims(&[], &running(), 1, &well())[2].truth, Truth::True);
        assert_eq!(claims(&[], &running(), 0, &well())[2].reason, "NoTranscoderReady");
        assert_eq!(claims(&[], &Seen { origins: 0, ..running() }, 1, &well())[2].reason, "NoOriginReady");
        assert_eq!(claims(&[], &Seen { shards: 0, ..running() }, 1, &well())[2].reason, "NoShardReady");
    }

    #[test]
    fn dead_letters_are_told_of() {
        let queue = &claims(&[], &running(), 1, &Cloud { dead: 3, ..well() })[0];
        assert!(queue.truth == Truth::True && queue.message.starts_with("3 jobs were given up"), "{queue:?}");
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_and_keeps_nobody_from_lecturing() {
        let notes = Notes { queue: Some("no dead letters".into()), bucket: Some("no CORS".into()) };
        let [queue, bucket, ready] = claims(&[], &running(), 1, &Cloud { dead: 3, notes, ..well() });
        assert!(queue.message.ends_with("; no dead letters"), "{queue:?}");
        assert_eq!((bucket.truth, bucket.message.as_str(), ready.truth), (Truth::True, "no CORS", Truth::True));
    }

    #[test]
    fn a_queue_that_fails_the_same_way_again_is_no_news() {
        let cloud = |request| Cloud { queue: Err(unreachable(request)), ..well() };
        let first = conditions::dated(&[], &claims(&[], &running(), 1, &cloud(1)), None, Timestamp::UNIX_EPOCH);
        assert_eq!(first[0].reason, "Unreachable");
        let second = conditions::dated(&first, &claims(&first, &running(), 1, &cloud(2)), None, Timestamp::UNIX_EPOCH);
        assert_eq!(first, second);
    }
}
