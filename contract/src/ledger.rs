//! What the packager notes of its confirmed objects, for the Lambda that makes VOD playlists of them.

use crate::keys::CAPTIONS;
use crate::{Epoch, RunId, SegmentDuration, SegmentNumber, Ticks, WallMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `ledger/{minute}.ledger.json`: the segments of one minute of the run's timeline that S3 has confirmed. Rewritten as a
/// whole while its minute grows; a segment stands in exactly one ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The run.
    pub run: RunId,
    /// Who wrote it.
    pub epoch: Epoch,
    /// Minutes since the run's epoch.
    pub minute: u64,
    /// By rendition name, each in the order of segment numbers.
    pub segments: BTreeMap<String, Vec<LedgerSegment>>,
}

impl Ledger {
    /// Takes in what another owner has entered and this one has not.
    pub fn absorb(&mut self, other: Self) {
        for (rendition, segments) in other.segments {
            let own = self.segments.entry(rendition).or_default();
            for segment in segments {
                if let Err(at) = own.binary_search_by_key(&segment.number, |known| known.number) {
                    own.insert(at, segment);
                }
            }
        }
    }
}

/// One confirmed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// How much later than its number's time it begins, in ticks: a run's first by what it lacks, one of sound by up to a frame. Not written where it is zero, and
    /// zero where an older build has written it.
    #[serde(default, skip_serializing_if = "Ticks::is_zero")]
    pub offset: Ticks,
    /// Its real duration in ticks: shorter than the ladder's at the end of a run or before a gap.
    pub duration: Ticks,
    /// Its size.
    pub bytes: u64,
    /// Which `init-{n}.mp4` it needs; of no meaning for captions.
    pub init: u32,
}

/// `ended.json`: written once, after every ledger; it has all that the VOD playlists need besides the ledgers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// Wall-clock time of tick zero.
    pub anchor: WallMillis,
    /// The ladder's segment duration.
    pub segment_duration: SegmentDuration,
    /// The minutes that have a ledger, ascending.
    pub minutes: Vec<u64>,
    /// The renditions as the multivariant playlist names them.
    pub renditions: Vec<EndedRendition>,
}

/// `archive.json`: how far the renditions are that are encoded after the end. Whoever works on them writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// The run.
    pub run: RunId,
    /// How far they are.
    #[serde(flatten)]
    pub state: ArchiveState,
}

/// See [`Archive`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum ArchiveState {
    /// A transcoder is at it, or was.
    Encoding {
        /// Segments that are stored.
        done: u64,
        /// Segments that will be.
        of: u64,
    },
    /// All are stored, and [`Ended`] names their renditions.
    Done,
    /// It cannot be done; trying again would not help.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// A rendition of an ended run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedRendition {
    /// Its name, the folder of its objects.
    pub name: String,
    /// RFC 6381 codec string.
    pub codec: String,
    /// Average bits a second as configured.
    pub bitrate: u64,
    /// Width, height and frames a second; `None` for audio and captions.
    pub picture: Option<Picture>,
}

impl EndedRendition {
    /// The captions of the source's pictures, as WebVTT. They are there once there was something to read.
    pub fn captions() -> Self {
        Self { name: CAPTIONS.to_owned(), codec: "wvtt".to_owned(), bitrate: 0, picture: None }
    }

    /// Whether it is heard.
    pub fn is_sound(&self) -> bool {
        self.picture.is_none() && !self.is_text()
    }

    /// Whether it is [`EndedRendition::captions`], and neither picture nor sound.
    pub fn is_text(&self) -> bool {
        self.name == CAPTIONS
    }
}

/// The picture of a video rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames a second.
    pub frame_rate: u32,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_older_build_s_segments_are_read_and_those_on_time_are_written_as_it_did() {
        let written = r#"{"number":7,"duration":180000,"bytes":9,"init":0}"#;
        let read: LedgerSegment = serde_json::from_str(written).unwrap();
        assert_eq!((read.offset, serde_json::to_string(&read).unwrap().as_str()), (Ticks(0), written));
        let late = LedgerSegment { offset: Ticks(960), ..read };
        assert_eq!(serde_json::from_str::<LedgerSegment>(&serde_json::to_string(&late).unwrap()).unwrap(), late);
    }

    #[test]
    fn a_ledger_keeps_its_own_and_takes_in_what_it_lacks() {
        let ledger = |epoch, segments: &[(&str, &[(u64, u64)])]| {
            let entry = |(number, bytes): &(u64, u64)| LedgerSegment {
                number: SegmentNumber(*number),
                offset: Ticks(0),
                duration: Ticks(1),
                bytes: *bytes,
                init: 0,
            };
            let segments = segments.iter().map(|(name, entries)| ((*name).to_owned(), entries.iter().map(entry).collect())).collect();
            Ledger { run: "r".into(), epoch: Epoch(epoch), minute: 0, segments }
        };
        let mut newer = ledger(2, &[("360p", &[(2, 20), (3, 20)])]);
        newer.absorb(ledger(1, &[("360p", &[(1, 10), (2, 10), (4, 10)]), ("audio", &[(4, 10)])]));
        assert_eq!(newer, ledger(2, &[("360p", &[(1, 10), (2, 20), (3, 20), (4, 10)]), ("audio", &[(4, 10)])]));
    }
}
