//! The last minute of a run: feed frames as they are written to readers, one behind the other in a ring of bytes.
//!
//! The publisher only appends; a reader that is too slow falls off the ring's tail and goes on at a keyframe. Pure: no
//! lock, no clock, no socket.

use super::ring::Ring;
use crate::memory::Memory;
use bytes::{Bytes, BytesMut};
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, Head, HeadKind, Track};
use lectern_media::timeline::TrackEnd;
use std::collections::VecDeque;

/// How much of a run is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Whole groups of pictures older than this are dropped.
    pub span: Ticks,
    /// As are those by which the ring is larger than this, in bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { span: Ticks(60 * 90_000), bytes: 64 * 1024 * 1024 }
    }
}

/// The parameters of both tracks that hold at some place of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Configs {
    video: Option<(Codec, Bytes)>,
    audio: Option<(Codec, Bytes)>,
}

impl Configs {
    /// Sets a track's parameters; true if they are new.
    pub(super) fn put(&mut self, track: Track, codec: Codec, config: Bytes) -> bool {
        let slot = match track {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        };
        let new = Some((codec, config));
        let changed = *slot != new;
        *slot = new;
        changed
    }

    fn each(&self) -> impl Iterator<Item = (Track, Codec, Bytes)> {
        let of = |track, slot: &Option<(Codec, Bytes)>| slot.clone().map(|(codec, config)| (track, codec, config));
        [of(Track::Video, &self.video), of(Track::Audio, &self.audio)].into_iter().flatten()
    }
}

/// Where reading can start.
#[derive(Debug)]
struct Start {
    position: u64,
    dts: Ticks,
    configs: Configs,
}

/// The ring and what is known of it.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    /// Whole frames, the first one at the first start.
    ring: Ring,
    /// The starts among the kept frames, oldest first.
    starts: VecDeque<Start>,
}

/// A reader's place in the ring.
#[derive(Debug)]
pub(super) struct Cursor {
    place: Place,
    sent: Configs,
    ends: [TrackEnd; 2],
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Not begun: at the last start at or before this time, or at the newest one.
    Start(Option<Ticks>),
    /// The next frame's position.
    At(u64),
}

impl History {
    /// An empty one, which is kept in `pool`.
    pub(super) fn new(limits: Limits, pool: Memory) -> Self {
        Self { limits, ring: Ring::new(pool), starts: VecDeque::new() }
    }

    /// Keeps so much of the past from now on.
    pub(super) fn keep(&mut self, span: Ticks) {
        self.limits.span = span;
    }

    /// Appends an access unit. `start`: readers may begin here, under `configs`. What comes before the first start could
    /// be read by nobody and is not kept.
    pub(super) fn push(&mut self, unit: &AccessUnit, start: bool, configs: &Configs) {
        if start {
            self.starts.push_back(Start { position: self.ring.end(), dts: unit.dts, configs: configs.clone() });
        }
        if self.starts.is_empty() {
            return;
        }
        self.ring.append(&unit.head());
        self.ring.append(&unit.payload);
        self.trim(unit.dts);
    }

    /// Appends what is no access unit.
    pub(super) fn note(&mut self, frame: &FeedFrame) {
        if self.starts.is_empty() {
            return;
        }
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        self.ring.append(&bytes);
    }

    /// Whether so much is kept, up to `newest`, or half of what may be.
    pub(super) fn has_kept(&self, span: Ticks, newest: Ticks) -> bool {
        let Some(first) = self.starts.front() else { return false };
        let bytes = self.ring.end() - first.position;
        newest.since(first.dts) >= span.min(Ticks(self.limits.span.0 / 2)) || bytes >= self.limits.bytes as u64 / 2
    }

    /// The newest place to start at.
    pub(super) fn newest_start(&self) -> Option<Ticks> {
        self.starts.back().map(|start| start.dts)
    }

    /// The newest media, from the last start at or before `from`, or from a later one so that it is `most` bytes at most; `None` where there
    /// is no such start.
    pub(super) fn tail(&self, from: Ticks, most: usize) -> Option<Cursor> {
        let fits = |start: &&Start| self.ring.end() - start.position <= most as u64;
        let mut fitting = self.starts.iter().filter(fits);
        let first = fitting.next()?;
        let start = fitting.take_while(|start| start.dts <= from).last().unwrap_or(first);
        Some(Cursor::new(Some(start.dts)))
    }

    /// Writes the frames that follow `cursor` to `out`, about `most` bytes of them, and moves the cursor. Where the reader had
    /// lost its place because it was too slow: up to when it had read.
    pub(super) fn read(&self, cursor: &mut Cursor, out: &mut BytesMut, most: usize) -> Option<Ticks> {
        let mut lapsed = None;
        if let Place::At(next) = cursor.place
            && next < self.first()
        {
            let from = cursor.ends.iter().filter_map(TrackEnd::end).max().unwrap_or_default();
            lapsed = Some(from);
            FeedFrame::Gap { from, reason: "this reader was too slow".to_owned() }.encode(out);
            cursor.place = Place::Start(None);
        }
        let mut next = match cursor.place {
            Place::At(next) => next,
            Place::Start(from) => {
                let Some(start) = self.start_for(from) else { return lapsed };
                if let Some(from) = from.filter(|from| Ticks(0) < *from && *from < start.dts) {
                    // Older than the ring, or sent to an owner before this one.
                    FeedFrame::Gap { from, reason: "what came before this keyframe is not kept here".to_owned() }.encode(out);
                }
                for (track, codec, config) in start.configs.each() {
                    cursor.config(track, codec, config, out);
                }
                start.position
            }
        };
        let full = out.len().saturating_add(most);
        while out.len() < full && next < self.ring.end() {
            let head = self.head(next);
            let until = next + head.length as u64;
            match head.kind {
                HeadKind::Config => self.config(next, until, cursor, out),
                HeadKind::AccessUnit { track, dts } => {
                    cursor.ends[track as usize].saw(dts);
                    self.ring.pieces(next, until).for_each(|piece| out.extend_from_slice(piece));
                }
                HeadKind::Other => self.ring.pieces(next, until).for_each(|piece| out.extend_from_slice(piece)),
            }
            next = until;
        }
        cursor.place = Place::At(next);
        lapsed
    }

    fn head(&self, position: u64) -> Head {
        let mut head = [0; Head::BYTES];
        let mut rest = &mut head[..];
        for piece in self.ring.pieces(position, position + Head::BYTES as u64) {
            let (these, others) = rest.split_at_mut(piece.len());
            these.copy_from_slice(piece);
            rest = others;
        }
        Head::read(&head)
    }

    /// Parameters that the reader has are not sent again.
    fn config(&self, from: u64, until: u64, cursor: &mut Cursor, out: &mut BytesMut) {
        let mut bytes = BytesMut::new();
        self.ring.pieces(from, until).for_each(|piece| bytes.extend_from_slice(piece));
        if let Ok(Some(FeedFrame::Config { track, codec, config })) = FeedFrame::decode(&mut bytes) {
            cursor.config(track, codec, config, out);
        }
    }

    fn start_for(&self, from: Option<Ticks>) -> Option<&Start> {
        let Some(from) = from else { return self.starts.back() };
        self.starts.iter().rev().find(|start| start.dts <= from).or(self.starts.front())
    }

    /// Where the oldest frame lies that can be read.
    fn first(&self) -> u64 {
        self.starts.front().map_or(self.ring.end(), |start| start.position)
    }

    fn outgrows(&self) -> bool {
        self.ring.end() - self.first() > self.limits.bytes as u64
    }

    fn trim(&mut self, newest: Ticks) {
        while let Some(second) = self.starts.get(1)
            && (self.outgrows() || newest.since(second.dts) >= self.limits.span)
        {
            self.starts.pop_front();
        }
        if self.outgrows() {
            // One group of pictures that outgrows the ring: a keyframe has to come before anybody can read on, and readers
            // at the very end have lost their place, too.
            self.starts.clear();
            self.ring.clear();
        }
        self.ring.release(self.first());
    }
}

impl Cursor {
    /// A reader that begins at the last start at or before `from`, or at the newest one.
    pub(super) fn new(from: Option<Ticks>) -> Self {
        Self { place: Place::Start(from), sent: Configs::default(), ends: [TrackEnd::default(); 2] }
    }

    fn config(&mut self, track: Track, codec: Codec, config: Bytes, out: &mut BytesMut) {
        if self.sent.put(track, codec, config.clone()) {
            FeedFrame::Config { track, codec, config }.encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::BLOCK_BYTES;

    const FRAME: u64 = 3_000;

    /// A run with a keyframe every ten frames of 1000 bytes.
    fn history(frames: u64, limits: Limits) -> History {
        let mut history = History::new(limits, Memory::new(usize::MAX));
        let mut configs = Configs::default();
        configs.put(Track::Video, Codec::H264, Bytes::from_static(b"avcC"));
        extend(&mut history, 0..frames, &configs);
        history
    }

    fn extend(history: &mut History, frames: std::ops::Range<u64>, configs: &Configs) {
        for frame in frames {
            let dts = Ticks(frame * FRAME);
            let keyframe = frame % 10 == 0;
            let unit = AccessUnit { track: Track::Video, dts, pts: dts, keyframe, payload: Bytes::from(vec![0; 1000]) };
            history.push(&unit, keyframe, configs);
        }
    }

    fn read(history: &History, cursor: &mut Cursor) -> Vec<FeedFrame> {
        let mut out = BytesMut::new();
        history.read(cursor, &mut out, usize::MAX);
        std::iter::from_fn(|| FeedFrame::decode(&mut out).expect("what was written")).collect()
    }

    fn first_unit(frames: &[FeedFrame]) -> u64 {
        let unit = frames.iter().find_map(|frame| match frame {
            FeedFrame::AccessUnit(unit) => Some(unit),
            _ => None,
        });
        let unit = unit.expect("an access unit");
        assert!(unit.keyframe);
        unit.dts.0 / FRAME
    }

    #[test]
    fn a_reader_begins_with_configs_and_a_keyframe() {
        let history = history(35, Limits::default());
        let frames = read(&history, &mut Cursor::new(None));
        assert!(matches!(frames[0], FeedFrame::Config { track: Track::Video, .. }));
        assert_eq!((first_unit(&frames), frames.len()), (30, 6));
    }

    #[test]
    fn a_reader_with_a_time_begins_at_the_keyframe_before_it() {
        let history = history(35, Limits::default());
        for (from, begins) in [(0, 0), (19, 10), (20, 20), (1000, 30)] {
            assert_eq!(first_unit(&read(&history, &mut Cursor::new(Some(Ticks(from * FRAME))))), begins, "from {from}");
        }
    }

    #[test]
    fn the_tail_begins_at_the_keyframe_before_or_at_a_later_one_where_that_is_too_much() {
        let history = history(35, Limits::default());
        let begins = |from: u64, most: usize| {
            let mut cursor = history.tail(Ticks(from * FRAME), most)?;
            Some(first_unit(&read(&history, &mut cursor)))
        };
        assert_eq!([0, 19, 20, 1000].map(|from| begins(from, usize::MAX)), [0, 10, 20, 30].map(Some));
        assert_eq!((begins(5, 20_000), begins(5, 6_000), begins(5, 100)), (Some(20), Some(30), None));
    }

    #[test]
    fn old_groups_leave_whole() {
        let history = history(95, Limits { span: Ticks(30 * FRAME), bytes: usize::MAX });
        assert_eq!(first_unit(&read(&history, &mut Cursor::new(Some(Ticks(0))))), 60);
    }

    #[test]
    fn a_reader_that_asks_for_what_is_not_kept_is_told_so() {
        let history = history(95, Limits { span: Ticks(30 * FRAME), bytes: usize::MAX });
        let frames = read(&history, &mut Cursor::new(Some(Ticks(59 * FRAME))));
        let gap = FeedFrame::Gap { from: Ticks(59 * FRAME), reason: "what came before this keyframe is not kept here".into() };
        assert_eq!((&frames[0], first_unit(&frames)), (&gap, 60));
        // At the keyframe itself nothing is missing.
        let frames = read(&history, &mut Cursor::new(Some(Ticks(60 * FRAME))));
        assert!(matches!(frames[0], FeedFrame::Config { .. }), "{:?}", frames[0]);
    }

    #[test]
    fn a_reader_that_falls_off_gets_a_gap_and_then_a_keyframe() {
        let limits = Limits { span: Ticks(u64::MAX), bytes: 30_000 };
        let mut history = history(5, limits);
        let mut cursor = Cursor::new(None);
        read(&history, &mut cursor);
        extend(&mut history, 5..105, &Configs::default());
        let frames = read(&history, &mut cursor);
        assert_eq!(frames[0], FeedFrame::Gap { from: Ticks(5 * FRAME), reason: "this reader was too slow".into() });
        assert_eq!(first_unit(&frames), 100);
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut history = history(1, Limits::default());
        let unit = |dts, pts| AccessUnit {
            track: Track::Video,
            dts: Ticks(dts),
            pts: Ticks(pts),
            keyframe: false,
            payload: Bytes::from_static(b"p"),
        };
        let units = [unit(90_000, 97_200), unit(93_000, 90_000), unit(96_000, 96_000 + (1 << 40)), unit(1 << 41, 0)];
        units.iter().for_each(|unit| history.push(unit, false, &Configs::default()));
        let frames = read(&history, &mut Cursor::new(None));
        assert_eq!(frames[2..], units.map(FeedFrame::AccessUnit));
    }

    #[test]
    fn a_group_that_never_ends_does_not_outgrow_the_ring() {
        let pool = Memory::new(usize::MAX);
        let mut history = History::new(Limits { span: Ticks(u64::MAX), bytes: 20_000 }, pool.clone());
        let configs = Configs::default();
        let mut cursor = Cursor::new(None);
        for frame in 0..1000u64 {
            let dts = Ticks(frame * FRAME);
            let unit = AccessUnit { track: Track::Video, dts, pts: dts, keyframe: frame == 0, payload: Bytes::from(vec![0; 1000]) };
            history.push(&unit, frame == 0, &configs);
            read(&history, &mut cursor);
            assert!(pool.held() <= 20_000 + 2 * BLOCK_BYTES);
        }
        extend(&mut history, 1000..1001, &configs);
        assert_eq!(first_unit(&read(&history, &mut cursor)), 1000);
    }
}
