//! The end of H.264's sequence parameter set (ISO/IEC 14496-10 §E.1.1), as far as reordering needs it.

use super::MAX_DPB;
use crate::bits::{Bits, OutOfBits};

/// max_num_reorder_frames of the VUI parameters that follow (§E.1.1), if they are there and say it.
pub(super) fn reorder(bits: &mut Bits<'_>) -> Result<Option<u32>, OutOfBits> {
    if !bits.bit()? {
        return Ok(None);
    }
    if bits.bit()? && bits.take(8)? == 255 {
        bits.take(32)?; // an aspect ratio of its own
    }
    if bits.bit()? {
        bits.bit()?; // overscan
    }
    if bits.bit()? {
        bits.take(4)?; // video format and range
        if bits.bit()? {
            bits.take(24)?; // colours
        }
    }
    if bits.bit()? {
        bits.ue()?; // chroma location
        bits.ue()?;
    }
    if bits.bit()? {
        bits.take(32)?; // timing
        bits.take(32)?;
        bits.bit()?;
    }
    let (nal, vcl) = (skip_hrd(bits)?, skip_hrd(bits)?);
    if nal || vcl {
        bits.bit()?; // low_delay_hrd_flag
    }
    bits.bit()?; // pic_struct_present_flag
    if !bits.bit()? {
        return Ok(None);
    }
    bits.bit()?; // motion_vectors_over_pic_boundaries_flag
    for _ in 0..4 {
        bits.ue()?; // sizes of pictures, macroblocks and motion vectors
    }
    Ok(Some(bits.ue()?).filter(|frames| *frames <= MAX_DPB))
}

/// Passes over HRD parameters (§E.1.2); true if there were some.
fn skip_hrd(bits: &mut Bits<'_>) -> Result<bool, OutOfBits> {
    let there = bits.bit()?;
    if there {
        let schedules = bits.ue()?.min(31); // cpb_cnt_minus1; no more are allowed
        bits.take(8)?;
        for _ in 0..=schedules {
            bits.ue()?;
            bits.ue()?;
            bits.bit()?;
        }
        bits.take(20)?;
    }
    Ok(there)
}
