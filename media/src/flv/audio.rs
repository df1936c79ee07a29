//! Audio tags (message type 8), legacy and enhanced.

use super::enhanced::{self, CODED_FRAMES, SEQUENCE_END, SEQUENCE_START};
use super::{AudioTag, CodecName, FlvError};
use bytes::{Buf, Bytes};
use lectern_contract::feed::Codec;

const TAG: &str = "audio";
/// SoundFormat that enhanced RTMP took for its header.
const ENHANCED: u8 = 9;

/// AudioPacketTypes of enhanced RTMP that pictures have not, or have under another number.
const MULTICHANNEL_CONFIG: u8 = 4;
const MULTITRACK: u8 = 5;

/// Reads the body of an audio tag (message type 8).
///
/// # Errors
/// The body is cut short, or holds what is not taken.
pub fn audio(mut body: Bytes) -> Result<AudioTag, FlvError> {
    if body.is_empty() {
        return Ok(AudioTag::Nothing);
    }
    let head = body.get_u8();
    let stereo = head & 1 == 1;
    match head >> 4 {
        ENHANCED => enhanced(head & 0x0f, body),
        10 => aac(stereo, body),
        2 | 14 => Ok(frame(Codec::Mp3, stereo, body)), // 14 is MP3 at 8 kHz, which its frames say, too
        7 => Ok(frame(Codec::PcmAlaw, stereo, body)),
        8 => Ok(frame(Codec::PcmMulaw, stereo, body)),
        format => Err(FlvError::Codec(legacy(format))),
    }
}

fn aac(stereo: bool, mut body: Bytes) -> Result<AudioTag, FlvError> {
    if body.is_empty() {
        return Err(FlvError::Short(TAG));
    }
    match body.get_u8() {
        SEQUENCE_START => Ok(config(Codec::Aac, body)),
        CODED_FRAMES => Ok(frame(Codec::Aac, stereo, body)),
        packet_type => Err(FlvError::PacketType { tag: TAG, packet_type }),
    }
}

fn enhanced(packet_type: u8, mut body: Bytes) -> Result<AudioTag, FlvError> {
    let packet_type = enhanced::packet_type(packet_type, &mut body, TAG)?;
    if packet_type == MULTITRACK {
        return Err(FlvError::Multitrack(TAG));
    }
    let codec = match &enhanced::four_cc(&mut body, TAG)? {
        b"mp4a" => Codec::Aac,
        b".mp3" => Codec::Mp3,
        b"Opus" => Codec::Opus,
        b"ac-3" => Codec::Ac3,
        b"fLaC" => Codec::Flac,
        code => return Err(enhanced::refused(*code)),
    };
    match packet_type {
        // These have no sequence header; what ffmpeg sends in its place is empty.
        SEQUENCE_START if matches!(codec, Codec::Mp3 | Codec::Ac3) => Ok(AudioTag::Nothing),
        SEQUENCE_START => Ok(config(codec, body)),
        CODED_FRAMES => Ok(frame(codec, false, body)),
        // The layout of the channels: the codecs' own headers say it, or their default holds.
        SEQUENCE_END | MULTICHANNEL_CONFIG => Ok(AudioTag::Nothing),
        packet_type => Err(FlvError::PacketType { tag: TAG, packet_type }),
    }
}

fn config(codec: Codec, config: Bytes) -> AudioTag {
    if config.is_empty() { AudioTag::Nothing } else { AudioTag::Config { codec, config } }
}

fn frame(codec: Codec, stereo: bool, payload: Bytes) -> AudioTag {
    if payload.is_empty() { AudioTag::Nothing } else { AudioTag::Frame { codec, stereo, payload } }
}

fn legacy(format: u8) -> CodecName {
    match format {
        0 | 3 => CodecName::Legacy("linear PCM"),
        1 => CodecName::Legacy("ADPCM"),
        4..=6 => CodecName::Legacy("Nellymoser"),
        11 => CodecName::Legacy("Speex"),
        13 => CodecName::Legacy("Opus (legacy id 13)"),
        id => CodecName::Unknown(id),
    }
}
