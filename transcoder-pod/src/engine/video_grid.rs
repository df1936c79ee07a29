//! Puts pictures on a rendition's absolute grid of frames: slot n starts at n / rate seconds after the run's epoch.

use lectern_contract::{PartCount, SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks};
use std::ops::Range;

/// Where a picture goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: its slot is taken.
    Drop,
    /// Into this slot.
    At {
        /// The slots before it, back to the last picture's, that repeat the last picture.
        repeat_from: u64,
        /// The picture's own slot.
        slot: u64,
        /// Pictures are missing before it, too many to repeat.
        after_hole: bool,
    },
}

/// The grid of one rendition, and how far it is filled.
#[derive(Debug, Clone)]
pub struct VideoGrid {
    rate: u32,
    next: Option<u64>,
}

impl VideoGrid {
    /// An empty grid of `rate` frames a second (zero is taken as one).
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), next: None }
    }

    /// Where the picture shown at `pts` goes. Pictures come in the order of their times.
    ///
    /// It goes to the nearest slot, or to the next free one if that is not further than three quarters of a frame: stamps
    /// of whole milliseconds waver, and a source whose pictures lie between two slots would else be doubled and dropped
    /// by turns. Up to a second of missing pictures is filled with the one before.
    pub fn place(&mut self, pts: Ticks) -> Place {
        let exact = i128::from(pts.0) * i128::from(self.rate);
        let tick = i128::from(TICKS_PER_SECOND);
        let nearest = (exact + tick / 2) / tick;
        let nearest = u64::try_from(nearest).unwrap_or(u64::MAX);
        let Some(next) = self.next else {
            self.next = Some(nearest + 1);
            return Place::At { repeat_from: nearest, slot: nearest, after_hole: true };
        };
        let off = exact - i128::from(next) * tick;
        let slot = if off.abs() <= tick * 3 / 4 { next } else { nearest };
        if slot < next {
            return Place::Drop;
        }
        self.next = Some(slot + 1);
        let after_hole = slot - next > u64::from(self.rate);
        Place::At { repeat_from: if after_hole { slot } else { next }, slot, after_hole }
    }

    /// Begins with the first slot that starts at `at` or later, if nothing was placed yet.
    pub fn begin(&mut self, at: Ticks) {
        let slot = (u128::from(at.0) * u128::from(self.rate)).div_ceil(u128::from(TICKS_PER_SECOND));
        self.next.get_or_insert(u64::try_from(slot).unwrap_or(u64::MAX));
    }

    /// Takes the free slots that start before `until`, for pictures that nobody sent. None before the first picture.
    pub fn fill(&mut self, until: Ticks) -> Range<u64> {
        let Some(next) = self.next else { return 0..0 };
        let end = (u128::from(until.0) * u128::from(self.rate)).div_ceil(u128::from(TICKS_PER_SECOND));
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(next);
        self.next = Some(end);
        next..end
    }

    /// The first free slot.
    pub fn next(&self) -> u64 {
        self.next.unwrap_or(0)
    }

    /// The slots that start at `start` or later and are taken.
    pub fn taken_from(&self, start: Ticks) -> Range<u64> {
        let slot = (u128::from(start.0) * u128::from(self.rate)).div_ceil(u128::from(TICKS_PER_SECOND));
        u64::try_from(slot).unwrap_or(u64::MAX)..self.next()
    }

    /// When the last slot that was taken starts.
    pub fn last(&self) -> Option<Ticks> {
        self.next.map(|next| self.start(next.saturating_sub(1)))
    }

    /// When `slot` starts.
    pub fn start(&self, slot: u64) -> Ticks {
        let ticks = u128::from(slot) * u128::from(TICKS_PER_SECOND) / u128::from(self.rate);
        Ticks(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// Whether `slot` is the first that starts in its part of a segment.
    pub fn begins_part(&self, slot: u64, duration: SegmentDuration, parts: PartCount) -> bool {
        let part = |slot| parts.index(self.start(slot), duration);
        slot == 0 || part(slot) != part(slot - 1)
    }

    /// Whether `slot` is the first that starts in its segment.
    pub fn begins_segment(&self, slot: u64, duration: SegmentDuration) -> bool {
        let number = |slot| SegmentNumber::of(self.start(slot), duration);
        slot == 0 || number(slot) != number(slot - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_begins_where_it_is_told_to_unless_it_has_begun() {
        let mut grid = VideoGrid::new(25);
        assert_eq!(grid.fill(Ticks(90_000)), 0..0);
        grid.begin(Ticks(90_001));
        assert_eq!(grid.fill(Ticks(97_200)), 26..27);
        grid.begin(Ticks(0));
        assert_eq!(grid.fill(Ticks(100_800)), 27..28);
    }

    fn slots(rate: u32, stamps: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut grid = VideoGrid::new(rate);
        let mut filled = Vec::new();
        for pts in stamps {
            if let Place::At { repeat_from, slot, .. } = grid.place(Ticks(pts)) {
                filled.extend(repeat_from..=slot);
            }
        }
        filled
    }

    #[test]
    fn stamps_of_whole_milliseconds_fill_every_slot_once() {
        // 30 frames a second, half a frame off the grid: the worst phase for rounding.
        let stamps = (0..300u64).map(|n| (n * 1000 / 30 + 16) * 90 + 60);
        let filled = slots(30, stamps);
        assert!(filled.windows(2).all(|pair| pair[1] == pair[0] + 1), "{filled:?}");
        assert_eq!(filled.len(), 300);
    }

    #[test]
    fn a_faster_source_is_thinned_and_a_slower_one_doubled() {
        for (rate, step, pictures, wanted) in [(30, 1500, 120, 60), (30, 3600, 50, 60), (60, 3000, 30, 60), (30, 1800, 100, 60)] {
            let filled = slots(rate, (0..pictures).map(|n| n * step));
            assert!(filled.len().abs_diff(wanted) <= 1, "{pictures} pictures became {}", filled.len());
            assert!(filled.windows(2).all(|pair| pair[1] == pair[0] + 1), "{filled:?}");
        }
    }

    #[test]
    fn a_hole_over_a_second_is_jumped() {
        let mut grid = VideoGrid::new(30);
        grid.place(Ticks(0));
        assert_eq!(grid.place(Ticks(90_000)), Place::At { repeat_from: 1, slot: 30, after_hole: false });
        assert_eq!(grid.place(Ticks(900_000)), Place::At { repeat_from: 300, slot: 300, after_hole: true });
    }

    #[test]
    fn what_nobody_sent_is_filled_and_what_comes_late_is_dropped() {
        let mut grid = VideoGrid::new(30);
        assert_eq!(grid.fill(Ticks(90_000)), 0..0, "there is nothing to go on from");
        grid.place(Ticks(0));
        assert_eq!(grid.fill(Ticks(90_000)), 1..30);
        assert_eq!(grid.fill(Ticks(90_001)), 30..31);
        assert_eq!(grid.fill(Ticks(0)), 31..31);
        assert_eq!(grid.place(Ticks(60_000)), Place::Drop);
        assert_eq!(grid.place(Ticks(96_000)), Place::At { repeat_from: 31, slot: 32, after_hole: false });
    }

    #[test]
    fn every_segment_begins_at_one_slot() {
        let grid = VideoGrid::new(30);
        let starts: Vec<u64> = (0..200).filter(|slot| grid.begins_segment(*slot, SegmentDuration::LOW_LATENCY)).collect();
        assert_eq!(starts, [0, 60, 120, 180]);
        assert_eq!(grid.start(60), Ticks(180_000));
    }
}
