//! VP9 outside of its pictures: VPCodecConfigurationRecord (VP-ISOBMFF §2.2), and the uncompressed header (VP9 bitstream
//! specification §6.2) as far as keyframes and picture size need it.

use crate::bits::{Bits, OutOfBits};
use bytes::Bytes;

/// Version and flags of the box around a record, which enhanced RTMP's publishers send with it.
const BOX_HEADER: [u8; 4] = [1, 0, 0, 0];
/// frame_sync_code.
const SYNC_CODE: u32 = 0x49_83_42;
/// color_space: RGB.
const SRGB: u32 = 7;

/// What a VPCodecConfigurationRecord says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Config {
    /// 0 to 3.
    pub profile: u8,
    /// Ten times the level, zero if it is not known.
    pub level: u8,
    /// Bits of a sample: 8, 10 or 12.
    pub depth: u8,
}

/// Why bytes are no VP9 configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Vp9Error {
    /// It ends too early.
    #[error("the VP9 configuration record is cut short")]
    Short,
    /// A value that no stream has.
    #[error("the VP9 configuration record holds an impossible {0}")]
    Impossible(&'static str),
}

impl Vp9Config {
    /// Reads a record, without version and flags of its box.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(record: &[u8]) -> Result<Self, Vp9Error> {
        let &[profile, level, depth, _, _, _, _, _] = record.first_chunk::<8>().ok_or(Vp9Error::Short)?;
        match (profile, depth >> 4) {
            (0..=3, depth @ (8 | 10 | 12)) => Ok(Self { profile, level, depth }),
            (0..=3, _) => Err(Vp9Error::Impossible("bit depth")),
            _ => Err(Vp9Error::Impossible("profile")),
        }
    }

    /// The RFC 6381 codec string without its optional fields (VP-ISOBMFF §3): `vp09.00.10.08`.
    pub fn codec(&self) -> String {
        format!("vp09.{:02}.{:02}.{:02}", self.profile, self.level, self.depth)
    }
}

/// The record without version and flags of its box, if it has them: a record alone cannot begin like this, because its
/// third byte holds the bit depth.
pub fn without_box_header(record: Bytes) -> Bytes {
    if record.starts_with(&BOX_HEADER) { record.slice(BOX_HEADER.len()..) } else { record }
}

/// What can be seen of a frame without decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// It is a keyframe; `None` where there is no frame header.
    pub keyframe: Option<bool>,
    /// Pixels, where it is a keyframe.
    pub picture: Option<(u32, u32)>,
}

/// Looks at a frame, or at the first one of a superframe.
pub fn look(frame: &[u8]) -> Seen {
    let bits = &mut Bits::new(frame);
    let header = frame_header(bits).ok().flatten();
    Seen {
        keyframe: header.map(|header| header.0),
        picture: header.filter(|header| header.0).and_then(|header| size(bits, header.1).ok()?),
    }
}

/// Whether it is a keyframe, and its profile; `None` where it is no frame.
fn frame_header(bits: &mut Bits<'_>) -> Result<Option<(bool, u32)>, OutOfBits> {
    if bits.take(2)? != 2 {
        return Ok(None);
    }
    let profile = bits.take(1)? | bits.take(1)? << 1;
    if profile == 3 {
        bits.skip(1)?;
    }
    if bits.bit()? {
        return Ok(Some((false, profile))); // show_existing_frame
    }
    let inter = bits.bit()?;
    bits.skip(2)?; // show_frame, error_resilient_mode
    Ok(Some((!inter, profile)))
}

/// What follows in a keyframe: sync code, color configuration, size.
fn size(bits: &mut Bits<'_>, profile: u32) -> Result<Option<(u32, u32)>, OutOfBits> {
    if bits.take(24)? != SYNC_CODE {
        return Ok(None);
    }
    if profile >= 2 {
        bits.skip(1)?; // ten_or_twelve_bit
    }
    let subsampled = profile & 1 == 1;
    if bits.take(3)? == SRGB {
        bits.skip(usize::from(subsampled))?; // reserved
    } else {
        bits.skip(if subsampled { 4 } else { 1 })?; // color_range, subsampling and a reserved bit
    }
    Ok(Some((bits.take(16)? + 1, bits.take(16)? + 1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixtures::{VP9_KEYFRAME_LIBVPX, VPCC_FFMPEG, bytes_of};
    use proptest::prelude::*;

    #[test]
    fn a_record_of_a_real_muxer_is_read_with_and_without_its_box_header() {
        let record = without_box_header(bytes_of(VPCC_FFMPEG).into());
        assert_eq!(Vp9Config::parse(&record).unwrap().codec(), "vp09.00.10.08");
        assert_eq!(without_box_header(record.clone()), record);
    }

    #[test]
    fn a_keyframe_says_its_size() {
        let seen = look(&bytes_of(VP9_KEYFRAME_LIBVPX));
        assert_eq!(seen, Seen { keyframe: Some(true), picture: Some((96, 64)) });
        assert_eq!(look(&[0x86, 0, 0x40]), Seen { keyframe: Some(false), picture: None });
        assert_eq!(look(&[0x00]), Seen { keyframe: None, picture: None });
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = (Vp9Config::parse(&bytes), look(&bytes), without_box_header(bytes.into()));
        }
    }
}
