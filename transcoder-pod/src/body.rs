//! A file in the pieces in which it came to be, of which none is copied: a part is its boxes and its samples, a segment is its
//! parts.

use bytes::{Buf, Bytes};
use std::io::IoSlice;
use std::sync::Arc;

/// The pieces, and how far they are read. Subscribers, S3's queue and the live objects each have a clone: it costs a count for each part, and
/// not for each sample.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// Of what is not read yet; no piece is empty.
    runs: Vec<Arc<[Bytes]>>,
    /// The next piece: its run, its place there, and how much of it is read.
    at: (usize, usize, usize),
    remaining: usize,
}

impl Body {
    /// Of these pieces.
    pub fn of(mut pieces: Vec<Bytes>) -> Self {
        let mut body = Self::default();
        pieces.retain(|piece| !piece.is_empty());
        if !pieces.is_empty() {
            body.remaining = pieces.iter().map(Bytes::len).sum();
            body.runs.push(pieces.into());
        }
        body
    }

    /// Appends all of another one, of which nothing is read yet.
    pub fn append(&mut self, other: &Self) {
        self.runs.extend(other.runs.iter().cloned());
        self.remaining += other.remaining;
    }

    /// How many bodies it was appended of.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The one at this place.
    pub fn run(&self, at: usize) -> Option<Self> {
        let run = self.runs.get(at)?;
        Some(Self { runs: vec![run.clone()], at: (0, 0, 0), remaining: run.iter().map(Bytes::len).sum() })
    }

    /// The same with `first` in the place of as many of the bodies that it was appended of.
    #[must_use]
    pub fn with_first(&self, first: &[Bytes]) -> Self {
        let mut body = Self::default();
        first.iter().for_each(|bytes| body.append(&bytes.clone().into()));
        (first.len()..self.runs()).filter_map(|at| self.run(at)).for_each(|run| body.append(&run));
        body
    }

    /// Its first bytes, as far as they lie together.
    pub fn first_piece(&self) -> Option<&[u8]> {
        self.rest().next()
    }

    /// What is not read yet of each piece.
    fn rest(&self) -> impl Iterator<Item = &[u8]> {
        let (run, piece, read) = self.at;
        let first = self.runs.get(run).and_then(|pieces| pieces.get(piece)).map(|piece| &piece[read..]);
        let rest = self.runs.iter().enumerate().skip(run).flat_map(move |(at, pieces)| {
            let skip = if at == run { piece + 1 } else { 0 };
            pieces.iter().skip(skip).map(|piece| &piece[..])
        });
        first.into_iter().chain(rest)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(vec![bytes])
    }
}

impl Buf for Body {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.rest().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in into.iter_mut().zip(self.rest()) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "{count} of {} bytes cannot be read", self.remaining); // as Buf demands
        self.remaining -= count;
        while count > 0 {
            let (run, piece, read) = &mut self.at;
            let left = self.runs[*run][*piece].len() - *read; // there are `count` bytes more
            if count < left {
                *read += count;
                return;
            }
            count -= left;
            (*piece, *read) = (*piece + 1, 0);
            if *piece == self.runs[*run].len() {
                (*run, *piece) = (*run + 1, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_reads_as_its_pieces_joined_whatever_the_steps(
            parts in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4), 0..4),
            steps in proptest::collection::vec(1usize..6, 0..40),
        ) {
            let whole: Vec<u8> = parts.iter().flatten().flatten().copied().collect();
            let mut body = Body::default();
            for part in parts {
                body.append(&Body::of(part.into_iter().map(Bytes::from).collect()));
            }
            let mut read = Vec::new();
            for step in steps {
                prop_assert_eq!(body.remaining(), whole.len() - read.len());
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = body.chunks_vectored(&mut slices);
                let ahead: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert_eq!(&ahead[..], &whole[read.len()..]);
                prop_assert_eq!(body.chunk().is_empty(), body.remaining() == 0);
                let step = step.min(body.remaining());
                read.extend_from_slice(&body.copy_to_bytes(step));
            }
            prop_assert_eq!(&read[..], &whole[..read.len()]);
        }
    }
}
