//! Where a publisher's media goes: into a run of this shard, or on to the owner.

use crate::metrics::{Counted, RefusedReason};
use crate::relay::{Forward, Owners, RelayError};
use crate::shard::{Admission, OrphanNotice, Refusal, Shard};
use crate::stream::Publication;
use lectern_contract::KeyHash;
use lectern_contract::relay::Asked;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a publisher is held while its stream's owner cannot be reached and the operator gives it another. Three missed reports are three seconds, and
/// where the operators are gone, too, their Lease runs out first, after ten. Publishers wait for longer than this before they give up: librtmp, and so OBS, 30 s.
const ADOPTED_WITHIN: Duration = Duration::from_secs(25);
/// How soon an owner that could not be reached is tried again, if no route changes meanwhile.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The far end of a publisher that may publish.
#[derive(Debug)]
pub(super) enum Sink {
    Here(Box<Publication>),
    Elsewhere { forward: Box<Forward>, _counted: Counted },
}

/// Why a publisher may not publish, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl SinkError {
    /// The metric's label.
    pub(super) fn reason(&self) -> RefusedReason {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Relay(RelayError::Refused(_)) => RefusedReason::OwnerRefused,
            Self::Relay(_) => RefusedReason::OwnerUnreachable,
        }
    }

    /// The code of the `onStatus` that the publisher gets.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::Full(_)) => "NetStream.Publish.Failed",
            Self::Refused(_) | Self::Relay(RelayError::Refused(_)) => "NetStream.Publish.BadName",
            Self::Relay(_) => "NetStream.Publish.Failed",
        }
    }
}

impl Sink {
    /// Opens the way for the publisher with this key, which `asked` to publish then; `remote` is its address. Where the stream's owner cannot be reached,
    /// the operator is told of the orphan, and the publisher waits for its new owner, most likely this shard.
    pub(super) async fn open(shard: &Arc<Shard>, owners: &Owners, key: &str, remote: &str, asked: Instant) -> Result<Self, SinkError> {
        let (key, until) = (KeyHash::of(key), Instant::now() + ADOPTED_WITHIN);
        let mut routes = shard.routes();
        let mut notice: Option<OrphanNotice> = None;
        loop {
            routes.borrow_and_update();
            let asked = Asked { ago: asked.elapsed() };
            let route = match shard.admit(&key, remote, asked)? {
                Admission::Here(publication) => return Ok(Self::Here(Box::new(publication))),
                Admission::Elsewhere(route) => route,
            };
            match Forward::open(owners, &route, &key, (remote, asked)).await {
                Ok(forward) => {
                    tracing::info!(remote, stream = %route.stream, owner = %route.shard, "a publisher is handed on");
                    let counted = Counted::up(&shard.metrics().relayed);
                    return Ok(Self::Elsewhere { forward: Box::new(forward), _counted: counted });
                }
                Err(error) if !error.is_passing() || Instant::now() >= until => return Err(error.into()),
                Err(error) if notice.is_none() => {
                    tracing::warn!(remote, stream = %route.stream, %error, "a stream's owner does not take its publisher; waiting for another owner");
                    notice = Some(shard.orphan(&route));
                }
                Err(_) => {}
            }
            // A channel that is closed has the routes that hold; the time-out tries the owner again.
            let _ = timeout_at((Instant::now() + TRY_AGAIN).min(until), routes.changed()).await;
        }
    }
}
