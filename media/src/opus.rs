//! Opus outside of its packets: the identification header (RFC 7845 §5.1).

const MAGIC: &[u8; 8] = b"OpusHead";

/// What an identification header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusConfig {
    /// Channels, 1 to 8. Opus always decodes to 48 kHz.
    pub channels: u8,
    /// Samples at 48 kHz to throw away at the start.
    pub pre_skip: u16,
}

/// Why bytes are no identification header that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    /// It does not begin with `OpusHead`.
    #[error("the Opus sequence header is no OpusHead")]
    Magic,
    /// It ends too early.
    #[error("the OpusHead is cut short")]
    Short,
    /// A version that is not compatible with 1.
    #[error("an OpusHead of version {0} is not known")]
    Version(u8),
    /// None, or more than there are layouts for.
    #[error("Opus with {0} channels in mapping family {1} is not supported")]
    Channels(u8, u8),
}

impl OpusConfig {
    /// Reads an identification header.
    ///
    /// # Errors
    /// It is none, or none that is taken.
    pub fn parse(header: &[u8]) -> Result<Self, OpusError> {
        let fields = header.strip_prefix(MAGIC).ok_or(OpusError::Magic)?;
        let (&[version, channels, low, high, _, _, _, _, _, _, family], mapping) =
            fields.split_first_chunk::<11>().ok_or(OpusError::Short)?;
        if version >> 4 != 0 {
            return Err(OpusError::Version(version)); // the lower half may grow (§5.1)
        }
        match (channels, family) {
            (1..=2, 0) => {}
            (1..=8, 1..) if mapping.len() < 2 + usize::from(channels) => return Err(OpusError::Short),
            (1..=8, 1..) => {}
            _ => return Err(OpusError::Channels(channels, family)),
        }
        Ok(Self { channels, pre_skip: u16::from_le_bytes([low, high]) })
    }

    /// The RFC 6381 codec string.
    pub fn codec(&self) -> String {
        "Opus".to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixtures::{OPUS_HEAD_SIX_CHANNELS, OPUS_HEAD_STEREO, bytes_of};
    use proptest::prelude::*;

    #[test]
    fn headers_of_a_real_encoder_are_read() {
        assert_eq!(OpusConfig::parse(&bytes_of(OPUS_HEAD_STEREO)), Ok(OpusConfig { channels: 2, pre_skip: 312 }));
        assert_eq!(OpusConfig::parse(&bytes_of(OPUS_HEAD_SIX_CHANNELS)), Ok(OpusConfig { channels: 6, pre_skip: 312 }));
    }

    #[test]
    fn six_channels_without_their_mapping_are_refused() {
        let cut = &bytes_of(OPUS_HEAD_SIX_CHANNELS)[..20];
        assert_eq!(OpusConfig::parse(cut), Err(OpusError::Short));
        assert_eq!(OpusConfig::parse(b"OpusHead\x01\x06\0\0\0\0\0\0\0\0\0"), Err(OpusError::Channels(6, 0)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = OpusConfig::parse(&bytes);
            let _ = OpusConfig::parse(&[&MAGIC[..], &bytes].concat());
        }
    }
}
