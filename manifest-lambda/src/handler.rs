//! Reads, plans, writes. What fails is an error, so that Lambda tries the event again.

use crate::event::ChangedRun;
use crate::plan::{WrongRun, plan};
use bytes::Bytes;
use lectern_cloud::{BucketAt, Objects, StorageError};
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{Ended, Ledger};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Ledgers read at a time.
const READ_AT_ONCE: usize = 16;

/// Why the playlists of a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// S3 did not do what it was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// `ended.json` names a ledger that is not there (yet).
    #[error("{key} is named by ended.json and missing")]
    Missing {
        /// The ledger's key.
        key: String,
    },
    /// An object is not what its name says.
    #[error("{key} cannot be read: {source}")]
    Malformed {
        /// The object's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An object of another run is in this run's place.
    #[error(transparent)]
    WrongRun(#[from] WrongRun),
}

/// Handles events; keeps its connections from one to the next.
#[derive(Debug)]
pub struct Handler {
    endpoint: Option<String>,
    region: Option<String>,
    buckets: Mutex<BTreeMap<String, Objects>>,
}

impl Handler {
    /// A handler whose S3 is named by `LECTERN_BUCKET_ENDPOINT`, else by `AWS_ENDPOINT_URL` (which MiniStack sets), else
    /// AWS, in the region `AWS_REGION` (which Lambda sets), else the event's.
    pub fn from_env() -> Self {
        let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            endpoint: given("LECTERN_BUCKET_ENDPOINT").or_else(|| given("AWS_ENDPOINT_URL")),
            region: given("LECTERN_BUCKET_REGION").or_else(|| given("AWS_REGION")),
            buckets: Mutex::default(),
        }
    }

    /// Writes the VOD playlists of every run that is complete. Safe to repeat.
    ///
    /// # Errors
    /// The first run that fails; those before it are done.
    pub async fn handle(&self, changed: BTreeSet<ChangedRun>) -> Result<(), ManifestError> {
        for run in changed {
            let objects = self.bucket(&run).await;
            let written = write_vod(&objects, &run.prefix).await?;
            tracing::info!(run = %run.prefix, playlists = written, "handled");
        }
        Ok(())
    }

    async fn bucket(&self, run: &ChangedRun) -> Objects {
        let mut buckets = self.buckets.lock().await;
        if let Some(known) = buckets.get(&run.bucket) {
            return known.clone();
        }
        let region = self.region.clone().unwrap_or_else(|| run.region.clone());
        let objects = Objects::connect(&BucketAt::new(&run.bucket, region, self.endpoint.clone())).await;
        buckets.insert(run.bucket.clone(), objects.clone());
        objects
    }
}

/// Writes the VOD playlists of the run at `prefix`, if it has ended; how many it wrote.
pub async fn write_vod(objects: &Objects, prefix: &RunPrefix) -> Result<usize, ManifestError> {
    let Some(ended) = read::<Ended>(objects, &prefix.key(&ObjectName::Ended)).await? else {
        return Ok(0); // a ledger of a run that goes on
    };
    if ended.run != prefix.run() {
        return Err(WrongRun { wanted: prefix.run(), found: ended.run }.into());
    }
    let ledgers = read_ledgers(objects, prefix, &ended.minutes).await?;
    publish(objects, prefix, plan(prefix, &ended, &ledgers)?).await
}

/// Writes `files`, the playlists of the run at `prefix`, unless the run is deleted meanwhile; how many stay.
///
/// Who deletes a run deletes its `ended.json` first and lists the rest after (the operator's `finish`). So either that
/// list has what is written here, or `ended.json` is gone by the time it has been written, and it is taken back.
pub async fn publish(objects: &Objects, prefix: &RunPrefix, files: Vec<(String, String)>) -> Result<usize, ManifestError> {
    let mut keys = Vec::with_capacity(files.len());
    for (key, text) in files {
        objects.put(&key, Bytes::from(text)).await?;
        keys.push(key);
    }
    if objects.get(&prefix.key(&ObjectName::Ended)).await?.is_some() {
        return Ok(keys.len());
    }
    tracing::info!(run = %prefix, "the run was deleted meanwhile; its playlists go, too");
    for key in &keys {
        objects.delete_prefix(key).await?;
    }
    Ok(0)
}

async fn read_ledgers(objects: &Objects, prefix: &RunPrefix, minutes: &[u64]) -> Result<Vec<Ledger>, ManifestError> {
    let mut ledgers = Vec::with_capacity(minutes.len());
    for some in minutes.chunks(READ_AT_ONCE) {
        let mut reads = JoinSet::new();
        for minute in some {
            let (objects, key) = (objects.clone(), prefix.key(&ObjectName::Ledger(*minute)));
            reads.spawn(async move { read::<Ledger>(&objects, &key).await?.ok_or(ManifestError::Missing { key }) });
        }
        for ledger in reads.join_all().await {
            ledgers.push(ledger?);
        }
    }
    Ok(ledgers)
}

async fn read<T: DeserializeOwned>(objects: &Objects, key: &str) -> Result<Option<T>, ManifestError> {
    let Some(object) = objects.get(key).await? else { return Ok(None) };
    let value = serde_json::from_slice(&object.body).map_err(|source| ManifestError::Malformed { key: key.to_owned(), source })?;
    Ok(Some(value))
}
