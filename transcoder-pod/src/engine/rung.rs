//! What the thread of a video rendition is told, and how it hurries.

use super::outlet::{Follower, Step};
use ffmpeg_next::frame;
use lectern_contract::Ticks;
use std::sync::Arc;

/// What the decoder hands to every video rendition.
#[derive(Clone)]
pub enum Picture {
    /// A decoded picture and when it is shown.
    Frame(Arc<frame::Video>, Ticks),
    /// The silence has lasted: see [`super::Input::Cut`].
    Cut,
    /// The slate until this time: see [`super::Input::Fill`].
    Slate(Ticks),
    /// The last picture until this time.
    Hold(Ticks),
}

/// See the module.
pub enum Told {
    /// The next picture.
    Picture(Picture),
    /// From a time on the rendition is encoded if it was not, and is not if it was.
    Turn {
        /// A slot's start; a segment's, but for where the source breaks off that was passed on.
        at: Ticks,
        /// The encoder is too slow.
        hurry: bool,
    },
    /// Stand in for another rendition.
    Lead(Follower),
    /// And no longer, from this time on.
    Leave(usize, Ticks),
    /// Of whoever stands in for this one.
    Relayed(Step),
}

/// How a rendition that is to be shed gets to the segment's end, where it is: with one picture of several, each shown for longer. One that is
/// much too slow would else be waited for by all others, for several times what is left of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hurry {
    /// The first slot that is encoded for several.
    from: u64,
    stride: u64,
}

impl Hurry {
    /// From slot `next` on or a little later; `None` where that would make parts longer than their target.
    pub fn begin(frame_rate: u32, parts: bool, next: u64) -> Option<Self> {
        let stride = match parts {
            false => 8,
            // Half of a part, which lasts a third of a second.
            true if frame_rate.is_multiple_of(30) => u64::from(frame_rate) / 6,
            true => return None,
        };
        Some(Self { from: next.next_multiple_of(stride), stride })
    }

    /// Whether the picture of `slot` is encoded.
    pub const fn encodes(self, slot: u64) -> bool {
        slot < self.from || slot.is_multiple_of(self.stride)
    }

    /// How many slots it is shown for.
    pub const fn shown_for(self, slot: u64) -> u64 {
        if slot < self.from { 1 } else { self.stride }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_hurries_leaves_no_slot_empty() {
        for (rate, parts, next) in [(30, false, 100), (25, false, 96), (30, true, 61), (60, true, 7)] {
            let Some(hurry) = Hurry::begin(rate, parts, next) else { panic!("{rate}") };
            let mut shown = next;
            for slot in (next..next + 100).filter(|slot| hurry.encodes(*slot)) {
                assert_eq!(slot, shown, "{rate}");
                shown = slot + hurry.shown_for(slot);
            }
        }
    }

    #[test]
    fn parts_keep_their_target() {
        assert_eq!(Hurry::begin(25, true, 0), None);
        assert_eq!(Hurry::begin(30, true, 0).map(|hurry| hurry.shown_for(0)), Some(5), "of ten in a part");
    }
}
