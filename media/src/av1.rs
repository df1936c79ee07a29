//! AV1 outside of its pictures: AV1CodecConfigurationRecord (AV1-ISOBMFF §2.3.3), and open bitstream units (AV1 §5.3) as
//! far as picture size, keyframes and temporal delimiters need them.

use crate::bits::{Bits, OutOfBits};
use bytes::{BufMut, Bytes, BytesMut};

/// OBU types (AV1 §6.2.2).
const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
pub(crate) const FRAME_HEADER: u8 = 3;
pub(crate) const METADATA: u8 = 5;
pub(crate) const FRAME: u8 = 6;

/// What an AV1CodecConfigurationRecord says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Av1Config {
    /// seq_profile: 0 Main, 1 High, 2 Professional.
    pub profile: u8,
    /// seq_level_idx_0: 4 is level 3.0, 31 none.
    pub level: u8,
    /// seq_tier_0: High tier rather than Main.
    pub high_tier: bool,
    /// Bits of a sample: 8, 10 or 12.
    pub depth: u8,
    /// Pixels that the sequence header says, width and height; `None` where the record comes without one.
    pub picture: Option<(u32, u32)>,
}

/// Why bytes are no AV1 configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Av1Error {
    /// It ends too early.
    #[error("the AV1 {0} is cut short")]
    Short(&'static str),
    /// The record's marker and version are not 1.
    #[error("an AV1CodecConfigurationRecord that begins with {0:#04x} is not known")]
    Version(u8),
}

impl From<OutOfBits> for Av1Error {
    fn from(_: OutOfBits) -> Self {
        Self::Short("sequence header")
    }
}

impl Av1Config {
    /// Reads a record.
    ///
    /// # Errors
    /// It is none, or its sequence header is broken.
    pub fn parse(record: &[u8]) -> Result<Self, Av1Error> {
        let (&[version, profile, flags, _], units) = record.split_first_chunk::<4>().ok_or(Av1Error::Short("configuration record"))?;
        if version != 0x81 {
            return Err(Av1Error::Version(version));
        }
        let sequence = units_of(units).find(|unit| unit.kind == SEQUENCE_HEADER);
        Ok(Self {
            profile: profile >> 5,
            level: profile & 0x1f,
            high_tier: flags & 0x80 != 0,
            depth: match flags >> 5 & 3 {
                0 | 1 => 8,
                2 => 10,
                _ => 12,
            },
            picture: sequence.map(|unit| picture_size(unit.payload)).transpose()?,
        })
    }

    /// The RFC 6381 codec string without its optional fields (AV1-ISOBMFF §5): `av01.0.04M.08`.
    pub fn codec(&self) -> String {
        let tier = if self.high_tier { 'H' } else { 'M' };
        format!("av01.{}.{:02}{tier}.{:02}", self.profile, self.level, self.depth)
    }
}

/// The AV1CodecConfigurationRecord of the sequence header OBU that an encoder of 4:2:0 pictures with 8 bits a sample begins with.
///
/// # Errors
/// `units` does not begin with a whole sequence header.
pub fn av1c_from_sequence_header(units: &[u8]) -> Result<Bytes, Av1Error> {
    let header = units_of(units).next().filter(|unit| unit.kind == SEQUENCE_HEADER).ok_or(Av1Error::Short("sequence header"))?;
    let bits = &mut Bits::new(header.payload);
    let profile = bits.take(3)? as u8;
    bits.skip(1)?; // still_picture
    let point = if bits.bit()? { Point { level: bits.take(5)? as u8, high_tier: false } } else { operating_points(bits)? };
    let mut record = BytesMut::with_capacity(4 + header.end);
    // Version 1; 4:2:0 (both subsampling flags), 8 bits, where chroma lies unknown; no presentation delay.
    record.put_slice(&[0x81, profile << 5 | point.level, u8::from(point.high_tier) << 7 | 0b1100, 0]);
    record.put_slice(&units[..header.end]); // units_of saw that they are there
    Ok(record.freeze())
}

/// What can be seen of a temporal unit without decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its first frame is a keyframe; `None` where no frame can be found.
    pub keyframe: Option<bool>,
    /// Pixels, where it has a sequence header.
    pub picture: Option<(u32, u32)>,
}

/// Looks at a temporal unit.
pub fn look(unit: &[u8]) -> Seen {
    let mut seen = Seen { keyframe: None, picture: None };
    for unit in units_of(unit) {
        match unit.kind {
            SEQUENCE_HEADER => seen.picture = picture_size(unit.payload).ok(),
            FRAME | FRAME_HEADER => {
                // show_existing_frame, frame_type (0 is KEY_FRAME): §5.9.2; what lacks them is a still picture, no stream.
                seen.keyframe = unit.payload.first().map(|first| first & 0b1110_0000 == 0);
                break;
            }
            _ => {}
        }
    }
    seen
}

/// The temporal unit without temporal delimiters, which files and the feed do not have. It is copied only where one lies
/// between other units, which is to say never in practice.
pub fn without_temporal_delimiters(unit: Bytes) -> Bytes {
    let leading = units_of(&unit).take_while(|unit| unit.kind == TEMPORAL_DELIMITER).last().map_or(0, |last| last.end);
    let rest = unit.slice(leading..);
    if !units_of(&rest).any(|unit| unit.kind == TEMPORAL_DELIMITER) {
        return rest;
    }
    let (mut out, mut end) = (BytesMut::with_capacity(rest.len()), 0);
    for unit in units_of(&rest) {
        if unit.kind != TEMPORAL_DELIMITER {
            out.extend_from_slice(&rest[end..unit.end]);
        }
        end = unit.end;
    }
    out.extend_from_slice(&rest[end..]); // what is no unit is the decoder's to judge
    out.freeze()
}

pub(crate) struct Unit<'a> {
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
    /// Where it ends in what was given.
    pub(crate) end: usize,
}

/// The units in `bytes`, up to the first that claims more than there is. Only the last may come without a size.
pub(crate) fn units_of(bytes: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = *bytes.get(at)?;
        let (extension, sized) = (header & 4 != 0, header & 2 != 0);
        let mut begin = at + 1 + usize::from(extension);
        let end = if sized {
            let (size, length) = leb128(bytes.get(begin..)?)?;
            begin += length;
            begin.checked_add(size)?
        } else {
            bytes.len()
        };
        let payload = bytes.get(begin..end)?;
        at = end;
        Some(Unit { kind: header >> 3 & 0x0f, payload, end })
    })
}

/// A little-endian base-128 number and how many bytes it takes (AV1 §4.10.5); at most 32 bits, as the standard allows.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, at + 1));
        }
    }
    None
}

/// Width and height that a sequence header says (AV1 §5.5.1).
fn picture_size(header: &[u8]) -> Result<(u32, u32), Av1Error> {
    let bits = &mut Bits::new(header);
    bits.skip(3 + 1)?; // seq_profile, still_picture
    if bits.bit()? {
        bits.skip(5)?; // reduced_still_picture_header: the level, and nothing else
    } else {
        operating_points(bits)?;
    }
    let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
    Ok((bits.take(width_bits)? + 1, bits.take(height_bits)? + 1)) // 16 bits at most
}

/// An operating point's seq_level_idx and seq_tier.
#[derive(Debug, Clone, Copy)]
struct Point {
    level: u8,
    high_tier: bool,
}

/// Passes over the operating points; the first is the one that players choose.
fn operating_points(bits: &mut Bits<'_>) -> Result<Point, Av1Error> {
    let mut delay_bits = None;
    if bits.bit()? {
        bits.skip(32 + 32)?; // num_units_in_display_tick, time_scale
        if bits.bit()? {
            bits.ue()?; // num_ticks_per_picture_minus_1: uvlc is Exp-Golomb
        }
        if bits.bit()? {
            delay_bits = Some(bits.take(5)? as usize + 1);
            bits.skip(32 + 5 + 5)?; // num_units_in_decoding_tick, two lengths
        }
    }
    let display_delay = bits.bit()?;
    let mut first = None;
    for _ in 0..=bits.take(5)? {
        bits.skip(12)?; // operating_point_idc
        let level = bits.take(5)? as u8;
        let high_tier = level > 7 && bits.bit()?;
        first.get_or_insert(Point { level, high_tier });
        if let Some(delay_bits) = delay_bits
            && bits.bit()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if display_delay && bits.bit()? {
            bits.skip(4)?;
        }
    }
    first.ok_or(Av1Error::Short("sequence header"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixtures::{AV1C_AOM, AV1C_SVT, bytes_of};
    use proptest::prelude::*;

    #[test]
    fn records_of_real_encoders_are_read() {
        for (hex, codec) in [(AV1C_AOM, "av01.0.00M.08"), (AV1C_SVT, "av01.0.00M.08")] {
            let config = Av1Config::parse(&bytes_of(hex)).unwrap();
            assert_eq!((config.picture, config.codec().as_str()), (Some((96, 64)), codec));
        }
        let bare = Av1Config::parse(&[0x81, 0x2d, 0xc0, 0]).unwrap();
        assert_eq!((bare.picture, bare.codec().as_str()), (None, "av01.1.13H.10"));
    }

    #[test]
    fn a_sequence_header_with_timing_is_read() {
        // timing info with a decoder model (10 bits of delay), one operating point that has it, 1280x720 in 11 and 10 bits
        let text = ["000", "0", "0", "1", &"0".repeat(63), "1", "1", "010", "1", "01001", &"0".repeat(42), "0", "00000", &"0".repeat(12)];
        let rest = ["01000", "0", "1", &"1".repeat(21), "1010", "1001", "10011111111", "1011001111", "0000000"];
        let text = [&text[..], &rest[..]].concat().concat();
        let bytes: Vec<u8> = text.as_bytes().chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | (bit - b'0'))).collect();
        assert_eq!(picture_size(&bytes), Ok((1280, 720)));
    }

    #[test]
    fn temporal_delimiters_go_wherever_they_are() {
        let leading = Bytes::from_static(&[0x12, 0, 0x0a, 1, 0, 0x32, 1, 0x10]);
        let bare = without_temporal_delimiters(leading.clone());
        assert_eq!(bare[..], [0x0a, 1, 0, 0x32, 1, 0x10]);
        assert_eq!(bare.as_ptr(), leading[2..].as_ptr(), "a view, not a copy");
        assert_eq!(without_temporal_delimiters(bare.clone()).as_ptr(), bare.as_ptr());
        let between = without_temporal_delimiters(Bytes::from_static(&[0x32, 1, 9, 0x12, 0, 0x32, 1, 8, 0xff, 0xff]));
        assert_eq!(between[..], [0x32, 1, 9, 0x32, 1, 8, 0xff, 0xff]);
    }

    #[test]
    fn keyframes_are_told_from_others() {
        let keyframe = |unit: &[u8]| look(unit).keyframe;
        assert_eq!(keyframe(&[0x12, 0, 0x32, 1, 0x10]), Some(true));
        assert_eq!(keyframe(&[0x32, 1, 0x30]), Some(false), "an inter frame");
        assert_eq!(keyframe(&[0x1a, 1, 0x98]), Some(false), "an earlier frame shown");
        assert_eq!(keyframe(&[0x0a, 1, 0]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Av1Config::parse(&bytes), look(&bytes), picture_size(&bytes));
            let _ = without_temporal_delimiters(bytes.into());
        }

        #[test]
        fn a_damaged_record_does_not_panic(at in 0usize..16, byte in any::<u8>(), cut in 0usize..18) {
            let mut record = bytes_of(AV1C_AOM);
            record[at] = byte;
            record.truncate(cut);
            let _ = Av1Config::parse(&record);
        }
    }
}
