//! Bits a second over the last seconds.

use std::collections::VecDeque;

/// The window, in milliseconds.
const WINDOW: u64 = 3_000;
/// Bytes are added up in slots of this many milliseconds, so that the memory is bounded.
const SLOT: u64 = 100;

/// A sliding sum of bytes. Times are in milliseconds from anywhere, never going back.
#[derive(Debug, Default)]
pub(super) struct Bitrate {
    /// Slots that are over, with their sums.
    slots: VecDeque<(u64, u64)>,
    /// The slot under way: most messages touch nothing else.
    open: (u64, u64),
    since: Option<u64>,
}

impl Bitrate {
    /// Takes note of bytes that came at `now`.
    pub(super) fn add(&mut self, bytes: usize, now: u64) {
        self.since.get_or_insert(now);
        let slot = now / SLOT;
        if slot > self.open.0 {
            self.forget(now);
            self.slots.push_back(std::mem::replace(&mut self.open, (slot, 0)));
        }
        self.open.1 += bytes as u64;
    }

    /// Bits a second over the window that ends at `now`, or over what there is of it.
    pub(super) fn at(&mut self, now: u64) -> u64 {
        self.forget(now);
        let oldest = now.saturating_sub(WINDOW) / SLOT;
        let bytes: u64 = self.slots.iter().chain([&self.open]).filter(|(slot, _)| *slot >= oldest).map(|(_, sum)| sum).sum();
        let span = self.since.map_or(WINDOW, |since| now.saturating_sub(since)).clamp(SLOT, WINDOW);
        bytes * 8 * 1000 / span
    }

    fn forget(&mut self, now: u64) {
        let oldest = now.saturating_sub(WINDOW) / SLOT;
        while self.slots.front().is_some_and(|(slot, _)| *slot < oldest) {
            self.slots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_shows_its_rate_and_a_stalled_one_none() {
        let mut rate = Bitrate::default();
        for tick in 0..100 {
            rate.add(12_500, tick * 100);
        }
        assert!((950_000..=1_100_000).contains(&rate.at(9_900)), "{}", rate.at(9_900));
        assert_eq!(rate.at(20_000), 0);
    }
}
