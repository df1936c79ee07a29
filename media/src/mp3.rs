//! The header of an MPEG audio layer III frame (ISO/IEC 11172-3 §2.4.1.3, ISO/IEC 13818-3), which is all the
//! configuration that MP3 has.

use crate::pcm::PcmConfig;

/// Why bytes are no MP3 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mp3Error {
    /// It does not begin with a frame header.
    #[error("an MP3 frame does not begin with a frame header")]
    Sync,
    /// It is MPEG audio of another layer.
    #[error("MPEG audio layer {0} is not supported: send layer III")]
    Layer(u8),
    /// A reserved version or sample rate.
    #[error("an MP3 frame has a reserved {0}")]
    Reserved(&'static str),
}

/// The RFC 6381 codec string (audio object type 34 of ISO/IEC 14496-3 is layer III).
pub const CODEC: &str = "mp4a.40.34";

/// Sample rate and channels of a frame.
///
/// # Errors
/// It does not begin with the header of a layer III frame.
pub fn frame_header(frame: &[u8]) -> Result<PcmConfig, Mp3Error> {
    let Some(&[0xff, kind, rate, mode]) = frame.first_chunk::<4>() else { return Err(Mp3Error::Sync) };
    if kind & 0xe0 != 0xe0 {
        return Err(Mp3Error::Sync);
    }
    // MPEG-1 has these rates, MPEG-2 half of them, MPEG-2.5 a quarter.
    let divisor = match kind >> 3 & 3 {
        3 => 1,
        2 => 2,
        0 => 4,
        _ => return Err(Mp3Error::Reserved("version")),
    };
    match kind >> 1 & 3 {
        1 => {}
        0 => return Err(Mp3Error::Sync),
        from_four => return Err(Mp3Error::Layer(4 - from_four)),
    }
    let rate = [44_100, 48_000, 32_000].get(usize::from(rate >> 2 & 3)).ok_or(Mp3Error::Reserved("sample rate"))?;
    Ok(PcmConfig { sample_rate: rate / divisor, channels: if mode >> 6 == 3 { 1 } else { 2 } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_of_real_frames_are_read() {
        // LAME 3.100: mono and joint stereo at 44.1 kHz; then by hand MPEG-2 at 24 kHz and MPEG-2.5 at 8 kHz
        for (header, sample_rate, channels) in [
            ([0xff, 0xfb, 0x10, 0xc4], 44_100, 1),
            ([0xff, 0xfb, 0x94, 0x64], 48_000, 2),
            ([0xff, 0xf3, 0x44, 0x00], 24_000, 2),
            ([0xff, 0xe3, 0x18, 0xc0], 8_000, 1),
        ] {
            assert_eq!(frame_header(&header), Ok(PcmConfig { sample_rate, channels }));
        }
    }

    #[test]
    fn other_layers_are_named() {
        assert_eq!(frame_header(&[0xff, 0xfd, 0x94, 0]), Err(Mp3Error::Layer(2)));
        assert_eq!(frame_header(b"ID3\x04"), Err(Mp3Error::Sync));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0xe0u8.., bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            let _ = frame_header(&bytes);
            if let Ok(shape) = frame_header(&[&[0xff, kind], &bytes[..]].concat()) {
                assert_eq!(PcmConfig::parse(&shape.encode()), Ok(shape));
            }
        }
    }
}
