//! What a publisher takes along from one owner of its stream to the next, so that nothing is missing and nothing comes twice.

use crate::stream::{Heritage, MOST_PAST, Publication, PublishError};
use bytes::{Bytes, BytesMut};
use lectern_contract::relay::RelayFrame;
use lectern_contract::timeline::TimelineState;
use std::collections::VecDeque;

/// Bytes of the past in one frame.
const PIECE: usize = 1 << 20;
/// Bytes of tags that are kept for the next owner: an owner that takes nothing for so long is gone.
const MOST_UNTAKEN: usize = 16 << 20;

/// An FLV tag as it came.
#[derive(Debug, Clone)]
pub struct Tag {
    /// RTMP's message type.
    pub kind: u8,
    /// The publisher's own stamp, in milliseconds.
    pub timestamp: u32,
    /// The tag's body.
    pub payload: Bytes,
}

/// What goes along.
#[derive(Debug)]
pub struct Baggage {
    /// What the next owner goes on with.
    pub heritage: Heritage,
    /// What the owner before has not taken of what came.
    pub tags: Vec<Tag>,
}

impl Baggage {
    /// Hands it to the next owner, this shard.
    ///
    /// # Errors
    /// A tag is not taken.
    pub fn unpack(self, publication: &mut Publication) -> Result<(), PublishError> {
        publication.inherit(&self.heritage);
        self.tags.into_iter().try_for_each(|tag| publication.tag(tag.kind, tag.timestamp, tag.payload))
    }
}

/// The frames that hand a heritage over.
pub fn frames(heritage: &Heritage) -> impl Iterator<Item = RelayFrame> {
    let past = heritage.past.clone();
    let pieces = (0..past.len()).step_by(PIECE).map(move |at| RelayFrame::Past { frames: past.slice(at..past.len().min(at + PIECE)) });
    pieces.chain([RelayFrame::Heritage(heritage.timeline)])
}

/// A heritage that comes in pieces.
#[derive(Debug, Default)]
pub struct Pieces(BytesMut);

impl Pieces {
    /// Adds a piece; false where it is more than any owner hands over.
    #[must_use]
    pub fn add(&mut self, piece: &[u8]) -> bool {
        let fits = self.0.len() + piece.len() <= MOST_PAST + PIECE;
        if fits {
            self.0.extend_from_slice(piece);
        }
        fits
    }

    /// The whole.
    pub fn close(&mut self, timeline: TimelineState) -> Heritage {
        Heritage { timeline, past: std::mem::take(&mut self.0).freeze() }
    }
}

/// The tags of a connection that its owner has not said that it took.
#[derive(Debug, Default)]
pub struct Untaken {
    tags: VecDeque<Tag>,
    bytes: usize,
    /// How many came before the first of them.
    before: u64,
}

impl Untaken {
    /// One more was sent.
    pub fn sent(&mut self, tag: Tag) {
        self.bytes += tag.payload.len();
        self.tags.push_back(tag);
        while self.bytes > MOST_UNTAKEN {
            self.drop_first();
        }
    }

    /// The owner has taken so many since the beginning.
    pub fn taken(&mut self, tags: u64) {
        while self.before < tags && !self.tags.is_empty() {
            self.drop_first();
        }
    }

    /// All that are left.
    pub fn into_tags(self) -> Vec<Tag> {
        self.tags.into()
    }

    fn drop_first(&mut self) {
        if let Some(tag) = self.tags.pop_front() {
            self.bytes -= tag.payload.len();
            self.before += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(timestamp: u32, bytes: usize) -> Tag {
        Tag { kind: 9, timestamp, payload: vec![0; bytes].into() }
    }

    #[test]
    fn what_an_owner_has_not_taken_is_left() {
        let mut untaken = Untaken::default();
        (0..10).for_each(|at| untaken.sent(tag(at, 1)));
        untaken.taken(4);
        untaken.taken(3);
        (10..12).for_each(|at| untaken.sent(tag(at, 1)));
        untaken.taken(7);
        assert_eq!(untaken.into_tags().iter().map(|tag| tag.timestamp).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
    }

    #[test]
    fn an_owner_that_takes_nothing_does_not_fill_the_memory() {
        let mut untaken = Untaken::default();
        (0..40).for_each(|at| untaken.sent(tag(at, 1 << 20)));
        assert_eq!(untaken.into_tags().len(), 16);
    }

    #[test]
    fn a_heritage_comes_back_from_its_pieces() {
        let past: Vec<u8> = (0..3 * PIECE + 5).map(|at| at as u8).collect();
        let heritage = Heritage { timeline: TimelineState { begun: true, ..TimelineState::default() }, past: past.into() };
        let mut pieces = Pieces::default();
        let whole = frames(&heritage).find_map(|frame| match frame {
            RelayFrame::Past { frames } => {
                assert!(pieces.add(&frames));
                None
            }
            RelayFrame::Heritage(timeline) => Some(pieces.close(timeline)),
            other => panic!("{other:?}"),
        });
        assert_eq!(whole, Some(heritage));
    }

    #[test]
    fn more_than_anybody_hands_over_is_not_taken() {
        let mut pieces = Pieces::default();
        let taken = (0..100).take_while(|_| pieces.add(&[0; PIECE])).count();
        assert_eq!(taken, MOST_PAST / PIECE + 1);
    }
}
