//! What a successor must know of its predecessor's work.

use super::empty_window;
use super::keeper::ladder_renditions;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lectern_cloud::{Objects, StorageError};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{EndedRendition, Ledger};
use lectern_contract::{SegmentNumber, TICKS_PER_SECOND};
use lectern_media::hls::{self, LiveWindow};
use std::collections::{BTreeMap, BTreeSet};

/// A minute of the timeline, in ticks: the span of a ledger.
pub const MINUTE: u64 = 60 * TICKS_PER_SECOND;
/// Ledgers that may still grow: the newest, and those of what is late.
const STILL_GROWING: usize = 3;
/// Ledgers that are read at a time: a successor of a lecture with an hour's window reads sixty, and players wait for it.
const AT_ONCE: usize = 16;

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
    // At once, not in turn: players wait for it, and each answer may take S3 a while.
    let names = ladder_renditions(job).into_iter().map(|EndedRendition { name, .. }| name);
    let inits = stream::iter(names).map(|name| async move { Ok((name.clone(), newest_init(objects, job, name).await?)) });
    let inits = inits.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
    let (mut restored, inits) = tokio::try_join!(ledgers(objects, job, next), inits)?;
    restored.inits.extend(inits.into_iter().filter_map(|(name, init)| Some((name, init?))));
    Ok(restored)
}

/// What ledgers tell: all but the init sections.
async fn ledgers(objects: &Objects, job: &LiveJob, next: SegmentNumber) -> Result<Restored, StorageError> {
    let mut restored = Restored::default();
    let folder = format!("{}/ledger/", job.prefix);
    for key in objects.list(&folder).await? {
        let minute = key.strip_prefix(&folder).and_then(|name| name.strip_suffix(".ledger.json")).and_then(|n| n.parse().ok());
        restored.minutes.extend::<Option<u64>>(minute);
    }
    // Those that hold the window, the one in which it begins, and one for what may still be late.
    let span = (super::window_of(job) as u64).saturating_mul(job.segment_duration.ticks().0);
    let minutes = usize::try_from(span.div_ceil(MINUTE).saturating_add(2)).unwrap_or(usize::MAX);
    let oldest = restored.minutes.first().copied();
    let newest: BTreeSet<u64> = restored.minutes.iter().rev().take(minutes).copied().collect();
    let wanted: BTreeSet<u64> = newest.iter().copied().chain(oldest).collect();
    let reads = stream::iter(wanted).map(|minute| async move { Ok::<_, StorageError>((minute, ledger(objects, job, minute).await?)) });
    let in_order: Vec<(u64, Option<Ledger>)> = reads.buffered(AT_ONCE).try_collect().await?;
    let recent = restored.minutes.iter().rev().nth(STILL_GROWING - 1).copied();
    for (minute, ledger) in in_order.into_iter().filter_map(|(minute, ledger)| Some((minute, ledger?))) {
        if Some(minute) == oldest {
            restored.first = ledger.segments.values().flatten().map(|segment| segment.number).min();
        }
        if !newest.contains(&minute) {
            continue;
        }
        for (rendition, segments) in &ledger.segments {
            let window = restored.windows.entry(rendition.clone()).or_insert_with(|| empty_window(job));
            for segment in segments {
                restored.last = restored.last.max(Some(segment.number));
                if segment.number < next {
                    window.push(hls::Segment { number: segment.number, duration: segment.duration, init: segment.init });
                }
            }
        }
        if recent.is_none_or(|recent| minute >= recent) {
            restored.ledgers.insert(minute, ledger);
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
