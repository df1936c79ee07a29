//! HEVC outside of its pictures: HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1), and the sequence parameter set
//! (ITU-T H.265 §7.3.2.2) as far as picture size needs it.

use crate::avc::{annexb_nals, nal_units, without_emulation_prevention};
use crate::bits::{Bits, OutOfBits};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::Write;

/// NAL unit types of parameter sets (H.265 table 7-1).
const NAL_VPS: u8 = 32;
const NAL_SPS: u8 = 33;
const NAL_PPS: u8 = 34;
/// Pixels a side that are believed; level 6.2 ends at 16,888.
const MAX_SIDE: u32 = 16_888;
/// Where the record's lengthSizeMinusOne is, in the lowest two bits.
const LENGTH_SIZE_AT: usize = 21;

/// What an HEVCDecoderConfigurationRecord says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HevcConfig {
    /// general_profile_space, 0 to 3.
    pub profile_space: u8,
    /// general_tier_flag: High tier rather than Main.
    pub high_tier: bool,
    /// general_profile_idc: 1 Main, 2 Main 10.
    pub profile: u8,
    /// general_profile_compatibility_flags.
    pub compatibility: u32,
    /// general_constraint_indicator_flags.
    pub constraints: [u8; 6],
    /// general_level_idc: 30 times the level.
    pub level: u8,
    /// Bytes of the length field before each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// Pixels of the first sequence parameter set, width and height, after cropping.
    pub picture: (u32, u32),
}

/// Why bytes are no HEVC configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HevcError {
    /// It ends too early.
    #[error("the HEVC {0} is cut short")]
    Short(&'static str),
    /// The record's version is not 1.
    #[error("an HEVCDecoderConfigurationRecord of version {0} is not known")]
    Version(u8),
    /// A length field of three bytes, which the standard forbids.
    #[error("NAL unit lengths of 3 bytes are not allowed")]
    LengthSize,
    /// There is no sequence parameter set in it.
    #[error("the HEVC configuration has no sequence parameter set: send parameter sets in the sequence header")]
    MissingSps,
    /// A value that no real stream has.
    #[error("the HEVC sequence parameter set holds an impossible {0}")]
    Impossible(&'static str),
}

impl From<OutOfBits> for HevcError {
    fn from(_: OutOfBits) -> Self {
        Self::Short("sequence parameter set")
    }
}

impl HevcConfig {
    /// Reads a record.
    ///
    /// # Errors
    /// It is none, or none that is taken.
    pub fn parse(record: &[u8]) -> Result<Self, HevcError> {
        const SHORT: HevcError = HevcError::Short("configuration record");
        let (fixed, rest) = record.split_first_chunk::<22>().ok_or(SHORT)?;
        let [version, profile, c0, c1, c2, c3, i0, i1, i2, i3, i4, i5, level, ..] = *fixed;
        if version != 1 {
            return Err(HevcError::Version(version));
        }
        let length_size = match fixed[LENGTH_SIZE_AT] & 3 {
            2 => return Err(HevcError::LengthSize),
            minus_one => minus_one + 1,
        };
        let sps = first_sps(rest).ok_or(SHORT)?.ok_or(HevcError::MissingSps)?;
        Ok(Self {
            profile_space: profile >> 6,
            high_tier: profile & 0x20 != 0,
            profile: profile & 0x1f,
            compatibility: u32::from_be_bytes([c0, c1, c2, c3]),
            constraints: [i0, i1, i2, i3, i4, i5],
            level,
            length_size,
            picture: picture_size(sps)?,
        })
    }

    /// The RFC 6381 codec string, as ISO/IEC 14496-15 annex E.3 makes it: `hvc1.1.6.L93.B0`.
    pub fn codec(&self) -> String {
        let space = ["", "A", "B", "C"][usize::from(self.profile_space & 3)];
        let tier = if self.high_tier { 'H' } else { 'L' };
        let mut name = format!("hvc1.{space}{}.{:X}.{tier}{}", self.profile, self.compatibility.reverse_bits(), self.level);
        let told = self.constraints.iter().rposition(|flags| *flags != 0).map_or(0, |last| last + 1);
        for flags in &self.constraints[..told] {
            let _ = write!(name, ".{flags:X}"); // a String takes everything
        }
        name
    }
}

/// The HEVCDecoderConfigurationRecord (with lengths of 4 bytes) of the parameter sets that an encoder of 4:2:0 pictures with 8 bits a
/// sample puts out in the Annex B byte stream format.
///
/// # Errors
/// [`HevcError::MissingSps`], [`HevcError::Short`].
pub fn hvcc_from_annexb_extradata(extradata: &[u8]) -> Result<Bytes, HevcError> {
    let of = |kind: u8| annexb_nals(extradata).filter(move |nal| nal.first().is_some_and(|head| head >> 1 & 0x3f == kind));
    let sps = of(NAL_SPS).next().ok_or(HevcError::MissingSps)?;
    // sps_video_parameter_set_id, sps_max_sub_layers_minus1 and sps_temporal_id_nesting_flag in one byte, then the profile in twelve.
    let rbsp = without_emulation_prevention(sps.get(2..).unwrap_or_default());
    let (&[layers, ref profile @ ..], _) = rbsp.split_first_chunk::<13>().ok_or(HevcError::Short("sequence parameter set"))?;
    let (sub_layers, nested) = ((layers >> 1 & 7) + 1, layers & 1);
    let mut record = BytesMut::with_capacity(64 + extradata.len());
    record.put_u8(1);
    record.put_slice(profile);
    record.put_slice(&[0xf0, 0, 0xfc]); // no spatial segmentation, parallelism unknown
    record.put_slice(&[0xfd, 0xf8, 0xf8]); // 4:2:0, 8 bits twice
    record.put_slice(&[0, 0, sub_layers << 3 | nested << 2 | 3]);
    record.put_u8(3);
    for kind in [NAL_VPS, NAL_SPS, NAL_PPS] {
        let sets: Vec<&[u8]> = of(kind).collect();
        record.put_u8(0x80 | kind); // all of them are here
        record.put_u16(u16::try_from(sets.len()).map_err(|_| HevcError::Impossible("number of parameter sets"))?);
        for set in sets {
            record.put_u16(u16::try_from(set.len()).map_err(|_| HevcError::Impossible("length of a parameter set"))?);
            record.put_slice(set);
        }
    }
    Ok(record.freeze())
}

/// The record with length fields of 4 bytes; a record that has them is not copied.
pub fn with_four_byte_length_size(record: Bytes) -> Bytes {
    match record.get(LENGTH_SIZE_AT) {
        Some(size) if size & 3 != 3 => {
            let mut record = BytesMut::from(record);
            record[LENGTH_SIZE_AT] |= 3; // just read there
            record.freeze()
        }
        _ => record,
    }
}

/// Whether decoding can start with this access unit (4-byte lengths): it has a picture of a random access type (BLA, IDR
/// or CRA, H.265 table 7-1), or a recovery point SEI (§D.2.8) where the publisher `claims` a keyframe.
pub fn is_keyframe(unit: &[u8], claimed: bool) -> bool {
    const NAL_PREFIX_SEI: u8 = 39;
    const RECOVERY_POINT: u8 = 6;
    nal_units(unit).any(|nal| match nal.first().map(|header| header >> 1 & 0x3f) {
        Some(16..=23) => true,
        Some(NAL_PREFIX_SEI) => claimed && nal.get(2) == Some(&RECOVERY_POINT),
        _ => false,
    })
}

/// The first sequence parameter set of the record's arrays, the outer `None` where they are cut short.
fn first_sps(arrays: &[u8]) -> Option<Option<&[u8]>> {
    let (count, mut rest) = arrays.split_first()?;
    let mut sps = None;
    for _ in 0..*count {
        let (&[kind, high, low], after) = rest.split_first_chunk::<3>()?;
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (nal, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = after;
            if kind & 0x3f == NAL_SPS && sps.is_none() {
                sps = Some(nal);
            }
        }
    }
    Some(sps)
}

/// Width and height, after cropping, that a sequence parameter set NAL unit (with its header) says.
fn picture_size(nal: &[u8]) -> Result<(u32, u32), HevcError> {
    let rbsp = without_emulation_prevention(nal.get(2..).unwrap_or_default());
    let bits = &mut Bits::new(&rbsp);
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.take(3)? as usize; // sps_max_sub_layers_minus1
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    bits.skip(88 + 8)?; // general profile, tier, constraints and level
    let mut told = 0;
    for _ in 0..sub_layers {
        told += if bits.bit()? { 88 } else { 0 }; // sub_layer_profile_present_flag
        told += if bits.bit()? { 8 } else { 0 }; // sub_layer_level_present_flag
    }
    if sub_layers > 0 {
        bits.skip((8 - sub_layers) * 2)?; // reserved
    }
    bits.skip(told)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma_format = bits.ue()?;
    if chroma_format > 3 {
        return Err(HevcError::Impossible("chroma format"));
    }
    let separate_planes = chroma_format == 3 && bits.bit()?;
    let (width, height) = (side(bits.ue()?, "width")?, side(bits.ue()?, "height")?);
    let crop = if bits.bit()? { [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?] } else { [0; 4] };
    // Units of cropping: SubWidthC and SubHeightC of table 6-1.
    let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_format == 1 && !separate_planes { 2 } else { 1 };
    Ok((cropped(width, crop[0], crop[1], unit_x)?, cropped(height, crop[2], crop[3], unit_y)?))
}

fn side(pixels: u32, what: &'static str) -> Result<u32, HevcError> {
    if (1..=MAX_SIDE).contains(&pixels) { Ok(pixels) } else { Err(HevcError::Impossible(what)) }
}

fn cropped(side: u32, before: u32, after: u32, unit: u32) -> Result<u32, HevcError> {
    let cut = (u64::from(before) + u64::from(after)) * u64::from(unit);
    u32::try_from(cut).ok().and_then(|cut| side.checked_sub(cut)).filter(|left| *left > 0).ok_or(HevcError::Impossible("cropping"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixtures::{HVCC_X265, HVCC_X265_THREE_LAYERS, bytes_of};
    use proptest::prelude::*;

    #[test]
    fn a_record_of_a_real_encoder_is_read() {
        let config = HevcConfig::parse(&bytes_of(HVCC_X265)).unwrap();
        assert_eq!((config.picture, config.length_size), ((96, 64), 4));
        assert_eq!(config.codec(), "hvc1.1.6.L30.90");
    }

    #[test]
    fn the_codec_string_leaves_out_trailing_zeros_only() {
        let main10 = HevcConfig {
            profile_space: 1,
            high_tier: true,
            profile: 2,
            compatibility: 0x2000_0000,
            constraints: [0xb0, 0, 0x10, 0, 0, 0],
            level: 93,
            length_size: 4,
            picture: (1, 1),
        };
        assert_eq!(main10.codec(), "hvc1.A2.4.H93.B0.0.10");
        assert_eq!(HevcConfig { profile_space: 0, constraints: [0; 6], ..main10 }.codec(), "hvc1.2.4.H93");
    }

    #[test]
    fn sub_layers_and_cropping_are_minded() {
        let config = HevcConfig::parse(&bytes_of(HVCC_X265_THREE_LAYERS)).unwrap();
        assert_eq!((config.picture, config.codec().as_str()), ((426, 238), "hvc1.2.4.L60.90"));
        assert_eq!(cropped(16, 4, 4, 2), Err(HevcError::Impossible("cropping")));
    }

    #[test]
    fn short_length_fields_are_seen_and_widened() {
        let mut record = bytes_of(HVCC_X265);
        record[LENGTH_SIZE_AT] &= !2;
        assert_eq!(HevcConfig::parse(&record).unwrap().length_size, 2);
        assert_eq!(with_four_byte_length_size(record.into()), bytes_of(HVCC_X265));
    }

    #[test]
    fn a_record_without_an_sps_is_refused() {
        let mut record = bytes_of(HVCC_X265);
        record.truncate(22);
        record.push(0);
        assert_eq!(HevcConfig::parse(&record), Err(HevcError::MissingSps));
    }

    #[test]
    fn a_keyframe_is_a_random_access_picture() {
        let unit = |header: u8| [0, 0, 0, 2, 0x46, 1, 0, 0, 0, 3, header, 1, 6];
        for (kind, key) in [(1u8, false), (15, false), (16, true), (19, true), (21, true), (24, false)] {
            assert_eq!((is_keyframe(&unit(kind << 1), true), is_keyframe(&unit(kind << 1), false)), (key, key), "type {kind}");
        }
        assert!(is_keyframe(&unit(39 << 1), true) && !is_keyframe(&unit(39 << 1), false), "a recovery point");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            if let Ok(config) = HevcConfig::parse(&bytes) {
                let _ = config.codec();
            }
            let _ = (picture_size(&bytes), is_keyframe(&bytes, true), with_four_byte_length_size(bytes.into()));
        }

        #[test]
        fn a_damaged_record_does_not_panic(at in 0usize..100, byte in any::<u8>(), cut in 0usize..110) {
            let mut record = bytes_of(HVCC_X265);
            record[at] = byte;
            record.truncate(cut);
            let _ = HevcConfig::parse(&record);
        }
    }
}
