//! Bodies of FLV tags, as RTMP carries them in message types 8 (audio), 9 (video) and 18 (script data).
//!
//! Source: Adobe Flash Video File Format Specification 10.1, annex E.4; Enhanced RTMP v1 and v2 for what is only named
//! here to be refused by name. Bodies come from the internet: nothing here panics, recurses or allocates by a claimed
//! length, and payloads are views of the body.

use bytes::{Buf, Bytes};
use std::fmt;

/// What a video tag holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoTag {
    /// The AVCDecoderConfigurationRecord ("AVC sequence header").
    Config(Bytes),
    /// One picture.
    Frame {
        /// Decoding can start here (an IDR picture, as the publisher says).
        keyframe: bool,
        /// Presentation time minus decode time, in milliseconds; negative values are legal.
        composition_millis: i32,
        /// NAL units with the length field size that the configuration names.
        nal_units: Bytes,
    },
    /// Nothing to decode: an end of sequence, a seek command or an empty body.
    Nothing,
}

/// What an audio tag holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioTag {
    /// The AudioSpecificConfig ("AAC sequence header").
    Config(Bytes),
    /// One raw AAC access unit.
    Frame(Bytes),
    /// Nothing to decode: an empty body.
    Nothing,
}

/// Why a tag body cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// The body ends before its header does.
    #[error("an FLV {0} tag is cut short")]
    Short(&'static str),
    /// The codec is known by name and not taken.
    #[error("{0} is not supported: send H.264 video and AAC sound")]
    Codec(CodecName),
    /// A packet type that the specification does not know.
    #[error("an FLV {tag} tag has the unknown packet type {packet_type}")]
    PacketType {
        /// `video` or `audio`.
        tag: &'static str,
        /// The value found.
        packet_type: u8,
    },
    /// A script tag that does not start with a name.
    #[error("an FLV script tag does not start with a name")]
    Script,
}

/// The name of a codec that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecName {
    /// A legacy codec id (FLV E.4.2.1, E.4.3.1) or one that vendors added to it.
    Legacy(&'static str),
    /// An Enhanced RTMP fourCC: `hvc1`, `av01`, `Opus`…
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

/// Reads the body of a video tag (message type 9).
pub fn video(mut body: Bytes) -> Result<VideoTag, FlvError> {
    const SHORT: FlvError = FlvError::Short("video");
    const AVC: u8 = 7;
    const COMMAND_FRAME: u8 = 5;
    if body.is_empty() {
        return Ok(VideoTag::Nothing);
    }
    let head = body.get_u8();
    if head & 0x80 != 0 {
        return Err(FlvError::Codec(four_cc(&body).ok_or(SHORT)?));
    }
    let (frame_type, codec) = (head >> 4, head & 0x0f);
    if frame_type == COMMAND_FRAME {
        return Ok(VideoTag::Nothing);
    }
    if codec != AVC {
        return Err(FlvError::Codec(legacy_video(codec)));
    }
    if body.len() < 4 {
        return Err(SHORT);
    }
    let packet_type = body.get_u8();
    let composition_millis = signed_24([body.get_u8(), body.get_u8(), body.get_u8()]);
    match packet_type {
        0 => Ok(VideoTag::Config(body)),
        1 if body.is_empty() => Ok(VideoTag::Nothing),
        1 => Ok(VideoTag::Frame { keyframe: matches!(frame_type, 1 | 4), composition_millis, nal_units: body }),
        2 => Ok(VideoTag::Nothing),
        packet_type => Err(FlvError::PacketType { tag: "video", packet_type }),
    }
}

/// Reads the body of an audio tag (message type 8).
pub fn audio(mut body: Bytes) -> Result<AudioTag, FlvError> {
    const SHORT: FlvError = FlvError::Short("audio");
    const AAC: u8 = 10;
    const ENHANCED: u8 = 9;
    if body.is_empty() {
        return Ok(AudioTag::Nothing);
    }
    let format = body.get_u8() >> 4;
    if format == ENHANCED {
        return Err(FlvError::Codec(four_cc(&body).ok_or(SHORT)?));
    }
    if format != AAC {
        return Err(FlvError::Codec(legacy_audio(format)));
    }
    if body.is_empty() {
        return Err(SHORT);
    }
    match body.get_u8() {
        0 => Ok(AudioTag::Config(body)),
        1 if body.is_empty() => Ok(AudioTag::Nothing),
        1 => Ok(AudioTag::Frame(body)),
        packet_type => Err(FlvError::PacketType { tag: "audio", packet_type }),
    }
}

/// The name of a script tag (message type 18), past the `@setDataFrame` that publishers put before it: `onMetaData`.
/// Its values are not read: all that Lectern believes about a stream comes from its codec configurations.
pub fn script_name(body: &[u8]) -> Result<&str, FlvError> {
    let (name, rest) = amf0_text(body).ok_or(FlvError::Script)?;
    if name != "@setDataFrame" {
        return Ok(name);
    }
    amf0_text(rest).map(|(name, _)| name).ok_or(FlvError::Script)
}

/// An AMF0 string (marker 2, `u16` length, UTF-8) and what follows it.
fn amf0_text(body: &[u8]) -> Option<(&str, &[u8])> {
    let (&[2, high, low], rest) = body.split_first_chunk::<3>()? else { return None };
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

fn four_cc(body: &[u8]) -> Option<CodecName> {
    body.first_chunk::<4>().map(|code| CodecName::FourCc(*code))
}

/// Three bytes of two's complement, big endian.
fn signed_24([a, b, c]: [u8; 3]) -> i32 {
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn legacy_video(id: u8) -> CodecName {
    match id {
        2 => CodecName::Legacy("Sorenson H.263"),
        3 | 6 => CodecName::Legacy("Screen video"),
        4 | 5 => CodecName::Legacy("On2 VP6"),
        12 => CodecName::Legacy("HEVC (legacy id 12)"),
        13 => CodecName::Legacy("AV1 (legacy id 13)"),
        id => CodecName::Unknown(id),
    }
}

fn legacy_audio(format: u8) -> CodecName {
    match format {
        0 | 3 => CodecName::Legacy("linear PCM"),
        1 => CodecName::Legacy("ADPCM"),
        2 | 14 => CodecName::Legacy("MP3"),
        4..=6 => CodecName::Legacy("Nellymoser"),
        7 | 8 => CodecName::Legacy("G.711"),
        11 => CodecName::Legacy("Speex"),
        13 => CodecName::Legacy("Opus (legacy id 13)"),
        id => CodecName::Unknown(id),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sequence_header_is_a_config() {
        let tag = video(Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 0x64]));
        assert_eq!(tag, Ok(VideoTag::Config(Bytes::from_static(&[1, 0x64]))));
        let tag = audio(Bytes::from_static(&[0xaf, 0, 0x12, 0x10]));
        assert_eq!(tag, Ok(AudioTag::Config(Bytes::from_static(&[0x12, 0x10]))));
    }

    #[test]
    fn a_negative_composition_time_keeps_its_sign() {
        let tag = video(Bytes::from_static(&[0x27, 1, 0xff, 0xff, 0xd7, 9]));
        assert_eq!(tag, Ok(VideoTag::Frame { keyframe: false, composition_millis: -41, nal_units: Bytes::from_static(&[9]) }));
    }

    #[test]
    fn other_codecs_are_refused_by_name() {
        let refusal = |tag: Result<VideoTag, FlvError>| tag.unwrap_err().to_string();
        assert!(refusal(video(Bytes::from_static(&[0x1c, 0, 0, 0, 0]))).contains("HEVC"));
        assert!(refusal(video(Bytes::from_static(b"\x90hvc1..."))).contains("hvc1"));
        assert!(audio(Bytes::from_static(&[0x2f, 0])).unwrap_err().to_string().contains("MP3"));
        assert!(audio(Bytes::from_static(b"\x90Opus")).unwrap_err().to_string().contains("Opus"));
    }

    #[test]
    fn metadata_is_named_with_and_without_its_prefix() {
        assert_eq!(script_name(b"\x02\x00\x0aonMetaData\x08"), Ok("onMetaData"));
        assert_eq!(script_name(b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x08"), Ok("onMetaData"));
        assert_eq!(script_name(b"\x02\xff\xffx"), Err(FlvError::Script));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let body = Bytes::from(bytes);
            let _ = (video(body.clone()), audio(body.clone()));
            let _ = script_name(&body);
        }
    }
}
