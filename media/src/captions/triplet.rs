//! cc_data: captions in threes of bytes (ANSI/CTA-708-E §4.3), and how they wait for a picture.

use std::collections::VecDeque;

/// As many as one picture's cc_data can count: cc_count has five bits.
pub const MOST: usize = 31;
/// As many may wait: of a source whose pictures are dropped, some eight rendered pictures' worth.
const MOST_WAITING: usize = 8 * MOST;

/// One cc_data_pkt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triplet(pub [u8; 3]);

/// What a triplet's two bytes belong to: cc_type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CEA-608, line 21's first field: CC1, CC2, T1, T2.
    FirstField,
    /// CEA-608, line 21's second field: CC3, CC4, T3, T4 and XDS.
    SecondField,
    /// A CEA-708 packet goes on.
    DigitalData,
    /// A CEA-708 packet begins.
    DigitalStart,
}

impl Triplet {
    /// Two bytes of CEA-608 for the first field, their parity bits included.
    pub const fn first_field(bytes: [u8; 2]) -> Self {
        Self([0xfc, bytes[0], bytes[1]])
    }

    /// cc_valid: without it the triplet fills a place, and its bytes mean nothing.
    pub const fn is_valid(self) -> bool {
        self.0[0] & 4 != 0
    }

    /// See [`Kind`].
    pub const fn kind(self) -> Kind {
        match self.0[0] & 3 {
            0 => Kind::FirstField,
            1 => Kind::SecondField,
            2 => Kind::DigitalData,
            _ => Kind::DigitalStart,
        }
    }

    /// The two bytes.
    pub const fn bytes(self) -> [u8; 2] {
        [self.0[1], self.0[2]]
    }
}

/// The triplets in `bytes`, as libav gives them and SEI messages have them; what is left of a last one that is cut short is not one.
pub fn triplets(bytes: &[u8]) -> impl Iterator<Item = Triplet> + '_ {
    bytes.as_chunks::<3>().0.iter().copied().map(Triplet)
}

/// Triplets that wait for a rendition's next picture.
///
/// A rendition's grid drops pictures and repeats them; captions must come out once each, and in their order. So a dropped picture's
/// wait for the next one, and a repeated picture has none.
#[derive(Debug, Default)]
pub struct Pending(VecDeque<Triplet>);

impl Pending {
    /// Adds those of a picture. Where more wait than a moment's worth the oldest are lost: nobody reads as fast as that.
    pub fn push(&mut self, triplets: impl IntoIterator<Item = Triplet>) {
        for triplet in triplets {
            if self.0.len() == MOST_WAITING {
                self.0.pop_front();
            }
            self.0.push_back(triplet);
        }
    }

    /// As many as one picture can carry. Those that only fill places go first where there are more; the rest waits.
    pub fn take(&mut self) -> Vec<Triplet> {
        if self.0.len() > MOST {
            self.0.retain(|triplet| triplet.is_valid());
        }
        let some = self.0.len().min(MOST);
        self.0.drain(..some).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(numbers: std::ops::Range<u8>) -> impl Iterator<Item = Triplet> {
        numbers.map(|n| Triplet::first_field([n, n]))
    }

    #[test]
    fn a_triplet_says_what_it_is() {
        let of = |header| (Triplet([header, 0, 0]).is_valid(), Triplet([header, 0, 0]).kind());
        assert_eq!(of(0xfc), (true, Kind::FirstField));
        assert_eq!(of(0xfd), (true, Kind::SecondField));
        assert_eq!(of(0xfa), (false, Kind::DigitalData));
        assert_eq!(of(0xff), (true, Kind::DigitalStart));
        assert_eq!(triplets(&[0xfc, 1, 2, 0xfd, 3]).collect::<Vec<_>>(), [Triplet([0xfc, 1, 2])]);
    }

    #[test]
    fn what_does_not_fit_waits_and_padding_goes_first() {
        let mut pending = Pending::default();
        pending.push(numbered(0..20));
        pending.push([Triplet([0xfa, 0, 0]); 5]);
        pending.push(numbered(20..40));
        assert_eq!(pending.take(), numbered(0..31).collect::<Vec<_>>());
        assert_eq!(pending.take(), numbered(31..40).collect::<Vec<_>>());
        assert_eq!(pending.take(), []);
        // Where there is room everything stays as it came.
        pending.push([Triplet([0xfa, 0, 0]); 5]);
        assert_eq!(pending.take().len(), 5);
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut pending = Pending::default();
        (0..100).for_each(|_| pending.push(numbered(0..200)));
        assert_eq!(pending.0.len(), MOST_WAITING);
    }
}
