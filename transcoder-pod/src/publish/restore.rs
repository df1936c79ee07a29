//! What a successor must know of its predecessor's work.

use super::keeper::ladder_renditions;
use super::uploader::empty_window;
use bytes::Bytes;
use lectern_cloud::{Objects, StorageError};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{EndedRendition, Ledger};
use lectern_contract::{SegmentNumber, TICKS_PER_SECOND};
use lectern_media::hls::{self, LiveWindow};
use std::collections::{BTreeMap, BTreeSet};

/// A minute of the timeline, in ticks: the span of a ledger.
pub const MINUTE: u64 = 60 * TICKS_PER_SECOND;

/// The state of a run as S3 has it; empty for a new run.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The minutes that have a ledger.
    pub minutes: BTreeSet<u64>,
    /// The newest ledgers: they may still grow.
    pub ledgers: BTreeMap<u64, Ledger>,
    /// The first segment of the run.
    pub first: Option<SegmentNumber>,
    /// The newest confirmed segment of any rendition.
    pub last: Option<SegmentNumber>,
    /// What the live playlists listed, by rendition.
    pub windows: BTreeMap<String, LiveWindow>,
    /// The newest init section, by rendition.
    pub inits: BTreeMap<String, (u32, Bytes)>,
}

/// Reads it. `next` is the head's next segment: what lies behind it will be made anew.
///
/// # Errors
/// S3's. A ledger that does not parse is skipped with a warning: it is no reason to stop a lecture.
pub async fn restore(objects: &Objects, job: &LiveJob, next: SegmentNumber) -> Result<Restored, StorageError> {
    let mut restored = Restored::default();
    let folder = format!("{}/ledger/", job.prefix);
    for key in objects.list(&folder).await? {
        let minute = key.strip_prefix(&folder).and_then(|name| name.strip_suffix(".ledger.json")).and_then(|n| n.parse().ok());
        restored.minutes.extend::<Option<u64>>(minute);
    }
    // Three minutes hold a window of ten segments up to the longest that make sense, and what may still be late.
    let newest: Vec<u64> = restored.minutes.iter().rev().take(3).copied().collect();
    let oldest = restored.minutes.first().copied();
    for minute in newest.iter().rev().copied().chain(oldest.filter(|oldest| !newest.contains(oldest))) {
        let Some(ledger) = ledger(objects, job, minute).await? else { continue };
        if Some(minute) == oldest {
            restored.first = ledger.segments.values().flatten().map(|segment| segment.number).min();
        }
        if newest.contains(&minute) {
            restored.ledgers.insert(minute, ledger);
        }
    }
    for ledger in restored.ledgers.values() {
        for (rendition, segments) in &ledger.segments {
            let window = restored.windows.entry(rendition.clone()).or_insert_with(empty_window);
            for segment in segments {
                restored.last = restored.last.max(Some(segment.number));
                if segment.number < next {
                    window.push(hls::Segment { number: segment.number, duration: segment.duration, init: segment.init });
                }
            }
        }
    }
    for EndedRendition { name, .. } in ladder_renditions(job) {
        if let Some(init) = newest_init(objects, job, name.clone()).await? {
            restored.inits.insert(name, init);
        }
    }
    Ok(restored)
}

/// Of those in S3, whether a segment that is known needs it or not: a number that is taken is not to be used for another.
async fn newest_init(objects: &Objects, job: &LiveJob, rendition: String) -> Result<Option<(u32, Bytes)>, StorageError> {
    let folder = format!("{}/{rendition}/init-", job.prefix);
    let keys = objects.list(&folder).await?;
    let numbers = keys.iter().filter_map(|key| key.strip_prefix(&folder)?.strip_suffix(".mp4")?.parse::<u32>().ok());
    let Some(newest) = numbers.max() else { return Ok(None) };
    let object = objects.get(&job.prefix.key(&ObjectName::Init(rendition, newest))).await?;
    Ok(object.map(|object| (newest, object.body)))
}

async fn ledger(objects: &Objects, job: &LiveJob, minute: u64) -> Result<Option<Ledger>, StorageError> {
    let key = job.prefix.key(&ObjectName::Ledger(minute));
    let Some(object) = objects.get(&key).await? else { return Ok(None) };
    match serde_json::from_slice(&object.body) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(error) => {
            tracing::warn!(key, %error, "a ledger does not parse; it will be written anew");
            Ok(None)
        }
    }
}
