//! The pool's queue and bucket: made and kept as they are to be where the spec says so, and looked at now and then.

use crate::cloud::{CALL, CloudError, Clouds, within};
use crate::metrics::Metrics;
use kube::ResourceExt;
use lectern_cloud::{BucketSetting, Objects, Upkeep};
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
/// How long the bucket's settings are taken for what they were: nobody waits for them, and each look at them is four requests.
const SETTINGS_HOLD: Duration = Duration::from_secs(300);

/// What queue and bucket said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// The queue's URL, or why there is none.
    pub queue: Result<String, CloudError>,
    /// The bucket is there, and calls the manifest function if there is one.
    pub bucket: Result<(), CloudError>,
    /// Jobs that were given up and wait for a person.
    pub dead: u64,
    /// What people should know of them although they do.
    pub notes: Notes,
}

/// What is not as it should be and keeps nobody from lecturing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Of the queue.
    pub queue: Option<String>,
    /// Of the bucket's settings.
    pub bucket: Option<String>,
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
    settings: Option<Settings>,
    cloud: Cloud,
}

/// What the bucket's settings were like.
#[derive(Debug, Clone)]
struct Settings {
    until: Instant,
    note: Option<String>,
}

impl Checks {
    /// What the pool's queue and bucket say, from memory while that is young enough.
    pub async fn look(&self, pool: &StreamPool, clouds: &Clouds, metrics: &Metrics) -> Cloud {
        let name = pool.name_any();
        let before = self.answer(pool);
        if let Some(answer) = before.as_ref().filter(|answer| Instant::now() < answer.until) {
            return answer.cloud.clone();
        }
        let settings = before.as_ref().and_then(|answer| answer.settings.clone());
        // Side by side: one that does not answer must not hold up the other.
        let (queue, bucket) = tokio::join!(queue(pool, clouds, metrics), bucket(pool, settings.as_ref(), clouds));
        let (dead, of_queue) = queue.as_ref().map_or((0, None), |queue| (queue.dead, queue.note.clone()));
        let settings = bucket.as_ref().map_or(settings, Clone::clone);
        let notes = Notes { queue: of_queue, bucket: settings.as_ref().and_then(|settings| settings.note.clone()) };
        if before.is_none_or(|answer| answer.cloud.notes != notes) && notes != Notes::default() {
            tracing::warn!(pool = name, queue = notes.queue, bucket = notes.bucket, "not all is as it should be in the cloud");
        }
        let cloud = Cloud { queue: queue.map(|queue| queue.url), bucket: bucket.map(drop), dead, notes };
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = match cloud.is_well() {
            true => 0,
            false => answers.get(&name).map_or(0, |answer| answer.failures).saturating_add(1),
        };
        let until = Instant::now() + hold(failures);
        let (queue, bucket) = (pool.spec.queue.clone(), pool.spec.bucket.clone());
        answers.insert(name, Answer { queue, bucket, until, failures, settings, cloud: cloud.clone() });
        cloud
    }

    /// When it is time to look again.
    pub fn next_look(&self, pool: &StreamPool) -> Duration {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&pool.name_any()).map_or(BAD_HOLDS, |answer| answer.until.saturating_duration_since(Instant::now()))
    }

    /// The last answer to the same question.
    fn answer(&self, pool: &StreamPool) -> Option<Answer> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(&pool.name_any())?;
        (answer.queue == pool.spec.queue && answer.bucket == pool.spec.bucket).then(|| answer.clone())
    }
}

fn hold(failures: u32) -> Duration {
    match failures {
        0 => HOLDS,
        failures => BAD_HOLDS.saturating_mul(1 << (failures - 1).min(4)).min(HOLDS),
    }
}

struct Queue {
    url: String,
    dead: u64,
    note: Option<String>,
}

/// Makes and repairs the queues, and tells the metrics what is in them.
async fn queue(pool: &StreamPool, clouds: &Clouds, metrics: &Metrics) -> Result<Queue, CloudError> {
    let (spec, name) = (&pool.spec.queue, pool.name_any());
    let (queue, archive) = (clouds.queue(&pool.spec).await, clouds.archive_queue(&pool.spec).await);
    let call = format!("queue {}", spec.name);
    let (there, beside) = tokio::join!(within(CALL, &call, queue.ensure(spec.create)), within(CALL, &call, archive.ensure(spec.create)));
    let there = there?;
    let dead = there.dead.unwrap_or_default();
    metrics.jobs(&name, "live", there.depth, dead);
    let mut notes = Vec::new();
    if !there.redrives {
        notes.push(
            "it has no dead-letter queue: a job that no transcoder can take comes again for as long as the queue keeps it".to_owned(),
        );
    }
    // Lectures need none of it.
    let dead_beside = match beside {
        Ok(beside) => {
            let dead = beside.dead.unwrap_or_default();
            metrics.jobs(&name, "archive", beside.depth, dead);
            dead.all()
        }
        Err(error) if error.reason == "NotFound" => 0, // told to those who want it: see `stream/archive.rs`
        Err(error) => {
            notes.push(format!("the archive's queue does not answer: {}", error.reason));
            0
        }
    };
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Queue { url: there.url, dead: dead.all() + dead_beside, note })
}

/// Makes the bucket and its events, and, where it is the operator's own, keeps its settings; what is known of them then.
async fn bucket(pool: &StreamPool, known: Option<&Settings>, clouds: &Clouds) -> Result<Option<Settings>, CloudError> {
    let spec = &pool.spec.bucket;
    let objects = clouds.objects(&pool.spec).await;
    let is_new = within(CALL, &format!("bucket {}", spec.name), objects.ensure_bucket(spec.create)).await?;
    if let Some(function) = &spec.manifest_function_arn {
        within(CALL, &format!("the events of bucket {}", spec.name), objects.ensure_notification(function)).await?;
    }
    if !spec.create {
        return Ok(None);
    }
    match known.filter(|known| !is_new && Instant::now() < known.until) {
        Some(known) => Ok(Some(known.clone())),
        None => Ok(Some(settings(&objects, spec, known).await)),
    }
}

async fn settings(objects: &Objects, spec: &BucketSpec, before: Option<&Settings>) -> Settings {
    let found = tokio::time::timeout(CALL, objects.ensure_settings(spec.retention_days)).await.unwrap_or_default();
    if found.is_empty() || found.iter().any(|(_, upkeep)| *upkeep == Upkeep::Later) {
        return Settings { until: Instant::now(), note: before.and_then(|before| before.note.clone()) };
    }
    Settings { until: Instant::now() + SETTINGS_HOLD, note: note(&found) }
}

/// What could not be set, for people.
fn note(found: &[(BucketSetting, Upkeep)]) -> Option<String> {
    let list = |of: fn(&(BucketSetting, Upkeep)) -> Option<String>| {
        let words: Vec<_> = found.iter().filter_map(of).collect();
        (!words.is_empty()).then(|| words.join(", "))
    };
    let unknown = list(|(setting, upkeep)| (*upkeep == Upkeep::Unknown).then(|| setting.to_string()));
    let refused = list(|(setting, upkeep)| match upkeep {
        Upkeep::Refused(code) => Some(format!("{setting} ({code})")),
        _ => None,
    });
    let unknown = unknown.map(|what| format!("its server does not have {what}"));
    let refused = refused.map(|what| format!("could not be read or set: {what}; docs/aws.md lists what the operator must be allowed"));
    match (unknown, refused) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bucket_cannot_have_is_told_and_what_it_has_is_not() {
        assert_eq!(note(&[(BucketSetting::Cors, Upkeep::Written), (BucketSetting::Lifecycle, Upkeep::Kept)]), None);
        let found = [
            (BucketSetting::Encryption, Upkeep::Refused("AccessDenied".into())),
            (BucketSetting::PublicAccessBlock, Upkeep::Unknown),
            (BucketSetting::Cors, Upkeep::Refused("AccessDenied".into())),
        ];
        let note = note(&found).unwrap();
        assert!(note.starts_with("its server does not have the public access block; could not be read or set: "), "{note}");
        assert!(note.contains("default encryption (AccessDenied), the CORS rule (AccessDenied)"), "{note}");
    }
}
