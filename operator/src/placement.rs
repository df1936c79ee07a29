//! Which shard owns a stream: sticky rendezvous hashing with bounded load.
//!
//! Every shard gets a score for every stream; the highest wins, unless that shard already holds more than 1.05 times its
//! share. Without the bound even a perfect random hash peaks at about 1.15 times the mean (facts: placement study). An
//! assignment moves only when its shard leaves, so a change of the pool moves orphans and nobody else.

use lectern_contract::ShardName;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

/// A shard that streams may be placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub name: ShardName,
    /// Its capacity against the others'.
    pub weight: NonZeroU32,
}

/// Where a stream goes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The shard.
    pub shard: ShardName,
    /// For people.
    pub reason: String,
}

/// The shards of a pool: the ordinals of its StatefulSet, all of one weight.
pub fn shards_of(pool: &str, count: i32) -> Vec<Shard> {
    (0..count).map(|ordinal| Shard { name: ShardName(format!("lectern-ingest-{pool}-{ordinal}")), weight: NonZeroU32::MIN }).collect()
}

/// The shard for `stream` (any text that names it for good). `load` counts the streams that every shard has now, this one
/// not among them. `None` only where there are no shards.
pub fn place(stream: &str, shards: &[Shard], load: &BTreeMap<ShardName, u32>) -> Option<Placement> {
    let held = |shard: &Shard| load.get(&shard.name).copied().unwrap_or(0);
    let streams = shards.iter().map(|shard| u64::from(held(shard))).sum::<u64>() + 1;
    let weights = shards.iter().map(|shard| u64::from(shard.weight.get())).sum::<u64>();
    // 1.05 times its share and no more, but never less than its share: both in whole numbers, for two operators must agree.
    let bound = |shard: &Shard| {
        let (share, of) = (streams * u64::from(shard.weight.get()), weights.max(1));
        (share * 105 / (of * 100)).max(share.div_ceil(of))
    };

    let mut ranked: Vec<(f64, &Shard)> = shards.iter().map(|shard| (score(stream, shard), shard)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    // Every shard full is impossible: the bounds add up to more than the streams. Should it happen, the first choice has it.
    let rank = ranked.iter().position(|(_, shard)| u64::from(held(shard)) < bound(shard)).unwrap_or(0);
    let (_, shard) = ranked.get(rank)?;
    let reason = match rank {
        0 => format!("first choice of {} by hash", shards.len()),
        _ => format!("choice {} of {} by hash; those before it hold 1.05 times their share", rank + 1, shards.len()),
    };
    Some(Placement { shard: shard.name.clone(), reason })
}

/// Rendezvous score with weights: `-weight / ln(u)` with `u` uniform in (0, 1), which gives each shard its weight's share.
fn score(stream: &str, shard: &Shard) -> f64 {
    let digest = Sha256::new().chain_update(shard.name.0.as_bytes()).chain_update([0]).chain_update(stream.as_bytes()).finalize();
    let bits = digest.iter().take(7).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    // 56 random bits, kept off both ends of the interval.
    let uniform = (bits as f64 + 0.5) / (1u64 << 56) as f64;
    f64::from(shard.weight.get()) / -uniform.ln()
}

/// Who is where, in memory: assignments that are written to a status and those still on their way there, so that
/// reconciles that run side by side see each other.
#[derive(Debug, Default)]
pub struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    seeded: bool,
    streams: HashMap<String, (String, ShardName)>,
    load: HashMap<String, BTreeMap<ShardName, u32>>,
}

/// A line of the book: a stream by its uid, its pool and its shard.
pub type Entry = (String, String, ShardName);

impl Book {
    /// Fills the book from what statuses say, once in a process; later calls do nothing.
    pub fn seed(&self, entries: impl FnOnce() -> Vec<Entry>) {
        let mut pages = self.lock();
        if !pages.seeded {
            pages.seeded = true;
            for (uid, pool, shard) in entries() {
                pages.put(uid, pool, shard);
            }
        }
    }

    /// Notes that `uid` is on `shard`.
    pub fn note(&self, uid: &str, pool: &str, shard: &ShardName) {
        self.lock().put(uid.to_owned(), pool.to_owned(), shard.clone());
    }

    /// Places `uid` and notes it, in one step. A stream that the book has on one of `shards` stays there.
    pub fn place(&self, uid: &str, pool: &str, shards: &[Shard]) -> Option<Placement> {
        let mut pages = self.lock();
        if let Some((_, held)) = pages.streams.get(uid).filter(|(at, held)| at == pool && shards.iter().any(|shard| shard.name == *held)) {
            return Some(Placement { shard: held.clone(), reason: "placed a moment ago".into() });
        }
        pages.drop_entry(uid);
        let placement = place(uid, shards, pages.load.entry(pool.to_owned()).or_default())?;
        pages.put(uid.to_owned(), pool.to_owned(), placement.shard.clone());
        Some(placement)
    }

    /// `uid` needs no shard any more.
    pub fn remove(&self, uid: &str) {
        self.lock().drop_entry(uid);
    }

    /// How many streams a pool carries.
    pub fn streams(&self, pool: &str) -> u32 {
        self.lock().load.get(pool).map_or(0, |load| load.values().sum())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn put(&mut self, uid: String, pool: String, shard: ShardName) {
        self.drop_entry(&uid);
        *self.load.entry(pool.clone()).or_default().entry(shard.clone()).or_default() += 1;
        self.streams.insert(uid, (pool, shard));
    }

    fn drop_entry(&mut self, uid: &str) {
        let Some((pool, shard)) = self.streams.remove(uid) else { return };
        if let Some(count) = self.load.get_mut(&pool).and_then(|load| load.get_mut(&shard)) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(book: &Book, shards: &[Shard], streams: usize, seed: u64) -> BTreeMap<String, ShardName> {
        (0..streams).map(|n| (format!("{seed}-{n}"), book.place(&format!("{seed}-{n}"), "p", shards).unwrap().shard)).collect()
    }

    fn loads(held: &BTreeMap<String, ShardName>) -> BTreeMap<&ShardName, usize> {
        held.values().fold(BTreeMap::new(), |mut loads, shard| {
            *loads.entry(shard).or_default() += 1;
            loads
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_shard_holds_more_than_its_bound(count in 2i32..12, streams in 1usize..600, seed: u64) {
            let held = fill(&Book::default(), &shards_of("p", count), streams, seed);
            let share = streams as f64 / f64::from(count);
            let bound = (share * 1.05).floor().max(share.ceil()) as usize;
            for (shard, load) in loads(&held) {
                prop_assert!(load <= bound, "{shard} holds {load} of at most {bound}");
            }
        }

        #[test]
        fn a_leaving_shard_moves_its_own_streams_only(count in 3i32..12, streams in 1usize..400, seed: u64) {
            let (book, before, after) = (Book::default(), shards_of("p", count), shards_of("p", count - 1));
            let held = fill(&book, &before, streams, seed);
            for (uid, shard) in &held {
                let now = book.place(uid, "p", &after).unwrap().shard;
                prop_assert!(now == *shard || *shard == before[before.len() - 1].name, "{uid} moved from {shard} to {now}");
            }
        }
    }

    #[test]
    fn losing_one_of_a_hundred_shards_leaves_the_others_within_their_bound() {
        let (book, before, after) = (Book::default(), shards_of("p", 100), shards_of("p", 99));
        let held = fill(&book, &before, 10_000, 1);
        let now: BTreeMap<String, ShardName> = held.keys().map(|uid| (uid.clone(), book.place(uid, "p", &after).unwrap().shard)).collect();
        let mean = 10_000.0 / 99.0;
        assert!(loads(&now).values().all(|load| *load as f64 <= 1.05 * mean), "{:?}", loads(&now).values().max());
    }

    #[test]
    fn a_shard_of_twice_the_weight_holds_twice_the_streams() {
        let mut shards = shards_of("p", 3);
        shards[0].weight = NonZeroU32::new(2).unwrap();
        let held = fill(&Book::default(), &shards, 4000, 1);
        let heavy = loads(&held)[&shards[0].name];
        assert!((1900..=2100).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_stream_that_ended_makes_room() {
        let (book, shards) = (Book::default(), shards_of("p", 1));
        book.place("a", "p", &shards);
        assert_eq!(book.streams("p"), 1);
        book.remove("a");
        assert_eq!(book.streams("p"), 0);
    }

    #[test]
    fn a_place_beside_the_first_choice_says_why() {
        let (book, shards) = (Book::default(), shards_of("p", 2));
        let reasons: Vec<String> = (0..200).filter_map(|n| book.place(&n.to_string(), "p", &shards)).map(|place| place.reason).collect();
        assert!(reasons.iter().any(|reason| reason.contains("1.05")), "{reasons:?}");
        assert!(reasons.iter().any(|reason| reason == "first choice of 2 by hash"));
    }

    #[test]
    fn a_pool_without_shards_places_nothing() {
        assert_eq!(place("a", &[], &BTreeMap::new()), None);
    }
}
