//! The last minute of a run: a ring of feed frames that readers walk by sequence number.
//!
//! The publisher only appends; a reader that is too slow falls off the ring's tail and goes on at a keyframe. Pure: no
//! lock, no clock, no socket.

use bytes::Bytes;
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, Track};
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

/// Memory that an entry takes beside its payload, about, in bytes; it is counted with it. It is the ring's own, with the room
/// that the ring has ahead, and the allocator's for the payload.
pub const ENTRY_BYTES: usize = 80;

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

/// What the ring holds. A minute of a lecture has five thousand of them, so they are small.
#[derive(Debug)]
enum Entry {
    Unit {
        payload: Bytes,
        dts: Ticks,
        composition: i32,
        track: Track,
        keyframe: bool,
    },
    /// All that is rare.
    Other(Box<FeedFrame>),
}

impl Entry {
    fn new(unit: AccessUnit) -> Self {
        let AccessUnit { track, dts, pts, keyframe, payload } = unit;
        match i32::try_from(i128::from(pts.0) - i128::from(dts.0)) {
            Ok(composition) => Self::Unit { payload, dts, composition, track, keyframe },
            Err(_) => Self::Other(Box::new(FeedFrame::AccessUnit(AccessUnit { track, dts, pts, keyframe, payload }))),
        }
    }

    fn frame(&self) -> FeedFrame {
        match self {
            Self::Unit { payload, dts, composition, track, keyframe } => FeedFrame::AccessUnit(AccessUnit {
                track: *track,
                dts: *dts,
                pts: Ticks(dts.0.saturating_add_signed((*composition).into())),
                keyframe: *keyframe,
                payload: payload.clone(),
            }),
            Self::Other(frame) => FeedFrame::clone(frame),
        }
    }

    fn size(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Unit { payload, .. } => payload.len(),
                Self::Other(frame) => size_of::<FeedFrame>() + beside(frame),
            }
    }
}

/// What a frame holds in memory of its own.
fn beside(frame: &FeedFrame) -> usize {
    match frame {
        FeedFrame::AccessUnit(unit) => unit.payload.len(),
        FeedFrame::Config { config, .. } => config.len(),
        FeedFrame::Gap { reason, .. } | FeedFrame::Refused { reason } | FeedFrame::Moved { feed: reason } => reason.len(),
        FeedFrame::End | FeedFrame::Serving { .. } => 0,
    }
}

/// Where reading can start.
#[derive(Debug)]
struct Start {
    sequence: u64,
    dts: Ticks,
    configs: Configs,
}

/// The ring.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    entries: VecDeque<Entry>,
    /// The sequence number of the first frame kept.
    first: u64,
    /// The starts among the kept frames, oldest first; the first frame kept is one.
    starts: VecDeque<Start>,
    bytes: usize,
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
    /// The next frame's sequence number.
    At(u64),
}

impl History {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: VecDeque::new(), first: 0, starts: VecDeque::new(), bytes: 0 }
    }

    /// Keeps so much of the past from now on.
    pub(super) fn keep(&mut self, span: Ticks) {
        self.limits.span = span;
    }

    /// Memory that is held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends an access unit. `start`: readers may begin here, under `configs`. What comes before the first start could
    /// be read by nobody and is not kept.
    pub(super) fn push(&mut self, unit: AccessUnit, start: bool, configs: &Configs) {
        let dts = unit.dts;
        if start {
            self.starts.push_back(Start { sequence: self.end(), dts, configs: configs.clone() });
        }
        self.append(Entry::new(unit));
        self.trim(dts);
    }

    /// Appends what is no access unit.
    pub(super) fn note(&mut self, frame: FeedFrame) {
        self.append(Entry::Other(Box::new(frame)));
    }

    /// The newest place to start at.
    pub(super) fn newest_start(&self) -> Option<Ticks> {
        self.starts.back().map(|start| start.dts)
    }

    /// Adds what follows `cursor` to `out`, about `most` bytes of it, and moves the cursor. True if the reader had lost
    /// its place because it was too slow.
    pub(super) fn read(&self, cursor: &mut Cursor, out: &mut Vec<FeedFrame>, most: usize) -> bool {
        let mut lapsed = false;
        if let Place::At(next) = cursor.place
            && next < self.first
        {
            lapsed = true;
            let from = cursor.ends.iter().filter_map(TrackEnd::end).max().unwrap_or_default();
            out.push(FeedFrame::Gap { from, reason: "this reader was too slow".to_owned() });
            cursor.place = Place::Start(None);
        }
        let mut next = match cursor.place {
            Place::At(next) => next,
            Place::Start(from) => {
                let Some(start) = self.start_for(from) else { return lapsed };
                if let Some(from) = from.filter(|from| *from < start.dts) {
                    // Older than the ring, or sent to an owner before this one.
                    out.push(FeedFrame::Gap { from, reason: "what came before this keyframe is not kept here".to_owned() });
                }
                for (track, codec, config) in start.configs.each() {
                    cursor.config(track, codec, config, out);
                }
                start.sequence
            }
        };
        let mut taken = 0;
        while taken < most
            && let Some(entry) = self.entries.get((next - self.first) as usize)
        {
            taken += entry.size();
            next += 1;
            match entry.frame() {
                FeedFrame::Config { track, codec, config } => cursor.config(track, codec, config, out),
                frame => {
                    if let FeedFrame::AccessUnit(unit) = &frame {
                        cursor.ends[unit.track as usize].saw(unit.dts);
                    }
                    out.push(frame);
                }
            }
        }
        cursor.place = Place::At(next);
        lapsed
    }

    fn start_for(&self, from: Option<Ticks>) -> Option<&Start> {
        let Some(from) = from else { return self.starts.back() };
        self.starts.iter().rev().find(|start| start.dts <= from).or(self.starts.front())
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn append(&mut self, entry: Entry) {
        if self.starts.is_empty() {
            return;
        }
        if self.entries.len() == self.entries.capacity() {
            // By an eighth, not to the double: most rings grow to their span and stay there.
            self.entries.reserve_exact(self.entries.len() / 8 + 32);
        }
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    fn trim(&mut self, newest: Ticks) {
        while let Some(second) = self.starts.get(1)
            && (self.bytes > self.limits.bytes || newest.since(second.dts) >= self.limits.span)
        {
            let until = second.sequence;
            self.starts.pop_front();
            while self.first < until {
                self.bytes -= self.entries.pop_front().map_or(0, |entry| entry.size());
                self.first += 1;
            }
        }
        if self.bytes > self.limits.bytes {
            // One group of pictures that outgrows the ring: a keyframe has to come before anybody can read on. One
            // number is left out, so that readers at the very end have lost their place, too.
            self.first = self.end() + 1;
            self.entries.clear();
            self.starts.clear();
            self.bytes = 0;
        }
    }
}

impl Cursor {
    /// A reader that begins at the last start at or before `from`, or at the newest one.
    pub(super) fn new(from: Option<Ticks>) -> Self {
        Self { place: Place::Start(from), sent: Configs::default(), ends: [TrackEnd::default(); 2] }
    }

    fn config(&mut self, track: Track, codec: Codec, config: Bytes, out: &mut Vec<FeedFrame>) {
        if self.sent.put(track, codec, config.clone()) {
            out.push(FeedFrame::Config { track, codec, config });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 3_000;

    /// A run with a keyframe every ten frames of 1000 bytes.
    fn history(frames: u64, limits: Limits) -> History {
        let mut history = History::new(limits);
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
            history.push(unit, keyframe, configs);
        }
    }

    fn read(history: &History, cursor: &mut Cursor) -> Vec<FeedFrame> {
        let mut out = Vec::new();
        history.read(cursor, &mut out, usize::MAX);
        out
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
        units.iter().for_each(|unit| history.push(unit.clone(), false, &Configs::default()));
        let frames = read(&history, &mut Cursor::new(None));
        assert_eq!(frames[2..], units.map(FeedFrame::AccessUnit));
    }

    #[test]
    fn a_group_that_never_ends_does_not_outgrow_the_ring() {
        let mut history = History::new(Limits { span: Ticks(u64::MAX), bytes: 20_000 });
        let configs = Configs::default();
        let mut cursor = Cursor::new(None);
        for frame in 0..1000u64 {
            let dts = Ticks(frame * FRAME);
            let unit = AccessUnit { track: Track::Video, dts, pts: dts, keyframe: frame == 0, payload: Bytes::from(vec![0; 1000]) };
            history.push(unit, frame == 0, &configs);
            read(&history, &mut cursor);
            assert!(history.bytes <= 20_000);
        }
        extend(&mut history, 1000..1001, &configs);
        assert_eq!(first_unit(&read(&history, &mut cursor)), 1000);
    }
}
