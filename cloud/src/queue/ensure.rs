//! That the queue is there, and that what is delivered in vain goes to its queue of dead letters.

use super::{Attributes, COUNTS, Depth, Queue};
use crate::Pending;
use crate::failure::{FailureKind, QueueError};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};

/// Fail-overs count as receives, so a job that is merely unlucky gets this many.
pub const MAX_RECEIVES: u64 = 10;
/// Two weeks, the longest that SQS keeps a message: a dead letter waits for a person.
const DEAD_LETTER_SECONDS: u32 = 1_209_600;

/// A queue as [`Queue::ensure`] left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// Its URL.
    pub url: String,
    /// How much is in it.
    pub depth: Depth,
    /// How much is in the queue of dead letters, `{name}-dead`; `None` where there is none, or none that these credentials may see.
    pub dead: Option<Depth>,
    /// Whether what is delivered in vain too often is known to go to a queue of dead letters, of whatever name.
    pub redrives: bool,
}

impl Queue {
    /// Makes sure that the queue is there, in two requests where all is well.
    ///
    /// With `create` the queue is the caller's own: it is made where it is missing, and so is a second one, `{name}-dead`, that keeps what was
    /// delivered ten times in vain for two weeks; where somebody has changed that, it is set again. Where it cannot be, the queue serves all the
    /// same. Without `create` nothing is changed.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] where the queue is missing and may not be created; [`FailureKind::Throttled`] for a minute after its deletion,
    /// for which SQS does not give out its name.
    pub fn ensure(&self, create: bool) -> Pending<'_, Result<Ensured, QueueError>> {
        Box::pin(async move {
            let dead = self.dead();
            // Side by side: every pool asks this four times a minute.
            let (own, second) = tokio::join!(self.look(), dead.look());
            if !create {
                let own = own?;
                let (dead, redrives) = (second.ok().as_ref().map(Depth::among), target(&own).is_some());
                return Ok(Ensured { url: self.url().await?, depth: Depth::among(&own), dead, redrives });
            }
            let before = own.as_ref().ok().map(Depth::among);
            match (self.keep_both(own, &dead, second).await, before) {
                (Err(error), Some(depth)) => {
                    tracing::warn!(%error, "the queue serves, and its dead letters have no place");
                    Ok(Ensured { url: self.url().await?, depth, dead: None, redrives: false })
                }
                (kept, _) => kept,
            }
        })
    }

    async fn keep_both(
        &self,
        own: Result<Attributes, QueueError>,
        dead: &Self,
        second: Result<Attributes, QueueError>,
    ) -> Result<Ensured, QueueError> {
        let second = dead.keep(second, QueueAttributeName::MessageRetentionPeriod, &json!(DEAD_LETTER_SECONDS)).await?;
        let arn = second.get(&QueueAttributeName::QueueArn);
        let arn = arn.ok_or_else(|| QueueError::new(FailureKind::Other, dead.what("look-up"), "the answer has no ARN"))?;
        let redrive = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES });
        let own = self.keep(own, QueueAttributeName::RedrivePolicy, &redrive).await?;
        Ok(Ensured { url: self.url().await?, depth: Depth::among(&own), dead: Some(Depth::among(&second)), redrives: true })
    }

    async fn look(&self) -> Result<Attributes, QueueError> {
        use QueueAttributeName::{MessageRetentionPeriod, QueueArn, RedrivePolicy};
        self.attributes([QueueArn, RedrivePolicy, MessageRetentionPeriod].into_iter().chain(COUNTS).collect()).await
    }

    /// Makes the queue where `found` says that it is missing, and sets its attribute `name` where that is not `wanted`.
    async fn keep(
        &self,
        found: Result<Attributes, QueueError>,
        name: QueueAttributeName,
        wanted: &Value,
    ) -> Result<Attributes, QueueError> {
        let there = match found {
            Err(error) if error.kind == FailureKind::NotFound => {
                let request = self.client.create_queue().queue_name(&self.at.name).attributes(name, wanted.to_string());
                let made = request.send().await.map_err(|error| self.failed("creation", error))?.queue_url;
                self.remember(made.ok_or_else(|| QueueError::new(FailureKind::Other, self.what("creation"), "the answer has no URL"))?);
                tracing::info!(queue = %self.at, "made the queue");
                return self.look().await;
            }
            found => found?,
        };
        if !is_set(there.get(&name), wanted) {
            let request = self.client.set_queue_attributes().queue_url(self.url().await?).attributes(name.clone(), wanted.to_string());
            request.send().await.map_err(|error| self.failed("repair", error))?;
            tracing::info!(queue = %self.at, attribute = name.as_str(), "repaired the queue");
        }
        Ok(there)
    }
}

/// Whether an attribute says the same as `wanted`: SQS gives numbers as texts, also within a redrive policy.
fn is_set(there: Option<&String>, wanted: &Value) -> bool {
    let Some(Ok(there)) = there.map(|text| serde_json::from_str::<Value>(text)) else { return false };
    match wanted.as_object() {
        Some(fields) => there.as_object().is_some_and(|there| {
            there.len() == fields.len()
                && fields.iter().all(|(name, value)| there.get(name).is_some_and(|there| words(there) == words(value)))
        }),
        None => words(&there) == words(wanted),
    }
}

fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Where dead letters go.
fn target(attributes: &Attributes) -> Option<String> {
    let policy: Value = serde_json::from_str(attributes.get(&QueueAttributeName::RedrivePolicy)?).ok()?;
    policy.get("deadLetterTargetArn")?.as_str().filter(|arn| !arn.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_is_known_however_its_number_is_written() {
        let wanted = json!({ "deadLetterTargetArn": "arn:dead", "maxReceiveCount": MAX_RECEIVES });
        let is_set = |text: &str| is_set(Some(&text.to_owned()), &wanted);
        assert!(is_set(r#"{"maxReceiveCount":10,"deadLetterTargetArn":"arn:dead"}"#));
        assert!(is_set(r#"{"deadLetterTargetArn":"arn:dead","maxReceiveCount":"10"}"#));
        assert!(!is_set(r#"{"deadLetterTargetArn":"arn:dead","maxReceiveCount":3}"#));
        assert!(!is_set(r#"{"deadLetterTargetArn":"arn:another","maxReceiveCount":10}"#));
        assert!(!is_set("") && !super::is_set(None, &wanted));
        assert!(super::is_set(Some(&"1209600".to_owned()), &json!(DEAD_LETTER_SECONDS)));
    }
}
