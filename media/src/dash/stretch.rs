//! What of a live window an MPD lists.

use crate::hls::{Entry, LiveWindow, PartWindow};
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks};

/// The newest segments of a rendition without a hole in their numbers, which all need one init section; at least one. The last may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    first: SegmentNumber,
    last: SegmentNumber,
    init: u32,
}

impl Stretch {
    /// The end of `window`, back to the last hole or change of init section; `None` where the window is empty.
    pub fn newest(window: &LiveWindow) -> Option<Self> {
        let mut stretch: Option<Self> = None;
        for entry in window.entries() {
            stretch = match (entry, stretch) {
                (Entry::Gap(_) | Entry::Empty(_), _) => None,
                (Entry::Segment(segment), Some(before)) if before.init == segment.init => Some(Self { last: segment.number, ..before }),
                (Entry::Segment(segment), _) => Some(Self { first: segment.number, last: segment.number, init: segment.init }),
            };
        }
        stretch
    }

    /// All numbers from `first` to `last`, which is not before it.
    pub(super) const fn between(first: SegmentNumber, last: SegmentNumber, init: u32) -> Self {
        Self { first, last, init }
    }

    /// With the segment that is being made, if that is the next one, needs the same init section, and has a part in `parts`.
    pub fn with_open(self, parts: &PartWindow) -> Self {
        let next = self.last.next();
        if parts.init_of(next) == Some(self.init) { Self { last: next, ..self } } else { self }
    }

    /// Its first segment.
    pub const fn first(&self) -> SegmentNumber {
        self.first
    }

    /// Its last segment; not before the first.
    pub const fn last(&self) -> SegmentNumber {
        self.last
    }

    /// Which `init-{n}.mp4` its segments need.
    pub const fn init(&self) -> u32 {
        self.init
    }

    /// Where its last segment's slot ends, on the run's timeline. A slot is all of the time that belongs to a number.
    pub const fn end(&self, duration: SegmentDuration) -> Ticks {
        self.last.next().start(duration)
    }
}
