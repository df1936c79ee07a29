//! H.264 outside of its pictures: AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1), the sequence parameter set
//! (ISO/IEC 14496-10 §7.3.2.1.1) as far as picture size needs it, and the two framings of NAL units.

mod vui;

use crate::bits::{Bits, OutOfBits};
use bytes::{BufMut, Bytes, BytesMut};

/// NAL unit type of a coded slice of an IDR picture (ISO/IEC 14496-10 table 7-1).
const NAL_IDR: u8 = 5;
/// NAL unit type of a sequence parameter set.
const NAL_SPS: u8 = 7;
/// NAL unit type of a picture parameter set.
const NAL_PPS: u8 = 8;
/// Profiles whose parameter sets say chroma format and bit depth (ISO/IEC 14496-10 §7.3.2.1.1).
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// The profiles that contain each other by their numbers: Baseline, Main, High (§A.2).
const NESTED: [u8; 3] = [66, 77, 100];
/// Pixels a side that are believed; H.264 level 6.2 ends at 16,384.
const MAX_SIDE: u32 = 16_384;

/// An AVCDecoderConfigurationRecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// AVCProfileIndication.
    pub profile: u8,
    /// profile_compatibility: the constraint flags.
    pub compatibility: u8,
    /// AVCLevelIndication.
    pub level: u8,
    /// Bytes of the length field before each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// Sequence parameter sets, each a NAL unit with its header.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, each a NAL unit with its header.
    pub pps: Vec<Bytes>,
}

/// Why bytes are no H.264 configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AvcError {
    /// It ends too early.
    #[error("the H.264 {0} is cut short")]
    Short(&'static str),
    /// The record's version is not 1.
    #[error("an AVCDecoderConfigurationRecord of version {0} is not known")]
    Version(u8),
    /// A length field of three bytes, which the standard forbids.
    #[error("NAL unit lengths of 3 bytes are not allowed")]
    LengthSize,
    /// A parameter set is missing.
    #[error("the H.264 configuration has no {0}")]
    Missing(&'static str),
    /// A value that no real stream has.
    #[error("the H.264 sequence parameter set holds an impossible {0}")]
    Impossible(&'static str),
    /// A NAL unit claims more bytes than there are.
    #[error("a NAL unit claims more bytes than its access unit has")]
    NalLength,
}

/// What a sequence parameter set says about the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps {
    /// Pixels from left to right, after cropping.
    pub width: u32,
    /// Pixels from top to bottom, after cropping.
    pub height: u32,
    /// chroma_format_idc: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Bits of a luma sample above 8.
    pub luma_depth_minus_8: u8,
    /// Bits of a chroma sample above 8.
    pub chroma_depth_minus_8: u8,
    /// Pictures that may come before another in decode order and after it on the screen: max_num_reorder_frames (§E.2.1);
    /// where the set does not say it, 0 if the profile or the kind of picture order count cannot reorder, else as many as
    /// there are reference pictures, at most [`UNDECLARED_REORDER`].
    pub reorder: u8,
}

/// What is believed of a stream that does not say how far it reorders: a pyramid of up to 7 B-frames needs 3.
pub const UNDECLARED_REORDER: u8 = 4;
/// The largest decoded picture buffer, in frames (§A.3.1 h).
const MAX_DPB: u32 = 16;

impl AvcConfig {
    /// Reads a record. The extension at its end is not looked at: [`AvcConfig::encode`] makes it anew from the SPS.
    pub fn parse(record: &[u8]) -> Result<Self, AvcError> {
        const SHORT: AvcError = AvcError::Short("configuration record");
        let (&[version, profile, compatibility, level, lengths], mut rest) = record.split_first_chunk::<5>().ok_or(SHORT)?;
        if version != 1 {
            return Err(AvcError::Version(version));
        }
        let length_size = match lengths & 3 {
            2 => return Err(AvcError::LengthSize),
            minus_one => minus_one + 1,
        };
        let sps = parameter_sets(&mut rest, 0x1f).ok_or(SHORT)?;
        let pps = parameter_sets(&mut rest, 0xff).ok_or(SHORT)?;
        Ok(Self { profile, compatibility, level, length_size, sps, pps })
    }

    /// The record for parameter sets, with length fields of 4 bytes.
    pub fn from_parameter_sets(sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<Self, AvcError> {
        let first = sps.first().ok_or(AvcError::Missing("sequence parameter set"))?;
        let &[_, profile, compatibility, level] = first.first_chunk::<4>().ok_or(AvcError::Short("sequence parameter set"))?;
        if pps.is_empty() {
            return Err(AvcError::Missing("picture parameter set"));
        }
        Ok(Self { profile, compatibility, level, length_size: 4, sps, pps })
    }

    /// The record's bytes. At most 31 SPS and 255 PPS are written, as many as its count fields can say.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&[1, self.profile, self.compatibility, self.level, 0xfc | (self.length_size - 1)]);
        put_sets(&mut out, &self.sps, 31, 0xe0);
        put_sets(&mut out, &self.pps, 255, 0);
        // The extension is there for these profiles and no others (§5.3.3.1.2).
        if matches!(self.profile, 100 | 110 | 122 | 144)
            && let Ok(sps) = self.picture()
        {
            out.put_slice(&[0xfc | sps.chroma_format, 0xf8 | sps.luma_depth_minus_8, 0xf8 | sps.chroma_depth_minus_8, 0]);
        }
        out.freeze()
    }

    /// The RFC 6381 codec string: `avc1.64001f`.
    pub fn codec(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.compatibility, self.level)
    }

    /// What the first SPS says about the picture.
    pub fn picture(&self) -> Result<Sps, AvcError> {
        Sps::parse(self.sps.first().ok_or(AvcError::Missing("sequence parameter set"))?)
    }

    /// The record of a track whose access units refer to these parameter sets, or to those of `other`. `None` where the same id stands for a set in
    /// either, or who can decode these may not be able to decode the others: a higher profile or level.
    pub fn with(&self, other: &Self) -> Option<Self> {
        let nested = NESTED.contains(&self.profile) && NESTED.contains(&other.profile);
        let apart = |a: Option<Vec<u32>>, b: Option<Vec<u32>>| a.zip(b).is_some_and(|(a, b)| a.iter().all(|id| !b.contains(id)));
        let sets_apart = apart(ids(&self.sps, 24), ids(&other.sps, 24)) && apart(ids(&self.pps, 0), ids(&other.pps, 0));
        let can = nested && other.profile <= self.profile && other.level <= self.level && sets_apart;
        can.then(|| Self { sps: [&self.sps[..], &other.sps].concat(), pps: [&self.pps[..], &other.pps].concat(), ..self.clone() })
    }

    /// The other record that [`AvcConfig::with`] has put into this one, whose own sets have `id`. `None` where none has, or all have.
    pub fn apart_from(&self, id: u32) -> Option<Self> {
        let others = |sets: &[Bytes], after| {
            let all = ids(sets, after)?;
            let other = sets.iter().zip(&all).filter(|(_, of)| **of != id).map(|(set, _)| set.clone()).collect();
            Some(other).filter(|_| all.contains(&id))
        };
        Self::from_parameter_sets(others(&self.sps, 24)?, others(&self.pps, 0)?).ok()
    }

    /// Whether all parameter sets of `other` are here, too.
    pub fn has(&self, other: &Self) -> bool {
        other.sps.iter().all(|set| self.sps.contains(set)) && other.pps.iter().all(|set| self.pps.contains(set))
    }

    /// An access unit (4-byte lengths) without parameter sets, which a track that has them in its sample entry (`avc1`) has nowhere else
    /// (ISO/IEC 14496-15 §5.4.2.1); not copied where there are none. `None`: it has others than these, or is broken.
    pub fn without_sets(&self, unit: &Bytes) -> Option<Bytes> {
        let (mut has_sets, mut is_ours) = (false, true);
        each_nal(unit, 4, |nal| {
            let known = match nal_type(nal) {
                Some(NAL_SPS) => &self.sps,
                Some(NAL_PPS) => &self.pps,
                _ => return,
            };
            has_sets = true;
            is_ours &= known.iter().any(|set| set == nal);
        })
        .ok()?;
        match (is_ours, has_sets) {
            (false, _) => None,
            (true, false) => Some(unit.clone()),
            (true, true) => {
                let mut out = BytesMut::with_capacity(unit.len());
                for nal in nal_units(unit).filter(|nal| !matches!(nal_type(nal), Some(NAL_SPS | NAL_PPS))) {
                    out.put_u32(nal.len() as u32); // read from a field of 4 bytes
                    out.put_slice(nal);
                }
                Some(out.freeze())
            }
        }
    }
}

/// The ids of parameter sets, which stand after so many bits.
fn ids(sets: &[Bytes], after: usize) -> Option<Vec<u32>> {
    let id = |set: &Bytes| {
        let rbsp = without_emulation_prevention(set.get(1..)?);
        let mut bits = Bits::new(&rbsp);
        bits.skip(after).and_then(|()| bits.ue()).ok()
    };
    sets.iter().map(id).collect()
}

/// A count under `mask`, and as many sets of a `u16` length and their bytes.
fn parameter_sets(rest: &mut &[u8], mask: u8) -> Option<Vec<Bytes>> {
    let (count, mut left) = rest.split_first()?;
    let mut sets = Vec::new();
    for _ in 0..count & mask {
        let (length, after) = left.split_first_chunk::<2>()?;
        let (set, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        sets.push(Bytes::copy_from_slice(set));
        left = after;
    }
    *rest = left;
    Some(sets)
}

fn put_sets(out: &mut BytesMut, sets: &[Bytes], most: usize, reserved: u8) {
    let fitting = || sets.iter().filter(|set| set.len() <= usize::from(u16::MAX)).take(most);
    out.put_u8(reserved | fitting().count() as u8); // ≤ most ≤ 255
    for set in fitting() {
        out.put_u16(set.len() as u16); // filtered above
        out.put_slice(set);
    }
}

impl Sps {
    /// Reads a sequence parameter set NAL unit, with its header byte.
    pub fn parse(nal: &[u8]) -> Result<Self, AvcError> {
        let rbsp = without_emulation_prevention(nal.get(1..).unwrap_or_default());
        let sps = Self::read(&mut Bits::new(&rbsp)).map_err(|fault| match fault {
            Fault::Short => AvcError::Short("sequence parameter set"),
            Fault::Impossible(what) => AvcError::Impossible(what),
        })?;
        Ok(sps)
    }

    fn read(bits: &mut Bits<'_>) -> Result<Self, Fault> {
        let profile = bits.take(8)? as u8;
        let intra_only = bits.take(16)? & 0x1000 != 0 && HIGH_PROFILES.contains(&profile); // constraint_set3_flag; level
        bits.ue()?; // seq_parameter_set_id
        let (mut chroma_format, mut luma_depth_minus_8, mut chroma_depth_minus_8) = (1, 0, 0);
        let mut separate_planes = false;
        if HIGH_PROFILES.contains(&profile) {
            chroma_format = small(bits.ue()?, 3, "chroma format")?;
            separate_planes = chroma_format == 3 && bits.bit()?;
            luma_depth_minus_8 = small(bits.ue()?, 6, "bit depth")?;
            chroma_depth_minus_8 = small(bits.ue()?, 6, "bit depth")?;
            bits.bit()?; // qpprime_y_zero_transform_bypass_flag
            if bits.bit()? {
                skip_scaling_lists(bits, if chroma_format == 3 { 12 } else { 8 })?;
            }
        }
        bits.ue()?; // log2_max_frame_num_minus4
        let order_count_type = bits.ue()?;
        match order_count_type {
            0 => drop(bits.ue()?),
            1 => {
                bits.bit()?;
                bits.se()?;
                bits.se()?;
                for _ in 0..small(bits.ue()?, 255, "picture order count cycle")? {
                    bits.se()?;
                }
            }
            2 => {}
            _ => return Err(Fault::Impossible("picture order count type")),
        }
        let references = bits.ue()?.min(MAX_DPB);
        bits.bit()?; // gaps_in_frame_num_value_allowed_flag
        let columns = blocks(bits.ue()?, "width")?;
        let rows = blocks(bits.ue()?, "height")?;
        let frames_only = bits.bit()?;
        if !frames_only {
            bits.bit()?; // mb_adaptive_frame_field_flag
        }
        bits.bit()?; // direct_8x8_inference_flag
        let field_factor = if frames_only { 1 } else { 2 };
        let (width, height) = (columns * 16, rows * 16 * field_factor);
        let crop = if bits.bit()? { [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?] } else { [0; 4] };
        // Units of cropping: table 6-1 and equations 7-19 to 7-22.
        let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
        let unit_y = field_factor * if chroma_format == 1 && !separate_planes { 2 } else { 1 };
        // Baseline and intra profiles have no B-frames, and type 2 means output in decode order (§8.2.1.3).
        let reorder = if matches!(profile, 66 | 83) || intra_only || order_count_type == 2 {
            0
        } else {
            // A broken end of the set says nothing about the picture: it is as if it were not there.
            vui::reorder(bits).ok().flatten().unwrap_or(references.min(u32::from(UNDECLARED_REORDER)))
        };
        Ok(Self {
            width: cropped(width, crop[0], crop[1], unit_x)?,
            height: cropped(height, crop[2], crop[3], unit_y)?,
            chroma_format,
            luma_depth_minus_8,
            chroma_depth_minus_8,
            reorder: reorder as u8, // at most 16
        })
    }
}

enum Fault {
    Short,
    Impossible(&'static str),
}

impl From<OutOfBits> for Fault {
    fn from(_: OutOfBits) -> Self {
        Self::Short
    }
}

fn small(value: u32, most: u8, what: &'static str) -> Result<u8, Fault> {
    u8::try_from(value).ok().filter(|value| *value <= most).ok_or(Fault::Impossible(what))
}

/// A side in blocks of 16 pixels from its `minus1` field.
fn blocks(minus_one: u32, what: &'static str) -> Result<u32, Fault> {
    if minus_one < MAX_SIDE / 16 { Ok(minus_one + 1) } else { Err(Fault::Impossible(what)) }
}

fn cropped(side: u32, before: u32, after: u32, unit: u32) -> Result<u32, Fault> {
    let cut = (u64::from(before) + u64::from(after)) * u64::from(unit);
    u32::try_from(cut).ok().and_then(|cut| side.checked_sub(cut)).filter(|left| *left > 0).ok_or(Fault::Impossible("cropping"))
}

fn skip_scaling_lists(bits: &mut Bits<'_>, lists: usize) -> Result<(), Fault> {
    for list in 0..lists {
        if !bits.bit()? {
            continue;
        }
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.se()?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Ok(())
}

/// The bytes without the 3 of every 00 00 03 (§7.4.1).
pub(crate) fn without_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// The NAL units of an Annex B byte stream, without start codes and trailing zeros; bytes before the first start code
/// belong to none.
pub fn annexb_nals(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = start_code(stream).map(|at| &stream[at + 3..]);
    std::iter::from_fn(move || {
        let nals = rest?;
        let nal = match start_code(nals) {
            Some(at) => {
                rest = Some(&nals[at + 3..]);
                &nals[..at]
            }
            None => {
                rest = None;
                nals
            }
        };
        // A NAL unit never ends in a zero byte (§7.4.1): zeros belong to the next start code or are padding.
        Some(nal.iter().rposition(|byte| *byte != 0).map_or(&[][..], |last| &nal[..=last]))
    })
    .filter(|nal| !nal.is_empty())
}

/// Where the next 00 00 01 begins.
fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|three| three == [0, 0, 1])
}

/// An Annex B access unit with a 4-byte length before each NAL unit instead of start codes.
pub fn annexb_to_length_prefixed(stream: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(stream.len() + 16);
    for nal in annexb_nals(stream) {
        out.put_u32(nal.len() as u32); // an access unit is far below 4 GiB
        out.put_slice(nal);
    }
    out.freeze()
}

/// A length-prefixed access unit with 4-byte start codes instead; `length_size` is 1, 2 or 4.
pub fn length_prefixed_to_annexb(unit: &[u8], length_size: u8) -> Result<Bytes, AvcError> {
    let mut out = BytesMut::with_capacity(unit.len() + 16);
    each_nal(unit, length_size, |nal| {
        out.put_slice(&[0, 0, 0, 1]);
        out.put_slice(nal);
    })?;
    Ok(out.freeze())
}

/// A length-prefixed access unit with 4-byte lengths, whatever size `length_size` (1, 2 or 4) they had.
pub fn with_four_byte_lengths(unit: Bytes, length_size: u8) -> Result<Bytes, AvcError> {
    if length_size == 4 {
        return Ok(unit);
    }
    let mut out = BytesMut::with_capacity(unit.len() + 16);
    each_nal(&unit, length_size, |nal| {
        out.put_u32(nal.len() as u32); // read from a field of at most 4 bytes
        out.put_slice(nal);
    })?;
    Ok(out.freeze())
}

/// The NAL units of an access unit with 4-byte lengths, up to the first that claims more than there is.
pub(crate) fn nal_units(mut unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = unit.split_first_chunk::<4>()?;
        let (nal, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        unit = rest;
        Some(nal)
    })
}

fn nal_type(nal: &[u8]) -> Option<u8> {
    nal.first().map(|header| header & 0x1f)
}

/// Whether decoding can start with this access unit (4-byte lengths): it has an IDR picture, or says in a recovery point
/// SEI (ISO/IEC 14496-10 §D.2.8) that it begins a refresh, as encoders do that spread it over many pictures; the latter
/// counts only where the publisher `claims` a keyframe.
pub fn is_keyframe(unit: &[u8], claimed: bool) -> bool {
    const NAL_SEI: u8 = 6;
    const RECOVERY_POINT: u8 = 6;
    nal_units(unit).any(|nal| match nal_type(nal) {
        Some(NAL_IDR) => true,
        Some(NAL_SEI) => claimed && nal.get(1) == Some(&RECOVERY_POINT),
        _ => false,
    })
}

/// Whether an access unit (4-byte lengths) has an IDR picture: nothing after it refers to anything before it (ISO/IEC 14496-10 §3.69).
pub fn is_idr(unit: &[u8]) -> bool {
    nal_units(unit).any(|nal| nal_type(nal) == Some(NAL_IDR))
}

fn each_nal(mut unit: &[u8], length_size: u8, mut visit: impl FnMut(&[u8])) -> Result<(), AvcError> {
    while !unit.is_empty() {
        let (length, rest) = unit.split_at_checked(usize::from(length_size)).ok_or(AvcError::NalLength)?;
        let length = length.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
        let (nal, rest) = rest.split_at_checked(length).ok_or(AvcError::NalLength)?;
        visit(nal);
        unit = rest;
    }
    Ok(())
}

/// The AVCDecoderConfigurationRecord for an encoder's Annex B extradata (start codes, SPS and PPS).
pub fn avcc_from_annexb_extradata(extradata: &[u8]) -> Result<Bytes, AvcError> {
    let of_type = |wanted: u8| annexb_nals(extradata).filter(|nal| nal[0] & 0x1f == wanted).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    Ok(AvcConfig::from_parameter_sets(of_type(NAL_SPS), of_type(NAL_PPS))?.encode())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
