//! The shard's memory for media: one pool with a cap, which all runs share.
//!
//! Near the cap, runs keep less of their past, and new publishers are refused with a reason; those that are there lose
//! nothing that a transcoder needs to go on. Over it, every run keeps its newest group of pictures only.

use lectern_contract::Ticks;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// From this part of the cap on, runs keep half a minute.
const TIGHT: usize = 75;
/// From this part of the cap on, new publishers are refused.
const FULL: usize = 90;

/// How much of its past a run keeps at most, by how full the pool is.
const AMPLE_SPAN: Ticks = Ticks(60 * 90_000);
const TIGHT_SPAN: Ticks = Ticks(30 * 90_000);

/// The pool. Clones are one.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    held: AtomicUsize,
    cap: usize,
}

/// The pool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this shard is full: {held_mib} of {cap_mib} MiB of media are held; publish again later, or have the pool enlarged")]
pub struct Full {
    /// What is held, in MiB.
    pub held_mib: usize,
    /// The cap, in MiB.
    pub cap_mib: usize,
}

impl Memory {
    /// An empty pool of `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self(Arc::new(Pool { held: AtomicUsize::new(0), cap }))
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether there is room for another publisher.
    ///
    /// # Errors
    /// [`Full`], which says how full.
    pub fn admit(&self) -> Result<(), Full> {
        let (held, cap) = (self.held(), self.0.cap);
        if held < cap / 100 * FULL { Ok(()) } else { Err(Full { held_mib: held >> 20, cap_mib: cap >> 20 }) }
    }

    /// How much of its past a run keeps now, of the `wanted` span.
    pub fn span(&self, wanted: Ticks) -> Ticks {
        match self.held() {
            held if held >= self.0.cap => Ticks(0),
            held if held >= self.0.cap / 100 * TIGHT => wanted.min(TIGHT_SPAN),
            _ => wanted.min(AMPLE_SPAN),
        }
    }

    /// A part of the pool, of nothing yet.
    pub fn part(&self) -> Part {
        Part { pool: self.clone(), bytes: 0 }
    }
}

/// What somebody holds of the pool, given back when it is dropped.
#[derive(Debug)]
pub struct Part {
    pool: Memory,
    bytes: usize,
}

impl Part {
    /// Holds so many bytes from now on.
    pub fn set(&mut self, bytes: usize) {
        let held = &self.pool.0.held;
        match bytes.checked_sub(self.bytes) {
            Some(more) => held.fetch_add(more, Ordering::Relaxed),
            None => held.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        };
        self.bytes = bytes;
    }

    /// The pool.
    pub fn pool(&self) -> &Memory {
        &self.pool
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_are_given_back() {
        let memory = Memory::new(1000);
        let (mut a, mut b) = (memory.part(), memory.part());
        a.set(300);
        b.set(400);
        a.set(100);
        assert_eq!(memory.held(), 500);
        drop(a);
        assert_eq!(memory.held(), 400);
    }

    #[test]
    fn the_fuller_the_pool_the_less_is_kept_and_the_full_one_takes_nobody() {
        let memory = Memory::new(1000);
        let mut part = memory.part();
        for (held, span, admits) in [(0, AMPLE_SPAN, true), (760, TIGHT_SPAN, true), (950, TIGHT_SPAN, false), (1000, Ticks(0), false)] {
            part.set(held);
            assert_eq!((memory.span(Ticks(u64::MAX)), memory.admit().is_ok()), (span, admits), "at {held}");
        }
        assert!(memory.admit().unwrap_err().to_string().contains("full"));
    }
}
