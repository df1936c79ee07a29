//! The header of an AC-3 syncframe (ETSI TS 102 366 §4.3), which is all the configuration that AC-3 has.

use crate::bits::{Bits, OutOfBits};
use crate::pcm::PcmConfig;

/// Why bytes are no AC-3 syncframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ac3Error {
    /// It does not begin with a sync word.
    #[error("an AC-3 frame does not begin with a sync word")]
    Sync,
    /// It ends too early.
    #[error("an AC-3 frame is cut short")]
    Short,
    /// bsid of Enhanced AC-3 or of something newer.
    #[error("Enhanced AC-3 (bit stream id {0}) is not supported: send AC-3")]
    Enhanced(u32),
    /// A reserved sample rate code.
    #[error("an AC-3 frame has a reserved sample rate")]
    SampleRate,
}

impl From<OutOfBits> for Ac3Error {
    fn from(_: OutOfBits) -> Self {
        Self::Short
    }
}

/// The RFC 6381 codec string.
pub const CODEC: &str = "ac-3";

/// Sample rate and channels (with the one for low frequencies) of a syncframe.
///
/// # Errors
/// It does not begin with a header that is taken.
pub fn frame_header(frame: &[u8]) -> Result<PcmConfig, Ac3Error> {
    let bits = &mut Bits::new(frame);
    if bits.take(16)? != 0x0b77 {
        return Err(Ac3Error::Sync);
    }
    bits.skip(16)?; // crc1
    let rate = bits.take(2)? as usize;
    bits.skip(6)?; // frmsizecod
    let bsid = bits.take(5)?;
    if bsid > 10 {
        return Err(Ac3Error::Enhanced(bsid));
    }
    bits.skip(3)?; // bsmod
    let mode = bits.take(3)?;
    if mode & 1 != 0 && mode != 1 {
        bits.skip(2)?; // cmixlev
    }
    if mode & 4 != 0 {
        bits.skip(2)?; // surmixlev
    }
    if mode == 2 {
        bits.skip(2)?; // dsurmod
    }
    let low_frequencies = u8::from(bits.bit()?);
    let rate = [48_000, 44_100, 32_000].get(rate).ok_or(Ac3Error::SampleRate)?;
    // Ids 9 and 10 are half and a quarter of the rate, as decoders in the field have it.
    Ok(PcmConfig { sample_rate: rate >> bsid.saturating_sub(8), channels: [2, 1, 2, 3, 3, 4, 4, 5][mode as usize] + low_frequencies })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_of_real_frames_are_read() {
        // ffmpeg 9.0.2: stereo at 48 kHz; then by hand 5.1 at 44.1 kHz
        assert_eq!(frame_header(&[0x0b, 0x77, 0x29, 0x19, 0x00, 0x40, 0x43, 0xe1]), Ok(PcmConfig { sample_rate: 48_000, channels: 2 }));
        assert_eq!(frame_header(&[0x0b, 0x77, 0, 0, 0x5e, 0x40, 0xe1, 0]), Ok(PcmConfig { sample_rate: 44_100, channels: 6 }));
    }

    #[test]
    fn enhanced_ac3_is_named() {
        assert_eq!(frame_header(&[0x0b, 0x77, 0, 0, 0x3f, 0x80, 0, 0]), Err(Ac3Error::Enhanced(16)));
        assert_eq!(frame_header(&[0x0b, 0x77, 0]), Err(Ac3Error::Short));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            let _ = frame_header(&bytes);
            if let Ok(shape) = frame_header(&[&[0x0b, 0x77], &bytes[..]].concat()) {
                assert_eq!(PcmConfig::parse(&shape.encode()), Ok(shape));
            }
        }
    }
}
