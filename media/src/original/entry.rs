//! Sample entries (ISO/IEC 14496-12 §8.5.2): the config of a track as it came, in the box that its codec's mapping names.

use super::boxes::{boxed, leaf};
use super::{Coding, OriginalError, picture};
use crate::aac::AacConfig;
use crate::bits::{Bits, OutOfBits};
use lectern_contract::feed::{AccessUnit, Codec};
use mp4_atom::{Ac3SpecificBox, Audio, Esds, Visual, esds};

/// ISO/IEC 14496-1 table 5: MPEG-4 audio, MPEG-1 audio, MPEG-2 audio at half the sample rates.
const MPEG4_AUDIO: u8 = 0x40;
const MPEG1_AUDIO: u8 = 0x6b;
const MPEG2_AUDIO: u8 = 0x69;
/// MPEG-1 audio has no lower sample rate (ISO/IEC 11172-3 §2.4.2.3).
const LOWEST_OF_MPEG1: u32 = 32_000;

/// The sample entry of a track whose first access unit, if any, is `first`.
pub(super) fn sample_entry(coding: &Coding, first: Option<&AccessUnit>) -> Result<Vec<u8>, OriginalError> {
    let config = &coding.config[..];
    let undescribed = |missing| OriginalError::Undescribed { codec: coding.codec, missing };
    match coding.codec {
        Codec::H264 => visual(b"avc1", coding, first, &boxed(b"avcC", &[config])),
        Codec::Hevc => visual(b"hvc1", coding, first, &boxed(b"hvcC", &[config])),
        Codec::Av1 => visual(b"av01", coding, first, &boxed(b"av1C", &[config])),
        Codec::Vp9 => {
            // VP-ISOBMFF §2.2: a full box of version 1. No record begins like its header: bits per sample are never zero.
            let record = config.strip_prefix(&[1, 0, 0, 0]).unwrap_or(config);
            visual(b"vp09", coding, first, &boxed(b"vpcC", &[&[1, 0, 0, 0][..], record]))
        }
        Codec::Aac => {
            // Rate and channels of the entry are a hint: decoders go by the config.
            let (rate, channels) = AacConfig::parse(config).map_or((0, 2), |aac| (aac.sample_rate, aac.channels));
            audio(b"mp4a", rate, channels, &esds(MPEG4_AUDIO, Some(config))?)
        }
        Codec::Mp3 => {
            let (rate, channels) = rate_and_channels(config).ok_or_else(|| undescribed("a sample rate"))?;
            audio(b"mp4a", rate, channels, &esds(if rate < LOWEST_OF_MPEG1 { MPEG2_AUDIO } else { MPEG1_AUDIO }, None)?)
        }
        Codec::Opus => {
            let (channels, dops) = dops(config).ok_or_else(|| undescribed("a whole OpusHead"))?;
            audio(b"Opus", 48_000, channels, &boxed(b"dOps", &[dops])) // RFC 7845 §5.1: Opus decodes to 48 kHz
        }
        Codec::Ac3 => {
            let (rate, channels) = rate_and_channels(config).ok_or_else(|| undescribed("a sample rate"))?;
            let frame = first.and_then(|unit| dac3(&unit.payload).ok()).ok_or_else(|| undescribed("a syncframe"))?;
            audio(b"ac-3", rate, channels, &leaf(&frame)?)
        }
        Codec::Flac => {
            let (rate, channels) = stream_info(config).map_err(|OutOfBits| undescribed("a whole STREAMINFO"))?;
            // FLAC in ISOBMFF §3.3.2: version and flags, then the block with its header, the last one of a kind 0.
            audio(b"fLaC", rate, channels, &boxed(b"dfLa", &[&[0, 0, 0, 0, 0x80, 0, 0, 34][..], &config[..34]]))
        }
        Codec::PcmAlaw | Codec::PcmMulaw => {
            let (rate, channels) = rate_and_channels(config).ok_or_else(|| undescribed("a sample rate"))?;
            audio(if coding.codec == Codec::PcmAlaw { b"alaw" } else { b"ulaw" }, rate, channels, &[])
        }
    }
}

fn visual(kind: &[u8; 4], coding: &Coding, first: Option<&AccessUnit>, config: &[u8]) -> Result<Vec<u8>, OriginalError> {
    // Where the picture's size is not to be found, players have it from the stream itself.
    let (width, height) = picture::size(coding, first).unwrap_or_default();
    let entry = leaf(&Visual { data_reference_index: 1, width, height, compressor: "".into(), ..Default::default() })?;
    Ok(boxed(kind, &[&entry[..], config]))
}

fn audio(kind: &[u8; 4], rate: u32, channels: u8, config: &[u8]) -> Result<Vec<u8>, OriginalError> {
    // A rate that does not fit its 16 bits is left open, as ffmpeg does.
    let sample_rate = u16::try_from(rate).unwrap_or(0).into();
    let entry = leaf(&Audio { data_reference_index: 1, channel_count: channels.into(), sample_size: 16, sample_rate })?;
    Ok(boxed(kind, &[&entry[..], config]))
}

fn esds(object_type_indication: u8, config: Option<&[u8]>) -> Result<Vec<u8>, OriginalError> {
    let dec_config = esds::DecoderConfig {
        object_type_indication,
        stream_type: 5, // ISO/IEC 14496-1 table 6: audio
        dec_specific: config.map(|config| esds::DecoderSpecific { raw: config.to_vec(), ..Default::default() }),
        ..Default::default()
    };
    leaf(&Esds { es_desc: esds::EsDescriptor { dec_config, ..Default::default() } })
}

/// Reads [`lectern_contract::feed::pcm_config`]'s layout.
fn rate_and_channels(config: &[u8]) -> Option<(u32, u8)> {
    let (rate, rest) = config.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*rate), *rest.first()?)).filter(|(rate, channels)| *rate > 0 && *channels > 0)
}

/// The channels and the body of an OpusSpecificBox (Opus in ISOBMFF §4.3.2) for an identification header (RFC 7845 §5.1):
/// the same fields, in the other byte order.
fn dops(head: &[u8]) -> Option<(u8, Vec<u8>)> {
    let head = head.strip_prefix(b"OpusHead")?;
    let (&[_version, channels, s0, s1, r0, r1, r2, r3, g0, g1, family], table) = head.split_first_chunk::<11>()?;
    let mut body = vec![0, channels, s1, s0, r3, r2, r1, r0, g1, g0, family];
    if family != 0 {
        body.extend_from_slice(table.get(..2 + usize::from(channels))?);
    }
    Some((channels, body))
}

/// The AC3SpecificBox of a syncframe (ETSI TS 102 366 §4.4.1, §4.4.2, annex F.4).
fn dac3(frame: &[u8]) -> Result<Ac3SpecificBox, OutOfBits> {
    let mut bits = Bits::new(frame);
    if bits.take(16)? != 0x0b77 {
        return Err(OutOfBits);
    }
    bits.take(16)?; // crc1
    let fscod = bits.take(2)? as u8;
    let bit_rate_code = bits.take(6)? as u8 >> 1; // each rate has two frame sizes
    let bsid = bits.take(5)? as u8;
    let bsmod = bits.take(3)? as u8;
    let acmod = bits.take(3)? as u8;
    if bsid > 10 {
        return Err(OutOfBits); // E-AC-3 has another header and another box
    }
    if acmod & 1 == 1 && acmod != 1 {
        bits.take(2)?; // cmixlev
    }
    if acmod & 4 == 4 {
        bits.take(2)?; // surmixlev
    }
    if acmod == 2 {
        bits.take(2)?; // dsurmod
    }
    Ok(Ac3SpecificBox { fscod, bsid, bsmod, acmod, lfeon: bits.bit()?, bit_rate_code })
}

/// Sample rate and channels of a STREAMINFO block of 34 bytes (RFC 9639 §8.2).
fn stream_info(config: &[u8]) -> Result<(u32, u8), OutOfBits> {
    let mut bits = Bits::new(config.get(10..34).ok_or(OutOfBits)?);
    Ok((bits.take(20)?, bits.take(3)? as u8 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use lectern_contract::Ticks;
    use lectern_contract::feed::Track;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_config_and_no_payload_panic(
            config in proptest::collection::vec(any::<u8>(), 0..64),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            for codec in Codec::ALL {
                let coding = Coding { codec, config: Bytes::from(config.clone()) };
                let unit = AccessUnit {
                    track: Track::Video, dts: Ticks(0), pts: Ticks(0), keyframe: true, payload: Bytes::from(payload.clone()),
                };
                let _ = sample_entry(&coding, Some(&unit));
                let _ = sample_entry(&coding, None);
            }
        }
    }
}
