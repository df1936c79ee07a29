//! Looks at what the origin serves, several times a second, while things happen to it.

use crate::playlist::{self, Segment};
use crate::storage::Storage;
use anyhow::{Context as _, Result};
use lectern_contract::keys::RunPrefix;
use lectern_media::fragments;
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks. A sample's rate, not a wait.
const EVERY: Duration = Duration::from_millis(100);
/// What does not answer by then is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a machine that is busy is late by, with nothing wrong.
const TOLERANCE: Duration = Duration::from_millis(500);

/// A running look-out.
pub(super) struct Watch {
    stop: CancellationToken,
    looking: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When a rendition's playlist was seen to have grown, by a segment or by a part.
    grown: BTreeMap<String, Vec<Instant>>,
    newest: BTreeMap<String, u64>,
    /// The parts after the newest segment.
    parts: BTreeMap<String, usize>,
    /// What a playlist promises to grow by: a part's length, or a segment's.
    pace: Duration,
    /// The digests of segments and parts, by path below the run's prefix, as they were when they were first named.
    bodies: BTreeMap<String, [u8; 32]>,
    /// Times that a playlist went back, or left a number out, for people.
    pub back: Vec<String>,
    /// What was named by a playlist and not there when it was asked for then; what came later is taken out.
    absent: BTreeSet<String>,
}

impl Watch {
    pub fn begin(hls: &str) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let (stop, hls) = (CancellationToken::new(), reqwest::Url::parse(hls)?);
        let stopped = stop.clone();
        let looking = tokio::spawn(async move {
            let (mut seen, mut ticks) = (Seen::default(), tokio::time::interval(EVERY));
            while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
                // An origin that is away is no news: the next look tells.
                let _ = seen.look(&client, &hls).await;
            }
            seen
        });
        Ok(Self { stop, looking })
    }

    pub async fn end(self) -> Result<Seen> {
        self.stop.cancel();
        self.looking.await.context("the look-out")
    }
}

impl Seen {
    async fn look(&mut self, client: &reqwest::Client, hls: &reqwest::Url) -> Result<()> {
        let get = async |url: reqwest::Url| anyhow::Ok(client.get(url).send().await?.error_for_status()?.bytes().await?);
        for name in playlist::variants(&String::from_utf8(get(hls.clone()).await?.to_vec())?) {
            let url = hls.join(&name)?;
            let text = String::from_utf8(get(url.clone()).await?.to_vec())?;
            let media = playlist::media(&text);
            let numbers: Vec<u64> = media.segments.iter().filter_map(Segment::number).collect();
            // What is lost is listed, too, with EXT-X-GAP.
            if !numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
                self.back.push(format!("{name} names {numbers:?}"));
            }
            let Some(last) = numbers.last().copied() else { continue };
            let parts = media.parts.iter().filter(|part| number_of(part).is_some_and(|number| number > last)).count();
            let before = self.newest.insert(name.clone(), last);
            let parts_before = self.parts.insert(name.clone(), parts);
            if before.is_none_or(|before| last > before) || (before == Some(last) && Some(parts) > parts_before) {
                self.grown.entry(name.clone()).or_default().push(Instant::now());
            }
            if let Some(before) = before.filter(|before| last < *before) {
                self.back.push(format!("{name} went back from {before} to {last}"));
            }
            self.pace = pace(&text);
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let segments = media.segments.iter().filter(|segment| !segment.gap).map(|segment| &segment.uri);
            for uri in media.parts.iter().chain(segments) {
                if let Entry::Vacant(unknown) = self.bodies.entry(format!("{folder}/{uri}")) {
                    let answer = client.get(url.join(uri)?).send().await?;
                    if answer.status() == StatusCode::NOT_FOUND {
                        self.absent.insert(unknown.key().clone());
                        continue;
                    }
                    self.absent.remove(unknown.key());
                    unknown.insert(Sha256::digest(answer.error_for_status()?.bytes().await?).into());
                }
            }
        }
        Ok(())
    }

    /// The longest that any playlist did not grow, beyond its pace.
    pub fn late(&self) -> Duration {
        self.pauses().map(|(_, pause)| pause.saturating_sub(self.pace)).max().unwrap_or_default()
    }

    /// What is wrong with what was served, for people.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let absent = self.absent.iter().map(|path| format!("{path} was named, and never there"));
        self.back.iter().cloned().chain(absent)
    }

    /// From `struck` until the end of the last pause that was longer than the pace allows.
    pub fn recovery(&self, struck: Instant) -> Duration {
        let long = self.pauses().filter(|(_, pause)| *pause > self.pace + TOLERANCE).map(|(end, _)| end);
        long.map(|end| end.saturating_duration_since(struck)).max().unwrap_or_default()
    }

    /// When each pause of each playlist ended, and how long it was.
    fn pauses(&self) -> impl Iterator<Item = (Instant, Duration)> {
        self.grown.values().flat_map(|grown| grown.windows(2).map(|pair| (pair[1], pair[1] - pair[0])))
    }

    /// How many segments S3 holds with other bytes, in one of their parts or as a whole.
    pub async fn differs_from(&self, storage: &Storage, prefix: &RunPrefix) -> Result<usize> {
        let mut segments: BTreeMap<String, Vec<Served>> = BTreeMap::new();
        for (path, digest) in &self.bodies {
            let (segment, part) = segment_of(path);
            segments.entry(segment).or_default().push((part, *digest));
        }
        let mut differ = 0;
        for (path, served) in segments {
            let stored = storage.get(&format!("{prefix}/{path}")).await.with_context(|| format!("{path} was served"))?;
            let stored = bytes::Bytes::from(stored);
            let is_same = |part: Option<u64>, digest: [u8; 32]| {
                let stored = part.map_or(Some(stored.clone()), |part| fragments::part(&stored, part));
                stored.is_some_and(|stored| Sha256::digest(&stored)[..] == digest[..])
            };
            let other: Vec<String> =
                served.into_iter().filter(|(part, digest)| !is_same(*part, *digest)).map(|(part, _)| of(part)).collect();
            if !other.is_empty() {
                eprintln!("  S3 has another {path} than was served: {}", other.join(", "));
                differ += 1;
            }
        }
        Ok(differ)
    }
}

/// A part, or the whole of a segment; its digest.
type Served = (Option<u64>, [u8; 32]);

/// A part, or the whole, for people.
fn of(part: Option<u64>) -> String {
    part.map_or_else(|| "the whole".to_owned(), |part| format!("part {part}"))
}

/// The path of the segment that is, or whose part is, at `path`; and which part.
fn segment_of(path: &str) -> (String, Option<u64>) {
    let part = path.strip_suffix(".m4s").and_then(|stem| {
        let (segment, part) = stem.rsplit_once('.')?;
        Some((format!("{segment}.m4s"), Some(part.parse().ok()?)))
    });
    part.unwrap_or_else(|| (path.to_owned(), None))
}

/// The segment that a part is of.
fn number_of(part: &str) -> Option<u64> {
    part.split('.').next()?.parse().ok()
}

/// A part's length where there are parts, else a segment's.
fn pace(playlist: &str) -> Duration {
    let value = |tag: &str| playlist.lines().find_map(|line| line.strip_prefix(tag)).and_then(|value| value.parse().ok());
    let seconds = value("#EXT-X-PART-INF:PART-TARGET=").or_else(|| value("#EXT-X-TARGETDURATION:"));
    seconds.map(Duration::from_secs_f64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_ends_when_playlists_grow_at_their_pace_again() {
        let zero = Instant::now();
        let at = |seconds: &[u64]| seconds.iter().map(|second| zero + Duration::from_secs(*second)).collect::<Vec<_>>();
        let grown = BTreeMap::from([("audio".to_owned(), at(&[0, 4, 8, 12, 16])), ("360p".to_owned(), at(&[0, 4, 15, 16, 20]))]);
        let seen = Seen { grown, pace: pace("#EXTM3U\n#EXT-X-TARGETDURATION:4\n"), ..Seen::default() };
        assert_eq!(seen.late(), Duration::from_secs(7));
        assert_eq!(seen.recovery(zero + Duration::from_secs(5)), Duration::from_secs(10));
        assert_eq!(seen.recovery(zero + Duration::from_secs(18)), Duration::ZERO);
    }

    #[test]
    fn a_low_latency_playlist_grows_by_parts() {
        assert_eq!(pace("#EXT-X-TARGETDURATION:2\n#EXT-X-PART-INF:PART-TARGET=0.334\n"), Duration::from_millis(334));
        assert_eq!(number_of("17.3.m4s"), Some(17));
        assert_eq!(segment_of("360p/17.3.m4s"), ("360p/17.m4s".to_owned(), Some(3)));
        assert_eq!(segment_of("360p/17.m4s"), ("360p/17.m4s".to_owned(), None));
        assert_eq!(segment_of("captions/17.vtt"), ("captions/17.vtt".to_owned(), None));
    }
}
