//! Looks at what the origin serves, several times a second, while things happen to it.

use crate::playlist::{self, Segment};
use crate::storage::Storage;
use anyhow::{Context as _, Result};
use lectern_contract::keys::RunPrefix;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks. A sample's rate, not a wait.
const EVERY: Duration = Duration::from_millis(100);
/// What does not answer by then is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running look-out.
pub(super) struct Watch {
    stop: CancellationToken,
    looking: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When a rendition's playlist was seen to have grown.
    grown: BTreeMap<String, Vec<Instant>>,
    newest: BTreeMap<String, u64>,
    /// The digests of the segments, by path below the run's prefix, as they were when they were first named.
    bodies: BTreeMap<String, [u8; 32]>,
    /// Times that a playlist went back, for people.
    pub back: Vec<String>,
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
            let media = playlist::media(&String::from_utf8(get(url.clone()).await?.to_vec())?);
            let numbers: Vec<u64> = media.segments.iter().filter_map(Segment::number).collect();
            if !numbers.windows(2).all(|pair| pair[0] < pair[1]) {
                self.back.push(format!("{name} names {numbers:?}"));
            }
            let Some(last) = numbers.last().copied() else { continue };
            match self.newest.get(&name).copied() {
                Some(before) if last < before => self.back.push(format!("{name} went back from {before} to {last}")),
                Some(before) if last == before => continue,
                _ => {}
            }
            self.newest.insert(name.clone(), last);
            self.grown.entry(name.clone()).or_default().push(Instant::now());
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            for segment in media.segments.iter().filter(|segment| !segment.gap) {
                let path = format!("{folder}/{}", segment.uri);
                if let Entry::Vacant(unknown) = self.bodies.entry(path) {
                    unknown.insert(Sha256::digest(get(url.join(&segment.uri)?).await?).into());
                }
            }
        }
        Ok(())
    }

    /// The longest that any playlist did not grow, in milliseconds.
    pub fn longest_wait(&self) -> f64 {
        let waits = self.grown.values().flat_map(|grown| grown.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3));
        waits.fold(0.0, f64::max)
    }

    /// How many segments S3 holds with other bytes.
    pub async fn differs_from(&self, storage: &Storage, prefix: &RunPrefix) -> Result<usize> {
        let mut differ = 0;
        for (path, digest) in &self.bodies {
            let stored = storage.get(&format!("{prefix}/{path}")).await.with_context(|| format!("{path} was served"))?;
            differ += usize::from(Sha256::digest(&stored)[..] != digest[..]);
        }
        Ok(differ)
    }
}
