//! Who is where, in memory: assignments that are written to a status and those still on their way there, so that
//! reconciles that run side by side see each other.

use super::{Limits, Load, Loads, NoPlace, Placement, Shard, place, place_over};
use lectern_contract::{ShardName, StreamRef};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A stream as far as its place is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// What names it for good.
    pub uid: String,
    /// Its namespace and name.
    pub stream: StreamRef,
    /// Its pool.
    pub pool: String,
    /// Bits a second that its shard receives; `None` while nobody publishes.
    pub bits: Option<u64>,
    /// When it was made, in seconds since 1970: of those that wait for room the oldest is woken first.
    pub since: i64,
}

/// Who is on which shard.
#[derive(Debug, Default)]
pub struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    seeded: bool,
    streams: HashMap<String, Line>,
    /// By pool.
    load: HashMap<Name, BTreeMap<Name, Load>>,
    /// By pool and namespace.
    own: HashMap<(Name, Name), BTreeMap<Name, u32>>,
    /// Those that no shard has room for, by pool, the oldest first.
    waiting: HashMap<Name, BTreeMap<(i64, String), StreamRef>>,
    names: HashSet<Name>,
}

/// Of a pool, a namespace or a shard: ten thousand streams share a few hundred.
type Name = Arc<str>;

#[derive(Debug, PartialEq, Eq)]
struct Line {
    pool: Name,
    namespace: Name,
    shard: Name,
    bits: Option<u64>,
}

impl Book {
    /// Fills the book from what statuses say, once in a process; later calls do nothing.
    pub fn seed(&self, entries: impl FnOnce() -> Vec<(Resident, ShardName)>) {
        let mut pages = self.lock();
        if !pages.seeded {
            pages.seeded = true;
            for (resident, shard) in entries() {
                pages.put(&resident, &shard);
            }
        }
    }

    /// Notes that `resident` is on `shard`.
    pub fn note(&self, resident: &Resident, shard: &ShardName) {
        self.lock().put(resident, shard);
    }

    /// Places `resident` and notes it, in one step. A stream that the book has on one of `shards` stays there. One that `must` be
    /// somewhere, because it had a place that it cannot keep, is placed although there is no room.
    ///
    /// # Errors
    /// There are no shards, or none of them has room: then it is remembered as one that waits.
    pub fn place(&self, resident: &Resident, shards: &[Shard], limits: &Limits, must: bool) -> Result<Placement, NoPlace> {
        let mut pages = self.lock();
        let (uid, pool, namespace) = (&resident.uid, pages.name(&resident.pool), pages.name(&resident.stream.namespace));
        let held = pages.streams.get(uid).filter(|line| line.pool == pool).map(|line| line.shard.clone());
        if let Some(shard) = held.and_then(|held| shards.iter().find(|shard| *shard.name.0 == *held)) {
            return Ok(Placement { shard: shard.name.clone(), reason: "placed a moment ago".into() });
        }
        pages.drop_entry(uid);
        let key = (pool.clone(), namespace);
        // Lent, and given back below: a copy would be one of every shard for every stream.
        let loads = Loads { all: pages.load.remove(&pool).unwrap_or_default(), own: pages.own.remove(&key).unwrap_or_default() };
        let placed = match place(uid, resident.bits, shards, &loads, limits) {
            Err(NoPlace::NoRoom(why)) if must => place_over(uid, shards, &loads, limits).ok_or(NoPlace::NoRoom(why)),
            placed => placed,
        };
        pages.load.insert(pool.clone(), loads.all);
        if !loads.own.is_empty() {
            pages.own.insert(key, loads.own);
        }
        match &placed {
            Ok(placement) => pages.put(resident, &placement.shard),
            Err(_) => {
                pages.waiting.entry(pool).or_default().insert((resident.since, uid.clone()), resident.stream.clone());
            }
        }
        placed
    }

    /// `resident` needs no shard any more, nor waits for one. The stream that there may be room for now.
    pub fn remove(&self, resident: &Resident) -> Option<StreamRef> {
        let mut pages = self.lock();
        pages.stop_waiting(resident);
        let pool = pages.drop_entry(&resident.uid)?;
        pages.waiting.get(&pool)?.values().next().cloned()
    }

    /// How many streams a pool carries.
    pub fn streams(&self, pool: &str) -> u32 {
        self.lock().load.get(pool).map_or(0, |load| load.values().map(|load| load.streams).sum())
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn put(&mut self, resident: &Resident, shard: &ShardName) {
        let line = Line {
            pool: self.name(&resident.pool),
            namespace: self.name(&resident.stream.namespace),
            shard: self.name(&shard.0),
            bits: resident.bits,
        };
        if self.streams.get(&resident.uid) == Some(&line) {
            return;
        }
        self.stop_waiting(resident);
        self.drop_entry(&resident.uid);
        let load = self.load.entry(line.pool.clone()).or_default().entry(line.shard.clone()).or_default();
        load.streams += 1;
        match line.bits {
            Some(bits) => load.bits = load.bits.saturating_add(bits),
            None => load.unheard += 1,
        }
        *self.own.entry((line.pool.clone(), line.namespace.clone())).or_default().entry(line.shard.clone()).or_default() += 1;
        self.streams.insert(resident.uid.clone(), line);
    }

    fn stop_waiting(&mut self, resident: &Resident) {
        let Some(waiting) = self.waiting.get_mut(resident.pool.as_str()) else { return };
        waiting.remove(&(resident.since, resident.uid.clone()));
        if waiting.is_empty() {
            self.waiting.remove(resident.pool.as_str());
        }
    }

    /// Takes a stream out; the pool that it was in.
    fn drop_entry(&mut self, uid: &str) -> Option<Name> {
        let Line { pool, namespace, shard, bits } = self.streams.remove(uid)?;
        if let Some(load) = self.load.get_mut(&pool).and_then(|load| load.get_mut(&shard)) {
            load.streams = load.streams.saturating_sub(1);
            match bits {
                Some(bits) => load.bits = load.bits.saturating_sub(bits),
                None => load.unheard = load.unheard.saturating_sub(1),
            }
        }
        let key = (pool, namespace);
        if let Some(own) = self.own.get_mut(&key) {
            if let Some(count) = own.get_mut(&shard) {
                *count = count.saturating_sub(1);
            }
            own.retain(|_, count| *count > 0);
            if own.is_empty() {
                self.own.remove(&key);
            }
        }
        Some(key.0)
    }

    fn name(&mut self, name: &str) -> Name {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let new = Name::from(name);
        self.names.insert(new.clone());
        new
    }
}
