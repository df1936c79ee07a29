//! Puts sound on an absolute grid of 1024 samples at 48 kHz: frame n starts at sample n × 1024 after the run's epoch, so
//! that two engines cut the same sound into the same frames.

/// Samples in an AAC-LC frame (ISO/IEC 14496-3 §4.5.4).
pub const FRAME: usize = 1024;
/// Stamps may be off by this many samples (40 ms) before sound is moved: sources stamp in whole milliseconds.
const TOLERANCE: i64 = 1_920;
/// Holes up to this many samples (1 s) are filled with silence.
const LONGEST_SILENCE: i64 = 48_000;

/// A frame of stereo sound at its place.
#[derive(Debug, Clone, PartialEq)]
pub struct SoundFrame {
    /// Its first sample, counted from the run's epoch; a multiple of [`FRAME`].
    pub start: u64,
    /// [`FRAME`] samples of either channel.
    pub channels: [Vec<f32>; 2],
}

/// The grid and the samples that do not fill a frame yet.
#[derive(Debug, Default)]
pub struct AudioGrid {
    pending: [Vec<f32>; 2],
    /// Where `pending` starts; a multiple of [`FRAME`]. `None` before the first sample and after a hole.
    start: Option<u64>,
    /// Where the first sound is to begin, as long as there is none.
    lead: Option<u64>,
    /// The end of the newest frame: none begins before it.
    made: u64,
}

impl AudioGrid {
    /// Adds sound whose first sample belongs at `at` (samples since the epoch); the frames that became whole.
    ///
    /// Both channels have equal lengths.
    pub fn push(&mut self, at: u64, channels: [&[f32]; 2]) -> Vec<SoundFrame> {
        let (mut skip, mut begins) = (0, false);
        match self.start {
            None => (skip, begins) = (self.begin_led(at), true),
            Some(start) => {
                let expected = start + self.pending[0].len() as u64;
                let off = i64::try_from(i128::from(at) - i128::from(expected)).unwrap_or(i64::MAX);
                if off > LONGEST_SILENCE {
                    // What is pending is less than a frame, and there is nothing to fill it with.
                    self.pending.iter_mut().for_each(Vec::clear);
                    (skip, begins) = (self.begin(at), true);
                } else if off > TOLERANCE {
                    self.pending.iter_mut().for_each(|pending| pending.resize(pending.len() + off as usize, 0.0));
                } else if off < -TOLERANCE {
                    skip = usize::try_from(-off).unwrap_or(usize::MAX);
                }
            }
        }
        for (pending, channel) in self.pending.iter_mut().zip(channels) {
            pending.extend_from_slice(channel.get(skip..).unwrap_or_default());
        }
        if begins && skip > channels[0].len() {
            self.start = None; // too short to reach the grid: begin again with the next
        }
        self.whole()
    }

    /// Lets the first sound begin at `line`, a multiple of [`FRAME`], with silence where it comes up to a second later, and without what comes up to a second earlier.
    pub fn lead(&mut self, line: u64) {
        self.lead = Some(line);
    }

    /// Begins with the grid line at or after `at`, if nothing has begun yet.
    pub fn begin_silent(&mut self, at: u64) {
        if self.start.is_none() {
            self.begin(at);
        }
    }

    /// Goes on with silence until `until` (samples since the epoch), where nobody sent sound; the frames that became whole.
    /// Nothing before it has begun.
    pub fn fill(&mut self, until: u64) -> Vec<SoundFrame> {
        let Some(start) = self.start else { return Vec::new() };
        let missing = until.saturating_sub(start + self.pending[0].len() as u64) as usize; // callers fill second by second
        self.pending.iter_mut().for_each(|pending| pending.resize(pending.len() + missing, 0.0));
        self.whole()
    }

    /// Starts at the first grid line from `at` on where nothing was made yet; how many samples lie before it.
    fn begin(&mut self, at: u64) -> usize {
        let start = at.max(self.made).next_multiple_of(FRAME as u64);
        self.start = Some(start);
        usize::try_from(start - at).unwrap_or(usize::MAX)
    }

    /// The same with the first sound, which may have to begin somewhere else.
    fn begin_led(&mut self, at: u64) -> usize {
        match self.lead {
            Some(lead) if at <= lead && lead - at <= LONGEST_SILENCE as u64 => {
                self.start = Some(lead);
                usize::try_from(lead - at).unwrap_or(usize::MAX)
            }
            Some(lead) if at > lead && at - lead <= LONGEST_SILENCE as u64 => {
                self.start = Some(lead);
                self.pending.iter_mut().for_each(|pending| pending.resize((at - lead) as usize, 0.0)); // a second at most
                0
            }
            _ => self.begin(at),
        }
    }

    fn whole(&mut self) -> Vec<SoundFrame> {
        let mut frames = Vec::new();
        while let Some(start) = self.start.filter(|_| self.pending[0].len() >= FRAME) {
            let channels = self.pending.each_mut().map(|pending| pending.drain(..FRAME).collect());
            frames.push(SoundFrame { start, channels });
            self.made = start + FRAME as u64;
            self.start = Some(self.made);
            self.lead = None;
        }
        frames
    }

    /// The samples that are left, filled up with silence to one frame; the grid begins anew after it.
    pub fn flush(&mut self) -> Option<SoundFrame> {
        let start = self.start.take()?;
        if self.pending[0].is_empty() {
            return None;
        }
        self.made = start + FRAME as u64;
        let channels = self.pending.each_mut().map(|pending| {
            let mut channel = std::mem::take(pending);
            channel.resize(FRAME, 0.0);
            channel
        });
        Some(SoundFrame { start, channels })
    }

    /// Where the next sample is expected, if sound is under way.
    pub fn expected(&self) -> Option<u64> {
        self.start.map(|start| start + self.pending[0].len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(frames: &[SoundFrame]) -> Vec<u64> {
        frames.iter().map(|frame| frame.start).collect()
    }

    #[test]
    fn sound_is_cut_on_the_grid_wherever_it_begins() {
        let sound = vec![1.0; 5000];
        let mut grid = AudioGrid::default();
        assert_eq!(starts(&grid.push(1500, [&sound, &sound])), [2048, 3072, 4096, 5120]);
        assert_eq!(grid.expected(), Some(6500));
    }

    #[test]
    fn the_first_sound_begins_where_it_is_told_to_and_stays_where_it_belongs() {
        let sound = vec![1.0; 1024];
        let mut early = AudioGrid::default();
        early.lead(4096);
        assert_eq!((early.push(1500, [&sound, &sound]), early.expected()), (vec![], None), "all of it is too early");
        assert_eq!(early.push(3600, [&sound, &sound]), []);
        let frames = early.push(4624, [&sound, &sound]);
        assert_eq!((starts(&frames), frames[0].channels[0].iter().sum::<f32>(), early.expected()), (vec![4096], 1024.0, Some(5648)));

        let mut late = AudioGrid::default();
        late.lead(4096);
        let frames = late.push(4200, [&sound, &sound]);
        assert_eq!((starts(&frames), frames[0].channels[0].iter().sum::<f32>()), (vec![4096], 920.0), "104 samples of silence");
        assert_eq!(starts(&late.push(100 * 1024, [&sound, &sound])), [100 * 1024], "and a hole after it is a hole");

        let mut much_earlier = AudioGrid::default();
        much_earlier.lead(100 * 1024);
        assert_eq!(starts(&much_earlier.push(1024, [&sound, &sound])), [1024], "a publisher's first stamp silences nobody");

        let mut much_later = AudioGrid::default();
        much_later.lead(4096);
        assert_eq!(starts(&much_later.push(60 * 1024, [&sound, &sound])), [60 * 1024]);
    }

    #[test]
    fn wavering_stamps_move_nothing() {
        let sound = vec![1.0; 1024];
        let mut grid = AudioGrid::default();
        grid.push(0, [&sound, &sound]);
        assert_eq!(starts(&grid.push(1024 + 48, [&sound, &sound])), [1024]);
        assert_eq!(starts(&grid.push(2048 - 48, [&sound, &sound])), [2048]);
    }

    #[test]
    fn a_short_hole_is_silent_and_a_long_one_is_jumped() {
        let sound = vec![1.0; 1024];
        let mut grid = AudioGrid::default();
        grid.push(0, [&sound, &sound]);
        let frames = grid.push(1024 * 11, [&sound, &sound]);
        assert_eq!(frames.len(), 11);
        assert!(frames[..10].iter().all(|frame| frame.channels[0].iter().all(|sample| *sample == 0.0)));
        assert_eq!(starts(&grid.push(1024 * 1000, [&sound, &sound])), [1024 * 1000]);
    }

    #[test]
    fn what_nobody_sent_is_silent() {
        let sound = vec![1.0; 1024];
        let mut grid = AudioGrid::default();
        assert_eq!(grid.fill(48_000), []);
        grid.push(0, [&sound, &sound]);
        assert_eq!(starts(&grid.fill(4000)), [1024, 2048]);
        assert_eq!(grid.fill(4000), []);
        let frames = grid.push(3500, [&sound, &sound]);
        assert_eq!(starts(&frames), [3072]);
        assert_eq!(frames[0].channels[0][..928], [0.0; 928]);
        assert_eq!(frames[0].channels[0][928..], [1.0; 96]);
    }

    #[test]
    fn silence_can_come_before_all_sound() {
        let mut grid = AudioGrid::default();
        grid.begin_silent(1500);
        assert_eq!(starts(&grid.fill(4100)), [2048, 3072]);
        grid.begin_silent(0);
        assert_eq!(grid.expected(), Some(4100));
    }

    /// Silence stands where sound comes later than it was waited for, and ends with a frame as one time in 64 by the clock.
    #[test]
    fn what_comes_when_silence_has_its_place_is_dropped() {
        let sound = vec![1.0; 1024];
        let mut grid = AudioGrid::default();
        grid.push(0, [&sound, &sound]);
        assert_eq!(grid.fill(10 * 1024).len(), 9);
        for at in [4, 5, 6] {
            assert_eq!((grid.push(at * 1024, [&sound, &sound]), grid.expected()), (vec![], Some(10 * 1024)));
        }
        assert_eq!(starts(&grid.fill(11 * 1024)), [10 * 1024], "silence goes on");
        assert_eq!(starts(&grid.push(11 * 1024, [&sound, &sound])), [11 * 1024]);
    }

    proptest::proptest! {
        /// Whatever comes, early, late or after a hole: no frame starts before the end of one that was made.
        #[test]
        fn sound_never_goes_back(steps in proptest::collection::vec((0..120_000u64, 0..3_000usize, proptest::bool::weighted(0.2)), 0..200)) {
            let (mut grid, mut end, sound) = (AudioGrid::default(), 0, vec![1.0; 3_000]);
            for (at, length, fills) in steps {
                let frames = if fills { grid.fill(end + at % 48_000) } else { grid.push((end + at).saturating_sub(60_000), [&sound[..length], &sound[..length]]) };
                for frame in frames {
                    assert!(frame.start >= end && frame.start.is_multiple_of(FRAME as u64));
                    end = frame.start + FRAME as u64;
                }
            }
        }
    }

    #[test]
    fn overlapping_sound_is_cut_off() {
        let sound = vec![1.0; 4096];
        let mut grid = AudioGrid::default();
        grid.push(0, [&sound, &sound]);
        assert_eq!(grid.push(1024, [&sound, &sound]).len(), 1);
        assert_eq!(grid.expected(), Some(5120));
    }
}
