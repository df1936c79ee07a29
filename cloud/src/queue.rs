//! A queue of jobs. Delivery is at least once and visibility is a liveness hint: ownership is decided in S3.

mod ensure;

pub use ensure::{Ensured, MAX_RECEIVES};

use crate::Pending;
use crate::client::{settings, timeouts};
use crate::failure::{FailureKind, QueueError};
use crate::place::{Keys, QueueAt};
use crate::testing::Calls;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{Builder, Config};
use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, UNIX_EPOCH};

const ATTEMPT: Duration = Duration::from_secs(2);
const OPERATION: Duration = Duration::from_secs(5);
/// The longest that SQS waits for a message (SQS API reference, WaitTimeSeconds).
const LONG_POLL: Duration = Duration::from_secs(20);
/// A receive that finds nothing answers after [`LONG_POLL`]; these come on top.
const AFTER_POLL: Duration = Duration::from_secs(5);

/// The attribute of a dead letter that says why it is one.
const REASON: &str = "reason";
/// Characters of a reason that are kept: a message and its attributes are bounded together.
const REASON_LENGTH: usize = 500;

/// What names a delivery to its queue: good until the message is delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(pub String);

/// How many messages a queue holds, about: SQS counts in passing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// To be received now.
    pub waiting: u64,
    /// Received, and not deleted yet.
    pub in_flight: u64,
    /// Sent for later.
    pub delayed: u64,
}

type Attributes = HashMap<QueueAttributeName, String>;
/// What a [`Depth`] is made of.
const COUNTS: [QueueAttributeName; 3] = [
    QueueAttributeName::ApproximateNumberOfMessages,
    QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
    QueueAttributeName::ApproximateNumberOfMessagesDelayed,
];

impl Depth {
    fn among(attributes: &Attributes) -> Self {
        let [waiting, in_flight, delayed] = COUNTS.map(|name| attributes.get(&name).and_then(|text| text.parse().ok()).unwrap_or(0));
        Self { waiting, in_flight, delayed }
    }

    /// Of any kind.
    pub const fn all(self) -> u64 {
        self.waiting + self.in_flight + self.delayed
    }
}

/// A message as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The text that was sent.
    pub body: String,
    /// Extends or deletes this delivery.
    pub receipt: Receipt,
    /// For how long the message has been in the queue; as far as the clocks of SQS and of this machine agree.
    pub age: Duration,
    /// How often the message was delivered, this time included; about right (SQS counts loosely).
    pub received: u32,
    /// Of a dead letter: why it is one, where whoever gave it up has said so ([`Queue::bury`]).
    pub reason: Option<String>,
}

impl Delivery {
    /// The queue gives the message up instead of delivering it once more.
    pub fn is_last(&self) -> bool {
        u64::from(self.received) >= MAX_RECEIVES
    }
}

/// A queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(crate) client: Client,
    at: QueueAt,
    /// Looked up when first needed, so that a queue can be made after the pods that use it.
    url: Arc<RwLock<Option<String>>>,
    /// The same of the queue of dead letters.
    dead_url: Arc<RwLock<Option<String>>>,
}

impl Queue {
    /// A handle on the queue, with credentials from the SDK's default chain. Does no I/O and cannot fail.
    pub fn connect(at: &QueueAt) -> Pending<'_, Self> {
        Box::pin(Self::build(at, None))
    }

    /// Like [`Queue::connect`], with credentials given outright.
    pub fn connect_with<'a>(at: &'a QueueAt, keys: &'a Keys) -> Pending<'a, Self> {
        Box::pin(Self::build(at, Some(keys)))
    }

    async fn build(at: &QueueAt, keys: Option<&Keys>) -> Self {
        let shared = settings(&at.region, at.endpoint.as_deref(), keys).await;
        let config = Builder::from(&shared).timeout_config(timeouts(ATTEMPT, OPERATION)).build();
        Self { client: Client::from_conf(config), at: at.clone(), url: Arc::default(), dead_url: Arc::default() }
    }

    /// The same queue; what is asked of it is written down in `calls`. For tests.
    pub fn watched_by(&self, calls: &Calls) -> Self {
        let config = self.client.config().to_builder().interceptor(calls.clone()).build();
        Self { client: Client::from_conf(config), ..self.clone() }
    }

    /// Where the queue is.
    pub fn at(&self) -> &QueueAt {
        &self.at
    }

    /// The queue of what was delivered in vain too often.
    pub fn dead(&self) -> Self {
        let at = QueueAt::new(format!("{}-dead", self.at.name), self.at.region.clone(), self.at.endpoint.clone());
        Self { client: self.client.clone(), at, url: self.dead_url.clone(), dead_url: Arc::default() }
    }

    /// How much is in it.
    ///
    /// # Errors
    /// As for every call.
    pub fn depth(&self) -> Pending<'_, Result<Depth, QueueError>> {
        Box::pin(async move { Ok(Depth::among(&self.attributes(COUNTS.to_vec()).await?)) })
    }

    async fn attributes(&self, names: Vec<QueueAttributeName>) -> Result<Attributes, QueueError> {
        let url = self.url().await?;
        let answer = self.client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names)).send().await;
        Ok(answer.map_err(|error| self.failed("look-up", error))?.attributes.unwrap_or_default())
    }

    /// Sends `body`.
    ///
    /// # Errors
    /// After a transient one the message may have been sent all the same.
    pub fn send<'a>(&'a self, body: &'a str) -> Pending<'a, Result<(), QueueError>> {
        self.send_after(body, Duration::ZERO)
    }

    /// Sends `body`, which nobody gets before `delay` is over (whole seconds, at most 15 minutes).
    ///
    /// # Errors
    /// As [`Queue::send`].
    pub fn send_after<'a>(&'a self, body: &'a str, delay: Duration) -> Pending<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let url = self.url().await?;
            let answer = self.client.send_message().queue_url(url).message_body(body).delay_seconds(seconds(delay)).send().await;
            answer.map(drop).map_err(|error| self.failed("send", error))
        })
    }

    /// The next message, waited for up to 20 s; nobody else gets it for `visibility` (whole seconds, at most 12 h).
    ///
    /// Never cancel it: a long poll that is cut off still takes a message away for its visibility. To soften what
    /// cannot be helped, the poll itself goes on when this future is dropped, and gives back at once what it got; only
    /// the end of the process hides a message.
    pub fn receive(&self, visibility: Duration) -> Pending<'_, Result<Option<Delivery>, QueueError>> {
        Box::pin(async move { self.receive_within(visibility, LONG_POLL).await })
    }

    /// Like [`Queue::receive`], waiting for `wait` (whole seconds, at most 20).
    pub fn receive_within(&self, visibility: Duration, wait: Duration) -> Pending<'_, Result<Option<Delivery>, QueueError>> {
        Box::pin(async move {
            let (hand_over, arrival) = tokio::sync::oneshot::channel();
            let queue = self.clone();
            tokio::spawn(async move {
                let result = queue.poll(visibility, wait.min(LONG_POLL)).await;
                if let Err(Ok(Some(unwanted))) = hand_over.send(result)
                    && let Err(error) = queue.extend(&unwanted.receipt, Duration::ZERO).await
                {
                    tracing::warn!(%error, "a message that nobody waits for any more could not be given back");
                }
            });
            let lost = |gone| QueueError::new(FailureKind::Other, self.what("receive"), gone);
            arrival.await.map_err(lost)?
        })
    }

    async fn poll(&self, visibility: Duration, wait: Duration) -> Result<Option<Delivery>, QueueError> {
        let url = self.url().await?;
        let patience = timeouts(wait + AFTER_POLL, wait + AFTER_POLL * 2);
        let answer = self
            .client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(1)
            .visibility_timeout(seconds(visibility))
            .wait_time_seconds(seconds(wait))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_attribute_names(REASON)
            .customize()
            .config_override(Config::builder().timeout_config(patience))
            .send()
            .await
            .map_err(|error| self.failed("receive", error))?;
        Ok(answer.messages.unwrap_or_default().into_iter().next().and_then(|message| {
            let counts = message.attributes.unwrap_or_default();
            let received = counts.get(&MessageSystemAttributeName::ApproximateReceiveCount).and_then(|n| n.parse().ok());
            let sent = counts.get(&MessageSystemAttributeName::SentTimestamp).and_then(|millis| millis.parse().ok());
            let age = sent.and_then(|sent| (UNIX_EPOCH + Duration::from_millis(sent)).elapsed().ok()).unwrap_or_default();
            // SQS always gives both; a message without a receipt could be neither kept nor deleted.
            let reason = message.message_attributes.and_then(|mut attributes| attributes.remove(REASON)?.string_value);
            let (receipt, received) = (Receipt(message.receipt_handle?), received.unwrap_or(1));
            Some(Delivery { body: message.body?, receipt, received, age, reason })
        }))
    }

    /// Keeps the delivery from others for `visibility` from now; zero gives it back at once.
    ///
    /// # Errors
    /// [`FailureKind::Other`] or `NotFound` where the receipt is void: the message was delivered again or deleted.
    pub fn extend<'a>(&'a self, receipt: &'a Receipt, visibility: Duration) -> Pending<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let url = self.url().await?;
            let request = self.client.change_message_visibility().queue_url(url).receipt_handle(&receipt.0);
            let answer = request.visibility_timeout(seconds(visibility)).send().await;
            answer.map(drop).map_err(|error| self.failed("extension", error))
        })
    }

    /// Deletes the delivered message for good. Safe to repeat.
    pub fn delete<'a>(&'a self, receipt: &'a Receipt) -> Pending<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let url = self.url().await?;
            let answer = self.client.delete_message().queue_url(url).receipt_handle(&receipt.0).send().await;
            answer.map(drop).map_err(|error| self.failed("deletion", error))
        })
    }

    /// Puts a delivery among the dead letters, as it came, with the reason, and takes it out of the queue. The reason may quote the message: it is shortened, and
    /// loses control characters, most of which SQS refuses (SQS API reference, SendMessage).
    ///
    /// # Errors
    /// The message stays, and may be among the dead letters as well; the queue gives it up by itself, without the reason.
    pub fn bury<'a>(&'a self, delivery: &'a Delivery, reason: &'a str) -> Pending<'a, Result<(), QueueError>> {
        Box::pin(async move {
            let (dead, told) = (self.dead(), reason.chars().filter(|letter| !letter.is_control()));
            let told = told.take(REASON_LENGTH).collect::<String>();
            let told = MessageAttributeValue::builder().data_type("String").string_value(told).build();
            let told = told.map_err(|error| QueueError::new(FailureKind::Other, dead.what("send"), error))?;
            let url = dead.url().await?;
            let sent = dead.client.send_message().queue_url(url).message_body(&delivery.body).message_attributes(REASON, told).send().await;
            sent.map_err(|error| dead.failed("send", error))?;
            self.delete(&delivery.receipt).await
        })
    }

    pub(crate) async fn url(&self) -> Result<String, QueueError> {
        let known = self.url.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        if let Some(url) = known {
            return Ok(url);
        }
        let answer = self.client.get_queue_url().queue_name(&self.at.name).send().await;
        let url = answer
            .map_err(|error| self.failed("look-up", error))?
            .queue_url
            .ok_or_else(|| QueueError::new(FailureKind::Other, self.what("look-up"), "the answer has no URL"))?;
        self.remember(url.clone());
        Ok(url)
    }

    fn remember(&self, url: String) {
        *self.url.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(url);
    }

    fn forget(&self) {
        *self.url.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }

    fn what(&self, operation: &str) -> String {
        format!("{operation} at {}", self.at)
    }

    fn failed<E>(
        &self,
        operation: &str,
        error: aws_sdk_sqs::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> QueueError
    where
        E: aws_sdk_sqs::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let error = QueueError::of(self.what(operation), error);
        if error.kind == FailureKind::NotFound {
            self.forget(); // deleted and made anew, it may have another URL
        }
        error
    }
}

/// Whole seconds, rounded up: half a second of visibility must not become none.
fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}
