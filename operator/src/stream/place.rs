//! Where a stream belongs: on which shard, when it moves, and why.
//!
//! A stream moves when its shard drains, when its shard leaves the pool, and when its shard is silent and nobody is cut off
//! by the move: its publisher has already come in elsewhere, or there is none and the shard's pod is down. Otherwise it
//! stays, whatever is said of its shard: a live stream on a shard that only the operator cannot hear is well.

use super::observe::Seen;
use super::validate::Wanted;
use super::{resident, status_of};
use crate::placement::{Book, Limits, NoPlace, Shard};
use crate::reports::Standing;
use lectern_contract::ShardName;
use lectern_crds::{LiveStream, PlacementStatus};

/// A pool's shards, and what a stream's placement may depend on besides.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The shards, each with how it stands.
    pub shards: Vec<(Shard, Standing)>,
    /// The shard that the stream's publisher has reached and that cannot reach the stream's own.
    pub adopter: Option<ShardName>,
    /// The pod of the stream's shard is not there or not ready; asked only while the shard is silent.
    pub owner_is_down: bool,
}

/// Where a stream belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the shard that it has.
    Stays(PlacementStatus),
    /// On another, or on its first.
    Goes {
        /// The shard.
        shard: ShardName,
        /// Why.
        reason: String,
    },
    /// On none, because none has room; what is taken and what to do, for people.
    Full(String),
    /// There is no shard.
    Nowhere,
}

impl Place {
    /// The shard that it is on from now on.
    pub fn shard(&self) -> Option<&str> {
        match self {
            Self::Stays(held) => Some(&held.shard),
            Self::Goes { shard, .. } => Some(&shard.0),
            Self::Full(_) | Self::Nowhere => None,
        }
    }
}

/// Why a stream leaves its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leave {
    /// The pool has no such shard any more.
    Gone,
    /// It says that it is going.
    Draining,
    /// It is silent, and the publisher came in at this one.
    Adopted(ShardName),
    /// It is silent, its pod is down, and nobody publishes.
    Down,
}

/// Where the stream belongs. What is decided is noted in `book` at once.
pub fn place(stream: &LiveStream, wanted: &Wanted, seen: &Seen, book: &Book) -> Place {
    let status = status_of(stream);
    let (resident, limits) = (resident(stream, Some(&status)), Limits::of(wanted.pool.ingest.capacity.as_ref()));
    let all = || seen.fleet.shards.iter().map(|(shard, _)| shard.clone()).collect::<Vec<_>>();
    let well: Vec<Shard> = seen.fleet.shards.iter().filter(|(_, stands)| is_well(*stands, seen)).map(|(shard, _)| shard.clone()).collect();
    let first = |shards: &[Shard], why: String| match book.place(&resident, shards, &limits, status.placement.is_some()) {
        Ok(placement) => Place::Goes { shard: placement.shard, reason: why + &placement.reason },
        Err(NoPlace::NoRoom(why)) => Place::Full(why),
        Err(NoPlace::NoShards) => Place::Nowhere,
    };
    let or_all = |well: Vec<Shard>| if well.is_empty() { all() } else { well };
    let Some(held) = status.placement.clone() else { return first(&or_all(well), String::new()) };
    let shard = &held.shard;
    match leaves(stream, &held, seen) {
        Some(Leave::Gone) => first(&or_all(well), format!("{shard} has left the pool; ")),
        Some(Leave::Adopted(by)) => {
            book.note(&resident, &by);
            Place::Goes { shard: by, reason: format!("adopted: a publisher came in here while {shard} was silent") }
        }
        Some(Leave::Draining) if !well.is_empty() => first(&well, format!("{shard} is draining; ")),
        Some(Leave::Down) if !well.is_empty() => first(&well, format!("the pod of {shard} is down and nobody publishes there; ")),
        // There is no better place.
        Some(Leave::Draining | Leave::Down) | None => {
            book.note(&resident, &ShardName(shard.clone()));
            Place::Stays(held)
        }
    }
}

fn leaves(stream: &LiveStream, held: &PlacementStatus, seen: &Seen) -> Option<Leave> {
    let standing = seen.fleet.shards.iter().find(|(shard, _)| shard.name.0 == held.shard).map(|(_, standing)| *standing);
    match standing {
        None => Some(Leave::Gone),
        // One that ends is read to its end where it is.
        Some(Standing::Draining) => (!seen.ending).then_some(Leave::Draining),
        // Before reports had time to arrive, silence says nothing.
        Some(Standing::Silent) if seen.settled => match &seen.fleet.adopter {
            Some(adopter) if is_well_in(adopter, seen) => Some(Leave::Adopted(adopter.clone())),
            _ => (seen.fleet.owner_is_down && is_unattended(stream)).then_some(Leave::Down),
        },
        Some(Standing::Silent | Standing::Well) => None,
    }
}

/// One that reports can still be one that the pool has no room for any more.
fn is_well_in(adopter: &ShardName, seen: &Seen) -> bool {
    seen.fleet.shards.iter().any(|(shard, standing)| shard.name == *adopter && *standing == Standing::Well)
}

/// Nobody published when the shard was heard last. A camera does not come in elsewhere by itself, so that waiting for it to
/// do so would be waiting for ever.
fn is_unattended(stream: &LiveStream) -> bool {
    stream.spec.source.rtsp.is_some() || status_of(stream).received.is_none()
}

fn is_well(standing: Standing, seen: &Seen) -> bool {
    match standing {
        Standing::Well => true,
        Standing::Draining => false,
        Standing::Silent => !seen.settled,
    }
}
