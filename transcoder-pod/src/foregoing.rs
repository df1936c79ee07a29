//! The parts of segments that a predecessor made, as its successor lists them.
//!
//! Parts near the live edge may not leave a playlist (draft-pantos-hls-rfc8216bis §6.2.2). Where those before a planned move did, hls.js 1.7 gave up
//! parts for a segment ("LL-Part loading OFF") and stood still for 0.8 s. A successor has encoded these segments, too, to get ready, and two
//! transcoders of a run agree on where parts begin and end: so it knows them without having been told.

use crate::engine::Encoded;
use crate::packager::{Made, Packager, Part};
use lectern_contract::{PartCount, SegmentDuration, SegmentNumber};
use lectern_media::cmaf::CmafError;

/// Cuts what comes before a successor's first segment, to know its parts.
#[derive(Debug)]
pub struct Foregoing {
    packager: Packager,
    count: PartCount,
    next: SegmentNumber,
    open: Vec<Part>,
}

impl Foregoing {
    /// Of a track of `timescale` units a second in a run whose segments have `count` parts, and from `next` on are this child's.
    pub fn new(timescale: u32, duration: SegmentDuration, count: PartCount, next: SegmentNumber) -> Self {
        Self { packager: Packager::new(timescale, duration, Some(count), None), count, next, open: Vec::new() }
    }

    /// Takes a sample from before `next`; all parts of the segment that is whole with it. One that was joined on its way, or has a hole, has other
    /// parts than its maker's, and is not told of.
    ///
    /// # Errors
    /// As [`Packager::push`].
    pub fn push(&mut self, sample: Encoded) -> Result<Vec<Part>, CmafError> {
        let mut whole = Vec::new();
        for made in self.packager.push(sample)? {
            match made {
                Made::Part(part) => self.open.push(part),
                Made::Segment(segment) => {
                    let parts = std::mem::take(&mut self.open);
                    if segment.number < self.next && parts.len() == usize::from(self.count.get()) {
                        whole = parts;
                    }
                }
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// One of 30 a second, every `nth` of them a keyframe.
    fn picture(slot: u64, nth: u64) -> Encoded {
        Encoded { start: slot * 3000, duration: 3000, sync: slot.is_multiple_of(nth), data: Bytes::from_static(b"nal") }
    }

    #[test]
    fn a_successor_knows_the_parts_of_each_whole_segment_before_its_first() {
        let mut foregoing = Foregoing::new(90_000, SegmentDuration::LOW_LATENCY, PartCount::LOW_LATENCY, SegmentNumber(3));
        // Segment 0 from its middle on, 1 whole, 2 as far as it came.
        let told = |parts: Vec<Part>| {
            parts.into_iter().map(|part| (part.number.0, part.index, part.duration.0, part.independent)).collect::<Vec<_>>()
        };
        let known: Vec<_> = (30..150).flat_map(|slot| told(foregoing.push(picture(slot, 30)).unwrap())).collect();
        assert_eq!(known, (0..6).map(|index| (1, index, 30_000, index % 3 == 0)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_its_own_is_not_foregoing() {
        let mut foregoing = Foregoing::new(90_000, SegmentDuration::LOW_LATENCY, PartCount::LOW_LATENCY, SegmentNumber(1));
        let known: Vec<u64> = (0..120).flat_map(|slot| foregoing.push(picture(slot, 60)).unwrap()).map(|part| part.number.0).collect();
        assert_eq!(known, [0; 6]);
    }
}
