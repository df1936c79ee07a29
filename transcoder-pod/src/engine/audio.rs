//! One audio rendition: sound on the grid, encoded as AAC-LC. Cheap enough (1 % of a core) to run with the decoder.

use super::audio_grid::{FRAME, SoundFrame};
use super::{Encoded, EngineError, Order, Output, ff, put};
use ffmpeg_next::codec::{Context, Flags as CodecFlags, Id, encoder};
use ffmpeg_next::format::{Sample, sample};
use ffmpeg_next::{ChannelLayout, Packet, Rational, frame};
use lectern_contract::AudioRendition;
use lectern_media::cmaf::AUDIO_TIMESCALE;
use tokio::sync::mpsc;

/// The only format that libav's AAC encoder takes.
pub const FORMAT: Sample = Sample::F32(sample::Type::Planar);

/// A rendition under way.
pub struct AudioEncoder {
    at: usize,
    name: String,
    from: u64,
    encoder: encoder::audio::Encoder,
    out: mpsc::Sender<Output>,
}

impl AudioEncoder {
    /// Opens the encoder of `rendition`, which is number `at` of the ladder, and puts out its parameters.
    pub fn open(at: usize, rendition: &AudioRendition, order: &Order, out: mpsc::Sender<Output>) -> Result<Self, EngineError> {
        let encoder = open_aac(rendition).map_err(EngineError::libav(format!("AAC for {} cannot be opened", rendition.name)))?;
        let config = ff::extradata(&encoder);
        if config.is_empty() {
            return Err(EngineError::Parameters("AAC without an AudioSpecificConfig".to_owned()));
        }
        let _ = put(&out, Output::Config { rendition: at, of: at, config }); // as in VideoEncoder
        let from = order.from.0 * u64::from(AUDIO_TIMESCALE) / lectern_contract::TICKS_PER_SECOND;
        Ok(Self { at, name: rendition.name.clone(), from, encoder, out })
    }

    /// Encodes one frame. `false` once nobody listens.
    pub fn take(&mut self, sound: &SoundFrame) -> Result<bool, EngineError> {
        // The frame before the first that is wanted primes the encoder's overlapping window.
        if sound.start + 2 * (FRAME as u64) < self.from {
            return Ok(true);
        }
        let mut input = frame::Audio::new(FORMAT, FRAME, ChannelLayout::STEREO);
        input.set_rate(AUDIO_TIMESCALE);
        input.set_pts(Some(i64::try_from(sound.start).unwrap_or(i64::MAX)));
        for (plane, channel) in sound.channels.iter().enumerate() {
            input.plane_mut::<f32>(plane).copy_from_slice(channel);
        }
        self.encoder.send_frame(&input).map_err(EngineError::libav(format!("rendition {} cannot be encoded", self.name)))?;
        self.drain()
    }

    /// Tells the packager that the open segment is complete.
    pub fn cut(&self) -> bool {
        put(&self.out, Output::Cut { rendition: self.at })
    }

    /// Encodes what is left.
    pub fn finish(mut self) -> Result<(), EngineError> {
        self.encoder.send_eof().map_err(EngineError::libav(format!("rendition {} cannot be flushed", self.name)))?;
        if self.drain()? {
            put(&self.out, Output::End { rendition: self.at });
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<bool, EngineError> {
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            // The encoder stamps a frame 1024 samples early (priming); at the very start of a timeline that is below zero.
            let Some(start) = packet.pts().and_then(|pts| u64::try_from(pts).ok()).filter(|start| *start >= self.from) else { continue };
            let data = bytes::Bytes::copy_from_slice(packet.data().unwrap_or_default());
            let sample = Encoded { start, duration: FRAME as u32, sync: true, data };
            if !put(&self.out, Output::Sample { rendition: self.at, sample }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn open_aac(rendition: &AudioRendition) -> Result<encoder::audio::Encoder, ffmpeg_next::Error> {
    let codec = encoder::find(Id::AAC).ok_or(ffmpeg_next::Error::EncoderNotFound)?;
    let rate = AUDIO_TIMESCALE as i32; // 48,000
    let mut context = Context::new_with_codec(codec);
    context.set_flags(CodecFlags::GLOBAL_HEADER);
    let mut audio = context.encoder().audio()?;
    audio.set_rate(rate);
    audio.set_format(FORMAT);
    audio.set_channel_layout(ChannelLayout::STEREO);
    audio.set_channels(2);
    audio.set_time_base(Rational(1, rate));
    audio.set_bit_rate(usize::try_from(rendition.bitrate).map_err(|_| ffmpeg_next::Error::InvalidData)?);
    audio.open_as(codec)
}
