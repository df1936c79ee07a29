//! FLAC outside of its frames: the STREAMINFO block (RFC 9639 §8.2).

use crate::bits::{Bits, OutOfBits};
use bytes::Bytes;

/// What a FLAC file begins with (RFC 9639 §6).
const MAGIC: &[u8; 4] = b"fLaC";
/// Bytes of a STREAMINFO block.
const STREAM_INFO: usize = 34;
/// Bytes of a metadata block's header.
const BLOCK_HEADER: usize = 4;

/// What a STREAMINFO block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlacConfig {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels, 1 to 8.
    pub channels: u8,
    /// Bits of a sample, 4 to 32.
    pub depth: u8,
}

/// Why bytes are no STREAMINFO block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlacError {
    /// It ends too early.
    #[error("the FLAC STREAMINFO is cut short")]
    Short,
    /// A rate of zero, or a depth below 4 bits.
    #[error("the FLAC STREAMINFO holds an impossible {0}")]
    Impossible(&'static str),
}

impl From<OutOfBits> for FlacError {
    fn from(_: OutOfBits) -> Self {
        Self::Short
    }
}

impl FlacConfig {
    /// Reads a STREAMINFO block without its header.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(block: &[u8]) -> Result<Self, FlacError> {
        let bits = &mut Bits::new(block.get(..STREAM_INFO).ok_or(FlacError::Short)?);
        bits.skip(16 + 16 + 24 + 24)?; // sizes of blocks and frames
        let sample_rate = bits.take(20)?;
        let (channels, depth) = (bits.take(3)? as u8 + 1, bits.take(5)? as u8 + 1);
        match (sample_rate, depth) {
            (0, _) => Err(FlacError::Impossible("sample rate")),
            (_, ..4) => Err(FlacError::Impossible("bit depth")),
            _ => Ok(Self { sample_rate, channels, depth }),
        }
    }

    /// The RFC 6381 codec string.
    pub fn codec(&self) -> String {
        "fLaC".to_owned()
    }
}

/// The STREAMINFO block of a sequence header: enhanced RTMP says that it comes as in a file, after `fLaC` and the header
/// of its metadata block; ffmpeg sends the block alone.
pub fn stream_info(header: Bytes) -> Bytes {
    let block = header.strip_prefix(MAGIC).unwrap_or(&header);
    let block = match block.first_chunk::<BLOCK_HEADER>() {
        // type 0 (under the bit that says "last"), 34 bytes
        Some([0 | 0x80, 0, 0, 34]) => block.get(BLOCK_HEADER..).unwrap_or_default(),
        _ => block,
    };
    header.slice_ref(block.get(..STREAM_INFO).unwrap_or(block))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixtures::{STREAM_INFO_FFMPEG, bytes_of};
    use proptest::prelude::*;

    #[test]
    fn a_block_of_a_real_encoder_is_read() {
        let block = bytes_of(STREAM_INFO_FFMPEG);
        assert_eq!(FlacConfig::parse(&block), Ok(FlacConfig { sample_rate: 48_000, channels: 1, depth: 16 }));
    }

    #[test]
    fn what_stands_before_a_block_and_behind_it_is_taken_off() {
        let block = bytes_of(STREAM_INFO_FFMPEG);
        for header in [&b""[..], b"fLaC", b"\x00\0\0\x22", b"fLaC\x00\0\0\x22", b"fLaC\x80\0\0\x22"] {
            let whole = Bytes::from([header, &block, b"\x84\0\0\x01x"].concat());
            assert_eq!(stream_info(whole), block, "{header:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = FlacConfig::parse(&bytes);
            let _ = stream_info(bytes.into());
        }
    }
}
