//! Cuts one rendition's samples into segments, and those into parts. Pure: samples in, bytes out.

use crate::body::Body;
use crate::engine::Encoded;
use bytes::Bytes;
use lectern_contract::feed::TimedMetadata;
use lectern_contract::{PartCount, SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks, WallMillis};
use lectern_media::cmaf::{self, CmafError, Sample};
use lectern_media::metadata;
use std::collections::VecDeque;

/// Event messages that wait for samples: more than a run may say in a few seconds. Where none come, the oldest are forgotten.
const MAX_EVENTS: usize = 256;

/// A finished segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its number: where its first sample starts, by the run's clock.
    pub number: SegmentNumber,
    /// From its number's time to its first sample's start, in ticks.
    pub offset: Ticks,
    /// From its first sample's start to its last one's end, in ticks.
    pub duration: Ticks,
    /// Which init section it needs.
    pub init: u32,
    /// The file.
    pub body: Body,
    /// How many parts, joined, are the file; zero where it was not cut into parts.
    pub parts: u32,
}

/// A finished part of a segment.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its segment's number.
    pub number: SegmentNumber,
    /// Its place in the segment, from zero.
    pub index: u32,
    /// Which init section it needs.
    pub init: u32,
    /// From its first sample's start to its last one's end, in ticks.
    pub duration: Ticks,
    /// Decoding can start with it.
    pub independent: bool,
    /// The file.
    pub body: Body,
}

/// What a packager has finished.
#[derive(Debug, Clone)]
pub enum Made {
    /// The next part of the open segment.
    Part(Part),
    /// The open segment, after its last part.
    Segment(Segment),
}

impl Segment {
    /// Where it ends, on the run's timeline.
    pub fn end(&self, duration: SegmentDuration) -> Ticks {
        self.number.start(duration).plus(self.offset).plus(self.duration)
    }
}

/// Collects samples until their part and their segment are complete.
#[derive(Debug)]
pub struct Packager {
    timescale: u32,
    segment_duration: SegmentDuration,
    parts: Option<PartCount>,
    anchor: Option<WallMillis>,
    init: u32,
    open: Option<Open>,
    /// The newest number that was cut: nothing at or before it is made again.
    last: Option<SegmentNumber>,
    late: u64,
    /// Event messages that belong before fragments to come, by their times, the earliest first.
    events: VecDeque<(Ticks, Bytes)>,
}

/// A segment under way. Times are in the track's timescale.
#[derive(Debug)]
struct Open {
    number: SegmentNumber,
    start: u64,
    /// Where the newest sample ends.
    end: u64,
    /// The part under way; without parts, the whole segment.
    part: OpenPart,
    /// The finished parts, and how many they are.
    body: Body,
    finished: u32,
}

#[derive(Debug, Default)]
struct OpenPart {
    start: u64,
    /// Its place in the segment, by the time of its start.
    place: u64,
    samples: Vec<Sample>,
}

impl Open {
    /// Lets the newest sample last until `start`, if its part is not finished.
    fn bridge(&mut self, start: u64) {
        let hole = u32::try_from(start.saturating_sub(self.end)).unwrap_or(u32::MAX);
        if let Some(newest) = self.part.samples.last_mut().filter(|_| hole > 0) {
            newest.duration = newest.duration.saturating_add(hole);
            self.end = start;
        }
    }
}

impl Packager {
    /// A packager for a track of `timescale` units a second, whose newest segment so far is `last`.
    pub fn new(timescale: u32, segment_duration: SegmentDuration, parts: Option<PartCount>, last: Option<SegmentNumber>) -> Self {
        Self { timescale, segment_duration, parts, anchor: None, init: 0, open: None, last, late: 0, events: VecDeque::new() }
    }

    /// Segments tell when they were captured: the wall clock's time of the run's epoch is `anchor`.
    #[must_use]
    pub fn telling_when(self, anchor: WallMillis) -> Self {
        Self { anchor: Some(anchor), ..self }
    }

    /// What the publisher has said goes before the part, or the segment, that its time lies in; where that is made, before the next one. Comes in the order of
    /// its times, and before the samples of its time.
    ///
    /// # Errors
    /// As [`metadata::event_message`].
    pub fn say(&mut self, said: &TimedMetadata) -> Result<(), CmafError> {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((said.at, metadata::event_message(said)?));
        Ok(())
    }

    /// From here on segments need init section `init`. Where that is another, the open segment is complete: it needs the one before. An encoder that says the same of
    /// itself again goes on within the segment.
    ///
    /// # Errors
    /// As [`cmaf::segment_head`].
    pub fn set_init(&mut self, init: u32) -> Result<Vec<Made>, CmafError> {
        let made = if self.init == init { Vec::new() } else { self.cut()? };
        self.init = init;
        Ok(made)
    }

    /// Adds a sample; what is complete with it, in the order in which it must be published.
    ///
    /// A part, or a segment, is complete with the sample that reaches its end, else with the first of a later one. A hole
    /// within a part is bridged by the sample before it. Samples that come after their segment was cut (the silence was
    /// taken for its end) are dropped and counted.
    ///
    /// # Errors
    /// As [`cmaf::segment_head`].
    pub fn push(&mut self, encoded: Encoded) -> Result<Vec<Made>, CmafError> {
        let (start, end) = (encoded.start, encoded.start + u64::from(encoded.duration));
        let ((number, place), after) = (self.place(start), self.place(end));
        if self.last.is_some_and(|last| number <= last) {
            self.late += 1;
            return Ok(Vec::new());
        }
        let mut made = if self.open.as_ref().is_some_and(|open| open.number != number) { self.cut()? } else { Vec::new() };
        if self.open.is_none() && !encoded.sync {
            self.late += 1; // nothing decodes before a keyframe
            return Ok(made);
        }
        if let Some(open) = &mut self.open {
            open.bridge(start);
        }
        if self.open.as_ref().is_some_and(|open| open.part.place != place) {
            made.extend(self.cut_part()?);
        }
        let open = self.open.get_or_insert_with(|| Open {
            number,
            start,
            end: start,
            part: OpenPart { start, place, samples: Vec::new() },
            body: Body::default(),
            finished: 0,
        });
        if open.part.samples.is_empty() {
            (open.part.start, open.part.place) = (start, place);
        }
        open.part.samples.push(Sample { data: encoded.data, duration: encoded.duration, composition_offset: 0, sync: encoded.sync });
        open.end = end;
        if after.0 != number {
            made.extend(self.cut()?);
        } else if after.1 != place {
            made.extend(self.cut_part()?);
        }
        Ok(made)
    }

    /// Ends the open part and segment, if there is one.
    ///
    /// # Errors
    /// As [`cmaf::segment_head`].
    pub fn cut(&mut self) -> Result<Vec<Made>, CmafError> {
        let mut made = Vec::new();
        made.extend(self.cut_part()?);
        let Some(open) = self.open.take() else { return Ok(made) };
        self.last = Some(open.number);
        made.push(Made::Segment(Segment {
            number: open.number,
            offset: self.ticks(open.start).since(open.number.start(self.segment_duration)),
            duration: self.ticks(open.end - open.start),
            init: self.init,
            body: open.body,
            parts: if self.parts.is_some() { open.finished } else { 0 },
        }));
        Ok(made)
    }

    /// Ends the open part; says so where parts are wanted.
    fn cut_part(&mut self) -> Result<Option<Made>, CmafError> {
        let (anchor, timescale) = (self.anchor, self.timescale);
        let Some(open) = self.open.as_mut().filter(|open| !open.part.samples.is_empty()) else { return Ok(None) };
        let OpenPart { start, samples, .. } = std::mem::take(&mut open.part);
        // mfhd's field has 32 bits and need only grow (ISO/IEC 14496-12 §8.8.5).
        let most = self.parts.map_or(1, |parts| u64::from(parts.get()));
        let sequence = open.number.0.wrapping_mul(most).wrapping_add(open.finished.into()) as u32;
        let independent = samples.first().is_some_and(|sample| sample.sync);
        let until = ticks(open.end, timescale);
        let events: Vec<Bytes> = std::iter::from_fn(|| self.events.pop_front_if(|(at, _)| *at < until).map(|(_, event)| event)).collect();
        let head = match open.finished {
            0 => {
                let captured = anchor.map(|anchor| WallMillis(anchor.0.saturating_add(ticks(start, timescale).as_millis())));
                cmaf::segment_head(sequence, start, captured, &events, &samples)?
            }
            _ => cmaf::chunk_head(sequence, start, &events, &samples)?,
        };
        let body = Body::of(std::iter::once(head).chain(samples.into_iter().map(|sample| sample.data)).collect());
        let index = open.finished;
        open.finished += 1;
        let (number, end) = (open.number, open.end);
        open.body.append(&body);
        if self.parts.is_none() {
            return Ok(None);
        }
        let duration = self.ticks(end - start);
        Ok(Some(Made::Part(Part { number, index, init: self.init, duration, independent, body })))
    }

    /// Samples that came too late for their segment, or before any keyframe.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The number of the segment that a sample belongs to.
    pub fn number_of(&self, sample: &Encoded) -> SegmentNumber {
        self.place(sample.start).0
    }

    /// Which segment a time is in, and which part of it; always the same one where there are no parts.
    fn place(&self, units: u64) -> (SegmentNumber, u64) {
        let at = self.ticks(units);
        (SegmentNumber::of(at, self.segment_duration), self.parts.map_or(0, |parts| parts.index(at, self.segment_duration)))
    }

    fn ticks(&self, units: u64) -> Ticks {
        ticks(units, self.timescale)
    }
}

/// The number of an init section, where `known` is the newest that is stored; whether it is that one.
pub fn init_number(known: Option<&(u32, Bytes)>, body: &Bytes) -> (u32, bool) {
    match known {
        Some((number, known)) if known == body => (*number, true),
        Some((number, _)) => (number + 1, false),
        None => (0, false),
    }
}

fn ticks(units: u64, timescale: u32) -> Ticks {
    if u64::from(timescale) == TICKS_PER_SECOND {
        return Ticks(units);
    }
    // For the first hundred years the product fits.
    units.checked_mul(TICKS_PER_SECOND).map_or(Ticks(u64::MAX), |product| Ticks(product / u64::from(timescale.max(1))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
