//! The pool's queue and bucket: made where the spec says so, and looked at now and then.

use crate::cloud::{CALL, CloudError, within};
use crate::context::Context;
use kube::ResourceExt;
use lectern_crds::{BucketSpec, QueueSpec, StreamPool};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a good answer holds.
const HOLDS: Duration = Duration::from_secs(15);
/// How long the first bad one holds; twice as long with each that follows, so that other events of the pool do not turn
/// into a storm of calls.
const BAD_HOLDS: Duration = Duration::from_secs(1);

/// What queue and bucket said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// The queue's URL, or why there is none.
    pub queue: Result<String, CloudError>,
    /// The bucket is there, and calls the manifest function if there is one.
    pub bucket: Result<(), CloudError>,
    /// Jobs that were given up and wait for a person.
    pub dead: u64,
}

impl Cloud {
    /// Both are there.
    pub fn is_well(&self) -> bool {
        self.queue.is_ok() && self.bucket.is_ok()
    }
}

/// Answers by pool.
#[derive(Debug, Default)]
pub struct Checks(Mutex<HashMap<String, Answer>>);

#[derive(Debug, Clone)]
struct Answer {
    queue: QueueSpec,
    bucket: BucketSpec,
    until: Instant,
    failures: u32,
    cloud: Cloud,
}

impl Checks {
    /// What the pool's queue and bucket say, from memory while that is young enough.
    pub async fn look(&self, pool: &StreamPool, ctx: &Context) -> Cloud {
        let name = pool.name_any();
        if let Some(known) = self.known(pool) {
            return known;
        }
        // Side by side: one that does not answer must not hold up the other.
        let (queue, bucket) = tokio::join!(queue(pool, ctx), bucket(pool, ctx));
        let dead = if queue.is_ok() { count(pool, ctx).await } else { 0 };
        let cloud = Cloud { queue, bucket, dead };
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = match cloud.is_well() {
            true => 0,
            false => answers.get(&name).map_or(0, |answer| answer.failures).saturating_add(1),
        };
        let until = Instant::now() + hold(failures);
        let (queue, bucket) = (pool.spec.queue.clone(), pool.spec.bucket.clone());
        answers.insert(name, Answer { queue, bucket, until, failures, cloud: cloud.clone() });
        cloud
    }

    /// When it is time to look again.
    pub fn next_look(&self, pool: &StreamPool) -> Duration {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&pool.name_any()).map_or(BAD_HOLDS, |answer| answer.until.saturating_duration_since(Instant::now()))
    }

    fn known(&self, pool: &StreamPool) -> Option<Cloud> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(&pool.name_any())?;
        let same = answer.queue == pool.spec.queue && answer.bucket == pool.spec.bucket;
        (same && Instant::now() < answer.until).then(|| answer.cloud.clone())
    }
}

fn hold(failures: u32) -> Duration {
    match failures {
        0 => HOLDS,
        failures => BAD_HOLDS.saturating_mul(1 << (failures - 1).min(4)).min(HOLDS),
    }
}

async fn queue(pool: &StreamPool, ctx: &Context) -> Result<String, CloudError> {
    let spec = &pool.spec.queue;
    let queue = ctx.clouds.queue(&pool.spec).await;
    within(CALL, &format!("queue {}", spec.name), queue.ensure(spec.create)).await
}

/// Tells the metrics what is in the queue; how many dead letters there are. A queue that somebody else has made may have none, and one that does not
/// tell does its work all the same.
async fn count(pool: &StreamPool, ctx: &Context) -> u64 {
    let queue = ctx.clouds.queue(&pool.spec).await;
    let dead = queue.dead();
    let what = format!("queue {}", pool.spec.queue.name);
    let (depth, dead) = tokio::join!(within(CALL, &what, queue.depth()), within(CALL, &what, dead.depth()));
    let dead = dead.unwrap_or_default();
    if let Ok(depth) = depth {
        ctx.metrics.jobs(&pool.name_any(), depth, dead);
    }
    dead.all()
}

async fn bucket(pool: &StreamPool, ctx: &Context) -> Result<(), CloudError> {
    let spec = &pool.spec.bucket;
    let objects = ctx.clouds.objects(&pool.spec).await;
    within(CALL, &format!("bucket {}", spec.name), objects.ensure_bucket(spec.create)).await?;
    if let Some(function) = &spec.manifest_function_arn {
        within(CALL, &format!("the events of bucket {}", spec.name), objects.ensure_notification(function)).await?;
    }
    Ok(())
}
