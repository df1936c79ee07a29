//! What CC1 says, as cues on the run's timeline. Bounded, whatever the bytes are.

use super::cea608::{Cea608, Change, Line};
use super::{Kind, Triplet};
use lectern_contract::Ticks;
use std::collections::VecDeque;

/// Who has heard nothing for so long takes the captions off the screen (ANSI/CTA-608-E).
const SILENCE: Ticks = Ticks::from_millis(16_000);
/// Cues that may wait for their segment.
const WAITING: usize = 512;

/// Text on the screen for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cue {
    /// From when on it is seen.
    pub start: Ticks,
    /// When it goes.
    pub end: Ticks,
    /// Not empty; from the top down.
    pub lines: Vec<Line>,
}

/// Makes cues of a source's captions.
///
/// A cue is as long as the screen says the same, give or take what is added to its end: a line that rolls up is a cue from the time when
/// its row was opened, though it was written in a second or two.
#[derive(Debug, Default)]
pub struct Captions {
    decoder: Cea608,
    /// The newest time.
    now: Ticks,
    /// When CC1's field said something last.
    heard: Ticks,
    /// What is seen now, and since when.
    open: Option<(Ticks, Vec<Line>)>,
    ended: VecDeque<Cue>,
    seen: bool,
}

impl Captions {
    /// Takes the captions of the picture that is shown at `at`. Pictures come in the order of their times.
    pub fn take(&mut self, at: Ticks, triplets: impl IntoIterator<Item = Triplet>) {
        self.now = self.now.max(at);
        if self.open.is_some() && self.now.since(self.heard) > SILENCE {
            self.end(self.heard.plus(SILENCE));
            self.decoder.erase();
        }
        for triplet in triplets {
            if !triplet.is_valid() || triplet.kind() != Kind::FirstField {
                continue;
            }
            if triplet.bytes().iter().any(|byte| byte & 0x7f != 0) {
                self.heard = self.now;
            }
            match self.decoder.push(triplet.bytes()) {
                Change::None => {}
                Change::Grown => self.grown(),
                Change::Turned => self.turned(),
            }
        }
    }

    /// Whether there ever was something to read.
    pub const fn were_seen(&self) -> bool {
        self.seen
    }

    /// What is to be read between two times, from `from` on and before `to`, cut off there; no earlier times may be asked for later.
    ///
    /// What is seen at the newest time is taken to stay, until it goes by itself.
    pub fn between(&mut self, from: Ticks, to: Ticks) -> Vec<Cue> {
        let gone = self.heard.plus(SILENCE);
        let open = self.open.iter().map(|(start, lines)| Cue { start: *start, end: gone, lines: lines.clone() });
        let within = |cue: Cue| Cue { start: cue.start.max(from), end: cue.end.min(to), ..cue };
        let cues = self.ended.iter().cloned().chain(open).map(within).filter(|cue| cue.start < cue.end).collect();
        self.ended.retain(|cue| cue.end > to);
        cues
    }

    fn grown(&mut self) {
        let lines = self.decoder.lines();
        match &mut self.open {
            Some((_, seen)) if !lines.is_empty() => *seen = lines,
            _ => self.turned(),
        }
    }

    fn turned(&mut self) {
        let lines = self.decoder.lines();
        if self.open.as_ref().is_some_and(|(_, seen)| *seen == lines) {
            return;
        }
        self.end(self.now);
        if !lines.is_empty() {
            self.open = Some((self.now, lines));
            self.seen = true;
        }
    }

    fn end(&mut self, at: Ticks) {
        let Some((start, lines)) = self.open.take().filter(|(start, _)| *start < at) else { return };
        if self.ended.len() == WAITING {
            self.ended.pop_front();
        }
        self.ended.push_back(Cue { start, end: at, lines });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captions::testing::{command, letters};
    use proptest::prelude::*;

    const EOC: [u8; 2] = [0x14, 0x2f];
    const EDM: [u8; 2] = [0x14, 0x2c];

    /// `pairs`, one a picture of a thirtieth of a second, from `at` milliseconds on.
    fn say(captions: &mut Captions, at: u64, pairs: &[Vec<[u8; 2]>]) {
        for (n, pair) in pairs.iter().flatten().enumerate() {
            captions.take(Ticks(at * 90 + n as u64 * 3000), [Triplet([0xfa, 0, 0]), Triplet::first_field(*pair)]);
        }
    }

    fn between(captions: &mut Captions, from: u64, to: u64) -> Vec<(u64, u64, String)> {
        let text = |cue: &Cue| cue.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("/");
        let cues = captions.between(Ticks::from_millis(from), Ticks::from_millis(to));
        cues.iter().map(|cue| (cue.start.as_millis(), cue.end.as_millis(), text(cue))).collect()
    }

    fn cue(start: u64, end: u64, text: &str) -> (u64, u64, String) {
        (start, end, text.to_owned())
    }

    #[test]
    fn a_caption_stays_until_it_is_erased_and_is_in_each_segment_meanwhile() {
        let mut captions = Captions::default();
        assert_eq!(between(&mut captions, 0, 2000), []);
        say(&mut captions, 2500, &[command([0x14, 0x20]), letters("Hello"), command(EOC)]);
        assert!(captions.were_seen());
        let shown = 2500 + 5 * 1000 / 30; // with the sixth pair
        assert_eq!(between(&mut captions, 2000, 4000), [cue(shown, 4000, "Hello")]);
        say(&mut captions, 6500, &[command(EDM)]);
        assert_eq!(between(&mut captions, 4000, 6000), [cue(4000, 6000, "Hello")]);
        assert_eq!(between(&mut captions, 6000, 8000), [cue(6000, 6500, "Hello")]);
        assert_eq!(between(&mut captions, 8000, 10_000), []);
    }

    #[test]
    fn one_caption_follows_another_without_a_hole() {
        let mut captions = Captions::default();
        for (at, text) in [(0, "One"), (3000, "Two")] {
            say(&mut captions, at, &[command([0x14, 0x20]), command([0x14, 0x2e]), letters(text), command(EOC)]);
        }
        let shown = 200; // with the seventh pair
        assert_eq!(between(&mut captions, 0, 4000), [cue(shown, 3000 + shown, "One"), cue(3000 + shown, 4000, "Two")]);
    }

    #[test]
    fn a_line_that_rolls_up_is_there_whole_from_its_beginning() {
        let mut captions = Captions::default();
        say(&mut captions, 0, &[command([0x14, 0x25]), command([0x14, 0x2d])]);
        say(&mut captions, 1000, &[letters("It is written slowly")]);
        say(&mut captions, 3000, &[command([0x14, 0x2d])]);
        say(&mut captions, 3500, &[letters("and goes on")]);
        let cues = between(&mut captions, 0, 6000);
        assert_eq!(cues, [cue(1000, 3000, "It is written slowly"), cue(3000, 6000, "It is written slowly/and goes on")]);
    }

    #[test]
    fn what_nobody_erases_goes_by_itself() {
        let mut captions = Captions::default();
        say(&mut captions, 0, &[command([0x14, 0x20]), letters("Ab"), command(EOC)]);
        let last = 4 * 1000 / 30; // the repeated command
        for more in [&[][..], &[Triplet::first_field([0x80, 0x80])]] {
            assert_eq!(between(&mut captions, 0, 30_000), [cue(100, 16_000 + last, "Ab")]);
            captions.take(Ticks::from_millis(29_000), more.iter().copied());
        }
        assert_eq!(between(&mut captions, 30_000, 60_000), []);
    }

    proptest! {
        #[test]
        fn cues_lie_within_what_was_asked_for_and_do_not_overlap(
            pairs in proptest::collection::vec((0x10u8..0x80, 0x20u8..0x80, 0u64..90_000), 0..300),
        ) {
            let (mut captions, mut at) = (Captions::default(), Ticks(0));
            for (n, (first, second, wait)) in pairs.into_iter().enumerate() {
                at = at.plus(Ticks(wait));
                captions.take(at, command([first, second])[..1].iter().map(|pair| Triplet::first_field(*pair)));
                if n % 50 == 0 {
                    let (from, to) = (Ticks(at.0.saturating_sub(200_000)), at);
                    let cues = captions.between(from, to);
                    prop_assert!(cues.iter().all(|cue| from <= cue.start && cue.start < cue.end && cue.end <= to && !cue.lines.is_empty()));
                    prop_assert!(cues.windows(2).all(|pair| pair[0].end <= pair[1].start), "{cues:?}");
                }
                prop_assert!(captions.ended.len() <= WAITING);
            }
        }
    }
}
