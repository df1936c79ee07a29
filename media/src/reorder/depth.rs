//! How far a stream says that it reorders.

use crate::avc::{AvcConfig, UNDECLARED_REORDER, without_emulation_prevention};
use crate::bits::{Bits, OutOfBits};
use lectern_contract::feed::Codec;

/// NAL unit type of an H.265 sequence parameter set.
const HEVC_SPS: u8 = 33;

/// How many pictures may come before another in decode order and after it on the screen, by a codec's configuration record
/// (that of [`Codec`]). A record that does not say it or cannot be read gets a careful guess; codecs that have no
/// reordering get zero.
pub fn depth(codec: Codec, config: &[u8]) -> u8 {
    match codec {
        Codec::H264 => AvcConfig::parse(config).and_then(|config| config.picture()).map_or(UNDECLARED_REORDER, |sps| sps.reorder),
        Codec::Hevc => hevc_sps(config).and_then(|sps| hevc_depth(sps).ok()).unwrap_or(UNDECLARED_REORDER),
        _ => 0,
    }
}

/// The first sequence parameter set of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1.2), with its header.
fn hevc_sps(record: &[u8]) -> Option<&[u8]> {
    let (arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..*arrays {
        let (&[kind, high, low], after) = rest.split_first_chunk::<3>()?;
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (nal, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            if kind & 0x3f == HEVC_SPS {
                return Some(nal);
            }
            rest = after;
        }
    }
    None
}

/// sps_max_num_reorder_pics of the highest sub-layer (ITU-T H.265 §7.3.2.2.1).
fn hevc_depth(sps: &[u8]) -> Result<u8, OutOfBits> {
    let rbsp = without_emulation_prevention(sps.get(2..).unwrap_or_default());
    let bits = &mut Bits::new(&rbsp);
    bits.take(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.take(3)?; // minus 1
    bits.bit()?; // sps_temporal_id_nesting_flag
    skip_profile_tier_level(bits, sub_layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    if bits.ue()? == 3 {
        bits.bit()?; // separate_colour_plane_flag
    }
    bits.ue()?; // width
    bits.ue()?; // height
    if bits.bit()? {
        for _ in 0..4 {
            bits.ue()?; // conformance window
        }
    }
    for _ in 0..3 {
        bits.ue()?; // bit depths, log2_max_pic_order_cnt_lsb_minus4
    }
    // Either each sub-layer says it, or only the highest; the last one counts.
    let said = if bits.bit()? { sub_layers + 1 } else { 1 };
    let mut reorder = 0;
    for _ in 0..said {
        bits.ue()?; // sps_max_dec_pic_buffering_minus1
        reorder = bits.ue()?;
        bits.ue()?; // sps_max_latency_increase_plus1
    }
    u8::try_from(reorder).ok().filter(|reorder| *reorder <= super::MAX_DEPTH).ok_or(OutOfBits)
}

/// profile_tier_level(1, `sub_layers`) (ITU-T H.265 §7.3.3).
fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Result<(), OutOfBits> {
    skip(bits, 88)?; // general profile
    skip(bits, 8)?; // general level
    let mut present = [(false, false); 8];
    for layer in present.iter_mut().take(sub_layers as usize) {
        *layer = (bits.bit()?, bits.bit()?);
    }
    if sub_layers > 0 {
        skip(bits, 2 * (8 - sub_layers))?; // reserved_zero_2bits
    }
    for (profile, level) in present {
        skip(bits, if profile { 88 } else { 0 })?;
        skip(bits, if level { 8 } else { 0 })?;
    }
    Ok(())
}

fn skip(bits: &mut Bits<'_>, count: u32) -> Result<(), OutOfBits> {
    for _ in 0..count {
        bits.bit()?;
    }
    Ok(())
}
