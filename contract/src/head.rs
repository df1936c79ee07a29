//! The head of a run: the one object that says who may write.
//!
//! What a run is by its head, and what moves it; each move is one conditional write (`If-None-Match: *` or `If-Match`), so that of two who try one does it:
//!
//! | from | to | who, and when |
//! |---|---|---|
//! | no head | owned, epoch 1, segment 0 | any transcoder with the job |
//! | owned, epoch 1 | owned, epoch 1, where it `begins`, the `shift` | its owner, before it publishes anything, where it sees something of the source |
//! | owned, *e* | owned, *e*, a later `next_segment` | its owner, once S3 has all before it, or it was given up, in every rendition that is not five segments behind (half a minute, where something of it still waits for S3) |
//! | owned, *e* | let go, *e* (`address: None`) | its owner: it was asked to stop, the source is idle, its engine cannot go on, or a successor has asked for the run and what is before its first segment is stored, or has had two seconds for that (ten where nobody waits). Where origins hold what is not stored, be it a predecessor's or parts of a segment that did not get whole, it says so (`unstored`) |
//! | owned, *e* | owned, *e* + 1, the same `next_segment` | a transcoder with the job whom the owner does not answer: it is dead, or as good as that; or the owner itself, to which the claim's answer was lost |
//! | let go, *e* | owned, *e* + 1, the same `next_segment` | any transcoder with the job; who has asked for the run is there first |
//! | owned, *e* | ended | its owner, after the last segment |
//! | ended | | nobody; who comes finds nothing left to do |
//!
//! An owner whose move within its epoch fails reads the head: its own owner and epoch there mean that the lost answer was a yes, and it goes on from what it finds; any other means that it has been replaced, and it stops.
//! It does not learn of that while it reaches neither S3 nor who gives jobs, so it stops by its monotonic clock then. `transcoder-pod/src/head.rs` makes these moves,
//! [`crate::document`] is the rule for what owners write besides, and `tests/ownership/` goes through every order of steps of several of them.

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
    /// Who has let go has shown segments, or parts of one, that S3 does not have: its successor stores none before origins have said what they hold, as after a death.
    #[serde(default)]
    pub unstored: bool,
    /// The first segment that is not confirmed in every rendition: where a successor goes on.
    pub next_segment: SegmentNumber,
    /// The feed's time of the first access unit that the first owner was given; `None` where that has had none in time. Who follows before anything is confirmed begins with
    /// it, too: what was shown of the first segment goes on. Written before anything is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<Ticks>,
    /// How much earlier than the feed's the run's media begins: a time in segments and playlists is the feed's and this. Chosen before anything is published.
    #[serde(default)]
    pub shift: Ticks,
    /// The run has ended; nothing is written after it.
    pub ended: bool,
}
