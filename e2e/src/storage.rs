//! The bucket, seen by a client of its own and not by the code under test.

use crate::Settings;
use crate::lab::STEP;
use crate::wait::{Look, eventually};
use anyhow::{Context as _, Result};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use lectern_contract::keys::{ObjectName, RunPrefix};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Reads the bucket.
#[derive(Debug, Clone)]
pub struct Storage {
    client: aws_sdk_s3::Client,
    bucket: String,
}

impl Storage {
    /// MiniStack's bucket.
    pub fn new(settings: &Settings) -> Self {
        Self::at(settings.s3_port, &settings.bucket)
    }

    /// A bucket of a server at this port of this machine.
    pub fn at(port: u16, bucket: &str) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://localhost:{port}"))
            .force_path_style(true)
            .credentials_provider(credentials())
            .build();
        Self { client: aws_sdk_s3::Client::from_conf(config), bucket: bucket.to_owned() }
    }

    /// Deletes the bucket, as somebody might by hand; it has to be empty.
    pub async fn delete_bucket(&self) -> Result<()> {
        self.client.delete_bucket().bucket(&self.bucket).send().await.with_context(|| format!("deleting bucket {}", self.bucket))?;
        Ok(())
    }

    /// Whether nobody can open the bucket to the public.
    pub async fn is_blocked(&self) -> Result<bool> {
        let told = self.client.get_public_access_block().bucket(&self.bucket).send().await.with_context(|| self.bucket.clone())?;
        let block = told.public_access_block_configuration;
        Ok(block.is_some_and(|block| block.block_public_acls == Some(true) && block.restrict_public_buckets == Some(true)))
    }

    /// Every object under a prefix: its key and its size.
    pub async fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.with_context(|| format!("listing {prefix}"))?.contents.unwrap_or_default() {
                let size = u64::try_from(object.size.unwrap_or_default()).unwrap_or_default();
                found.insert(object.key.unwrap_or_default(), size);
            }
        }
        Ok(found)
    }

    /// An object's bytes.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>> {
        let object = self.client.get_object().bucket(&self.bucket).key(key).send().await.with_context(|| format!("reading {key}"))?;
        Ok(object.body.collect().await.with_context(|| format!("reading {key}"))?.to_vec())
    }

    /// Waits for the recording's playlist.
    pub async fn has_recording(&self, prefix: &RunPrefix) -> Result<()> {
        eventually("the recording's playlist", STEP, async || {
            Ok(self.text(prefix, &ObjectName::Vod).await.map_or_else(|error| Look::NotYet(format!("{error:#}")), |_| Look::Found(())))
        })
        .await
    }

    /// An object of a run, as text.
    pub async fn text(&self, prefix: &RunPrefix, name: &ObjectName) -> Result<String> {
        let key = prefix.key(name);
        String::from_utf8(self.get(&key).await?).with_context(|| key)
    }

    /// An object of a run, as JSON.
    pub async fn json<T: DeserializeOwned>(&self, prefix: &RunPrefix, name: &ObjectName) -> Result<T> {
        let text = self.text(prefix, name).await?;
        serde_json::from_str(&text).with_context(|| format!("{}: {text}", prefix.key(name)))
    }

    /// The numbers of all segments of a run, by rendition.
    pub async fn segments(&self, prefix: &RunPrefix) -> Result<BTreeMap<String, Vec<u64>>> {
        let objects = self.list(&format!("{prefix}/")).await?;
        let mut segments = BTreeMap::<String, Vec<u64>>::new();
        for (rendition, number) in objects.keys().filter_map(|key| segment_of(prefix, key)) {
            segments.entry(rendition).or_default().push(number);
        }
        segments.values_mut().for_each(|numbers| numbers.sort_unstable());
        Ok(segments)
    }
}

/// What MiniStack takes, as it takes anything.
pub(crate) fn credentials() -> Credentials {
    Credentials::new("test", "test", None, None, "e2e")
}

/// The rendition and the number, where `key` is a segment's, of media or of text.
pub fn segment_of(prefix: &RunPrefix, key: &str) -> Option<(String, u64)> {
    let (rendition, file) = key.strip_prefix(prefix.as_str())?.strip_prefix('/')?.split_once('/')?;
    let number = file.strip_suffix(".m4s").or_else(|| file.strip_suffix(".vtt"))?.parse().ok()?;
    Some((rendition.to_owned(), number))
}
