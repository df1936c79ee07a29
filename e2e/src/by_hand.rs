//! What somebody with a console does to a pool's queue and bucket.

use crate::Settings;
use crate::storage::credentials;
use anyhow::{Context as _, Result};
use aws_sdk_sqs::config::{BehaviorVersion, Region};

/// Queues of MiniStack, seen by a client of its own.
pub struct Queues(aws_sdk_sqs::Client);

impl Queues {
    /// Of MiniStack.
    pub fn new(settings: &Settings) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://localhost:{}", settings.s3_port))
            .credentials_provider(credentials())
            .build();
        Self(aws_sdk_sqs::Client::from_conf(config))
    }

    /// Deletes one.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let found = self.0.get_queue_url().queue_name(name).send().await.with_context(|| format!("queue {name}"))?;
        let url = found.queue_url.with_context(|| format!("the URL of queue {name}"))?;
        self.0.delete_queue().queue_url(url).send().await.with_context(|| format!("deleting queue {name}"))?;
        Ok(())
    }

    /// Where the queue sends what was given up, if it is there: its redrive policy.
    pub async fn redrive(&self, name: &str) -> Result<String> {
        use aws_sdk_sqs::types::QueueAttributeName::RedrivePolicy;
        let found = self.0.get_queue_url().queue_name(name).send().await.with_context(|| format!("queue {name}"))?;
        let told = self.0.get_queue_attributes().set_queue_url(found.queue_url).attribute_names(RedrivePolicy).send().await?;
        told.attributes.and_then(|mut all| all.remove(&RedrivePolicy)).with_context(|| format!("queue {name} has no redrive policy"))
    }
}
