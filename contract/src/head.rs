//! The head of a run: the one object that says who may write.

use crate::{Epoch, Owner, RunId, SegmentNumber, Ticks};
use serde::{Deserialize, Serialize};

/// `head.json`: moved by compare-and-swap (`If-Match`, `If-None-Match: *`) only. Who fails to move it stops at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The run, to catch an object copied to a wrong place.
    pub run: RunId,
    /// Who owns the run.
    pub owner: Owner,
    /// Grows by one with each owner.
    pub epoch: Epoch,
    /// `host:port` where the owner serves its push (see [`crate::push`]); `None` once it has let go.
    pub address: Option<String>,
    /// The first segment that is not confirmed in every rendition: where a successor goes on.
    pub next_segment: SegmentNumber,
    /// How much earlier than the feed's the run's media begins: a time in segments and playlists is the feed's and this. Chosen before anything is published.
    #[serde(default)]
    pub shift: Ticks,
    /// The run has ended; nothing is written after it.
    pub ended: bool,
}
