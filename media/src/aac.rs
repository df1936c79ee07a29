//! AAC's AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1), as far as a player must be told of it.

use crate::bits::{Bits, OutOfBits};

/// What an AudioSpecificConfig says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AacConfig {
    /// The audio object type that is signalled first: 2 is AAC-LC, 5 HE-AAC, 29 HE-AAC v2.
    pub object_type: u8,
    /// Samples a second that the decoder puts out.
    pub sample_rate: u32,
    /// Channels that are coded, 1 to 8.
    pub channels: u8,
}

/// Why bytes are no AudioSpecificConfig that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AacError {
    /// It ends too early.
    #[error("the AudioSpecificConfig is cut short")]
    Short,
    /// A reserved sampling frequency index, or a rate of zero.
    #[error("the AudioSpecificConfig has no valid sample rate")]
    SampleRate,
    /// A channel configuration that is reserved or told in-band (a program config element).
    #[error("AAC channel configuration {0} is not supported")]
    Channels(u8),
}

impl From<OutOfBits> for AacError {
    fn from(_: OutOfBits) -> Self {
        Self::Short
    }
}

const SAMPLE_RATES: [u32; 13] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

impl AacConfig {
    /// Reads an AudioSpecificConfig; what follows the fields above is not looked at.
    pub fn parse(config: &[u8]) -> Result<Self, AacError> {
        let mut bits = Bits::new(config);
        let object_type = object_type(&mut bits)?;
        let mut sample_rate = sample_rate(&mut bits)?;
        let channels = match bits.take(4)? as u8 {
            count @ 1..=6 => count,
            11 => 7,
            7 | 12 | 14 => 8,
            other => return Err(AacError::Channels(other)),
        };
        if matches!(object_type, 5 | 29) {
            sample_rate = self::sample_rate(&mut bits)?; // spectral band replication: what comes out, not what is coded
        }
        Ok(Self { object_type, sample_rate, channels })
    }

    /// The RFC 6381 codec string: `mp4a.40.2`.
    pub fn codec(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}

fn object_type(bits: &mut Bits<'_>) -> Result<u8, AacError> {
    match bits.take(5)? as u8 {
        31 => Ok(32 + bits.take(6)? as u8),
        short => Ok(short),
    }
}

fn sample_rate(bits: &mut Bits<'_>) -> Result<u32, AacError> {
    let rate = match bits.take(4)? {
        15 => bits.take(24)?,
        index => SAMPLE_RATES.get(index as usize).copied().unwrap_or(0),
    };
    if rate == 0 { Err(AacError::SampleRate) } else { Ok(rate) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_stereo_is_read() {
        let config = AacConfig::parse(&[0x12, 0x10]).unwrap();
        assert_eq!(config, AacConfig { object_type: 2, sample_rate: 44_100, channels: 2 });
        assert_eq!(config.codec(), "mp4a.40.2");
    }

    #[test]
    fn he_aac_says_the_rate_that_comes_out() {
        // object type 5, 24 kHz coded, stereo, 48 kHz out, object type 2
        let config = AacConfig::parse(&[0x2b, 0x11, 0x88, 0x00]).unwrap();
        assert_eq!(config, AacConfig { object_type: 5, sample_rate: 48_000, channels: 2 });
        assert_eq!(config.codec(), "mp4a.40.5");
    }

    #[test]
    fn channels_told_in_band_are_refused() {
        assert_eq!(AacConfig::parse(&[0x12, 0x00]), Err(AacError::Channels(0)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = AacConfig::parse(&bytes);
        }
    }
}
