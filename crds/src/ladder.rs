//! EncodingLadder: renditions under a name, for many streams.

use kube::{CustomResource, KubeSchema};
use lectern_contract::{AudioRendition, Ladder, VideoCodec, VideoRendition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named set of renditions.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lectern.video",
    version = "v1alpha1",
    kind = "EncodingLadder",
    shortname = "ladder",
    category = "lectern",
    printcolumn(name = "Video", type_ = "string", json_path = ".spec.video[*].name"),
    printcolumn(name = "Audio", type_ = "string", json_path = ".spec.audio[*].name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EncodingLadderSpec {
    /// Video renditions, from the costliest down.
    #[schemars(length(min = 1, max = 12))]
    pub video: Vec<RenditionSpec>,
    /// Audio renditions; the first is the default.
    #[schemars(length(min = 1, max = 4))]
    pub audio: Vec<AudioSpec>,
}

/// A video rendition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("self.width % 2 == 0 && self.height % 2 == 0").message("a rendition's width and height are even numbers (4:2:0 sampling halves them)"))]
pub struct RenditionSpec {
    /// A DNS label, unique in the ladder; the folder of the rendition's objects.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Pixels.
    #[schemars(range(min = 64, max = 7680))]
    pub width: i32,
    /// Pixels.
    #[schemars(range(min = 64, max = 4320))]
    pub height: i32,
    /// Whole frames a second: segment boundaries are frame boundaries.
    #[serde(default = "default_frame_rate")]
    #[schemars(range(min = 1, max = 120))]
    pub frame_rate: i32,
    /// How it is coded.
    #[serde(default)]
    pub codec: RenditionCodec,
    /// Average bits a second.
    #[schemars(range(min = 32_000, max = 100_000_000))]
    pub bitrate: i64,
    /// When it is encoded.
    #[serde(default)]
    pub when: When,
}

/// When a video rendition is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum When {
    /// While the lecture goes on.
    #[default]
    Live,
    /// After its end, of the original (`record.original: true`), in slots that no lecture needs: for codecs that are too dear to encode live. The
    /// recording gets it once it is whole.
    Archive,
}

/// An AAC-LC stereo rendition at 48 kHz.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioSpec {
    /// A DNS label, unique in the ladder; the folder of the rendition's objects.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Average bits a second.
    #[schemars(range(min = 16_000, max = 512_000))]
    pub bitrate: i64,
}

/// Codecs of a video rendition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RenditionCodec {
    /// ITU-T H.264: every player takes it.
    #[default]
    H264,
    /// ITU-T H.265: a third less for the same picture; Apple's players, most television sets, few browsers elsewhere. An encoder costs some three
    /// times that of H.264.
    Hevc,
    /// AOMedia AV1: half for the same picture; current browsers and phones. An encoder costs some four times that of H.264.
    Av1,
}

fn default_frame_rate() -> i32 {
    30
}

/// Why renditions cannot be a ladder.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadLadder {
    /// Two renditions would write to one folder.
    #[error("two renditions are called {0:?}; give each a name of its own")]
    SameName(String),
    /// The name is one that a run's own objects use.
    #[error("a rendition cannot be called {0:?}, because that folder is Lectern's own; choose another name")]
    Reserved(String),
    /// Nothing to encode of one kind.
    #[error("the ladder has no {0} rendition; add one")]
    Missing(&'static str),
    /// There would be nothing to see before the end.
    #[error("all video renditions are `when: Archive`; add one that is encoded live")]
    NothingLive,
    /// A number out of range (admission refuses it; a resource written past admission ends here).
    #[error("rendition {0:?} has a size, frame rate or bitrate that cannot be")]
    Number(String),
}

impl EncodingLadderSpec {
    /// What is encoded live, as jobs carry it, and what after the end; or what is wrong with the ladder.
    pub fn resolve(&self) -> Result<(Ladder, Vec<VideoRendition>), BadLadder> {
        let mut ladder = Ladder {
            video: self.video.iter().map(RenditionSpec::resolve).collect::<Result<_, _>>()?,
            audio: self.audio.iter().map(AudioSpec::resolve).collect::<Result<_, _>>()?,
        };
        if ladder.video.is_empty() {
            return Err(BadLadder::Missing("video"));
        }
        if ladder.audio.is_empty() {
            return Err(BadLadder::Missing("audio"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for name in ladder.names() {
            if matches!(name, "ledger" | "original" | "captions") {
                return Err(BadLadder::Reserved(name.to_owned()));
            }
            if !seen.insert(name) {
                return Err(BadLadder::SameName(name.to_owned()));
            }
        }
        let mut archive = Vec::new();
        for (at, _) in self.video.iter().enumerate().rev().filter(|(_, video)| video.when == When::Archive) {
            archive.insert(0, ladder.video.remove(at));
        }
        if ladder.video.is_empty() { Err(BadLadder::NothingLive) } else { Ok((ladder, archive)) }
    }
}

impl RenditionSpec {
    fn resolve(&self) -> Result<VideoRendition, BadLadder> {
        let even = |pixels: i32| u32::try_from(pixels).ok().filter(|p| *p > 0 && p % 2 == 0);
        let bad = || BadLadder::Number(self.name.clone());
        Ok(VideoRendition {
            name: self.name.clone(),
            width: even(self.width).ok_or_else(bad)?,
            height: even(self.height).ok_or_else(bad)?,
            frame_rate: u32::try_from(self.frame_rate).ok().filter(|rate| *rate > 0).ok_or_else(bad)?,
            codec: match self.codec {
                RenditionCodec::H264 => VideoCodec::H264,
                RenditionCodec::Hevc => VideoCodec::Hevc,
                RenditionCodec::Av1 => VideoCodec::Av1,
            },
            bitrate: u64::try_from(self.bitrate).map_err(|_| bad())?,
        })
    }
}

impl AudioSpec {
    fn resolve(&self) -> Result<AudioRendition, BadLadder> {
        let bitrate = u64::try_from(self.bitrate).map_err(|_| BadLadder::Number(self.name.clone()))?;
        Ok(AudioRendition { name: self.name.clone(), bitrate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(video: &[&str], audio: &[&str]) -> EncodingLadderSpec {
        EncodingLadderSpec {
            video: video
                .iter()
                .map(|name| RenditionSpec {
                    name: (*name).into(),
                    width: 320,
                    height: 180,
                    frame_rate: 30,
                    codec: RenditionCodec::H264,
                    bitrate: 200_000,
                    when: When::Live,
                })
                .collect(),
            audio: audio.iter().map(|name| AudioSpec { name: (*name).into(), bitrate: 96_000 }).collect(),
        }
    }

    #[test]
    fn two_renditions_of_one_name_are_refused() {
        assert_eq!(ladder(&["a", "a"], &["b"]).resolve(), Err(BadLadder::SameName("a".into())));
        assert_eq!(ladder(&["a"], &["a"]).resolve(), Err(BadLadder::SameName("a".into())));
    }

    #[test]
    fn a_ladder_needs_a_picture_and_a_sound() {
        assert_eq!(ladder(&[], &["a"]).resolve(), Err(BadLadder::Missing("video")));
        assert_eq!(ladder(&["a"], &[]).resolve(), Err(BadLadder::Missing("audio")));
    }

    #[test]
    fn what_is_encoded_after_the_end_is_no_part_of_the_live_ladder() {
        let mut both = ladder(&["a", "b", "c"], &["s"]);
        both.video[1].when = When::Archive;
        let (live, archive) = both.resolve().unwrap();
        assert_eq!(live.names().collect::<Vec<_>>(), ["a", "c", "s"]);
        assert_eq!(archive.iter().map(|video| &video.name).collect::<Vec<_>>(), ["b"]);
        both.video[1].name = "a".into();
        assert_eq!(both.resolve(), Err(BadLadder::SameName("a".into())), "folders are shared");
        let mut late = ladder(&["a"], &["s"]);
        late.video[0].when = When::Archive;
        assert_eq!(late.resolve(), Err(BadLadder::NothingLive));
    }

    #[test]
    fn folders_of_the_run_itself_are_no_rendition_names() {
        for reserved in ["ledger", "original", "captions"] {
            assert_eq!(ladder(&[reserved], &["a"]).resolve(), Err(BadLadder::Reserved(reserved.into())));
        }
    }

    #[test]
    fn an_odd_width_past_admission_is_still_refused() {
        let mut odd = ladder(&["a"], &["b"]);
        odd.video[0].width = 321;
        assert_eq!(odd.resolve(), Err(BadLadder::Number("a".into())));
    }
}
