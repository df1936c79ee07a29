//! Looks at what the origin serves, several times a second, and at what S3 has, while things happen to them.

use super::stored::Stored;
use crate::mpd::{self, Mpd, Representation};
use crate::playlist::{self, Segment};
use crate::storage::Storage;
use anyhow::{Context as _, Result};
use lectern_contract::keys::RunPrefix;
use lectern_media::fragments;
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks. A sample's rate, not a wait.
const EVERY: Duration = Duration::from_millis(100);
/// So many looks at the origin's playlists for one at its MPD and at S3.
const SELDOM: usize = 10;
/// A segment is read again once so many are newer.
const LATER: usize = 2;
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
    /// Those that were read again.
    again: BTreeSet<String>,
    /// What was other bytes when it was read again, for people.
    pub changed: Vec<String>,
    /// `@availabilityStartTime`, which players count all times from.
    begins: Option<String>,
    /// When each segment starts by the MPD, by rendition and number.
    times: BTreeMap<(String, u64), u64>,
    /// The newest segment that the MPD names, by rendition.
    mpd: BTreeMap<String, u64>,
    /// Times that a playlist or the MPD went back, left a number out or gave it again, for people.
    pub back: Vec<String>,
    /// What was named by a playlist and not there when it was asked for then; what came later is taken out.
    absent: BTreeSet<String>,
}

impl Watch {
    pub fn begin(hls: &str, mut stored: Stored) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let (stop, hls) = (CancellationToken::new(), reqwest::Url::parse(hls)?);
        let stopped = stop.clone();
        let looking = tokio::spawn(async move {
            let (mut seen, mut ticks) = (Seen::default(), tokio::time::interval(EVERY));
            for look in 0.. {
                if stopped.run_until_cancelled(ticks.tick()).await.is_none() {
                    break;
                }
                // An origin that is away is no news: the next look tells.
                let _ = seen.look(&client, &hls).await;
                if look % SELDOM == 0 {
                    let _ = seen.look_at_mpd(&client, &hls).await;
                    stored.look(seen.renditions()).await;
                }
            }
            seen.back.extend(stored.back);
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
            for uri in media.maps.iter().chain(&media.parts).chain(segments) {
                self.read(client, url.join(uri)?, format!("{folder}/{uri}")).await?;
            }
            if let Some(uri) = media.segments.iter().rev().filter(|segment| !segment.gap).map(|segment| &segment.uri).nth(LATER) {
                self.read_again(client, &url.join(uri)?, &format!("{folder}/{uri}")).await?;
            }
        }
        Ok(())
    }

    /// Reads what is named, unless that has been done.
    async fn read(&mut self, client: &reqwest::Client, url: reqwest::Url, path: String) -> Result<()> {
        if self.bodies.contains_key(&path) {
            return Ok(());
        }
        let answer = client.get(url).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            self.absent.insert(path);
            return Ok(());
        }
        self.absent.remove(&path);
        self.bodies.insert(path, Sha256::digest(answer.error_for_status()?.bytes().await?).into());
        Ok(())
    }

    /// What has been read is the same as long as it is there.
    async fn read_again(&mut self, client: &reqwest::Client, url: &reqwest::Url, path: &str) -> Result<()> {
        let Some(first) = self.bodies.get(path).filter(|_| !self.again.contains(path)) else { return Ok(()) };
        let now = Sha256::digest(client.get(url.clone()).send().await?.error_for_status()?.bytes().await?);
        if now[..] != first[..] {
            self.changed.push(format!("{path} was other bytes when it was read again"));
        }
        self.again.insert(path.to_owned());
        Ok(())
    }

    /// The renditions that were seen.
    fn renditions(&self) -> impl Iterator<Item = String> {
        self.newest.keys().filter_map(|name| Some(name.rsplit_once('/')?.0.to_owned()))
    }

    /// Its init sections are read with the playlists'; its segments are theirs.
    async fn look_at_mpd(&mut self, client: &reqwest::Client, hls: &reqwest::Url) -> Result<()> {
        let text = client.get(hls.join("live.mpd")?).send().await?.error_for_status()?.text().await?;
        let mpd = mpd::read(&text)?;
        self.has_mpd(&mpd);
        for Representation { init, .. } in mpd.representations.into_values() {
            self.read(client, hls.join(&init)?, init).await?;
        }
        Ok(())
    }

    /// An MPD's times and numbers are those that it had before.
    fn has_mpd(&mut self, mpd: &Mpd) {
        let begins = self.begins.get_or_insert_with(|| mpd.begins.clone());
        if *begins != mpd.begins {
            self.back.push(format!("the MPD began at {begins}, and begins at {}", mpd.begins));
        }
        for (id, named) in &mpd.representations {
            let Some(newest) = named.segments.last_key_value().map(|(number, _)| *number) else { continue };
            if let Some(before) = self.mpd.insert(id.clone(), newest).filter(|before| newest < *before) {
                self.back.push(format!("the MPD's {id} went back from {before} to {newest}"));
            }
            for (number, time) in &named.segments {
                let before = self.times.entry((id.clone(), *number)).or_insert(*time);
                if before != time {
                    self.back.push(format!("the MPD's {id} has {number} at {time}, and had it at {before}"));
                }
            }
        }
    }

    /// The longest that any playlist did not grow, beyond its pace.
    pub fn late(&self) -> Duration {
        self.pauses().map(|(_, pause)| pause.saturating_sub(self.pace)).max().unwrap_or_default()
    }

    /// What is wrong with what was served, for people.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let absent = self.absent.iter().map(|path| format!("{path} was named, and never there"));
        self.back.iter().chain(&self.changed).cloned().chain(absent)
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
    fn an_mpd_that_goes_back_or_gives_a_number_or_its_start_again_is_told() {
        let mpd = |begins: &str, segments: &[(u64, u64)]| {
            let named = Representation { init: "360p/init-0.mp4".to_owned(), segments: segments.iter().copied().collect() };
            Mpd { begins: begins.to_owned(), representations: BTreeMap::from([("360p".to_owned(), named)]) }
        };
        let mut seen = Seen::default();
        let zero = "2026-11-28T00:00:00Z";
        seen.has_mpd(&mpd(zero, &[(3, 30), (4, 40)]));
        seen.has_mpd(&mpd(zero, &[(4, 40), (5, 50)]));
        assert_eq!(seen.back, Vec::<String>::new());
        for (mpd, wrong) in [
            (mpd(zero, &[(4, 40)]), "went back from 5 to 4"),
            (mpd(zero, &[(4, 40), (5, 51)]), "has 5 at 51"),
            (mpd("2026-11-28T00:00:01Z", &[(5, 50)]), "begins at"),
        ] {
            seen.has_mpd(&mpd);
            assert!(seen.back.last().is_some_and(|told| told.contains(wrong)), "{:?}", seen.back);
        }
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
