//! Bodies of FLV tags, as RTMP carries them in message types 8 (audio), 9 (video) and 18 (script data).
//!
//! Sources: Adobe Flash Video File Format Specification 10.1, annex E.4; Enhanced RTMP v1 and v2 (veovera/enhanced-rtmp,
//! "Enhanced Audio" and "Enhanced Video"), checked against what ffmpeg 9 sends. Bodies come from the internet: nothing
//! here panics, recurses or allocates by a claimed length, and payloads are views of the body.

mod audio;
mod enhanced;
mod video;

pub use audio::audio;
pub use video::video;

use bytes::Bytes;
use lectern_contract::feed::Codec;
use std::fmt;

/// What a video tag holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoTag {
    /// The codec's sequence header, as the publisher wrote it: avcC, hvcC, av1C or vpcC.
    Config {
        /// How the track is coded.
        codec: Codec,
        /// The sequence header, never empty.
        config: Bytes,
    },
    /// One picture.
    Frame {
        /// How it is coded.
        codec: Codec,
        /// Decoding can start here, as the publisher says.
        keyframe: bool,
        /// Presentation time minus decode time, in milliseconds; negative values are legal.
        composition_millis: i32,
        /// The coded picture, never empty; NAL units have the length field size that the configuration names.
        payload: Bytes,
    },
    /// Nothing to decode: an end of sequence, a seek command, metadata or an empty body.
    Nothing,
}

/// What an audio tag holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioTag {
    /// The codec's sequence header, as the publisher wrote it: AudioSpecificConfig, `OpusHead` or FLAC's STREAMINFO.
    Config {
        /// How the track is coded.
        codec: Codec,
        /// The sequence header, never empty.
        config: Bytes,
    },
    /// One sound frame.
    Frame {
        /// How it is coded.
        codec: Codec,
        /// The legacy header's SoundType; for G.711 there is no better source. False in enhanced tags.
        stereo: bool,
        /// The coded sound, never empty.
        payload: Bytes,
    },
    /// Nothing to decode: an end of sequence, a channel layout or an empty body.
    Nothing,
}

/// Why a tag body cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// The body ends before its header does.
    #[error("an FLV {0} tag is cut short")]
    Short(&'static str),
    /// The codec is known by name and not taken.
    #[error("{0} is not supported: send H.264, HEVC, AV1 or VP9 video, and AAC, MP3, Opus, AC-3, FLAC or G.711 sound")]
    Codec(CodecName),
    /// Several tracks in one message (E-RTMP v2 "Multitrack").
    #[error("multitrack {0} of enhanced RTMP is not supported: send one video and one audio track")]
    Multitrack(&'static str),
    /// A sequence header as an MPEG-2 transport stream descriptor (E-RTMP "MPEG2TSSequenceStart").
    #[error("MPEG-2 TS sequence headers of enhanced RTMP are not supported: send SequenceStart")]
    Mpeg2Ts,
    /// More modifiers (E-RTMP v2 "ModEx") before a packet than are followed.
    #[error("an FLV {0} tag has too many ModEx modifiers")]
    Modifiers(&'static str),
    /// A packet type that the specification does not know.
    #[error("an FLV {tag} tag has the unknown packet type {packet_type}")]
    PacketType {
        /// `video` or `audio`.
        tag: &'static str,
        /// The value found.
        packet_type: u8,
    },
}

/// The name of a codec that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecName {
    /// A legacy codec id (FLV E.4.2.1, E.4.3.1) or one that vendors added to it.
    Legacy(&'static str),
    /// An Enhanced RTMP fourCC: `vvc1`, `ec-3`…
    FourCc([u8; 4]),
    /// A legacy id that no specification knows.
    Unknown(u8),
}

impl fmt::Display for CodecName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy(name) => f.write_str(name),
            // A hostile fourCC must not put control characters into logs.
            Self::FourCc(code) => write!(f, "enhanced RTMP codec {}", code.escape_ascii()),
            Self::Unknown(id) => write!(f, "codec id {id}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
