//! The original: what a publisher sent, as it came, in fragmented MP4 (ISO/IEC 14496-12). Nothing is coded anew.
//!
//! A [`Cutter`] takes a run's feed and cuts it into [`Piece`]s of about ten seconds; a piece writes itself as a whole,
//! playable file. Decode times (`tfdt`) and the order of fragments (`mfhd`) count on the run's timeline, so the files of
//! a run can be joined by writing one behind the other.

mod boxes;
mod cutter;
mod entry;
mod picture;
mod read;

pub use cutter::{Cutter, Limits};
pub use read::{Unreadable, pictures};

use crate::cmaf::{self, CmafError, Sample};
use bytes::Bytes;
use lectern_contract::feed::{AccessUnit, Codec, Track};
use lectern_contract::{TICKS_PER_SECOND, Ticks};

/// The timescale of both tracks: the run's own ticks.
pub const TIMESCALE: u32 = TICKS_PER_SECOND as u32; // 90,000
/// A fragment is ended by the first access unit that is this much later than its first one.
const FRAGMENT: Ticks = Ticks(TICKS_PER_SECOND);
/// How long a track's only access unit is said to last: a thirtieth of a second.
const NOMINAL: u32 = 3_000;
/// What the boxes take beside payloads, about: of an access unit, and of a fragment or a track.
const UNIT_OVERHEAD: usize = 16;
const BOX_OVERHEAD: usize = 1024;

/// Why a piece cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OriginalError {
    /// A box cannot be written, or is too large.
    #[error(transparent)]
    Boxes(#[from] CmafError),
    /// The sample entry of a codec needs something that is not there.
    #[error("{codec:?} cannot be described: {missing}")]
    Undescribed {
        /// The codec.
        codec: Codec,
        /// What is missing or malformed.
        missing: &'static str,
    },
}

impl From<mp4_atom::Error> for OriginalError {
    fn from(error: mp4_atom::Error) -> Self {
        Self::Boxes(error.into())
    }
}

/// How a track is coded: its codec, and the codec's config as [`Codec`] defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coding {
    /// The codec.
    pub codec: Codec,
    /// Its config.
    pub config: Bytes,
}

/// One file's worth of a run; never empty. Payloads are shared with whoever else holds them, until [`Piece::write`].
#[derive(Debug, Clone)]
pub struct Piece {
    name: Ticks,
    coding: [Option<Coding>; 2],
    units: Vec<AccessUnit>,
    bytes: usize,
}

impl Piece {
    /// What the piece is called by: the decode time of its first access unit, moved behind the name of the piece before
    /// it where the two would be the same.
    pub fn name(&self) -> Ticks {
        self.name
    }

    /// The access units, in the order in which they came.
    pub fn units(&self) -> &[AccessUnit] {
        &self.units
    }

    /// Where the last access unit ends, as far as its track lets guess.
    pub fn end(&self) -> Ticks {
        let ends = [Track::Video, Track::Audio].map(|track| {
            let last = self.of(track).last()?;
            Some(last.dts.plus(Ticks(self.durations(track).last().copied().unwrap_or(NOMINAL).into())))
        });
        ends.into_iter().flatten().max().unwrap_or(self.name)
    }

    /// The file: `ftyp` and `moov`, then for about every second a `moof` and `mdat` of each track. Copies the payloads.
    ///
    /// # Errors
    /// [`OriginalError::Undescribed`] where a config is malformed, or AC-3 comes without a syncframe.
    pub fn write(&self) -> Result<Bytes, OriginalError> {
        let seconds = self.end().since(self.name).0 / FRAGMENT.0 + 2;
        let overhead = self.units.len() * UNIT_OVERHEAD + (2 * seconds as usize + 2) * BOX_OVERHEAD;
        let mut out = Vec::with_capacity(self.bytes + overhead);
        boxes::header(&self.tracks(), &mut out)?;
        let mut durations = [Track::Video, Track::Audio].map(|track| self.durations(track).into_iter());
        let mut rest = &self.units[..];
        while let Some(first) = rest.first() {
            let length = rest.iter().position(|unit| unit.dts.since(first.dts) >= FRAGMENT).unwrap_or(rest.len());
            let (units, after) = rest.split_at(length);
            for track in [Track::Video, Track::Audio] {
                fragment(&mut out, track, units, &mut durations[track as usize])?;
            }
            rest = after;
        }
        Ok(out.into())
    }

    fn of(&self, track: Track) -> impl Iterator<Item = &AccessUnit> {
        self.units.iter().filter(move |unit| unit.track == track)
    }

    /// The tracks that are configured, each with its first access unit. One that is configured and silent is written
    /// all the same: a file that is joined behind this one may go on with it.
    fn tracks(&self) -> Vec<boxes::Described<'_>> {
        let described = |track| {
            let coding = self.coding[track as usize].as_ref()?;
            Some(boxes::Described { id: id(track), coding, first: self.of(track).next() })
        };
        [Track::Video, Track::Audio].into_iter().filter_map(described).collect()
    }

    /// How long each access unit of a track lasts: until the next one, the last as long as the one before it.
    fn durations(&self, track: Track) -> Vec<u32> {
        let times: Vec<Ticks> = self.of(track).map(|unit| unit.dts).collect();
        let mut steps: Vec<u32> = times.windows(2).map(|pair| pair[1].since(pair[0]).0.try_into().unwrap_or(u32::MAX)).collect();
        steps.push(steps.last().copied().unwrap_or(NOMINAL));
        steps
    }
}

/// The id of a track, the same in every file.
fn id(track: Track) -> u32 {
    match track {
        Track::Video => 1,
        Track::Audio => 2,
    }
}

/// Writes those of `units` that are of `track`, if any are.
fn fragment(out: &mut Vec<u8>, track: Track, units: &[AccessUnit], durations: &mut impl Iterator<Item = u32>) -> Result<(), OriginalError> {
    let mut start = None;
    let mut samples = Vec::new();
    for unit in units.iter().filter(|unit| unit.track == track) {
        start.get_or_insert(unit.dts);
        let offset = unit.pts.0 as i128 - unit.dts.0 as i128;
        samples.push(Sample {
            data: unit.payload.clone(),
            duration: durations.next().unwrap_or(NOMINAL), // there is one for each
            composition_offset: offset.clamp(i32::MIN.into(), i32::MAX.into()) as i32, // clamped to what fits
            sync: unit.keyframe,
        });
    }
    let Some(start) = start else { return Ok(()) };
    // Grows from fragment to fragment and from file to file, for the 24 days that 32 bits last.
    let sequence = (start.as_millis() as u32).wrapping_mul(2).wrapping_add(track as u32);
    cmaf::fragment_head(out, id(track), sequence, start.0, &samples)?;
    samples.iter().for_each(|sample| out.extend_from_slice(&sample.data));
    Ok(())
}

#[cfg(test)]
mod tests;
