//! Cuts a run's feed into pieces.

use super::{Coding, Piece};
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, FeedFrame, Track};

/// How long and how large pieces get.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The next keyframe of the picture (or any sound where there is no picture) begins a new piece from this length on.
    pub span: Ticks,
    /// Anything does from this length on: keyframes may be a minute apart.
    pub longest: Ticks,
    /// No piece with more than one access unit has more payload than this, in bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { span: Ticks::from_millis(10_000), longest: Ticks::from_millis(20_000), bytes: 32 << 20 }
    }
}

/// Takes feed frames in order, and gives pieces that are complete. Every access unit ends up in exactly one piece.
///
/// A piece begins with a keyframe, but for two cases in which something would be lost otherwise: keyframes that are
/// further apart than [`Limits`] allow, and parameters of one track that change while the other goes on.
#[derive(Debug, Default)]
pub struct Cutter {
    limits: Limits,
    coding: [Option<Coding>; 2],
    piece: Option<Piece>,
    last_name: Option<Ticks>,
}

impl Cutter {
    /// A cutter that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes the next frame; the piece that it completes.
    pub fn push(&mut self, frame: FeedFrame) -> Option<Piece> {
        match frame {
            FeedFrame::Config { track, codec, config } => self.config(track, Coding { codec, config }),
            FeedFrame::AccessUnit(unit) => self.unit(unit),
            FeedFrame::Gap { .. } | FeedFrame::End | FeedFrame::Refused { .. } => self.finish(),
            FeedFrame::Serving { .. } | FeedFrame::Alive | FeedFrame::Moved { .. } | FeedFrame::Metadata(_) => None,
        }
    }

    /// Ends the open piece, if there is one.
    pub fn finish(&mut self) -> Option<Piece> {
        self.piece.take()
    }

    /// New parameters end a piece that has something of the track under the old ones. A track that begins does not: the
    /// header of a piece is written last.
    fn config(&mut self, track: Track, coding: Coding) -> Option<Piece> {
        let slot = &mut self.coding[track as usize];
        if slot.as_ref() == Some(&coding) {
            return None;
        }
        *slot = Some(coding.clone());
        match &mut self.piece {
            Some(piece) if piece.of(track).next().is_none() => {
                piece.coding[track as usize] = Some(coding);
                None
            }
            _ => self.finish(),
        }
    }

    fn unit(&mut self, unit: AccessUnit) -> Option<Piece> {
        self.coding[unit.track as usize].as_ref()?; // a feed names parameters first; without them it is only bytes
        let complete = self.ends_before(&unit).then(|| self.finish()).flatten();
        let (coding, last_name) = (&self.coding, &mut self.last_name);
        let piece = self.piece.get_or_insert_with(|| {
            let name = last_name.map_or(unit.dts, |last| unit.dts.max(last.plus(Ticks(1))));
            *last_name = Some(name);
            Piece { name, coding: coding.clone(), units: Vec::new(), bytes: 0 }
        });
        piece.bytes += unit.payload.len();
        piece.units.push(unit);
        complete
    }

    /// Whether the open piece ends before this access unit.
    fn ends_before(&self, unit: &AccessUnit) -> bool {
        let Some(piece) = &self.piece else { return false };
        let Some(first) = piece.units.first() else { return false };
        let length = unit.dts.since(first.dts);
        let good_start = match unit.track {
            Track::Video => unit.keyframe,
            Track::Audio => piece.of(Track::Video).next().is_none(),
        };
        let too_large = piece.bytes.saturating_add(unit.payload.len()) > self.limits.bytes;
        too_large || length >= self.limits.longest || (good_start && length >= self.limits.span)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use lectern_contract::feed::Codec;
    use proptest::prelude::*;

    fn config(track: Track, config: &'static [u8]) -> FeedFrame {
        let codec = if track == Track::Video { Codec::H264 } else { Codec::Aac };
        FeedFrame::Config { track, codec, config: Bytes::from_static(config) }
    }

    fn unit(track: Track, millis: u64, keyframe: bool) -> FeedFrame {
        let dts = Ticks::from_millis(millis);
        FeedFrame::AccessUnit(AccessUnit { track, dts, pts: dts, keyframe, payload: Bytes::from_static(b"0123456789") })
    }

    fn pieces(cutter: &mut Cutter, frames: impl IntoIterator<Item = FeedFrame>) -> Vec<Piece> {
        let mut pieces: Vec<_> = frames.into_iter().filter_map(|frame| cutter.push(frame)).collect();
        pieces.extend(cutter.finish());
        pieces
    }

    fn names(pieces: &[Piece]) -> Vec<u64> {
        pieces.iter().map(|piece| piece.name().as_millis()).collect()
    }

    /// Pictures every 100 ms with a keyframe every `gop` ms.
    fn pictures(until: u64, gop: u64) -> impl Iterator<Item = FeedFrame> {
        (0..until).step_by(100).map(move |at| unit(Track::Video, at, at % gop == 0))
    }

    #[test]
    fn pieces_begin_at_the_first_keyframe_after_ten_seconds() {
        let frames = [config(Track::Video, b"v")].into_iter().chain(pictures(35_000, 4_000));
        let pieces = pieces(&mut Cutter::default(), frames);
        assert_eq!(names(&pieces), [0, 12_000, 24_000]);
        assert!(pieces.iter().all(|piece| piece.units()[0].keyframe));
        assert_eq!(pieces[0].end(), Ticks::from_millis(12_000));
    }

    #[test]
    fn keyframes_that_are_far_apart_do_not_make_long_pieces() {
        let frames = [config(Track::Video, b"v")].into_iter().chain(pictures(50_000, 60_000));
        assert_eq!(names(&pieces(&mut Cutter::default(), frames)), [0, 20_000, 40_000]);
    }

    #[test]
    fn sound_alone_is_cut_anywhere() {
        let sound = (0..25_000).step_by(20).map(|at| unit(Track::Audio, at, true));
        let frames = [config(Track::Audio, b"a")].into_iter().chain(sound);
        assert_eq!(names(&pieces(&mut Cutter::default(), frames)), [0, 10_000, 20_000]);
    }

    #[test]
    fn large_payloads_are_cut_anywhere() {
        let mut cutter = Cutter::new(Limits { bytes: 25, ..Limits::default() });
        let frames = [config(Track::Video, b"v")].into_iter().chain(pictures(500, 10_000));
        assert_eq!(names(&pieces(&mut cutter, frames)), [0, 200, 400]);
    }

    #[test]
    fn new_parameters_and_gaps_end_a_piece_and_equal_parameters_do_not() {
        let gap = FeedFrame::Gap { from: Ticks(0), reason: "a test".into() };
        let frames = [
            config(Track::Video, b"v1"),
            unit(Track::Video, 0, true),
            config(Track::Video, b"v1"),
            unit(Track::Video, 100, false),
            config(Track::Video, b"v2"),
            unit(Track::Video, 200, true),
            gap,
            unit(Track::Video, 300, true),
        ];
        assert_eq!(names(&pieces(&mut Cutter::default(), frames)), [0, 200, 300]);
    }

    #[test]
    fn a_track_that_begins_late_is_in_the_same_piece() {
        let frames = [
            config(Track::Video, b"v"),
            unit(Track::Video, 0, true),
            config(Track::Audio, b"a"),
            unit(Track::Audio, 10, true),
            unit(Track::Video, 100, false),
        ];
        let pieces = pieces(&mut Cutter::default(), frames);
        assert_eq!(names(&pieces), [0]);
        assert_eq!(pieces[0].units().len(), 3);
    }

    #[test]
    fn no_two_pieces_have_one_name() {
        let frames = [
            config(Track::Video, b"v"),
            config(Track::Audio, b"a1"),
            unit(Track::Audio, 0, true),
            unit(Track::Video, 0, true),
            config(Track::Audio, b"a2"),
            unit(Track::Audio, 0, true),
        ];
        let pieces = pieces(&mut Cutter::default(), frames);
        assert_eq!(pieces.iter().map(|piece| piece.name().0).collect::<Vec<_>>(), [0, 1]);
    }

    proptest! {
        #[test]
        fn every_access_unit_is_in_exactly_one_piece(
            steps in proptest::collection::vec((0u64..3_000, any::<bool>(), any::<bool>(), 0u8..20), 1..200),
        ) {
            let mut cutter = Cutter::new(Limits { bytes: 300, ..Limits::default() });
            let (mut at, mut given, mut kept) = (0, Vec::new(), Vec::new());
            let mut keep = |piece: Option<Piece>| kept.extend(piece.into_iter().flat_map(|piece| piece.units().to_vec()));
            for track in [Track::Video, Track::Audio] {
                keep(cutter.push(config(track, b"first")));
            }
            for (step, video, keyframe, event) in steps {
                at += step;
                let track = if video { Track::Video } else { Track::Audio };
                match event {
                    0 => keep(cutter.push(config(track, b"second"))),
                    1 => keep(cutter.push(config(track, b"first"))),
                    2 => keep(cutter.push(FeedFrame::Gap { from: Ticks(0), reason: String::new() })),
                    _ => {}
                }
                let frame = unit(track, at, keyframe);
                if let FeedFrame::AccessUnit(unit) = &frame {
                    given.push(unit.clone());
                }
                keep(cutter.push(frame));
            }
            keep(cutter.finish());
            prop_assert_eq!(kept, given);
        }
    }
}
