//! Which shard owns a stream: sticky rendezvous hashing with bounded load, spread over zones, within the shards' capacity.
//!
//! Every shard gets a score for every stream; the highest wins, unless that shard already holds more than 1.05 times its
//! share. Without the bound even a perfect random hash peaks at about 1.15 times the mean (facts: placement study). Of the
//! shards within the bound, those in the zone that has the fewest streams of the stream's namespace go first: a zone that is
//! lost takes as few of a school's lectures as can be. An assignment moves only when its shard leaves, so a change of the
//! pool moves orphans and nobody else.

mod book;
#[cfg(test)]
mod tests;
pub mod zones;

pub use book::{Book, Resident};

use lectern_contract::ShardName;
use lectern_crds::ShardCapacity;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// A shard that streams may be placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub name: ShardName,
    /// Its capacity against the others'.
    pub weight: NonZeroU32,
    /// Where its node is, if that is known.
    pub zone: Option<Arc<str>>,
}

/// What a shard carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Streams.
    pub streams: u32,
    /// Those of them whose bitrate nobody knows, because nobody publishes to them now.
    pub unheard: u32,
    /// What the others bring, in bits a second.
    pub bits: u64,
}

impl Load {
    /// Bits a second, each stream that is not heard counting with `assumed`.
    fn bits(&self, assumed: u64) -> u64 {
        self.bits.saturating_add(assumed.saturating_mul(u64::from(self.unheard)))
    }
}

/// What a pool's shards carry, and what of it belongs to the namespace that a place is looked for.
#[derive(Debug, Default)]
pub struct Loads {
    /// By shard.
    pub all: BTreeMap<Arc<str>, Load>,
    /// The namespace's own streams by shard.
    pub own: BTreeMap<Arc<str>, u32>,
}

/// How much a shard may be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// So many streams.
    pub streams: Option<u32>,
    /// So many bits a second.
    pub bits: Option<u64>,
    /// Bits a second that a stream counts with that nobody publishes to.
    pub assumed: u64,
}

impl Limits {
    /// As the pool says; without bounds where it says nothing.
    pub fn of(capacity: Option<&ShardCapacity>) -> Self {
        let Some(capacity) = capacity else { return Self::default() };
        let bits = |megabits: i32| u64::from(megabits.unsigned_abs()) * 1_000_000;
        Self {
            streams: capacity.streams.map(i32::unsigned_abs),
            bits: capacity.megabits.map(bits),
            assumed: bits(capacity.assumed_megabits),
        }
    }

    fn admit(&self, load: Load, bits: u64) -> bool {
        self.streams.is_none_or(|most| load.streams < most)
            && self.bits.is_none_or(|most| load.bits(self.assumed).saturating_add(bits) <= most)
    }

    /// What is taken of `shards` times this, for people: `20 of 20 streams and 30 of 40 Mbit/s`.
    fn taken(&self, load: Load, shards: u64) -> String {
        let streams = self.streams.map(|most| format!("{} of {} streams", load.streams, u64::from(most) * shards));
        let mega = |bits: u64| bits.div_ceil(1_000_000);
        let bits = self.bits.map(|most| format!("{} of {} Mbit/s", mega(load.bits(self.assumed)), mega(most) * shards));
        streams.into_iter().chain(bits).collect::<Vec<_>>().join(" and ")
    }
}

/// Where a stream goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The shard.
    pub shard: ShardName,
    /// For people.
    pub reason: String,
}

/// Why a stream goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPlace {
    /// There are no shards.
    NoShards,
    /// None of them has room; what is taken and what to do, for people.
    NoRoom(String),
}

/// The shards of a pool: the ordinals of its StatefulSet, all of one weight, their zones yet unknown.
pub fn shards_of(pool: &str, count: i32) -> Vec<Shard> {
    let shard = |ordinal| Shard { name: ShardName(format!("lectern-ingest-{pool}-{ordinal}")), weight: NonZeroU32::MIN, zone: None };
    (0..count).map(shard).collect()
}

/// The shard for `stream` (any text that names it for good) of `bits` a second, or of nobody knows how many. `loads` counts
/// the streams that every shard has now, this one not among them.
///
/// # Errors
/// There are no shards, or none of them has room.
pub fn place(stream: &str, bits: Option<u64>, shards: &[Shard], loads: &Loads, limits: &Limits) -> Result<Placement, NoPlace> {
    let held = |shard: &Shard| loads.all.get(shard.name.0.as_str()).copied().unwrap_or_default();
    let streams = shards.iter().map(|shard| u64::from(held(shard).streams)).sum::<u64>() + 1;
    let weights = shards.iter().map(|shard| u64::from(shard.weight.get())).sum::<u64>();
    // 1.05 times its share and no more, but never less than its share: both in whole numbers, for two operators must agree.
    let bound = |shard: &Shard| {
        let (share, of) = (streams * u64::from(shard.weight.get()), weights.max(1));
        (share * 105 / (of * 100)).max(share.div_ceil(of))
    };
    let own = own_by_zone(shards, &loads.own);
    let own_beside = |shard: &Shard| own.get(&shard.zone).copied().unwrap_or(0);
    let has_room = |shard: &Shard| limits.admit(held(shard), bits.unwrap_or(limits.assumed));

    let mut ranked: Vec<(f64, &Shard)> = shards.iter().map(|shard| (score(stream, shard), shard)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    // Without limits the bounds add up to more than the streams. With them, those within their bound can be full: then the least
    // loaded of the others has it.
    let open = || ranked.iter().enumerate().map(|(rank, (_, shard))| (rank, *shard)).filter(|(_, shard)| has_room(shard));
    let least_loaded =
        || open().min_by_key(|(rank, shard)| (u64::from(held(shard).streams) * weights / u64::from(shard.weight.get()), *rank));
    let within = open().filter(|(_, shard)| u64::from(held(shard).streams) < bound(shard));
    let Some((rank, shard)) = within.min_by_key(|(rank, shard)| (own_beside(shard), *rank)).or_else(least_loaded) else {
        return Err(if shards.is_empty() { NoPlace::NoShards } else { NoPlace::NoRoom(no_room(shards, loads, limits)) });
    };

    let before = ranked.iter().take(rank).map(|(_, shard)| *shard);
    let full = before.clone().filter(|shard| !has_room(shard)).count();
    let over = before.filter(|shard| has_room(shard) && u64::from(held(shard).streams) >= bound(shard)).count();
    let reason = Reason { rank, of: shards.len(), full, over, zone: shard.zone.as_deref().filter(|_| own.len() > 1) };
    Ok(Placement { shard: shard.name.clone(), reason: reason.to_string() })
}

/// The shard for a stream that has to leave the one that it has, and that finds room nowhere: a lecture that is going on is not
/// cut for want of room. The least loaded, or `None` where there are no shards.
pub fn place_over(stream: &str, shards: &[Shard], loads: &Loads, limits: &Limits) -> Option<Placement> {
    let held = |shard: &Shard| loads.all.get(shard.name.0.as_str()).copied().unwrap_or_default();
    let full = |shard: &Shard| {
        let load = held(shard);
        let fill = |taken: u64, most: Option<u64>| most.map_or(0, |most| taken.saturating_mul(1000) / most.max(1));
        fill(u64::from(load.streams), limits.streams.map(u64::from)).max(fill(load.bits(limits.assumed), limits.bits))
    };
    let least = shards.iter().min_by(|a, b| full(a).cmp(&full(b)).then_with(|| score(stream, b).total_cmp(&score(stream, a))))?;
    let taken = limits.taken(held(least), 1);
    Some(Placement {
        shard: least.name.clone(),
        reason: format!("over its capacity ({taken}), because no shard has room and it was placed before"),
    })
}

/// Streams of the namespace by zone. Shards whose zone is not known make up one of their own.
fn own_by_zone(shards: &[Shard], own: &BTreeMap<Arc<str>, u32>) -> BTreeMap<Option<Arc<str>>, u32> {
    shards.iter().fold(BTreeMap::new(), |mut zones, shard| {
        *zones.entry(shard.zone.clone()).or_default() += own.get(shard.name.0.as_str()).copied().unwrap_or(0);
        zones
    })
}

/// Why a stream is where it is, for people.
struct Reason<'a> {
    rank: usize,
    of: usize,
    full: usize,
    over: usize,
    zone: Option<&'a str>,
}

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rank, of, full, over, zone } = self;
        match rank {
            0 => write!(f, "first choice of {of} by hash")?,
            _ => write!(f, "choice {} of {of} by hash", rank + 1)?,
        }
        let passed = [
            (*full, "full (spec.ingest.capacity of the pool)"),
            (*over, "at 1.05 times their share"),
            (rank - full - over, "in zones with more streams of this namespace"),
        ];
        let passed: Vec<_> = passed.into_iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
        if !passed.is_empty() {
            write!(f, "; before it: {}", passed.join(", "))?;
        }
        zone.map_or(Ok(()), |zone| write!(f, "; zone {zone}"))
    }
}

fn no_room(shards: &[Shard], loads: &Loads, limits: &Limits) -> String {
    let count = u64::try_from(shards.len()).unwrap_or(u64::MAX);
    let all = shards.iter().filter_map(|shard| loads.all.get(shard.name.0.as_str())).fold(Load::default(), |all, load| Load {
        streams: all.streams.saturating_add(load.streams),
        unheard: all.unheard.saturating_add(load.unheard),
        bits: all.bits.saturating_add(load.bits),
    });
    let taken = limits.taken(all, count);
    format!(
        "no shard of the pool has room: of {count} that take streams {taken} are taken; this one waits until there is room; raise spec.ingest.shards or spec.ingest.capacity of the StreamPool"
    )
}

/// Rendezvous score with weights: `-weight / ln(u)` with `u` uniform in (0, 1), which gives each shard its weight's share.
fn score(stream: &str, shard: &Shard) -> f64 {
    let digest = Sha256::new().chain_update(shard.name.0.as_bytes()).chain_update([0]).chain_update(stream.as_bytes()).finalize();
    let bits = digest.iter().take(7).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    // 56 random bits, kept off both ends of the interval.
    let uniform = (bits as f64 + 0.5) / (1u64 << 56) as f64;
    f64::from(shard.weight.get()) / -uniform.ln()
}
