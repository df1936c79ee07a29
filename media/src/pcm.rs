//! The config of codecs that have none of their own (MP3, AC-3, G.711): [`pcm_config`]'s layout, read and written.

use bytes::Bytes;
use lectern_contract::feed::pcm_config;

/// Samples a second that are believed.
const MAX_RATE: u32 = 384_000;

/// Sample rate and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcmConfig {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels, 1 to 8.
    pub channels: u8,
}

/// Why bytes are no such config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PcmError {
    /// Not its five bytes.
    #[error("a sound config of {0} bytes is none of sample rate and channels")]
    Length(usize),
    /// Zero, or far too many.
    #[error("{0} samples a second are not supported")]
    SampleRate(u32),
    /// None, or more than eight.
    #[error("{0} channels of sound are not supported")]
    Channels(u8),
}

impl PcmConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// It is none, or none that is taken.
    pub fn parse(config: &[u8]) -> Result<Self, PcmError> {
        let &[a, b, c, d, channels] = config else { return Err(PcmError::Length(config.len())) };
        match (u32::from_be_bytes([a, b, c, d]), channels) {
            (1..=MAX_RATE, 1..=8) => Ok(Self { sample_rate: u32::from_be_bytes([a, b, c, d]), channels }),
            (1..=MAX_RATE, channels) => Err(PcmError::Channels(channels)),
            (sample_rate, _) => Err(PcmError::SampleRate(sample_rate)),
        }
    }

    /// The config's bytes.
    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&pcm_config(self.sample_rate, self.channels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_sound_is_refused() {
        assert_eq!(PcmConfig::parse(&pcm_config(8_000, 1)), Ok(PcmConfig { sample_rate: 8_000, channels: 1 }));
        assert_eq!(PcmConfig::parse(&pcm_config(0, 1)), Err(PcmError::SampleRate(0)));
        assert_eq!(PcmConfig::parse(&pcm_config(8_000, 9)), Err(PcmError::Channels(9)));
        assert_eq!(PcmConfig::parse(&[]), Err(PcmError::Length(0)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_taken_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..7)) {
            if let Ok(config) = PcmConfig::parse(&bytes) {
                assert_eq!(config.encode(), bytes);
            }
        }
    }
}
