//! The shard's memory for media: one pool of blocks with a cap, which all runs share.
//!
//! Blocks of one size, and those that come back are used again: nothing is to be allocated, and later found and freed in
//! memory that has gone cold, for every message, and no room is lost between what lives short and what lives long.
//!
//! Near the cap, runs keep less of their past, and new publishers are refused with a reason; those that are there lose
//! nothing that a transcoder needs to go on. Over it, every run keeps its newest group of pictures only.

use bytes::BytesMut;
use lectern_contract::Ticks;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A block's bytes.
pub const BLOCK_BYTES: usize = 8 * 1024;
/// Blocks that are allocated together: one behind the other they leave no holes that are too small for the next one.
const SLAB: usize = 64;
/// Of the blocks that come back so many stay with the pool: an eighth of those in use, and these.
const SPARE: usize = 64;

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
    /// Empty ones.
    spare: Mutex<Vec<BytesMut>>,
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
        Self(Arc::new(Pool { held: AtomicUsize::new(0), cap, spare: Mutex::default() }))
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

    /// An empty block. It is there beyond the cap, too: what is above it has to be let go of elsewhere.
    pub fn block(&self) -> Block {
        self.0.held.fetch_add(BLOCK_BYTES, Ordering::Relaxed);
        let mut spare = self.spare();
        let bytes = spare.pop().unwrap_or_else(|| {
            let mut slab = BytesMut::with_capacity(SLAB * BLOCK_BYTES);
            spare.extend((1..SLAB).rev().map(|block| slab.split_off(block * BLOCK_BYTES)));
            slab
        });
        drop(spare);
        Block { bytes, pool: self.clone() }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner) // whole blocks, whatever panicked
    }
}

/// A block of the pool, given back when it is dropped.
pub struct Block {
    bytes: BytesMut,
    pool: Memory,
}

impl Block {
    /// Whether nothing more goes into it.
    pub fn is_full(&self) -> bool {
        self.bytes.len() == BLOCK_BYTES
    }

    /// Appends as much of `bytes` as there is room for, and returns the rest.
    pub fn append<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.bytes.len()));
        self.bytes.extend_from_slice(now);
        later
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.bytes.len())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let held = self.pool.0.held.fetch_sub(BLOCK_BYTES, Ordering::Relaxed) - BLOCK_BYTES;
        let mut spare = self.pool.spare();
        if spare.len() < held / BLOCK_BYTES / 8 + SPARE {
            self.bytes.clear();
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_and_used_again_and_not_all_of_them_are_kept() {
        let memory = Memory::new(usize::MAX);
        let mut blocks: Vec<_> = (0..1000).map(|_| memory.block()).collect();
        assert_eq!(memory.held(), 1000 * BLOCK_BYTES);
        assert_eq!(blocks[0].append(&[7; BLOCK_BYTES + 3]), [7; 3]);
        assert!(blocks[0].is_full() && blocks[0].append(&[8]) == [8]);
        let at = blocks[0].as_ptr();
        drop(blocks.swap_remove(0));
        let again = memory.block();
        assert!(again.as_ptr() == at && again.is_empty());
        drop((again, blocks));
        assert_eq!(memory.held(), 0);
        assert!((SPARE..=SPARE + 1000 / 8).contains(&memory.spare().len()), "{}", memory.spare().len());
    }

    #[test]
    fn the_fuller_the_pool_the_less_is_kept_and_the_full_one_takes_nobody() {
        let memory = Memory::new(100 * BLOCK_BYTES);
        let mut blocks = Vec::new();
        for (held, span, admits) in [(0, AMPLE_SPAN, true), (76, TIGHT_SPAN, true), (95, TIGHT_SPAN, false), (100, Ticks(0), false)] {
            blocks.resize_with(held, || memory.block());
            assert_eq!((memory.span(Ticks(u64::MAX)), memory.admit().is_ok()), (span, admits), "at {held}");
        }
        assert!(memory.admit().unwrap_err().to_string().contains("full"));
    }
}
