//! The MPD of a recording: static, all of it, a Period for each stretch without a hole.

use super::xml::Xml;
use super::{Duration, MIN_BUFFER, NAMESPACE, PROFILES, Representation, Stretch, Timing, adaptation_sets};
use crate::hls::Segment;
use lectern_contract::ledger::EndedRendition;
use lectern_contract::{SegmentDuration, Ticks};
use std::ops::Range;

/// A rendition and what there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// The rendition.
    pub named: &'a EndedRendition,
    /// Its segments, in the order of their numbers. List only those that **every** rendition has:
    /// [`common_numbers`](crate::hls::common_numbers).
    pub segments: Vec<Segment>,
}

/// The text of the MPD of a recording, to be served as `vod.mpd` in the run's folder; `None` where there are no segments. `captions`: its
/// pictures carry some.
///
/// A Period begins where a number is missing and where a rendition has another init section. Periods follow each other, so the
/// seek bar has no hole, as in the VOD playlists: `presentationTimeOffset` leads from the run's time to the Period's. A Period ends with
/// the media of its last segment; a slot that is not filled at its beginning (the publisher came in the middle of it) stays so.
pub fn vod_mpd(segment_duration: SegmentDuration, renditions: &[Recorded<'_>], captions: bool) -> Option<String> {
    let periods = periods(renditions);
    let lasts: Vec<Ticks> = periods.iter().map(|period| length(segment_duration, renditions, period)).collect();
    if periods.is_empty() {
        return None;
    }
    let mut xml = Xml::document();
    xml.element("MPD")
        .attr("xmlns", NAMESPACE)
        .attr("profiles", PROFILES)
        .attr("type", "static")
        .attr("mediaPresentationDuration", Duration(Ticks(lasts.iter().map(|length| length.0).sum())))
        .attr("maxSegmentDuration", Duration(segment_duration.ticks()))
        .attr("minBufferTime", Duration(MIN_BUFFER))
        .with(|xml| {
            for (id, (period, length)) in periods.iter().zip(&lasts).enumerate() {
                let stretches = renditions.iter().filter_map(|it| {
                    let (first, last) = (it.segments.get(period.start)?, it.segments.get(period.end - 1)?);
                    Some(Representation { named: it.named, stretch: Stretch::between(first.number, last.number, first.init) })
                });
                let stretches: Vec<_> = stretches.collect();
                let zero = stretches.first().map_or(Ticks::default(), |it| it.stretch.first().start(segment_duration));
                let timing = Timing { segment_duration, zero, ahead: None, reference: None, captions };
                // Without a start a Period begins where the one before it ends (§5.3.2.1).
                let start = (id == 0).then_some("PT0S");
                xml.element("Period")
                    .attr("id", id)
                    .attr_if("start", start)
                    .attr("duration", Duration(*length))
                    .with(|xml| adaptation_sets(xml, &timing, &stretches));
            }
        });
    Some(xml.finish())
}

/// The stretches, as places in the renditions' lists.
fn periods(renditions: &[Recorded<'_>]) -> Vec<Range<usize>> {
    let shortest = renditions.iter().map(|it| it.segments.len()).min().unwrap_or_default();
    let begins = |at: &usize| {
        *at == 0
            || renditions.iter().any(|it| {
                let (before, this) = (it.segments[at - 1], it.segments[*at]);
                before.number.next() != this.number || before.init != this.init
            })
    };
    let starts: Vec<usize> = (0..shortest).filter(begins).collect();
    let ends = starts.iter().skip(1).copied().chain([shortest]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// From the first slot's start to the end of the last segment's media, which does not reach over its slot. A single segment may begin
/// late instead of ending early, and counts as its slot.
fn length(segment_duration: SegmentDuration, renditions: &[Recorded<'_>], period: &Range<usize>) -> Ticks {
    let slot = segment_duration.ticks().0;
    let before = (period.len() as u64 - 1) * slot; // no period is empty
    let last = renditions.iter().map(|it| it.segments[period.end - 1].duration.0.min(slot)).max().filter(|_| before > 0);
    Ticks(before + last.unwrap_or(slot))
}
