//! What is done with less, for a source whose child dies again and again: each child is given less of what may have killed the one before it.
//!
//! Crashes are counted by the deliveries of the job's message, so that they are counted across pods; a node that was lost counts, too. A job that is
//! handed over or moved has a new message, and a clean slate.

use crate::child::ChildJob;
use crate::engine::Backend;

/// The crash from which on less is done; what came before it may be a moment's bad luck.
const PATIENCE: u32 = 3;
/// What a card says where the lecture's pictures are not shown and the pool orders no other text.
const NO_PICTURE: &str = "Sound only";

/// How careful a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caution {
    /// All is as ordered.
    None,
    /// The CPU encodes, and nothing of the source is passed on.
    SoftwareOnly,
    /// Besides, of the pictures only the rendition of the lowest bit rate is made.
    LowestOnly,
    /// Besides, the source's pictures are not even decoded: there is the slate.
    SoundOnly,
}

impl Caution {
    /// After so many crashes; `None`: the source is the cause whatever is left out of it, and people decide.
    pub const fn after(crashes: u32) -> Option<Self> {
        match crashes.saturating_sub(PATIENCE - 1) {
            0 => Some(Self::None),
            1 => Some(Self::SoftwareOnly),
            2 => Some(Self::LowestOnly),
            3 => Some(Self::SoundOnly),
            _ => None,
        }
    }

    /// What it leaves out, for people; `None` where nothing is.
    pub const fn says(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::SoftwareOnly => Some("its process crashed several times: the CPU encodes all, and nothing is passed on"),
            Self::LowestOnly => Some("its process crashed several times: only the lowest picture is encoded"),
            Self::SoundOnly => Some("its process crashed several times: the source's sound is encoded, and its pictures are not"),
        }
    }

    /// Leaves that out of what a child is given.
    pub fn apply(self, given: &mut ChildJob) {
        given.caution = self.says().map(str::to_owned);
        if self >= Self::SoftwareOnly {
            given.encoder = Backend::Software;
            given.passthrough = false;
        }
        if self >= Self::LowestOnly {
            let lowest = given.job.ladder.video.iter().min_by_key(|rendition| rendition.bitrate).cloned();
            given.job.ladder.video = lowest.into_iter().collect();
        }
        if self >= Self::SoundOnly {
            given.deaf_to_pictures = true;
            given.job.slate.get_or_insert_with(|| NO_PICTURE.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crash_after_the_second_leaves_more_out() {
        let steps: Vec<_> = (0..8).map(Caution::after).collect();
        let wanted = [Caution::None, Caution::None, Caution::None, Caution::SoftwareOnly, Caution::LowestOnly, Caution::SoundOnly];
        assert_eq!(steps[..6], wanted.map(Some));
        assert_eq!(steps[6..], [None, None]);
        assert!(wanted.is_sorted());
    }
}
