//! Opens libav's decoder for any codec of the feed.

use super::ff;
use ffmpeg_next::codec::{Context, Id, decoder, threading};
use ffmpeg_next::{Error, Rational};
use lectern_contract::TICKS_PER_SECOND;
use lectern_contract::feed::Codec;
use lectern_media::pcm::PcmConfig;

/// A decoder for a track with this configuration; packets are stamped in [`lectern_contract::Ticks`].
///
/// # Errors
/// libav does not know the codec, or does not take the configuration.
pub fn open(codec: Codec, config: &[u8]) -> Result<decoder::Opened, Error> {
    let found = find(codec).ok_or(Error::DecoderNotFound)?;
    let mut context = Context::new_with_codec(found);
    context.set_threading(threading::Config { kind: threading::Type::None, count: 1, ..Default::default() });
    match codec {
        Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Aac | Codec::Opus | Codec::Flac => ff::set_extradata(&mut context, config)?,
        Codec::Vp9 => {} // its keyframes say it all
        Codec::Mp3 | Codec::Ac3 | Codec::PcmAlaw | Codec::PcmMulaw => {
            let shape = PcmConfig::parse(config).map_err(|_| Error::InvalidData)?;
            ff::set_sound_shape(&mut context, shape);
        }
    }
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(Rational(1, TICKS_PER_SECOND as i32)); // 90,000
    decoder.open_as(found)
}

fn find(codec: Codec) -> Option<ffmpeg_next::Codec> {
    decoder::find(match codec {
        // libav's own AV1 decoder needs a GPU, and says so with the first packet only.
        Codec::Av1 => return decoder::find_by_name("libdav1d"),
        Codec::H264 => Id::H264,
        Codec::Hevc => Id::HEVC,
        Codec::Vp9 => Id::VP9,
        Codec::Aac => Id::AAC,
        Codec::Mp3 => Id::MP3,
        Codec::Opus => Id::OPUS,
        Codec::Ac3 => Id::AC3,
        Codec::Flac => Id::FLAC,
        Codec::PcmAlaw => Id::PCM_ALAW,
        Codec::PcmMulaw => Id::PCM_MULAW,
    })
}
