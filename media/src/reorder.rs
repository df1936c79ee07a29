//! Decode times for pictures that come with presentation times only, as RTP has it (RFC 6184 §5.1, RFC 7798 §4.1).
//!
//! Pictures come in decode order. If at most `depth` of them come before another and are shown after it, then the smallest
//! of the `depth + 1` newest unused presentation times is a decode time that no picture is later than: sorted, the
//! presentation times are the decode times, `depth` pictures late. That is what libavformat does in `compute_pkt_fields`
//! (`demux.c`: a sorted `pts_buffer` of `has_b_frames + 1`) and GStreamer in `h264timestamper`
//! (`gstcodectimestamper.c`: a window of `max_num_reorder_frames`). GStreamer holds pictures back until the window is
//! full; here each picture gets its time at once, so that nothing waits: the first `depth` pictures are counted back from
//! the first presentation time in steps of the frame duration.
//!
//! The depth is what the parameter sets declare ([`depth`]), and grows if a picture shows that they are wrong: a picture
//! before which more than `depth` later ones came gets a decode time after its presentation time, once, because decode
//! times that grow matter more. The same happens to pictures that are shown before the very first one (those that lead an
//! open group of pictures) by more than `depth` frame durations; decoders drop them, because what they refer to never came.

mod depth;

pub use depth::depth;

use std::collections::VecDeque;

/// The largest depth: the decoded picture buffer of both codecs holds 16 pictures.
pub const MAX_DEPTH: u8 = 16;
/// A presentation time that is behind the newest one by more is no reordering, but a clock that was set: 3 s.
const LONGEST_WAY_BACK: i64 = 3 * 90_000;
/// As is one that is ahead by more: 10 s, as on the timeline.
const LONGEST_WAY_AHEAD: i64 = 10 * 90_000;

/// Derives the decode times of one track. All times are in 90 kHz ticks from anywhere.
#[derive(Debug, Clone)]
pub struct Reorder {
    depth: usize,
    frame: i64,
    /// Presentation times that are not used as decode times yet, sorted; at most `depth` between two pictures.
    unused: VecDeque<i64>,
    /// Those of the newest pictures in decode order, to learn the depth from.
    recent: VecDeque<i64>,
    first: i64,
    newest: Option<i64>,
    last_dts: Option<i64>,
}

impl Reorder {
    /// A track that reorders over at most `depth` pictures. `frame` is how long a picture lasts, about: it counts for the
    /// first `depth` pictures only.
    pub fn new(depth: u8, frame: u32) -> Self {
        Self {
            depth: usize::from(depth.min(MAX_DEPTH)),
            frame: i64::from(frame.max(1)),
            unused: VecDeque::new(),
            recent: VecDeque::new(),
            first: 0,
            newest: None,
            last_dts: None,
        }
    }

    /// The depth as declared or learned so far.
    pub fn depth(&self) -> u8 {
        self.depth as u8 // at most MAX_DEPTH
    }

    /// New parameters declare this depth. One that is smaller than what is held changes nothing: a depth that is too large
    /// costs nothing, and a smaller one would make decode times jump ahead.
    pub fn declare(&mut self, depth: u8) {
        self.depth = self.depth.max(usize::from(depth.min(MAX_DEPTH)));
    }

    /// The decode time of the next picture in decode order, which is shown at `pts`.
    ///
    /// It is greater than the one before, and not greater than `pts` unless the depth was too small. Where `pts` jumps, so
    /// that the camera's clock must have been set, decode times start anew and may go back.
    pub fn dts(&mut self, pts: i64) -> i64 {
        let newest = *self.newest.get_or_insert(pts);
        let step = pts.saturating_sub(newest);
        if !(-LONGEST_WAY_BACK..=LONGEST_WAY_AHEAD).contains(&step) {
            (self.unused, self.recent, self.last_dts) = Default::default();
            self.newest = Some(pts);
        }
        self.newest = self.newest.max(Some(pts));
        if self.last_dts.is_none() {
            self.first = pts;
        }
        self.learn(pts);

        let place = self.unused.partition_point(|other| *other < pts);
        self.unused.insert(place, pts);
        let missing = (self.depth + 1).saturating_sub(self.unused.len());
        let sorted = match missing {
            0 => self.unused.pop_front().unwrap_or(pts),
            missing => self.first.saturating_sub(self.frame.saturating_mul(missing as i64)),
        };
        let dts = match self.last_dts {
            Some(last) => sorted.min(pts).max(last.saturating_add(1)),
            None => sorted.min(pts),
        };
        self.last_dts = Some(dts);
        dts
    }

    /// The depth is by definition as many pictures as came before this one and are shown after it.
    fn learn(&mut self, pts: i64) {
        let shown_after = self.recent.iter().filter(|other| **other > pts).count();
        self.depth = self.depth.max(shown_after.min(usize::from(MAX_DEPTH)));
        self.recent.push_back(pts);
        if self.recent.len() > usize::from(MAX_DEPTH) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
