//! What can go wrong with S3 and SQS, and whether trying again can help.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error;

/// The kind of a failure: what a caller decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No answer in time, no connection, or the server said that it is in trouble (5xx). The operation may or may not
    /// have happened.
    Unreachable,
    /// The bucket or the queue is not there.
    NotFound,
    /// The credentials are missing, wrong, or do not allow it.
    Denied,
    /// The server wants fewer requests.
    Throttled,
    /// This machine's clock is too far from the server's. The SDK learns the difference from the refusal and signs what follows by the server's clock.
    Skewed,
    /// Anything else, as the text says: trying the same again would not help.
    Other,
}

impl FailureKind {
    /// Whether the same operation may succeed later without anybody changing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled | Self::Skewed)
    }
}

/// The cause as the SDK gave it.
pub type Cause = Box<dyn Error + Send + Sync>;

/// An operation on S3 that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", in_full(source.as_ref()))]
pub struct StorageError {
    /// What to make of it.
    pub kind: FailureKind,
    /// The operation and its key: `get of 0a/school/algebra/r1/head.json from bucket lectern at http://…`.
    pub what: String,
    /// What the SDK said.
    #[source]
    pub source: Cause,
}

/// An operation on SQS that failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", in_full(source.as_ref()))]
pub struct QueueError {
    /// What to make of it.
    pub kind: FailureKind,
    /// The operation and its queue.
    pub what: String,
    /// What the SDK said.
    #[source]
    pub source: Cause,
}

/// A conditional write that did not happen, or that may not have.
#[derive(Debug, thiserror::Error)]
pub enum PutIfError {
    /// The object is not as the precondition wants it: somebody else wrote it. This writer's bytes are not there.
    #[error("{what}: somebody else wrote it")]
    Conflict {
        /// The operation and its key.
        what: String,
    },
    /// It is unknown or impossible to know whether the write happened.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl StorageError {
    /// Whether the same operation may succeed later without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }

    pub(crate) fn of<E>(what: impl Into<String>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        Self { kind: kind_of(&error), what: what.into(), source: Box::new(error) }
    }

    pub(crate) fn new(kind: FailureKind, what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self { kind, what: what.into(), source: source.into() }
    }
}

impl QueueError {
    /// Whether the same operation may succeed later without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        self.kind.is_transient()
    }

    pub(crate) fn of<E>(what: impl Into<String>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        Self { kind: kind_of(&error), what: what.into(), source: Box::new(error) }
    }

    pub(crate) fn new(kind: FailureKind, what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self { kind, what: what.into(), source: source.into() }
    }
}

/// The HTTP status of the server's answer; `None` where none came.
pub(crate) fn status_of<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

pub(crate) fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> FailureKind {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => FailureKind::Unreachable,
        // Credentials that cannot be had come as a dispatch failure as well: a token service that is away comes back.
        SdkError::DispatchFailure(failure) if failure.is_user() => FailureKind::Other,
        SdkError::DispatchFailure(_) => FailureKind::Unreachable,
        SdkError::ServiceError(context) => {
            let code = context.err().code().unwrap_or_default();
            kind_of_answer(code, context.raw().status().as_u16())
        }
        _ => FailureKind::Other,
    }
}

fn kind_of_answer(code: &str, status: u16) -> FailureKind {
    match (code, status) {
        ("SlowDown" | "Throttling" | "ThrottlingException" | "RequestThrottled" | "TooManyRequestsException", _) | (_, 429) => {
            FailureKind::Throttled
        }
        // The name of a deleted queue is free again after a minute; a bucket that is being changed takes no other change.
        ("AWS.SimpleQueueService.QueueDeletedRecently" | "QueueDeletedRecently" | "OperationAborted", _) => FailureKind::Throttled,
        // SQS answers 400 for a queue that is not there.
        ("AWS.SimpleQueueService.NonExistentQueue" | "QueueDoesNotExist" | "NoSuchBucket", _) | (_, 404) => FailureKind::NotFound,
        ("RequestTimeTooSkewed", _) => FailureKind::Skewed,
        ("RequestTimeout", _) | (_, 500..=599) => FailureKind::Unreachable,
        ("AccessDenied" | "InvalidClientTokenId" | "UnrecognizedClientException" | "ExpiredToken", _) | (_, 401 | 403) => {
            FailureKind::Denied
        }
        _ => FailureKind::Other,
    }
}

/// An error with all its causes in one line: the SDK's own `Display` says only `service error`.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_to_try_again() {
        for (code, status, kind) in [
            ("SlowDown", 503, FailureKind::Throttled),
            ("OperationAborted", 409, FailureKind::Throttled),
            ("AWS.SimpleQueueService.QueueDeletedRecently", 400, FailureKind::Throttled),
            ("InternalError", 500, FailureKind::Unreachable),
            ("AccessDenied", 403, FailureKind::Denied),
            ("RequestTimeTooSkewed", 403, FailureKind::Skewed),
            ("NoSuchBucket", 404, FailureKind::NotFound),
            ("QueueDoesNotExist", 400, FailureKind::NotFound),
            ("InvalidArgument", 400, FailureKind::Other),
        ] {
            assert_eq!(kind_of_answer(code, status), kind, "{code} {status}");
        }
    }
}
