//! Bytes that are found by their position, counted from the first that was ever appended; old ones leave in blocks.

use crate::memory::{BLOCK_BYTES, Block, Memory};
use std::collections::VecDeque;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The ring. All blocks but the last one are full.
#[derive(Debug)]
pub(super) struct Ring {
    pool: Memory,
    blocks: VecDeque<Block>,
    /// The position of the first block's first byte: a multiple of the block's size.
    begin: u64,
    end: u64,
}

impl Ring {
    /// An empty one, whose blocks are of `pool`.
    pub(super) fn new(pool: Memory) -> Self {
        Self { pool, blocks: VecDeque::new(), begin: 0, end: 0 }
    }

    /// The position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            match self.blocks.back_mut().filter(|block| !block.is_full()) {
                Some(block) => bytes = block.append(bytes),
                None => self.blocks.push_back(self.pool.block()),
            }
        }
    }

    /// Lets go of the blocks that lie before `until` in whole.
    pub(super) fn release(&mut self, until: u64) {
        while self.begin + BLOCK <= until.min(self.end) && self.blocks.pop_front().is_some() {
            self.begin += BLOCK;
        }
    }

    /// Lets go of everything. The next byte's position is another than that of the end now.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.end = (self.end / BLOCK + 1) * BLOCK;
        self.begin = self.end;
    }

    /// The bytes from one position up to another, as far as they are there, in pieces.
    pub(super) fn pieces(&self, from: u64, until: u64) -> impl Iterator<Item = &[u8]> {
        let (mut at, until) = (from.max(self.begin), until.min(self.end));
        std::iter::from_fn(move || {
            let left = until.checked_sub(at).filter(|left| *left > 0)?;
            let (block, within) = ((at - self.begin) / BLOCK, ((at - self.begin) % BLOCK) as usize);
            let piece = &self.blocks.get(block as usize)?[within..];
            let piece = &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            at += piece.len() as u64;
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring() -> (Ring, Memory) {
        let pool = Memory::new(usize::MAX);
        (Ring::new(pool.clone()), pool)
    }

    fn read(ring: &Ring, from: u64, until: u64) -> Vec<u8> {
        ring.pieces(from, until).flatten().copied().collect()
    }

    #[test]
    fn what_is_released_leaves_in_blocks_and_the_rest_keeps_its_place() {
        let (mut ring, pool) = ring();
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|at| (at / 1000) as u8).collect();
        ring.append(&bytes);
        assert_eq!((ring.end(), pool.held()), (bytes.len() as u64, 4 * BLOCK_BYTES));
        ring.release(2 * BLOCK + 1);
        assert_eq!(pool.held(), 2 * BLOCK_BYTES);
        assert_eq!(read(&ring, 2 * BLOCK + 1, u64::MAX), bytes[2 * BLOCK_BYTES + 1..]);
        // All that is full can go; the block under way stays.
        ring.release(u64::MAX);
        assert_eq!((pool.held(), read(&ring, 0, u64::MAX)), (BLOCK_BYTES, bytes[3 * BLOCK_BYTES..].to_vec()));
    }

    #[test]
    fn a_cleared_ring_goes_on_elsewhere() {
        let (mut ring, pool) = ring();
        ring.append(&[1; BLOCK_BYTES]);
        let end = ring.end();
        ring.clear();
        assert!(ring.end() > end && pool.held() == 0);
        let from = ring.end();
        ring.append(&[2, 3]);
        assert_eq!(read(&ring, from, from + 2), [2, 3]);
        assert!(read(&ring, end, from).is_empty());
    }

    proptest! {
        #[test]
        fn it_is_what_was_appended_however_it_came(sizes in prop::collection::vec(0usize..3 * BLOCK_BYTES, 1..20), release: u64, from: u64, until: u64) {
            let ((mut ring, pool), mut all) = (ring(), Vec::new());
            for size in sizes {
                let bytes: Vec<u8> = (0..size).map(|at| (all.len() + at) as u8 ^ (at >> 8) as u8).collect();
                ring.append(&bytes);
                all.extend(bytes);
            }
            let of = |position: u64| (position % (all.len() as u64 + 2)).min(all.len() as u64);
            ring.release(of(release));
            let (from, until) = (of(from).max(of(release)), of(until));
            prop_assert_eq!(read(&ring, from, until), all.get(from as usize..until as usize).unwrap_or_default());
            prop_assert!(pool.held() <= all.len() - of(release) as usize + 2 * BLOCK_BYTES);
        }
    }
}
