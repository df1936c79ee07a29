//! When the access units of the source can be put out as those of a rendition. Pure.
//!
//! They can where a segment's worth of them is what an encoder would have made: a keyframe at the segment's start, one access unit in
//! each slot after it, decoded in the order in which they are shown, within the rendition's bit rate. Whether the picture agrees (size, profile) is
//! told from outside. Two such segments in a row are believed: the encoder is then told one segment ahead to stop. It goes on with the slot after the
//! last one that was passed, within a segment, too: nobody sees a picture that stands still until the segment's end.

use lectern_contract::{SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks};

/// Segments that were as wanted before the next ones are believed to be.
const BELIEVED: u32 = 2;
/// A source's pictures are moved by as much as this to the slots of their segments: less than what people notice between picture and
/// sound (ITU-R BT.1359 §4: 45 ms early).
const MOVED: u64 = Ticks::from_millis(35).0;

/// What is known of an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// When it is decoded.
    pub dts: Ticks,
    /// When it is shown.
    pub pts: Ticks,
    /// Nothing after it refers to anything before it.
    pub idr: bool,
    /// Its size.
    pub bytes: usize,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// From this time on, a segment's start, the encoder is not needed.
    Arm(Ticks),
    /// The unit is the rendition's sample that starts then.
    Pass(Ticks),
    /// From this time on, a slot's start, the encoder is needed again; the last sample lasts until then.
    Encode(Ticks),
}

/// The state for one rendition.
#[derive(Debug)]
pub struct Passing {
    rate: u64,
    slots: u64,
    duration: SegmentDuration,
    /// Bytes that a segment may have.
    most: u64,
    agrees: bool,
    open: Option<Open>,
    /// Complete segments in a row that were as wanted.
    good: u32,
    /// The units from this time on are passed, or will be.
    from: Option<Ticks>,
}

/// A segment that was as wanted so far.
#[derive(Debug)]
struct Open {
    start: Ticks,
    /// How much later than the segment its first picture is, in ticks.
    off: i64,
    /// Slots that are filled.
    filled: u64,
    bytes: u64,
}

impl Passing {
    /// For a rendition of `rate` pictures and `bitrate` bits a second. `None` where segments do not hold a whole number of pictures.
    pub fn new(rate: u32, bitrate: u64, duration: SegmentDuration) -> Option<Self> {
        let (rate, ticks) = (u64::from(rate), duration.ticks().0);
        let slots = Some(rate * ticks)
            .filter(|slots| *slots > 0 && slots.is_multiple_of(TICKS_PER_SECOND))
            .map(|slots| slots / TICKS_PER_SECOND)?;
        let most = bitrate.saturating_mul(ticks) / TICKS_PER_SECOND / 8;
        Some(Self { rate, slots, duration, most, agrees: false, open: None, good: 0, from: None })
    }

    /// Whether the encoder rests, or will from some segment on.
    pub const fn is_armed(&self) -> bool {
        self.from.is_some()
    }

    /// Whether the pictures that come are like the rendition's.
    pub fn agrees(&mut self, agrees: bool) -> Option<Move> {
        self.agrees = agrees;
        if agrees { None } else { self.interrupt() }
    }

    /// Takes the next unit in decoding order.
    pub fn take(&mut self, unit: Unit) -> Option<Move> {
        if !self.agrees {
            return None;
        }
        let fits = self.open.as_ref().is_some_and(|open| self.fits(open, &unit));
        let whole = self.open.as_ref().is_some_and(|open| open.filled == self.slots);
        if fits && !whole {
            let start = self.open.as_mut().map(|open| {
                open.filled += 1;
                open.bytes += unit.bytes as u64;
                (open.start, open.filled - 1)
            });
            return start
                .filter(|(start, _)| self.from.is_some_and(|from| from <= *start))
                .map(|(start, slot)| Move::Pass(self.slot(start, slot)));
        }
        let most = if self.is_armed() { self.most } else { self.most / 10 * 9 }; // else one that is just within it would come and go
        let good = self.open.as_ref().is_some_and(|open| whole && open.bytes <= most);
        let next = Self::begun_by(unit, self.duration);
        let Some(start) = next.as_ref().map(|next| next.start).filter(|_| fits && good) else {
            let ends = self.interrupt();
            self.open = next;
            return ends;
        };
        self.good += 1;
        self.open = next;
        match self.from {
            Some(from) if from <= start => Some(Move::Pass(start)),
            Some(_) => None,
            None if self.good >= BELIEVED => {
                let from = start.plus(self.duration.ticks());
                self.from = Some(from);
                Some(Move::Arm(from))
            }
            None => None,
        }
    }

    /// The source has stopped, or is not what it was.
    pub fn interrupt(&mut self) -> Option<Move> {
        let open = self.open.take();
        self.good = 0;
        let from = self.from.take()?;
        // Where the encoder is to begin is after all that was passed; what is armed only was not begun.
        let end = open.map_or(from, |open| self.slot(open.start, open.filled));
        Some(Move::Encode(end.max(from)))
    }

    /// The segment that begins with `unit`, if one can.
    fn begun_by(unit: Unit, duration: SegmentDuration) -> Option<Open> {
        let start = SegmentNumber::of(unit.pts.plus(Ticks(MOVED)), duration).start(duration);
        let off = unit.pts.0 as i64 - start.0 as i64; // a run's times are far below 2^63
        let begins = unit.idr && unit.pts == unit.dts && off.unsigned_abs() <= MOVED;
        begins.then_some(Open { start, off, filled: 1, bytes: unit.bytes as u64 })
    }

    /// Whether it is shown when the next slot is, to three quarters of a frame, as sources that stamp in whole milliseconds waver.
    fn fits(&self, open: &Open, unit: &Unit) -> bool {
        let expected = self.slot(open.start, open.filled).0 as i64 + open.off;
        let frame = TICKS_PER_SECOND / self.rate.max(1);
        unit.pts == unit.dts && (unit.pts.0 as i64).abs_diff(expected) <= frame * 3 / 4
    }

    fn slot(&self, start: Ticks, slot: u64) -> Ticks {
        start.plus(Ticks(slot * TICKS_PER_SECOND / self.rate.max(1)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

    fn passing() -> Passing {
        let mut passing = Passing::new(30, 300_000, TWO).unwrap();
        assert_eq!(passing.agrees(true), None);
        passing
    }

    /// Picture `n` of a source that is `late` ticks late, stamped in milliseconds, with a keyframe a second.
    fn unit(n: u64, late: u64) -> Unit {
        let pts = Ticks((n * 3000 + late) / 90 * 90);
        Unit { dts: pts, pts, idr: n.is_multiple_of(30), bytes: 1000 }
    }

    fn moves(passing: &mut Passing, units: impl IntoIterator<Item = Unit>) -> Vec<Move> {
        units.into_iter().filter_map(|unit| passing.take(unit)).collect()
    }

    fn second(seconds: u64) -> Ticks {
        Ticks(seconds * TICKS_PER_SECOND)
    }

    /// Armed, and the first units are passed.
    fn passes(late: u64, until: u64) -> Passing {
        let mut passing = passing();
        let moves = moves(&mut passing, (0..until).map(|n| unit(n, late)));
        assert_eq!(moves[0], Move::Arm(second(6)), "two segments are looked at, and the third is the encoder's");
        let passed: Vec<_> = (180..until).map(|n| Move::Pass(Ticks(n * 3000))).collect();
        assert_eq!(moves[1..], passed, "a sample in each slot");
        passing
    }

    #[test]
    fn what_is_as_wanted_is_passed_two_segments_later() {
        passes(0, 400);
        passes(1_900, 400);
    }

    #[test]
    fn a_keyframe_in_another_place_is_the_encoders() {
        let mut passing = passing();
        assert_eq!(moves(&mut passing, (0..400).map(|n| unit(n, 30_000))), []);
        assert_eq!(moves(&mut passing, (420..900).map(|n| unit(n, 3_600))), [], "a frame and more late");
    }

    #[test]
    fn a_keyframe_that_fails_to_come_is_the_encoders_at_once() {
        let mut passing = passes(0, 240);
        let missed = Unit { idr: false, ..unit(240, 0) };
        assert_eq!(passing.take(missed), Some(Move::Encode(second(8))));
        assert_eq!(moves(&mut passing, (241..300).map(|n| unit(n, 0))), []);
    }

    #[test]
    fn within_a_segment_the_encoder_goes_on_with_the_next_slot() {
        let odd: [Unit; 3] = [unit(220, 0), Unit { pts: Ticks(201 * 3000 + 6000), ..unit(201, 0) }, unit(199, 0)];
        for odd in odd {
            let mut passing = passes(0, 200);
            assert_eq!(passing.take(odd), Some(Move::Encode(Ticks(200 * 3000))), "{odd:?}");
        }
        let mut passing = passes(0, 200);
        assert_eq!(passing.interrupt(), Some(Move::Encode(Ticks(200 * 3000))));
        assert_eq!(passing.interrupt(), None);
        assert_eq!(passes(0, 200).agrees(false), Some(Move::Encode(Ticks(200 * 3000))));
    }

    #[test]
    fn what_was_armed_only_is_taken_back() {
        let mut passing = passing();
        assert_eq!(moves(&mut passing, (0..150).map(|n| unit(n, 0))), [Move::Arm(second(6))]);
        assert_eq!(passing.interrupt(), Some(Move::Encode(second(6))));
    }

    #[test]
    fn too_many_bits_are_the_encoders() {
        let of = |bytes| move |n| Unit { bytes, ..unit(n, 0) };
        let large = of(1_251);
        let mut never = passing();
        assert_eq!(moves(&mut never, (0..400).map(of(1_200))), [], "just within it is not enough to begin with");
        let mut passing = passes(0, 240);
        let passed = moves(&mut passing, (240..360).map(of(1_200)).chain((360..420).map(large)));
        assert!(passed.iter().all(|it| matches!(it, Move::Pass(_))), "known only at its end");
        assert_eq!(passing.take(large(420)), Some(Move::Encode(second(14))));
    }

    #[test]
    fn it_is_believed_again_after_two_good_segments() {
        let mut passing = passes(0, 200);
        passing.interrupt();
        assert_eq!(moves(&mut passing, (240..361).map(|n| unit(n, 0))), [Move::Arm(second(14))]);
    }

    #[test]
    fn a_segment_of_broken_pictures_cannot_be_passed() {
        assert!(Passing::new(25, 1, TWO).is_some());
        assert!(Passing::new(0, 1, TWO).is_none());
    }

    proptest::proptest! {
        /// Whatever comes: samples are contiguous from an armed segment on, and the encoder takes over at the last one's end.
        #[test]
        fn what_is_passed_has_no_hole(units in proptest::collection::vec((0..4u64, 0..6u8, proptest::bool::weighted(0.02)), 0..1500)) {
            let (mut passing, mut n, mut from, mut next) = (passing(), 0, None, None);
            for (step, late, odd) in units {
                n += if odd { step } else { 1 };
                let unit = Unit { idr: n % 30 == 0 && !(odd && step == 3), ..unit(n, u64::from(late) * 90) };
                match passing.take(unit) {
                    Some(Move::Arm(at)) => {
                        assert!(from.is_none() && at.0 % TWO.ticks().0 == 0);
                        from = Some(at);
                        next = Some(at);
                    }
                    Some(Move::Pass(start)) => {
                        assert_eq!(Some(start), next);
                        assert!(start.0 % TWO.ticks().0 != 0 || unit.idr);
                        next = Some(start.plus(Ticks(3000)));
                    }
                    Some(Move::Encode(at)) => {
                        assert!(from.take().is_some() && next.take() == Some(at));
                    }
                    None => {}
                }
            }
        }
    }
}
