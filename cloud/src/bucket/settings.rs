//! The settings of a bucket that is the operator's own: read, compared, and written where they differ.

use super::wanted;
use crate::Pending;
use crate::failure::{FailureKind, kind_of, status_of};
use crate::objects::Objects;
use aws_sdk_s3::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::BucketLifecycleConfiguration;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::fmt;

/// A setting of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BucketSetting {
    /// New objects are encrypted: with a key of KMS if the bucket has one, else with S3's own.
    Encryption,
    /// Nobody can open the bucket to the world.
    PublicAccessBlock,
    /// Pages of any origin may read what their viewer may.
    Cors,
    /// Unfinished uploads go, and objects after their time.
    Lifecycle,
}

impl fmt::Display for BucketSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encryption => "default encryption",
            Self::PublicAccessBlock => "the public access block",
            Self::Cors => "the CORS rule",
            Self::Lifecycle => "the lifecycle rules",
        })
    }
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upkeep {
    /// It was as it should be.
    Kept,
    /// It was written.
    Written,
    /// The server has no such setting.
    Unknown,
    /// The server does not tell it, or does not take it: its error code.
    Refused(String),
    /// No answer came, or the bucket went meanwhile: the next time will tell.
    Later,
}

impl Objects {
    /// Reads each of the bucket's settings and writes those that differ from what Lectern wants of a bucket of its own. Rules of others are
    /// kept; objects go after `retention_days` if that is given.
    pub fn ensure_settings(&self, retention_days: Option<i32>) -> Pending<'_, Vec<(BucketSetting, Upkeep)>> {
        Box::pin(async move {
            // One after the other: S3 refuses changes of a bucket that come at the same time.
            let found = [
                (BucketSetting::Encryption, self.keep_encryption().await),
                (BucketSetting::PublicAccessBlock, self.keep_private().await),
                (BucketSetting::Cors, self.keep_cors().await),
                (BucketSetting::Lifecycle, self.keep_lifecycle(retention_days).await),
            ];
            found.map(|(setting, upkeep)| (setting, upkeep.unwrap_or_else(|trouble| trouble))).into()
        })
    }

    async fn keep_encryption(&self) -> Result<Upkeep, Upkeep> {
        let now = there(self.client.get_bucket_encryption().bucket(&self.at.name).send().await)?;
        if now.is_some_and(|now| now.server_side_encryption_configuration().is_some_and(wanted::is_encrypted)) {
            return Ok(Upkeep::Kept);
        }
        let wanted = wanted::encryption().map_err(impossible)?;
        let request = self.client.put_bucket_encryption().bucket(&self.at.name).server_side_encryption_configuration(wanted);
        request.send().await.map_err(|error| trouble(&error))?;
        Ok(self.wrote(BucketSetting::Encryption))
    }

    async fn keep_private(&self) -> Result<Upkeep, Upkeep> {
        let now = there(self.client.get_public_access_block().bucket(&self.at.name).send().await)?;
        if now.is_some_and(|now| now.public_access_block_configuration().is_some_and(wanted::is_private)) {
            return Ok(Upkeep::Kept);
        }
        let request = self.client.put_public_access_block().bucket(&self.at.name).public_access_block_configuration(wanted::private());
        request.send().await.map_err(|error| trouble(&error))?;
        Ok(self.wrote(BucketSetting::PublicAccessBlock))
    }

    async fn keep_cors(&self) -> Result<Upkeep, Upkeep> {
        let now = there(self.client.get_bucket_cors().bucket(&self.at.name).send().await)?;
        let now = now.and_then(|now| now.cors_rules).unwrap_or_default();
        let Some(wanted) = wanted::cors(&now).map_err(impossible)? else { return Ok(Upkeep::Kept) };
        let request = self.client.put_bucket_cors().bucket(&self.at.name).cors_configuration(wanted);
        request.send().await.map_err(|error| trouble(&error))?;
        Ok(self.wrote(BucketSetting::Cors))
    }

    async fn keep_lifecycle(&self, retention_days: Option<i32>) -> Result<Upkeep, Upkeep> {
        let now = there(self.client.get_bucket_lifecycle_configuration().bucket(&self.at.name).send().await)?;
        // Belongs to others' rules and would go back to its default.
        let least = now.as_ref().and_then(|now| now.transition_default_minimum_object_size.clone());
        let now = now.and_then(|now| now.rules).unwrap_or_default();
        let Some(rules) = wanted::lifecycle(&now, retention_days).map_err(impossible)? else { return Ok(Upkeep::Kept) };
        let wanted = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().map_err(impossible)?;
        let request = self.client.put_bucket_lifecycle_configuration().bucket(&self.at.name).lifecycle_configuration(wanted);
        let request = request.set_transition_default_minimum_object_size(least);
        request.send().await.map_err(|error| trouble(&error))?;
        Ok(self.wrote(BucketSetting::Lifecycle))
    }

    fn wrote(&self, setting: BucketSetting) -> Upkeep {
        tracing::info!(bucket = %self.at, %setting, "set what was otherwise in the bucket");
        Upkeep::Written
    }
}

/// What a server says; `None` where it says that there is no such setting yet.
fn there<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E, HttpResponse>>) -> Result<Option<T>, Upkeep> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if status_of(&error) == Some(404) && error.code() != Some("NoSuchBucket") => Ok(None),
        Err(error) => Err(trouble(&error)),
    }
}

fn trouble<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Upkeep {
    let status = status_of(error).unwrap_or_default();
    match (error.code(), status) {
        (Some("NotImplemented" | "MethodNotAllowed"), _) | (_, 405 | 501) => Upkeep::Unknown,
        (code, status) => match kind_of(error) {
            FailureKind::Unreachable | FailureKind::Throttled | FailureKind::Skewed | FailureKind::NotFound => Upkeep::Later,
            FailureKind::Denied | FailureKind::Other => Upkeep::Refused(code.map_or_else(|| format!("status {status}"), str::to_owned)),
        },
    }
}

/// A request that the SDK would not build: every field that it asks for is given.
fn impossible(error: BuildError) -> Upkeep {
    Upkeep::Refused(error.to_string())
}
