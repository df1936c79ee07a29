//! Where a publisher's tags go: into a run of this shard, or on to the owner.

use crate::metrics::{Counted, RefusedReason};
use crate::relay::{Forward, Owners, RelayError};
use crate::shard::{Admission, Refusal, Shard};
use crate::stream::{Publication, PublishError};
use bytes::Bytes;
use lectern_contract::KeyHash;

/// The far end of a publisher that may publish.
#[derive(Debug)]
pub(super) enum Sink {
    Here(Publication),
    Elsewhere { forward: Box<Forward>, _counted: Counted },
}

/// Why a publisher may not publish, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Media(#[from] PublishError),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl SinkError {
    /// The metric's label.
    pub(super) fn reason(&self) -> RefusedReason {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Media(PublishError::Closed(_)) => RefusedReason::Ended,
            Self::Media(_) => RefusedReason::Media,
            Self::Relay(RelayError::Refused(_)) => RefusedReason::OwnerRefused,
            Self::Relay(_) => RefusedReason::OwnerUnreachable,
        }
    }

    /// The code of the `onStatus` that the publisher gets.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Relay(RelayError::Refused(_)) => "NetStream.Publish.BadName",
            Self::Media(PublishError::Closed(_)) => "NetStream.Publish.Denied",
            Self::Media(_) | Self::Relay(_) => "NetStream.Publish.Failed",
        }
    }
}

impl Sink {
    /// Opens the way for the publisher with this key; `remote` is its address.
    pub(super) async fn open(shard: &Shard, owners: &Owners, key: &str, remote: &str) -> Result<Self, SinkError> {
        let key = KeyHash::of(key);
        match shard.admit(&key, remote)? {
            Admission::Here(publication) => Ok(Self::Here(publication)),
            Admission::Elsewhere(route) => {
                let forward = Box::new(Forward::open(owners, &route, &key, remote).await?);
                tracing::info!(remote, stream = %route.stream, owner = %route.shard, "a publisher is handed on");
                Ok(Self::Elsewhere { forward, _counted: Counted::up(&shard.metrics().relayed) })
            }
        }
    }

    /// Takes a tag; it is on its way only after [`Sink::flush`].
    pub(super) fn tag(&mut self, kind: u8, timestamp: u32, body: Bytes) -> Result<(), SinkError> {
        match self {
            Self::Here(publication) => Ok(publication.tag(kind, timestamp, body)?),
            Self::Elsewhere { forward, .. } => {
                forward.tag(kind, timestamp, body);
                Ok(())
            }
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), SinkError> {
        match self {
            Self::Here(_) => Ok(()),
            Self::Elsewhere { forward, .. } => Ok(forward.flush().await?),
        }
    }

    /// Waits until the publisher has to go. May be cancelled and called again.
    pub(super) async fn closing(&mut self) -> SinkError {
        match self {
            Self::Here(publication) => PublishError::Closed(publication.closing().await).into(),
            Self::Elsewhere { forward, .. } => forward.closing().await.into(),
        }
    }

    /// The publisher leaves, for a reason that people will read. What it sent before goes on its way.
    pub(super) async fn leave(mut self, reason: String) {
        // An owner that is away now has lost nothing that anybody could still send it.
        let _ = self.flush().await;
        if let Self::Here(publication) = self {
            publication.leave(reason);
        }
    }
}
