//! Which rendition goes when all of them are too much, and which one is shown in its place. Pure.

use lectern_contract::Ladder;
use lectern_contract::cost::{self, Class, PixelRate};

/// A rendition that is put out with the pictures of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandIn {
    /// Whose pictures are not encoded: its place in the ladder.
    pub rendition: usize,
    /// Whose are shown.
    pub by: usize,
}

/// The video renditions of a ladder, and which of them are shed.
#[derive(Debug)]
pub struct Rungs {
    rungs: Vec<Rung>,
    shed: Vec<StandIn>,
    /// Steps that were asked for and not taken yet, because what is to be shed cost nothing.
    due: usize,
    same_rate: bool,
}

#[derive(Debug)]
struct Rung {
    codec: lectern_contract::VideoCodec,
    pixels: u64,
    frame_rate: u32,
    cost: PixelRate,
}

impl Rungs {
    /// Of `ladder`, with nothing shed. Another rendition can stand in if its pictures are smaller and it is of the same codec, for a player chose
    /// by codec what it can decode; and if `same_rate`, of the same frame rate.
    pub fn of(ladder: &Ladder, same_rate: bool) -> Self {
        let rungs = ladder.video.iter().map(|rendition| Rung {
            codec: rendition.codec,
            pixels: u64::from(rendition.width) * u64::from(rendition.height),
            frame_rate: rendition.frame_rate,
            cost: cost::of_rendition(rendition, Class::Software),
        });
        Self { rungs: rungs.collect(), shed: Vec::new(), due: 0, same_rate }
    }

    /// Sheds the costliest rendition that another can stand in for: the next lower one. Not one that costs nothing now (`free`): that is [`Self::due`] once it does. `None`
    /// where there is none left.
    pub fn shed(&mut self, free: impl Fn(usize) -> bool) -> Option<StandIn> {
        let dearest = self.dearest(free);
        self.due += usize::from(dearest.is_none() && self.dearest(|_| false).is_some());
        self.shed.extend(dearest);
        dearest
    }

    /// Sheds what was asked for when it cost nothing, where it does now.
    pub fn due(&mut self, free: impl Fn(usize) -> bool) -> Option<StandIn> {
        let dearest = (self.due > 0).then(|| self.dearest(free)).flatten()?;
        self.due -= 1;
        self.shed.push(dearest);
        Some(dearest)
    }

    /// What is shed next, and what stands in for it.
    fn dearest(&self, free: impl Fn(usize) -> bool) -> Option<StandIn> {
        let whole = |at: &usize| !self.is_shed(*at);
        let stand_ins = (0..self.rungs.len()).filter(whole).filter(|at| !free(*at)).filter_map(|rendition| {
            let above = &self.rungs[rendition];
            let fits = |at: &usize| {
                let below = &self.rungs[*at];
                below.codec == above.codec && below.pixels < above.pixels && (!self.same_rate || below.frame_rate == above.frame_rate)
            };
            let by = (0..self.rungs.len()).filter(whole).filter(fits).max_by_key(|at| self.rungs[*at].pixels)?;
            Some(StandIn { rendition, by })
        });
        stand_ins.max_by_key(|stand_in| self.rungs[stand_in.rendition].cost)
    }

    /// How many steps down there are in all.
    pub fn steps(mut self) -> usize {
        while self.shed(|_| false).is_some() {}
        self.shed.len()
    }

    /// Whether another stands in for it.
    pub fn is_shed(&self, rendition: usize) -> bool {
        self.shed.iter().any(|shed| shed.rendition == rendition)
    }

    /// Takes the last step back; `None` where that was not taken.
    pub fn restore(&mut self) -> Option<StandIn> {
        match self.due.checked_sub(1) {
            Some(due) => {
                self.due = due;
                None
            }
            None => self.shed.pop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::{VideoCodec, VideoRendition};

    fn ladder(rungs: &[(u32, VideoCodec, u32)]) -> Ladder {
        let video = rungs.iter().map(|&(height, codec, frame_rate)| VideoRendition {
            name: format!("{height}p"),
            width: height * 16 / 9,
            height,
            frame_rate,
            codec,
            bitrate: 1_000_000,
        });
        Ladder { video: video.collect(), audio: Vec::new() }
    }

    fn all(rungs: &mut Rungs) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| rungs.shed(|_| false)).map(|it| (it.rendition, it.by)).collect()
    }

    #[test]
    fn the_costliest_goes_first_and_the_next_lower_one_stands_in() {
        use VideoCodec::{H264, Hevc};
        let mut rungs = Rungs::of(&ladder(&[(1080, H264, 30), (720, H264, 30), (360, H264, 30)]), true);
        assert_eq!(all(&mut rungs), [(0, 1), (1, 2)], "the lowest stays");
        assert_eq!(rungs.steps(), 2);
        let mut rungs = Rungs::of(&ladder(&[(1080, H264, 30), (1080, Hevc, 30), (720, H264, 30), (720, Hevc, 30)]), true);
        assert_eq!(all(&mut rungs), [(1, 3), (0, 2)], "each within its codec, the dearer codec first");
    }

    #[test]
    fn what_costs_nothing_is_not_shed() {
        let mut rungs = Rungs::of(&ladder(&[(1080, VideoCodec::H264, 30), (720, VideoCodec::H264, 30), (360, VideoCodec::H264, 30)]), true);
        assert_eq!(rungs.shed(|at| at == 0), Some(StandIn { rendition: 1, by: 2 }));
        assert_eq!((rungs.is_shed(1), rungs.shed(|at| at == 0)), (true, None));
        assert_eq!(rungs.due(|at| at == 0), None, "it costs nothing still");
        assert_eq!(rungs.due(|_| false), Some(StandIn { rendition: 0, by: 2 }));
        assert_eq!(rungs.due(|_| false), None, "once");
    }

    #[test]
    fn what_was_not_shed_is_what_comes_back_first() {
        let mut rungs = Rungs::of(&ladder(&[(720, VideoCodec::H264, 30), (360, VideoCodec::H264, 30)]), true);
        assert_eq!((rungs.shed(|at| at == 0), rungs.restore(), rungs.due(|_| false)), (None, None, None));
        assert_eq!(
            (rungs.shed(|_| false).is_some(), rungs.shed(|_| false), rungs.due(|_| false)),
            (true, None, None),
            "there is none left"
        );
        assert!(rungs.restore().is_some());
    }

    #[test]
    fn a_codec_with_one_rendition_keeps_it() {
        let mut rungs = Rungs::of(&ladder(&[(1080, VideoCodec::Av1, 30), (720, VideoCodec::H264, 30)]), false);
        assert_eq!(rungs.shed(|_| false), None);
    }

    #[test]
    fn parts_need_the_same_frame_rate() {
        let mixed = ladder(&[(1080, VideoCodec::H264, 60), (720, VideoCodec::H264, 30)]);
        assert_eq!(Rungs::of(&mixed, true).shed(|_| false), None);
        assert_eq!(Rungs::of(&mixed, false).shed(|_| false), Some(StandIn { rendition: 0, by: 1 }));
    }

    #[test]
    fn the_last_to_go_comes_back_first() {
        let mut rungs = Rungs::of(&ladder(&[(1080, VideoCodec::H264, 30), (720, VideoCodec::H264, 30), (360, VideoCodec::H264, 30)]), true);
        all(&mut rungs);
        assert_eq!(rungs.restore(), Some(StandIn { rendition: 1, by: 2 }));
        assert_eq!(rungs.restore(), Some(StandIn { rendition: 0, by: 1 }));
        assert_eq!(rungs.restore(), None);
    }
}
