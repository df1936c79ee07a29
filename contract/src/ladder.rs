//! The renditions that a job asks for, all defaults filled in.

use serde::{Deserialize, Serialize};

/// Every rendition of a stream. Names are unique; at least one rendition of either kind is there (the operator's
/// `validate` sees to both).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ladder {
    /// From the costliest down.
    pub video: Vec<VideoRendition>,
    /// The first is the default of the audio group.
    pub audio: Vec<AudioRendition>,
}

impl Ladder {
    /// The names of all renditions, video first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.video.iter().map(|v| v.name.as_str()).chain(self.audio.iter().map(|a| a.name.as_str()))
    }
}

/// A video rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoRendition {
    /// A DNS label, the folder of its objects: `360p`.
    pub name: String,
    /// Pixels, even.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
    /// Frames a second; whole, so that every segment boundary is a frame boundary.
    pub frame_rate: u32,
    /// How it is coded.
    pub codec: VideoCodec,
    /// Average bits a second.
    pub bitrate: u64,
}

/// An AAC-LC stereo rendition at 48 kHz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AudioRendition {
    /// A DNS label, the folder of its objects: `audio`.
    pub name: String,
    /// Average bits a second.
    pub bitrate: u64,
}

/// Codecs that the transcoder encodes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    Hevc,
    /// AOMedia AV1.
    Av1,
}
