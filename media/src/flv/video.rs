//! Video tags (message type 9), legacy and enhanced.

use super::enhanced::{self, CODED_FRAMES, SEQUENCE_END, SEQUENCE_START};
use super::{CodecName, FlvError, VideoTag};
use bytes::{Buf, Bytes};
use lectern_contract::feed::Codec;

const TAG: &str = "video";
const SHORT: FlvError = FlvError::Short(TAG);

/// FrameType of a seek command (FLV E.4.3.1); the packet then holds no picture.
const COMMAND_FRAME: u8 = 5;
/// CodecID of H.264.
const AVC: u8 = 7;
/// CodecID that vendors (Kingsoft, Tencent, many cameras) gave HEVC before enhanced RTMP, in the layout of H.264.
const VENDORS_HEVC: u8 = 12;

/// VideoPacketTypes of enhanced RTMP that sound has not, or has under another number.
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const MPEG2_TS_SEQUENCE_START: u8 = 5;
const MULTITRACK: u8 = 6;

/// Reads the body of a video tag (message type 9).
///
/// # Errors
/// The body is cut short, or holds what is not taken.
pub fn video(mut body: Bytes) -> Result<VideoTag, FlvError> {
    if body.is_empty() {
        return Ok(VideoTag::Nothing);
    }
    let head = body.get_u8();
    let (frame_type, low) = (head >> 4 & 7, head & 0x0f);
    let keyframe = matches!(frame_type, 1 | 4);
    if head & 0x80 != 0 {
        return enhanced(frame_type, keyframe, low, body);
    }
    if frame_type == COMMAND_FRAME {
        return Ok(VideoTag::Nothing);
    }
    let codec = match low {
        AVC => Codec::H264,
        VENDORS_HEVC => Codec::Hevc,
        id => return Err(FlvError::Codec(legacy(id))),
    };
    if body.is_empty() {
        return Err(SHORT);
    }
    let packet_type = body.get_u8();
    let composition_millis = composition(&mut body)?;
    match packet_type {
        SEQUENCE_START => Ok(config(codec, body)),
        CODED_FRAMES => Ok(frame(codec, keyframe, composition_millis, body)),
        SEQUENCE_END => Ok(VideoTag::Nothing),
        packet_type => Err(FlvError::PacketType { tag: TAG, packet_type }),
    }
}

fn enhanced(frame_type: u8, keyframe: bool, packet_type: u8, mut body: Bytes) -> Result<VideoTag, FlvError> {
    let packet_type = enhanced::packet_type(packet_type, &mut body, TAG)?;
    if packet_type == METADATA || frame_type == COMMAND_FRAME {
        return Ok(VideoTag::Nothing);
    }
    if packet_type == MULTITRACK {
        return Err(FlvError::Multitrack(TAG));
    }
    let codec = match &enhanced::four_cc(&mut body, TAG)? {
        b"avc1" => Codec::H264,
        b"hvc1" => Codec::Hevc,
        b"av01" => Codec::Av1,
        b"vp09" => Codec::Vp9,
        code => return Err(enhanced::refused(*code)),
    };
    match packet_type {
        SEQUENCE_START => Ok(config(codec, body)),
        CODED_FRAMES => {
            // Only codecs that reorder outside of their bitstream have a composition time.
            let composition_millis = if matches!(codec, Codec::H264 | Codec::Hevc) { composition(&mut body)? } else { 0 };
            Ok(frame(codec, keyframe, composition_millis, body))
        }
        CODED_FRAMES_X => Ok(frame(codec, keyframe, 0, body)),
        SEQUENCE_END => Ok(VideoTag::Nothing),
        MPEG2_TS_SEQUENCE_START => Err(FlvError::Mpeg2Ts),
        packet_type => Err(FlvError::PacketType { tag: TAG, packet_type }),
    }
}

/// ffmpeg sends an empty sequence header where its encoder has none yet, and the real one later.
fn config(codec: Codec, config: Bytes) -> VideoTag {
    if config.is_empty() { VideoTag::Nothing } else { VideoTag::Config { codec, config } }
}

fn frame(codec: Codec, keyframe: bool, composition_millis: i32, payload: Bytes) -> VideoTag {
    if payload.is_empty() { VideoTag::Nothing } else { VideoTag::Frame { codec, keyframe, composition_millis, payload } }
}

/// Three bytes of two's complement, big endian.
fn composition(body: &mut Bytes) -> Result<i32, FlvError> {
    let &[a, b, c] = body.first_chunk::<3>().ok_or(SHORT)?;
    body.advance(3);
    Ok(i32::from_be_bytes([a, b, c, 0]) >> 8)
}

fn legacy(id: u8) -> CodecName {
    match id {
        2 => CodecName::Legacy("Sorenson H.263"),
        3 | 6 => CodecName::Legacy("Screen video"),
        4 | 5 => CodecName::Legacy("On2 VP6"),
        13 => CodecName::Legacy("AV1 (legacy id 13)"),
        id => CodecName::Unknown(id),
    }
}
