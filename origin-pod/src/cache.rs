//! Objects by key, up to a number of bytes: what was not asked for longest goes first.

use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cache bounded by bytes. All methods are short and take one lock.
#[derive(Debug)]
pub struct ByteCache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<Arc<str>, Held>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, Arc<str>>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    body: Bytes,
    used: u64,
}

impl ByteCache {
    /// An empty cache of at most `limit` bytes of bodies.
    pub fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    /// The object at `key`, which counts as used now.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let held = inner.held.get_mut(key)?;
        if let Some(key) = inner.order.remove(&held.used) {
            inner.clock += 1;
            held.used = inner.clock;
            inner.order.insert(held.used, key);
        }
        Some(held.body.clone())
    }

    /// Puts `body` in the place of what is at `key`; older objects make room. One that is larger than the whole cache
    /// is not kept.
    pub fn put(&self, key: &str, body: Bytes) {
        let mut inner = self.lock();
        inner.remove(key);
        if body.len() > self.limit {
            return;
        }
        while inner.bytes + body.len() > self.limit {
            let Some((_, oldest)) = inner.order.pop_first() else { break };
            inner.remove(&oldest);
        }
        inner.clock += 1;
        let (key, used): (Arc<str>, _) = (key.into(), inner.clock);
        inner.bytes += body.len();
        inner.order.insert(used, key.clone());
        inner.held.insert(key, Held { body, used });
    }

    /// Forgets `key`.
    pub fn remove(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &str) {
        if let Some(held) = self.held.remove(key) {
            self.order.remove(&held.used);
            self.bytes -= held.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let cache = ByteCache::new(30);
        ["a", "b", "c"].into_iter().for_each(|key| cache.put(key, body(10)));
        cache.get("a");
        cache.put("d", body(15));
        assert!(cache.get("a").is_some() && cache.get("d").is_some());
        assert!(cache.get("b").is_none() && cache.get("c").is_none());
        assert_eq!(cache.bytes(), 25);
    }

    #[test]
    fn an_object_put_again_counts_once() {
        let cache = ByteCache::new(30);
        (1..=20).for_each(|bytes| cache.put("a", body(bytes)));
        assert_eq!(cache.bytes(), 20);
        cache.put("a", body(31));
        assert_eq!((cache.bytes(), cache.get("a")), (0, None));
    }
}
