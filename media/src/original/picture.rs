//! The size of a picture, as the codec's own headers give it: what a player makes its window by before it decodes.

use super::Coding;
use crate::avc::{AvcConfig, without_emulation_prevention};
use crate::bits::{Bits, OutOfBits};
use lectern_contract::feed::{AccessUnit, Codec};

/// HEVC's sequence parameter set, as a NAL unit type (ITU-T H.265 table 7-1).
const HEVC_SPS: u8 = 33;
/// AV1's sequence header, as an OBU type (AV1 §6.2.2).
const AV1_SEQUENCE_HEADER: u8 = 1;
/// What opens a VP9 frame header (VP9 §6.2).
const VP9_SYNC: u32 = 0x49_83_42;

/// Width and height in pixels; `None` where they are not to be found.
pub(super) fn size(coding: &Coding, first: Option<&AccessUnit>) -> Option<(u16, u16)> {
    let payload = first.map(|unit| &unit.payload[..]).unwrap_or_default();
    let (width, height) = match coding.codec {
        Codec::H264 => AvcConfig::parse(&coding.config).ok()?.picture().ok().map(|sps| (sps.width, sps.height)),
        Codec::Hevc => hevc_sps(&coding.config).and_then(|sps| hevc(sps).ok()),
        Codec::Av1 => sequence_header(coding.config.get(4..)?).or_else(|| sequence_header(payload)).and_then(|obu| av1(obu).ok()),
        Codec::Vp9 => vp9(payload).ok(),
        _ => None,
    }?;
    Some((width.try_into().ok()?, height.try_into().ok()?))
}

/// The first SPS of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1.2).
fn hevc_sps(record: &[u8]) -> Option<&[u8]> {
    let (&arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..arrays {
        let (&[kind, high, low], mut after) = rest.split_first_chunk::<3>()?;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (length, nal) = after.split_first_chunk::<2>()?;
            let (nal, next) = nal.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            if kind & 0x3f == HEVC_SPS {
                return Some(nal);
            }
            after = next;
        }
        rest = after;
    }
    None
}

/// ITU-T H.265 §7.3.2.2, §7.3.3.
fn hevc(sps: &[u8]) -> Result<(u32, u32), OutOfBits> {
    let rbsp = without_emulation_prevention(sps.get(2..).ok_or(OutOfBits)?);
    let mut bits = Bits::new(&rbsp);
    bits.take(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.take(3)?;
    bits.take(1)?; // sps_temporal_id_nesting_flag
    skip(&mut bits, 88 + 8)?; // the general profile and level
    let mut present = 0;
    for _ in 0..sub_layers {
        present += if bits.bit()? { 88 } else { 0 };
        present += if bits.bit()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        skip(&mut bits, 2 * (8 - sub_layers))?; // reserved
    }
    skip(&mut bits, present)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.bit()?; // separate_colour_plane_flag
    }
    let (width, height) = (bits.ue()?, bits.ue()?);
    if !bits.bit()? {
        return Ok((width, height));
    }
    let (x, y) = match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?].map(u64::from);
    let cropped = |whole: u32, cut: u64| u64::from(whole).saturating_sub(cut) as u32; // no more than it was
    Ok((cropped(width, x * (left + right)), cropped(height, y * (top + bottom))))
}

/// The body of the first sequence header among OBUs that say how long they are (AV1 §5.3).
fn sequence_header(mut obus: &[u8]) -> Option<&[u8]> {
    loop {
        let (&header, mut rest) = obus.split_first()?;
        if header & 4 != 0 {
            rest = rest.get(1..)?; // the extension
        }
        let mut length = rest.len();
        if header & 2 != 0 {
            length = 0;
            for shift in (0..).step_by(7).take(4) {
                let (&byte, after) = rest.split_first()?;
                length |= usize::from(byte & 0x7f) << shift;
                rest = after;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        let (body, after) = rest.split_at_checked(length)?;
        if header >> 3 & 0xf == AV1_SEQUENCE_HEADER {
            return Some(body);
        }
        obus = after;
    }
}

/// AV1 §5.5.1 up to the frame's size.
fn av1(sequence_header: &[u8]) -> Result<(u32, u32), OutOfBits> {
    let mut bits = Bits::new(sequence_header);
    bits.take(4)?; // seq_profile, still_picture
    if bits.bit()? {
        bits.take(5)?; // reduced_still_picture_header: a level and nothing else
    } else {
        let mut delay_length = None;
        if bits.bit()? {
            bits.take(32)?; // num_units_in_display_tick
            bits.take(32)?; // time_scale
            if bits.bit()? {
                bits.ue()?; // num_ticks_per_picture_minus_1, a uvlc, which is coded like Exp-Golomb
            }
            if bits.bit()? {
                delay_length = Some(bits.take(5)? + 1);
                bits.take(32)?; // num_units_in_decoding_tick
                bits.take(10)?; // the lengths of two fields of frames
            }
        }
        let display_delay = bits.bit()?;
        for _ in 0..=bits.take(5)? {
            bits.take(12)?; // operating_point_idc
            if bits.take(5)? > 7 {
                bits.bit()?; // seq_tier
            }
            if let Some(length) = delay_length
                && bits.bit()?
            {
                skip(&mut bits, 2 * length + 1)?;
            }
            if display_delay && bits.bit()? {
                bits.take(4)?;
            }
        }
    }
    let (width, height) = (bits.take(4)? + 1, bits.take(4)? + 1);
    Ok((bits.take(width)? + 1, bits.take(height)? + 1)) // of 16 bits at most each
}

/// The uncompressed header of a VP9 keyframe (VP9 §6.2) up to the frame's size.
fn vp9(frame: &[u8]) -> Result<(u32, u32), OutOfBits> {
    let mut bits = Bits::new(frame);
    let marker = bits.take(2)?;
    let profile = bits.take(1)? | bits.take(1)? << 1;
    if profile == 3 {
        bits.bit()?;
    }
    let (shows_another, not_key) = (bits.bit()?, bits.bit()?);
    bits.take(2)?; // show_frame, error_resilient_mode
    if marker != 2 || shows_another || not_key || bits.take(24)? != VP9_SYNC {
        return Err(OutOfBits);
    }
    if profile >= 2 {
        bits.bit()?; // ten_or_twelve_bit
    }
    let rgb = bits.take(3)? == 7;
    if !rgb {
        bits.bit()?; // color_range
    }
    if profile & 1 == 1 {
        bits.take(if rgb { 1 } else { 3 })?; // subsampling, reserved
    }
    Ok((bits.take(16)? + 1, bits.take(16)? + 1))
}

fn skip(bits: &mut Bits<'_>, mut count: u32) -> Result<(), OutOfBits> {
    while count > 0 {
        let some = count.min(32);
        bits.take(some)?;
        count -= some;
    }
    Ok(())
}
