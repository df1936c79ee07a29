//! The numbers that a live playlist lists.

use super::{Entry, Segment};
use lectern_contract::SegmentNumber;
use std::collections::VecDeque;

/// A window over the newest segments of a rendition: grows at its end, shrinks at its start, and never goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveWindow {
    size: usize,
    entries: VecDeque<Entry>,
    last: Option<SegmentNumber>,
}

impl LiveWindow {
    /// An empty window of at most `size` entries, gaps included; at least one.
    pub fn new(size: usize) -> Self {
        Self { size: size.max(1), entries: VecDeque::new(), last: None }
    }

    /// Adds `segment` and, as gaps, the numbers missing before it. `false`, and nothing changes, where that number has
    /// already passed: what a playlist once said must stay true.
    pub fn push(&mut self, segment: Segment) -> bool {
        if self.last.is_some_and(|last| segment.number <= last) {
            return false;
        }
        if let Some(last) = self.last {
            // Only as many gaps as could stay: a source that was away for an hour costs no more than one window.
            let oldest = segment.number.0.saturating_sub(self.size as u64).max(last.next().0);
            for number in oldest..segment.number.0 {
                self.append(Entry::Gap(SegmentNumber(number)));
            }
            if oldest > last.next().0 {
                let keep = |entry: &Entry| entry.number().0 >= oldest;
                self.entries.retain(keep);
            }
        }
        self.append(Entry::Segment(segment));
        self.trim();
        true
    }

    /// Segment `number` is not to be had any more: it is a gap from now on. Whoever has not come to it goes past it.
    pub fn lose(&mut self, number: SegmentNumber) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number() == number) {
            *entry = Entry::Gap(number);
        }
        self.trim();
    }

    /// A gap at the front helps nobody, and players that start there stall at once.
    fn trim(&mut self) {
        while matches!(self.entries.front(), Some(Entry::Gap(_))) {
            self.entries.pop_front();
        }
    }

    fn append(&mut self, entry: Entry) {
        self.last = Some(entry.number());
        self.entries.push_back(entry);
        while self.entries.len() > self.size {
            self.entries.pop_front();
        }
    }

    /// What the playlist lists, in order, without a hole in its numbers.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter().copied()
    }

    /// The segments in it, without gaps.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Segment(segment) => Some(*segment),
            Entry::Empty(_) | Entry::Gap(_) => None,
        })
    }

    /// The newest segment: the last entry, for gaps are known only by what follows them.
    pub fn newest(&self) -> Option<Segment> {
        match self.entries.back() {
            Some(Entry::Segment(segment)) => Some(*segment),
            _ => None,
        }
    }

    /// The newest number that was ever pushed.
    pub fn last(&self) -> Option<SegmentNumber> {
        self.last
    }
}
