//! Parts of segments in a media playlist: Low-Latency HLS (draft-pantos-hls-rfc8216bis).

use super::media::{Seconds, line};
use lectern_contract::{SegmentNumber, Ticks};
use std::collections::VecDeque;

/// Segments whose parts are listed. Those further than three target durations from the end are of no use to players
/// (§4.4.4.9), and each player loads this text three times a second.
const LISTED: usize = 4;
/// Target durations from the end within which a delta update lists everything; six is the least (§4.4.3.8).
const SKIP_UNTIL: u64 = 6;
/// Part targets that a player should stay behind the end; two is the least, three is recommended (§4.4.3.8).
const HOLD_BACK: f64 = 3.0;

/// One part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Of its media, in ticks.
    pub duration: Ticks,
    /// Decoding can start with it.
    pub independent: bool,
}

/// The parts of a rendition's newest segments, the unfinished one included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartWindow(VecDeque<Cut>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    number: SegmentNumber,
    init: u32,
    parts: usize,
    /// Their lines. A part is written once, and stands in two dozen playlists.
    text: String,
}

impl PartWindow {
    /// Adds the next part of segment `number`, which needs init section `init`.
    pub fn push(&mut self, number: SegmentNumber, init: u32, part: Part) {
        if self.0.back().is_none_or(|open| open.number != number) {
            self.0.push_back(Cut { number, init, parts: 0, text: String::new() });
        }
        if let Some(open) = self.0.back_mut() {
            let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
            let (duration, at) = (Seconds(part.duration), open.parts);
            line(&mut open.text, format_args!("#EXT-X-PART:DURATION={duration},URI=\"{number}.{at}.m4s\"{independent}"));
            open.parts += 1;
        }
        while self.0.len() > LISTED {
            self.0.pop_front();
        }
    }

    /// Whether the parts of `number` are among those listed.
    pub fn lists(&self, number: SegmentNumber) -> bool {
        self.of(number).is_some()
    }

    /// The init section that segment `number` needs, where its parts are listed.
    pub fn init_of(&self, number: SegmentNumber) -> Option<u32> {
        self.of(number).map(|cut| cut.init)
    }

    fn of(&self, number: SegmentNumber) -> Option<&Cut> {
        self.0.iter().find(|cut| cut.number == number)
    }

    /// The newest part: its segment and its place there.
    pub fn newest(&self) -> Option<(SegmentNumber, usize)> {
        let open = self.0.back()?;
        Some((open.number, open.parts.checked_sub(1)?))
    }
}

/// What makes a live playlist a low-latency one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowLatency<'a> {
    /// The rendition's parts.
    pub parts: &'a PartWindow,
    /// The longest that a part may be, in ticks: `PART-TARGET`.
    pub target: Ticks,
    /// How far the run's other renditions are.
    pub reports: &'a [Report],
}

/// How far another rendition is, so that a player that changes to it asks for what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The other's name.
    pub rendition: String,
    /// Its newest segment with a part.
    pub number: SegmentNumber,
    /// That segment's newest part.
    pub part: usize,
}

pub(super) fn header(out: &mut String, low_latency: &LowLatency<'_>, target_duration: u64) {
    let target = seconds_up(low_latency.target);
    line(
        out,
        format_args!(
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={:.5},CAN-SKIP-UNTIL={}.0",
            target * HOLD_BACK,
            target_duration.saturating_mul(SKIP_UNTIL)
        ),
    );
    line(out, format_args!("#EXT-X-PART-INF:PART-TARGET={target:.5}"));
}

/// The parts of a segment that stands in the playlist.
pub(super) fn of_segment(out: &mut String, low_latency: &LowLatency<'_>, number: SegmentNumber) {
    if let Some(cut) = low_latency.parts.of(number) {
        out.push_str(&cut.text);
    }
}

/// The parts of the segment `next`, which is not finished; what follows them; and the other renditions. `init` is the
/// init section that the segments before it need.
pub(super) fn open(out: &mut String, low_latency: &LowLatency<'_>, next: SegmentNumber, init: Option<u32>) {
    let open = low_latency.parts.of(next);
    if let Some(cut) = open {
        if init != Some(cut.init) {
            line(out, format_args!("#EXT-X-MAP:URI=\"init-{}.mp4\"", cut.init));
        }
        out.push_str(&cut.text);
    }
    let hinted = open.map_or(0, |cut| cut.parts);
    line(out, format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{next}.{hinted}.m4s\""));
    for Report { rendition, number, part } in low_latency.reports {
        line(out, format_args!("#EXT-X-RENDITION-REPORT:URI=\"../{rendition}/live.m3u8\",LAST-MSN={number},LAST-PART={part}"));
    }
}

/// Rounded up to what the playlist shows, so that no part is longer than the target that stands there.
fn seconds_up(span: Ticks) -> f64 {
    (span.as_secs_f64() * 1e5).ceil() / 1e5
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part = Part { duration: Ticks(30_000), independent: false };

    #[test]
    fn only_the_newest_segments_list_their_parts() {
        let mut parts = PartWindow::default();
        for number in 0..6 {
            for _ in 0..3 {
                parts.push(SegmentNumber(number), 0, PART);
            }
        }
        assert_eq!((0..7).filter(|number| parts.lists(SegmentNumber(*number))).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(parts.newest(), Some((SegmentNumber(5), 2)));
    }
}
