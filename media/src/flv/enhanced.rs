//! What enhanced RTMP's audio and video headers share.

use super::{CodecName, FlvError};
use bytes::{Buf, Bytes};

/// Packet types that audio and video tags have in common (E-RTMP v2 "AudioPacketType", "VideoPacketType").
pub const SEQUENCE_START: u8 = 0;
pub const CODED_FRAMES: u8 = 1;
pub const SEQUENCE_END: u8 = 2;
const MOD_EX: u8 = 7;
/// Modifiers that are followed; the specification defines one.
const MOST_MODIFIERS: usize = 8;

/// The packet type, past any modifiers ("ModEx") before it; `first` is the header's own.
///
/// The one modifier there is, TimestampOffsetNano, moves a message by less than a millisecond: it is passed over, because
/// the run's timeline smooths stamps of whole milliseconds anyway.
pub fn packet_type(first: u8, body: &mut Bytes, tag: &'static str) -> Result<u8, FlvError> {
    let mut packet_type = first;
    for _ in 0..MOST_MODIFIERS {
        if packet_type != MOD_EX {
            return Ok(packet_type);
        }
        // One less than the size; all ones say that two bytes follow with the real one.
        let size = match byte(body, tag)? {
            u8::MAX => usize::from(u16::from_be_bytes([byte(body, tag)?, byte(body, tag)?])) + 1,
            minus_one => usize::from(minus_one) + 1,
        };
        if body.len() < size {
            return Err(FlvError::Short(tag));
        }
        body.advance(size);
        packet_type = byte(body, tag)? & 0x0f; // above it, the kind of the modifier that was skipped
    }
    Err(FlvError::Modifiers(tag))
}

/// Takes a fourCC.
pub fn four_cc(body: &mut Bytes, tag: &'static str) -> Result<[u8; 4], FlvError> {
    let code = *body.first_chunk::<4>().ok_or(FlvError::Short(tag))?;
    body.advance(4);
    Ok(code)
}

pub fn refused(code: [u8; 4]) -> FlvError {
    FlvError::Codec(CodecName::FourCc(code))
}

fn byte(body: &mut Bytes, tag: &'static str) -> Result<u8, FlvError> {
    if body.is_empty() { Err(FlvError::Short(tag)) } else { Ok(body.get_u8()) }
}
