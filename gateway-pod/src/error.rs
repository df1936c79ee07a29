//! What can go wrong with a stream.

use std::time::Duration;

/// Why a stream could not be started, ended or looked at.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No LiveStream has this name.
    #[error("there is no stream {0:?}")]
    Unknown(String),
    /// The user or the name is another than the stream was started with.
    #[error("stream {0:?} was started with another userId or name")]
    NotYours(String),
    /// The API server refused the LiveStream; its own words, which say how to fix it.
    #[error("{0}")]
    Inadmissible(String),
    /// The operator refused the LiveStream.
    #[error("{reason}: {message}")]
    Refused {
        /// The condition's reason, one word: `UnknownPool`.
        reason: String,
        /// The condition's message, which says how to fix it.
        message: String,
    },
    /// Streams of this user and name came and went faster than a new one could be made.
    #[error("streams of this userId and name are started and ended by others right now; try again")]
    Busy,
    /// The API server is away, or does not let the gateway do this. The cause goes to the log, not to the caller.
    #[error("the cluster cannot {doing} right now; try again")]
    Kubernetes {
        /// `start a stream`.
        doing: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Links to a lecture that not everybody may watch cannot be signed. The operator makes the key before the pool serves anything.
    #[error("the pool has no viewing key to sign links with; try again")]
    NoViewingKey,
    /// The API server did not answer in time.
    #[error("the cluster did not {doing} within {limit:?}; try again")]
    Slow {
        /// `start a stream`.
        doing: &'static str,
        /// How long the gateway waited.
        limit: Duration,
    },
}
