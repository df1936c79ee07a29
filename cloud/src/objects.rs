//! Objects in a bucket.

use crate::Pending;
use crate::client::{settings, timeouts};
use crate::failure::{FailureKind, PutIfError, StorageError, status_of};
use crate::place::{BucketAt, Keys};
use crate::testing::Calls;
use crate::trouble::Troubles;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, Config, retry::RetryConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use lectern_contract::keys;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// What an attempt may take besides the time for its bytes. The facts say 1 s on a machine with nothing else to do. A timeout that fires on a server that is
/// merely slow adds to its load and gets nothing done, however often it is tried: one that takes two seconds for each answer is still of use to a successor.
const ATTEMPT: Duration = Duration::from_secs(4);
/// All attempts together.
const OPERATION: Duration = Duration::from_secs(9);
/// The slowest upload that is waited for, in bytes a second.
const SLOWEST: u64 = 2 * 1024 * 1024;
/// A body that stops arriving for this long is given up.
const BODY: Duration = Duration::from_secs(10);
/// A successor has a dozen things to ask of S3 before it goes on, and begins again where one of them fails. Of a store that refuses two of three requests three
/// attempts get a third wrong, eight still one in 25, and the SDK makes none any more once it has seen some hundred refusals.
const ATTEMPTS: u32 = 16;
const BACKOFF: Duration = Duration::from_millis(75);
const LONGEST_BACKOFF: Duration = Duration::from_millis(300);
/// Where an object's note stands: `x-amz-meta-note`, which S3 gives back with the object and takes up to 2 KB of (S3 user guide, "User-defined object metadata").
const NOTE: &str = "note";
/// What S3 says of an object that is not there (S3 API reference, "List of error codes").
const NO_SUCH_KEY: &str = "NoSuchKey";
/// DeleteObjects takes no more (S3 API reference).
const DELETE_AT_ONCE: usize = 1000;

/// The version of an object as its server names it; opaque, quotes included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Etag(pub String);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub body: Bytes,
    /// Its version.
    pub etag: Etag,
    /// Its media type.
    pub content_type: String,
    /// What its writer has noted of it, as [`Objects::put_new`] took it.
    pub note: Option<String>,
}

/// What must hold for a conditional write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// No object has the key (`If-None-Match: *`).
    Absent,
    /// The object is still this version (`If-Match`).
    Matches(Etag),
}

/// A bucket's objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    pub(crate) client: Client,
    /// Without the SDK's own repetitions.
    once: Client,
    pub(crate) at: BucketAt,
    troubles: Troubles,
}

impl Objects {
    /// A handle on the bucket, with credentials from the SDK's default chain. Does no I/O and cannot fail.
    pub fn connect(at: &BucketAt) -> Pending<'_, Self> {
        Box::pin(Self::build(at, None))
    }

    /// Like [`Objects::connect`], with credentials given outright.
    pub fn connect_with<'a>(at: &'a BucketAt, keys: &'a Keys) -> Pending<'a, Self> {
        Box::pin(Self::build(at, Some(keys)))
    }

    async fn build(at: &BucketAt, keys: Option<&Keys>) -> Self {
        let shared = settings(&at.region, at.endpoint.as_deref(), keys).await;
        let config = Builder::from(&shared).force_path_style(at.endpoint.is_some()).timeout_config(timeouts(ATTEMPT, OPERATION)).build();
        Self::of(config, at.clone())
    }

    fn of(config: Config, at: BucketAt) -> Self {
        let once = Client::from_conf(config.to_builder().retry_config(RetryConfig::disabled()).build());
        Self { client: Client::from_conf(config), once, at, troubles: Troubles::default() }
    }

    /// The same bucket; what is asked of it is written down in `calls`. For tests.
    pub fn watched_by(&self, calls: &Calls) -> Self {
        Self::of(self.client.config().to_builder().interceptor(calls.clone()).build(), self.at.clone())
    }

    /// Where the objects are.
    pub fn at(&self) -> &BucketAt {
        &self.at
    }

    /// When the server last refused something, did not answer, or was slow to, as far as this handle and its clones have asked it; `None`: never. A
    /// precondition that does not hold is none of that.
    pub fn last_trouble(&self) -> Option<Instant> {
        self.troubles.last()
    }

    /// The object at `key`; `None` where there is none.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] means that the bucket itself is missing. AWS answers `Denied` for a missing key where
    /// the credentials may not list the bucket.
    pub fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Object>, StorageError>> {
        Box::pin(again(|| self.troubles.seen_in(0, |_| true, self.get_once(key))))
    }

    /// Asks for the object at `key`, once: whether the server does as it should ([`Objects::last_trouble`] knows it from then on).
    pub fn probe<'a>(&'a self, key: &'a str) -> Pending<'a, Result<(), StorageError>> {
        Box::pin(async move { self.troubles.seen_in(0, |_| true, self.get_once(key)).await.map(drop) })
    }

    async fn get_once(&self, key: &str) -> Result<Option<Object>, StorageError> {
        let what = || self.what("get", key);
        let answer = match self.once.get_object().bucket(&self.at.name).key(key).send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(NO_SUCH_KEY) => return Ok(None),
            Err(error) => return Err(failure(what(), error)),
        };
        let etag = answer.e_tag.ok_or_else(|| StorageError::new(FailureKind::Other, what(), "the answer has no ETag"))?;
        let body = tokio::time::timeout(BODY, answer.body.collect())
            .await
            .map_err(|late| StorageError::new(FailureKind::Unreachable, what(), late))?
            .map_err(|broken| StorageError::new(FailureKind::Unreachable, what(), broken))?
            .into_bytes();
        let content_type = answer.content_type.unwrap_or_else(|| keys::content_type(key).to_owned());
        let note = answer.metadata.and_then(|mut metadata| metadata.remove(NOTE));
        Ok(Some(Object { body, etag: Etag(etag), content_type, note }))
    }

    /// Writes `body` to `key`, whatever is there, with the media type and cache rule of [`keys`].
    ///
    /// # Errors
    /// After a transient one the object may be there all the same; writing it again does no harm.
    pub fn put<'a>(&'a self, key: &'a str, body: Bytes) -> Pending<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let size = body.len();
            let request = self.put_request(&self.client, key, body).customize().config_override(for_upload(size));
            let sent = async { request.send().await.map(drop).map_err(|error| failure(self.what("put", key), error)) };
            self.troubles.seen_in(size, |_| true, sent).await
        })
    }

    /// Writes `body` to `key` if `precondition` holds, atomically; the new version.
    ///
    /// An attempt whose answer was lost may have been carried out, and its repetition then fails the precondition. So a
    /// conflict after such an attempt is checked against what is there: these very bytes are taken for this writer's
    /// own. Writers that compete must therefore write different bytes (a head names its owner and epoch).
    ///
    /// # Errors
    /// [`PutIfError::Conflict`] is final. After a transient `Storage` error the write may or may not have happened.
    pub fn put_if<'a>(&'a self, key: &'a str, body: Bytes, precondition: Precondition) -> Pending<'a, Result<Etag, PutIfError>> {
        Box::pin(self.put_noted(key, body, None, precondition))
    }

    /// Writes `body` to `key` where no object has it, as [`Objects::put_if`] does; `note`, in ASCII, stands beside it.
    ///
    /// # Errors
    /// As [`Objects::put_if`].
    pub fn put_new<'a>(&'a self, key: &'a str, body: Bytes, note: Option<&'a str>) -> Pending<'a, Result<Etag, PutIfError>> {
        Box::pin(self.put_noted(key, body, note, Precondition::Absent))
    }

    async fn put_noted(&self, key: &str, body: Bytes, note: Option<&str>, precondition: Precondition) -> Result<Etag, PutIfError> {
        let is_trouble = |error: &PutIfError| matches!(error, PutIfError::Storage(_));
        let (mut lost_answer, mut tries) = (false, Tries::new());
        loop {
            let once = self.put_if_once(key, body.clone(), note, &precondition);
            let error = match self.troubles.seen_in(body.len(), is_trouble, once).await {
                Ok(etag) => return Ok(etag),
                Err(error) => error,
            };
            match error {
                PutIfError::Conflict { .. } if lost_answer => return self.claim_own(key, &body, error).await,
                PutIfError::Storage(ref failure) if tries.another(failure).await => lost_answer |= failure.kind == FailureKind::Unreachable,
                _ => return Err(error),
            }
        }
    }

    async fn put_if_once(&self, key: &str, body: Bytes, note: Option<&str>, precondition: &Precondition) -> Result<Etag, PutIfError> {
        let what = || self.what("conditional put", key);
        let size = body.len();
        let request = match precondition {
            // The SDK must not repeat it unseen: whether an answer was lost decides what a conflict means.
            Precondition::Absent => self.put_request(&self.once, key, body).if_none_match("*"),
            Precondition::Matches(etag) => self.put_request(&self.once, key, body).if_match(&etag.0),
        };
        let request = request.set_metadata(note.map(|note| HashMap::from([(NOTE.to_owned(), note.to_owned())])));
        match request.customize().config_override(for_upload(size)).send().await {
            Ok(answer) => {
                answer.e_tag.map(Etag).ok_or_else(|| StorageError::new(FailureKind::Other, what(), "the answer has no ETag").into())
            }
            Err(error) => Err(match status_of(&error) {
                Some(412) => PutIfError::Conflict { what: what() },
                // 409: another conditional write of the key was under way (S3 user guide, "Conditional writes"): ask again.
                Some(409) => StorageError::new(FailureKind::Throttled, what(), error).into(),
                // The version to match is gone.
                Some(404) if error.code() == Some(NO_SUCH_KEY) => PutIfError::Conflict { what: what() },
                _ => failure(what(), error).into(),
            }),
        }
    }

    async fn claim_own(&self, key: &str, body: &Bytes, conflict: PutIfError) -> Result<Etag, PutIfError> {
        match self.get(key).await? {
            Some(there) if there.body == *body => Ok(there.etag),
            _ => Err(conflict),
        }
    }

    /// All keys that begin with `prefix`, in the server's order (S3: by bytes).
    pub fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Result<Vec<String>, StorageError>> {
        Box::pin(again(|| self.troubles.seen_in(0, |_| true, self.list_once(prefix))))
    }

    async fn list_once(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let mut pages = self.once.list_objects_v2().bucket(&self.at.name).prefix(prefix).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failure(self.what("list", prefix), error))?;
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        }
        Ok(found)
    }

    /// Deletes every object whose key begins with `prefix`; how many were deleted.
    ///
    /// # Errors
    /// What was deleted before the error stays deleted. An empty prefix is refused: nothing here owns a whole bucket.
    pub fn delete_prefix<'a>(&'a self, prefix: &'a str) -> Pending<'a, Result<u64, StorageError>> {
        Box::pin(async move {
            let what = || self.what("delete", prefix);
            if prefix.is_empty() {
                return Err(StorageError::new(FailureKind::Other, what(), "an empty prefix means the whole bucket"));
            }
            let mut deleted = 0;
            for some in self.list(prefix).await?.chunks(DELETE_AT_ONCE) {
                let names = some.iter().map(|key| ObjectIdentifier::builder().key(key).build()).collect::<Result<Vec<_>, _>>();
                let delete = names
                    .and_then(|names| Delete::builder().set_objects(Some(names)).quiet(true).build())
                    .map_err(|error| StorageError::new(FailureKind::Other, what(), error))?;
                let answer = self
                    .client
                    .delete_objects()
                    .bucket(&self.at.name)
                    .delete(delete)
                    .customize()
                    .config_override(Config::builder().timeout_config(timeouts(BODY, BODY * 3)))
                    .send()
                    .await
                    .map_err(|error| StorageError::of(what(), error))?;
                if let Some(first) = answer.errors().first() {
                    let text = format!("{} objects stay, the first because of {first:?}", answer.errors().len());
                    return Err(StorageError::new(FailureKind::Other, what(), text));
                }
                deleted += some.len() as u64;
            }
            Ok(deleted)
        })
    }

    pub(crate) fn what(&self, operation: &str, key: &str) -> String {
        format!("{operation} of {key} in {}", self.at)
    }

    fn put_request(&self, client: &Client, key: &str, body: Bytes) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
        client
            .put_object()
            .bucket(&self.at.name)
            .key(key)
            .content_type(keys::content_type(key))
            .cache_control(keys::cache_control(key))
            .body(ByteStream::from(body))
    }
}

/// A failure with an object. A 404 with none of S3's codes (the SDK makes `NotFound` of an empty answer) is not its word on the object: something before it has answered, such
/// as a proxy that has lost it for a moment. Who took that for "there is none" would give up a run that it owns.
fn failure<E>(what: String, error: SdkError<E, HttpResponse>) -> StorageError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let is_strange = status_of(&error) == Some(404) && error.code() != Some("NoSuchBucket");
    let failure = StorageError::of(what, error);
    if is_strange { StorageError { kind: FailureKind::Unreachable, ..failure } } else { failure }
}

/// The attempts at one thing.
struct Tries {
    began: Instant,
    made: u32,
}

impl Tries {
    fn new() -> Self {
        Self { began: Instant::now(), made: 0 }
    }

    /// Whether there is to be another after one that failed so, once its time has come.
    async fn another(&mut self, failure: &StorageError) -> bool {
        self.made += 1;
        let goes_on = failure.is_transient() && self.made < ATTEMPTS && self.began.elapsed() < OPERATION;
        if goes_on {
            tokio::time::sleep((BACKOFF * 2u32.pow(self.made - 1)).min(LONGEST_BACKOFF)).await;
        }
        goes_on
    }
}

/// Does it `once`, and again while that is worth it.
async fn again<T, Doing: Future<Output = Result<T, StorageError>>>(once: impl Fn() -> Doing) -> Result<T, StorageError> {
    let mut tries = Tries::new();
    loop {
        match once().await {
            Err(error) if tries.another(&error).await => {}
            answered => return answered,
        }
    }
}

/// How long so many bytes may take on their way.
pub(crate) const fn transfer(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1000 / SLOWEST)
}

/// An upload's timeouts grow with its size.
fn for_upload(bytes: usize) -> Builder {
    let transfer = transfer(bytes);
    Config::builder().timeout_config(timeouts(ATTEMPT + transfer, OPERATION + transfer * 2))
}
