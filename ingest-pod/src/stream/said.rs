//! Timed metadata on its way into a run: each gets a time of its own, and all together little room.

use lectern_contract::feed::TimedMetadata;
use lectern_contract::{TICKS_PER_SECOND, Ticks};
use lectern_media::metadata::Said;

/// Bytes that a run may say in a second of its own time: they go into a rendition's segments, whose bandwidth is promised, and into the run's
/// history.
const A_SECOND: usize = 8 << 10;
/// What a message costs beside its text: the boxes around it.
const AROUND: usize = 100;

/// Places what is said on the run's timeline.
#[derive(Debug, Default)]
pub(super) struct Saying {
    newest: Option<Ticks>,
    second: u64,
    bytes: usize,
}

impl Saying {
    /// `said`, when `media` was the newest of the run: it came between that and what follows. `None` where too much is said.
    pub(super) fn place(&mut self, said: Said, media: Ticks) -> Option<TimedMetadata> {
        let Said { name, value } = said;
        let second = media.0 / TICKS_PER_SECOND;
        if self.second != second {
            (self.second, self.bytes) = (second, 0);
        }
        self.bytes += AROUND + name.len() + value.len();
        if self.bytes > A_SECOND {
            return None;
        }
        let at = self.newest.map_or(media, |newest| media.max(newest.plus(Ticks(1))));
        self.newest = Some(at);
        Some(TimedMetadata { at, name, value })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(bytes: usize) -> Said {
        Said { name: "onTextData".into(), value: "x".repeat(bytes) }
    }

    #[test]
    fn no_two_have_the_same_time() {
        let mut saying = Saying::default();
        let times = [90_000, 90_000, 90_000, 90_001, 93_000].map(|media| saying.place(said(1), Ticks(media)).unwrap().at.0);
        assert_eq!(times, [90_000, 90_001, 90_002, 90_003, 93_000]);
    }

    #[test]
    fn who_says_too_much_is_heard_again_in_the_next_second() {
        let mut saying = Saying::default();
        let heard: Vec<_> = (0..8).map(|n| saying.place(said(2 << 10), Ticks(90_000 + n)).is_some()).collect();
        assert_eq!(heard, [true, true, true, false, false, false, false, false]);
        assert!(saying.place(said(2 << 10), Ticks(180_000)).is_some());
    }
}
