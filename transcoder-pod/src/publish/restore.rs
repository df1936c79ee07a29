//! What a successor must know of its predecessor's work.

use super::empty_window;
use super::keeper::ladder_renditions;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lectern_cloud::{Objects, StorageError};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{EndedRendition, Ledger};
use lectern_contract::{SegmentNumber, TICKS_PER_SECOND};
use lectern_media::hls::LiveWindow;
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

/// What S3 has of a run, by name: [`list`] may be asked before it is known where a successor goes on.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The minutes that have a ledger.
    minutes: BTreeSet<u64>,
    /// The newest init sections, by rendition; whether a segment that is known needs them or not: a number that is taken is not to be used for another.
    inits: BTreeMap<String, u32>,
}

/// Lists it.
///
/// # Errors
/// S3's.
pub async fn list(objects: &Objects, job: &LiveJob) -> Result<Listing, StorageError> {
    let folder = format!("{}/ledger/", job.prefix);
    let names = ladder_renditions(&job.ladder).into_iter().map(|EndedRendition { name, .. }| name);
    let inits = stream::iter(names).map(|name| async move {
        let newest = newest_init(objects, &job.prefix, &name).await?;
        Ok(newest.map(|newest| (name, newest)))
    });
    let (ledgers, inits) = tokio::try_join!(objects.list(&folder), inits.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>())?;
    Ok(Listing { minutes: numbers(&ledgers, &folder, ".ledger.json").collect(), inits: inits.into_iter().flatten().collect() })
}

/// The number of the newest init section that S3 has of a rendition.
///
/// # Errors
/// S3's.
pub(crate) async fn newest_init(objects: &Objects, prefix: &RunPrefix, rendition: &str) -> Result<Option<u32>, StorageError> {
    let folder = format!("{prefix}/{rendition}/init-");
    Ok(numbers(&objects.list(&folder).await?, &folder, ".mp4").max())
}

/// The numbers in `keys`, between `folder` and `suffix`.
pub(crate) fn numbers<N: std::str::FromStr>(keys: &[String], folder: &str, suffix: &str) -> impl Iterator<Item = N> {
    keys.iter().filter_map(move |key| key.strip_prefix(folder)?.strip_suffix(suffix)?.parse().ok())
}

/// Reads what is in `listing`. `next` is the head's next segment, read no later than this is asked for: what lies behind it will be made anew.
///
/// Ledgers are written before the head moves past their segments, so that all that it passes is there by now; a ledger that was begun since they were listed is
/// looked for by its name.
///
/// # Errors
/// S3's. A ledger that does not parse is skipped with a warning: it is no reason to stop a lecture.
pub async fn restore(objects: &Objects, job: &LiveJob, listing: Listing, next: SegmentNumber) -> Result<Restored, StorageError> {
    // At once, not in turn: players wait for it, and each answer may take S3 a while.
    let inits = stream::iter(listing.inits).map(|(name, number)| async move {
        let object = objects.get(&job.prefix.key(&ObjectName::Init(name.clone(), number))).await?;
        Ok(object.map(|object| (name, (number, object.body))))
    });
    let inits = inits.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
    let (mut restored, inits) = tokio::try_join!(ledgers(objects, job, listing.minutes, next), inits)?;
    restored.inits.extend(inits.into_iter().flatten());
    Ok(restored)
}

/// What ledgers tell: all but the init sections.
async fn ledgers(objects: &Objects, job: &LiveJob, listed: BTreeSet<u64>, next: SegmentNumber) -> Result<Restored, StorageError> {
    // Those that hold the window, the one in which it begins, and one for what may still be late.
    let span = (super::window_of(job) as u64).saturating_mul(job.segment_duration.ticks().0);
    let most = span.div_ceil(MINUTE).saturating_add(2);
    let oldest = listed.first().copied();
    let mut newest: BTreeSet<u64> = listed.iter().rev().take(usize::try_from(most).unwrap_or(usize::MAX)).copied().collect();
    if let Some(passed) = next.0.checked_sub(1) {
        let minute = SegmentNumber(passed).start(job.segment_duration).0 / MINUTE;
        let listed = listed.last().map_or(0, |newest| newest + 1);
        newest.extend(minute.saturating_sub(most).max(listed)..=minute);
    }
    let wanted: BTreeSet<u64> = newest.iter().copied().chain(oldest).collect();
    let reads = stream::iter(wanted).map(|minute| async move { Ok::<_, StorageError>((minute, ledger(objects, job, minute).await?)) });
    let found: Vec<(u64, Option<Ledger>)> = reads.buffered(AT_ONCE).try_collect().await?; // in order
    let found: Vec<(u64, Ledger)> = found.into_iter().filter_map(|(minute, ledger)| Some((minute, ledger?))).collect();

    let mut restored = Restored { minutes: listed, ..Restored::default() };
    restored.minutes.extend(found.iter().map(|(minute, _)| *minute));
    restored.first = found.first().and_then(|(_, ledger)| ledger.segments.values().flatten().map(|segment| segment.number).min());
    let recent = restored.minutes.iter().rev().nth(STILL_GROWING - 1).copied();
    for (minute, ledger) in found.into_iter().filter(|(minute, _)| newest.contains(minute)) {
        for (rendition, segments) in &ledger.segments {
            let window = restored.windows.entry(rendition.clone()).or_insert_with(|| empty_window(job));
            for segment in segments {
                restored.last = restored.last.max(Some(segment.number));
                if segment.number < next {
                    window.push((*segment).into());
                }
            }
        }
        if recent.is_none_or(|recent| minute >= recent) {
            restored.ledgers.insert(minute, ledger);
        }
    }
    Ok(restored)
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
