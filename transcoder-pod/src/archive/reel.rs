//! The original's pieces as an engine takes them. Pure: pictures in, inputs out.

use crate::engine::Input;
use crate::silence::{PATIENCE, steps};
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, Track};
use lectern_media::original::Coding;

/// Pictures are shown in another order than they are coded in: see `line.rs`.
pub const REORDER: Ticks = Ticks::from_millis(1_000);

/// One run's pieces, on the clock of its segments.
#[derive(Debug)]
pub struct Reel {
    shift: Ticks,
    /// What lies between is shown as the slate; else it is left out.
    slate: bool,
    coding: Option<Coding>,
    /// How far the inputs have come.
    reached: Ticks,
}

impl Reel {
    /// Of a run whose segments count from `shift` earlier than its original. `reached`: a source that shows its first picture by then is waited for.
    pub fn new(shift: Ticks, reached: Ticks, slate: bool) -> Self {
        Self { shift, slate, coding: None, reached }
    }

    /// The next piece's pictures, in the order of decoding.
    pub fn take(&mut self, coding: Coding, units: Vec<AccessUnit>) -> Vec<Input> {
        let mut inputs = Vec::with_capacity(units.len() + 1);
        let Some(first) = units.first() else { return inputs };
        self.bridge(first.dts.plus(self.shift), &mut inputs);
        if self.coding.as_ref() != Some(&coding) {
            inputs.push(Input::Config { track: Track::Video, codec: coding.codec, config: coding.config.clone() });
            self.coding = Some(coding);
        }
        for unit in units {
            let (dts, pts) = (unit.dts.plus(self.shift), unit.pts.plus(self.shift));
            self.bridge(dts, &mut inputs);
            self.reached = self.reached.max(dts);
            inputs.push(Input::Unit(AccessUnit { dts, pts, ..unit }));
        }
        inputs
    }

    /// What follows the last piece, up to the end of the recording: its last segment may be one of sound and of a picture that stands.
    pub fn finish(self, end: Ticks) -> Vec<Input> {
        steps(self.reached, end).map(|until| Input::Fill(Track::Video, until)).collect()
    }

    /// Where nothing comes for as long as a live source is waited for, the slate is shown until `dts`, as it was then.
    fn bridge(&mut self, dts: Ticks, inputs: &mut Vec<Input>) {
        if dts.since(self.reached).as_millis() <= PATIENCE.as_millis() as u64 {
            return;
        }
        match self.slate {
            true => inputs.extend(steps(self.reached, dts).map(|until| Input::Fill(Track::Video, until))),
            false => inputs.extend([Input::Gap, Input::Cut]),
        }
        self.reached = dts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use lectern_contract::feed::Codec;

    fn coding() -> Coding {
        Coding { codec: Codec::H264, config: Bytes::from_static(b"avcC") }
    }

    fn units(millis: &[u64]) -> Vec<AccessUnit> {
        let unit = |at: &u64| {
            let at = Ticks::from_millis(*at);
            AccessUnit { track: Track::Video, dts: at, pts: at, keyframe: true, payload: Bytes::new() }
        };
        millis.iter().map(unit).collect()
    }

    fn words(inputs: &[Input]) -> Vec<String> {
        let word = |input: &Input| match input {
            Input::Config { .. } => "config".to_owned(),
            Input::Unit(unit) => format!("unit {}", unit.pts.as_millis()),
            Input::Fill(_, until) => format!("fill {}", until.as_millis()),
            other => format!("{other:?}"),
        };
        inputs.iter().map(word).collect()
    }

    #[test]
    fn pictures_are_moved_to_the_clock_of_the_segments_and_holes_are_filled() {
        let mut reel = Reel::new(Ticks::from_millis(25), Ticks::from_millis(4_000), true);
        assert_eq!(words(&reel.take(coding(), units(&[3_000, 3_500]))), ["config", "unit 3025", "unit 3525"]);
        assert_eq!(words(&reel.take(coding(), units(&[4_500, 4_700]))), ["unit 4525", "unit 4725"]);
        assert_eq!(words(&reel.take(coding(), units(&[7_000]))), ["fill 5725", "fill 6725", "fill 7025", "unit 7025"]);
        assert_eq!(words(&reel.finish(Ticks::from_millis(8_500))), ["fill 8025", "fill 8500"]);
    }

    #[test]
    fn without_a_slate_a_hole_stays_one() {
        let mut reel = Reel::new(Ticks(0), Ticks(0), false);
        assert_eq!(words(&reel.take(coding(), units(&[100, 9_000]))), ["config", "unit 100", "Gap", "Cut", "unit 9000"]);
        assert_eq!(words(&reel.finish(Ticks::from_millis(9_000))), Vec::<String>::new());
    }

    #[test]
    fn a_source_that_begins_later_than_the_recording_is_preceded_by_the_slate() {
        let mut reel = Reel::new(Ticks(0), Ticks::from_millis(2_000), true);
        assert_eq!(words(&reel.take(coding(), units(&[3_500])))[..3], ["fill 3000", "fill 3500", "config"]);
    }
}
