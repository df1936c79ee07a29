//! A run's timeline as it is handed over from one owner to the next (`lectern_media::timeline` is what goes by it).

use crate::Ticks;
use crate::frame::{Fields, FrameError};

/// Unwrapped stamps beyond this are no stamps: three hundred thousand years in milliseconds.
const MOST_MILLIS: i64 = 1 << 53;

/// How the stamps of a run's publisher become times of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimelineState {
    /// The picture's.
    pub video: LaneState,
    /// The sound's.
    pub audio: LaneState,
    /// The connection's first stamp lies here or later.
    pub not_before: Ticks,
    /// The connection has placed something.
    pub begun: bool,
}

/// The same of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneState {
    /// The newest access unit's decode time, and how long it lasts.
    pub end: Option<(Ticks, Ticks)>,
    /// How stamps are mapped.
    pub clock: Option<ClockState>,
}

/// A mapping of stamps, in milliseconds and unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockState {
    /// Where `first` lies.
    pub base: Ticks,
    /// The first stamp.
    pub first: i64,
    /// The newest one.
    pub last: i64,
}

impl TimelineState {
    /// Its bytes in a frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { video, audio, not_before, begun } = self;
        let mut out = Vec::new();
        out.extend(not_before.0.to_be_bytes());
        out.push(u8::from(*begun));
        for LaneState { end, clock } in [video, audio] {
            out.push(u8::from(end.is_some()) | u8::from(clock.is_some()) << 1);
            if let Some((newest, duration)) = end {
                out.extend([newest.0, duration.0].iter().flat_map(|time| time.to_be_bytes()));
            }
            if let Some(ClockState { base, first, last }) = clock {
                out.extend(base.0.to_be_bytes());
                out.extend([first, last].iter().flat_map(|stamp| stamp.to_be_bytes()));
            }
        }
        out
    }

    /// Takes what [`TimelineState::encode`] wrote.
    pub(crate) fn decode(fields: &mut Fields) -> Result<Self, FrameError> {
        let not_before = Ticks(fields.u64("not before")?);
        let begun = fields.u8("begun")? != 0;
        Ok(Self { not_before, begun, video: lane(fields)?, audio: lane(fields)? })
    }
}

fn lane(fields: &mut Fields) -> Result<LaneState, FrameError> {
    let has = fields.u8("lane")?;
    let mut lane = LaneState::default();
    if has & 1 != 0 {
        lane.end = Some((Ticks(fields.u64("newest")?), Ticks(fields.u64("duration")?)));
    }
    if has & 2 != 0 {
        let base = Ticks(fields.u64("base")?);
        lane.clock = Some(ClockState { base, first: stamp(fields)?, last: stamp(fields)? });
    }
    Ok(lane)
}

fn stamp(fields: &mut Fields) -> Result<i64, FrameError> {
    let stamp = fields.u64("stamp")?.cast_signed();
    if (-MOST_MILLIS..=MOST_MILLIS).contains(&stamp) { Ok(stamp) } else { Err(fields.bad("stamp")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lanes() -> impl Strategy<Value = LaneState> {
        let clock = (any::<u64>(), -MOST_MILLIS..=MOST_MILLIS, -MOST_MILLIS..=MOST_MILLIS);
        let clock = clock.prop_map(|(base, first, last)| ClockState { base: Ticks(base), first, last });
        let end = any::<(u64, u64)>().prop_map(|(newest, duration)| (Ticks(newest), Ticks(duration)));
        (proptest::option::of(end), proptest::option::of(clock)).prop_map(|(end, clock)| LaneState { end, clock })
    }

    proptest! {
        #[test]
        fn it_comes_back(video in lanes(), audio in lanes(), not_before: u64, begun: bool) {
            let state = TimelineState { video, audio, not_before: Ticks(not_before), begun };
            prop_assert_eq!(TimelineState::decode(&mut Fields::new(8, state.encode().into())), Ok(state));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            let _ = TimelineState::decode(&mut Fields::new(8, bytes.into()));
        }
    }
}
