//! What S3 has of a run and one owner after another writes, each time whole: playlists, the MPD, ledgers.
//!
//! **Why a rule is needed.** An owner that was frozen (its node, its process, its network) does not know that it has been replaced when it
//! goes on. Its next write would put an old list in the place of a newer one, and a lecture's ledger would lose a minute's segments for
//! good. No clock helps: between a look at it and the write that follows there is always time to freeze.
//!
//! **The rule.** Who writes names the version that the text takes the place of (`If-Match`; none: `If-None-Match: *`), and each text says under which
//! epoch it was written and how far it reaches ([`Mark`]). A version that nobody knew of is looked at: of a newer epoch, and the writer is over; of an older
//! one, and it is taken over, but not by a text that reaches less far (the old owner was quicker: wait until there is as much to say). So each document goes on
//! and never back, whoever froze where. Segments and init sections have one rule less: whatever is there first stays (`If-None-Match: *`). So it does at origins, and what
//! they had first is what is stored (see [`crate::push`]).
//!
//! `tests/ownership/` goes through every order of steps of several owners that freeze, die, and lose answers.

use crate::{Epoch, SegmentNumber};
use std::fmt;

/// What a text says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mark {
    /// Under which epoch it was written.
    pub epoch: Epoch,
    /// The newest segment that it names; `None` where it names none.
    pub to: Option<SegmentNumber>,
}

/// Before the mark in a text.
const LEAD: &str = "lectern epoch ";
/// Between its two numbers.
const REACH: &str = " to ";

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LEAD}{}", self.epoch.0)?;
        self.to.map_or(Ok(()), |to| write!(f, "{REACH}{to}"))
    }
}

impl Mark {
    /// The mark in `text`, wherever it stands; epoch zero where there is none.
    pub fn find(text: &str) -> Self {
        let Some((epoch, rest)) = text.split_once(LEAD).and_then(|(_, rest)| number(rest)) else { return Self::default() };
        let to = rest.strip_prefix(REACH).and_then(number).map(|(number, _)| SegmentNumber(number));
        Self { epoch: Epoch(epoch), to }
    }
}

/// The number that `text` begins with, and what follows it.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// Somebody with a newer epoch has written: whoever finds that has lost the run, and must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was written under epoch {0}")]
pub struct Overtaken(pub Epoch);

/// One document as one of its owners knows it; `V` is a version of it (an ETag).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Document<V> {
    epoch: Epoch,
    version: Option<V>,
    /// How far the text reaches that an older owner wrote last.
    reached: Option<SegmentNumber>,
}

impl<V> Document<V> {
    /// One that the owner of this epoch has not looked at yet.
    pub const fn of(epoch: Epoch) -> Self {
        Self { epoch, version: None, reached: None }
    }

    /// The version that the next write takes the place of; `None`: there must be none.
    pub const fn replaces(&self) -> Option<&V> {
        self.version.as_ref()
    }

    /// Whether a text that reaches to `to` may take the place of what is there, as far as that is known.
    pub fn admits(&self, to: Option<SegmentNumber>) -> bool {
        to >= self.reached
    }

    /// The mark that a text of this owner has.
    pub const fn mark(&self, to: Option<SegmentNumber>) -> Mark {
        Mark { epoch: self.epoch, to }
    }

    /// The write succeeded, and made this version.
    pub fn wrote(&mut self, version: V) {
        self.version = Some(version);
    }

    /// The write was refused because another version is there: this one, or none. It may be tried again, if [`admits`](Self::admits) says so.
    ///
    /// # Errors
    /// [`Overtaken`].
    pub fn found(&mut self, there: Option<(Mark, V)>) -> Result<(), Overtaken> {
        match there {
            Some((mark, _)) if mark.epoch > self.epoch => return Err(Overtaken(mark.epoch)),
            Some((mark, version)) => {
                self.version = Some(version);
                // One's own text, whose answer was lost, reaches no further than what is written next.
                if mark.epoch < self.epoch {
                    self.reached = self.reached.max(mark.to);
                }
            }
            None => self.version = None,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again() {
        for to in [None, Some(SegmentNumber(0)), Some(SegmentNumber(1234))] {
            let mark = Mark { epoch: Epoch(7), to };
            assert_eq!(Mark::find(&format!("#EXTM3U\n## {mark}\n17.m4s\n")), mark);
        }
        assert_eq!(Mark::find("#EXTM3U\n"), Mark::default());
        assert_eq!(Mark::find("lectern epoch x to 4"), Mark::default());
    }
}
