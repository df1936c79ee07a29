//! Cuts one rendition's samples into segments. Pure: samples in, bytes out.

use crate::engine::Encoded;
use bytes::Bytes;
use lectern_contract::{SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks};
use lectern_media::cmaf::{self, CmafError, Sample};

/// A finished segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number: where its first sample starts, by the run's clock.
    pub number: SegmentNumber,
    /// From its first sample's start to its last one's end, in ticks.
    pub duration: Ticks,
    /// Which init section it needs.
    pub init: u32,
    /// The file.
    pub body: Bytes,
}

impl Segment {
    /// Where it ends at the latest, on the run's timeline.
    pub fn end(&self, duration: SegmentDuration) -> Ticks {
        self.number.start(duration).plus(self.duration)
    }
}

/// Collects samples until their segment is complete.
#[derive(Debug)]
pub struct Packager {
    timescale: u32,
    segment_duration: SegmentDuration,
    init: u32,
    open: Option<Open>,
    /// The newest number that was cut: nothing at or before it is made again.
    last: Option<SegmentNumber>,
    late: u64,
}

#[derive(Debug)]
struct Open {
    number: SegmentNumber,
    start: u64,
    end: u64,
    samples: Vec<Sample>,
}

impl Packager {
    /// A packager for a track of `timescale` units a second, whose newest segment so far is `last`.
    pub fn new(timescale: u32, segment_duration: SegmentDuration, last: Option<SegmentNumber>) -> Self {
        Self { timescale, segment_duration, init: 0, open: None, last, late: 0 }
    }

    /// From here on segments need init section `init`. The open segment is complete: it needs the one before.
    ///
    /// # Errors
    /// As [`cmaf::segment`].
    pub fn set_init(&mut self, init: u32) -> Result<Option<Segment>, CmafError> {
        let done = self.cut()?;
        self.init = init;
        Ok(done)
    }

    /// Adds a sample; the segment that it completes by belonging to a later one.
    ///
    /// A hole within a segment is bridged by the sample before it. Samples that come after their segment was cut (the
    /// silence was taken for its end) are dropped and counted.
    ///
    /// # Errors
    /// As [`cmaf::segment`].
    pub fn push(&mut self, encoded: Encoded) -> Result<Option<Segment>, CmafError> {
        let number = SegmentNumber::of(self.ticks(encoded.start), self.segment_duration);
        if self.last.is_some_and(|last| number <= last) {
            self.late += 1;
            return Ok(None);
        }
        let done = if self.open.as_ref().is_some_and(|open| open.number != number) { self.cut()? } else { None };
        let end = encoded.start + u64::from(encoded.duration);
        let sample = Sample { data: encoded.data, duration: encoded.duration, composition_offset: 0, sync: encoded.sync };
        match &mut self.open {
            None if !sample.sync => self.late += 1, // nothing decodes before a keyframe
            None => self.open = Some(Open { number, start: encoded.start, end, samples: vec![sample] }),
            Some(open) => {
                let hole = encoded.start.saturating_sub(open.end);
                if let Some(before) = open.samples.last_mut() {
                    before.duration = before.duration.saturating_add(u32::try_from(hole).unwrap_or(u32::MAX));
                }
                open.end = end;
                open.samples.push(sample);
            }
        }
        Ok(done)
    }

    /// Ends the open segment, if there is one.
    ///
    /// # Errors
    /// As [`cmaf::segment`].
    pub fn cut(&mut self) -> Result<Option<Segment>, CmafError> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let sequence = open.number.0 as u32; // mfhd's field has 32 bits and need only grow (ISO/IEC 14496-12 §8.8.5)
        let body = cmaf::segment(sequence, open.start, &open.samples)?;
        self.last = Some(open.number);
        Ok(Some(Segment { number: open.number, duration: self.ticks(open.end - open.start), init: self.init, body }))
    }

    /// Samples that came too late for their segment, or before any keyframe.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn ticks(&self, units: u64) -> Ticks {
        let ticks = u128::from(units) * u128::from(TICKS_PER_SECOND) / u128::from(self.timescale.max(1));
        Ticks(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

    fn picture(slot: u64) -> Encoded {
        Encoded { start: slot * 3000, duration: 3000, sync: slot.is_multiple_of(60), data: Bytes::from_static(b"nal") }
    }

    fn packager() -> Packager {
        Packager::new(90_000, TWO, None)
    }

    fn push_all(packager: &mut Packager, slots: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        let done = slots.into_iter().filter_map(|slot| packager.push(picture(slot)).unwrap());
        done.map(|segment| (segment.number.0, segment.duration.0)).collect()
    }

    #[test]
    fn a_segment_is_complete_when_the_next_one_begins() {
        let mut packager = packager();
        assert_eq!(push_all(&mut packager, 60..181), [(1, 180_000), (2, 180_000)]);
        let rest = packager.cut().unwrap().unwrap();
        assert_eq!((rest.number.0, rest.duration.0), (3, 3000));
    }

    #[test]
    fn a_hole_within_a_segment_is_bridged() {
        let mut packager = packager();
        assert_eq!(push_all(&mut packager, (0..10).chain(50..61)), [(0, 180_000)]);
    }

    #[test]
    fn a_number_is_never_made_twice() {
        let mut packager = packager();
        push_all(&mut packager, 0..30);
        assert!(packager.cut().unwrap().is_some());
        assert_eq!(push_all(&mut packager, 30..60), []);
        assert_eq!(packager.late(), 30);
        assert_eq!(push_all(&mut packager, 60..121), [(1, 180_000)]);
    }

    #[test]
    fn a_segment_opens_with_a_keyframe() {
        let mut packager = packager();
        assert_eq!(push_all(&mut packager, 30..121), [(1, 180_000)]);
        assert_eq!(packager.late(), 30);
    }

    #[test]
    fn a_new_init_section_starts_a_new_segment() {
        let mut packager = packager();
        push_all(&mut packager, 0..30);
        let done = packager.set_init(1).unwrap().unwrap();
        assert_eq!(done.init, 0);
        assert_eq!(push_all(&mut packager, 60..121).len(), 1);
        assert_eq!(packager.cut().unwrap().unwrap().init, 1);
    }
}
