//! From what a publisher sends to what the feed holds: names codec configurations, and frames payloads as
//! [`Codec`] promises readers.

use crate::aac::{AacConfig, AacError};
use crate::ac3::{self, Ac3Error};
use crate::av1::{self, Av1Config, Av1Error};
use crate::avc::{self, AvcConfig, AvcError};
use crate::flac::{self, FlacConfig, FlacError};
use crate::flv::{self, AudioTag, FlvError, VideoTag};
use crate::hevc::{self, HevcConfig, HevcError};
use crate::metadata::Said;
use crate::mp3::{self, Mp3Error};
use crate::opus::{OpusConfig, OpusError};
use crate::pcm::{PcmConfig, PcmError};
use crate::vp9::{self, Vp9Config, Vp9Error};
use bytes::Bytes;
use lectern_contract::feed::{Codec, Track};

/// RTMP's message types of media (Adobe RTMP specification §7.1), which are FLV's tag types.
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const DATA: u8 = 18;
/// G.711's rate (ITU-T G.711 §2). The FLV header's own cannot say it, and encoders write anything there.
const G711_RATE: u32 = 8_000;
/// Bytes of a configuration that are believed: it is kept for as long as the run lasts.
const MAX_CONFIG: usize = 64 << 10;

/// A track's parameters, first or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How the track is coded.
    pub codec: Codec,
    /// As [`Codec`] says.
    pub config: Bytes,
    /// The RFC 6381 codec string: `hvc1.1.6.L93.B0`.
    pub name: String,
    /// Width and height in pixels, as far as they are known.
    pub picture: Option<(u32, u32)>,
}

/// One picture or sound frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Which track.
    pub track: Track,
    /// Presentation time minus decode time, in milliseconds.
    pub composition_millis: i32,
    /// Decoding can start here. True for every sound frame.
    pub keyframe: bool,
    /// Framed as [`Codec`] says.
    pub payload: Bytes,
}

/// What came of a tag: the parameters go before the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// New parameters.
    pub config: Option<Config>,
    /// Something to decode.
    pub unit: Option<Unit>,
    /// Something for players' scripts.
    pub said: Option<Said>,
}

/// Why media is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// A tag that cannot be read, or a codec that is not taken.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// A configuration that is larger than any real one.
    #[error("a codec configuration of {0} bytes is not believed: at most {MAX_CONFIG}")]
    ConfigSize(usize),
    /// A broken H.264 configuration, or a broken access unit of H.264 or HEVC.
    #[error(transparent)]
    Avc(#[from] AvcError),
    /// A broken HEVC configuration.
    #[error(transparent)]
    Hevc(#[from] HevcError),
    /// A broken AV1 configuration.
    #[error(transparent)]
    Av1(#[from] Av1Error),
    /// A broken VP9 configuration.
    #[error(transparent)]
    Vp9(#[from] Vp9Error),
    /// A broken AAC configuration.
    #[error(transparent)]
    Aac(#[from] AacError),
    /// A stream that begins with something else than an MP3 frame.
    #[error(transparent)]
    Mp3(#[from] Mp3Error),
    /// A broken Opus configuration.
    #[error(transparent)]
    Opus(#[from] OpusError),
    /// A stream that begins with something else than an AC-3 frame.
    #[error(transparent)]
    Ac3(#[from] Ac3Error),
    /// A broken FLAC configuration.
    #[error(transparent)]
    Flac(#[from] FlacError),
    /// A broken configuration of sound that has none of its own.
    #[error(transparent)]
    Pcm(#[from] PcmError),
}

/// Reads one publisher's media.
///
/// **Keyframes** are what the bitstream says, not what the publisher does, because some phones flag pictures that nothing
/// can start with: IDR (H.264) or IRAP (HEVC) NAL units, AV1's and VP9's frame headers. A publisher's flag counts only
/// with a recovery point SEI (encoders that refresh little by little), or where an AV1 or VP9 header cannot be read.
#[derive(Debug, Default)]
pub struct TagReader {
    video: Option<Configured>,
    audio: Option<Configured>,
}

/// A track's parameters, and what its access units still have of the publisher's framing.
#[derive(Debug)]
struct Configured {
    told: Config,
    /// Bytes of a NAL unit's length as the publisher writes it.
    length_size: u8,
}

impl TagReader {
    /// Takes an FLV tag body as RTMP carries it: `kind` 8 is sound, 9 is picture, 18 is data; others hold nothing, and nor does data that cannot be
    /// read.
    ///
    /// Units before their track's parameters, and units of another codec than those are for, hold nothing either.
    ///
    /// # Errors
    /// The tag, its codec or a configuration is not taken.
    pub fn tag(&mut self, kind: u8, body: Bytes) -> Result<Taken, MediaError> {
        match kind {
            VIDEO => match flv::video(body)? {
                VideoTag::Config { codec, config } => Ok(Taken { config: self.config(codec, config)?, ..Taken::default() }),
                VideoTag::Frame { codec, keyframe, composition_millis, payload } => {
                    self.picture(codec, keyframe, composition_millis, payload)
                }
                VideoTag::Nothing => Ok(Taken::default()),
            },
            AUDIO => match flv::audio(body)? {
                AudioTag::Config { codec, config } => Ok(Taken { config: self.config(codec, config)?, ..Taken::default() }),
                AudioTag::Frame { codec, stereo, payload } => {
                    let channels = if stereo { 2 } else { 1 };
                    self.sound(codec, PcmConfig { sample_rate: G711_RATE, channels }, payload)
                }
                AudioTag::Nothing => Ok(Taken::default()),
            },
            DATA => Ok(Taken { said: Said::read(&body), ..Taken::default() }),
            _ => Ok(Taken::default()),
        }
    }

    /// A track is coded like this from here on; `config` as [`Codec`] says, but for the NAL units' length size, which is
    /// the publisher's. `None` if that is known.
    ///
    /// # Errors
    /// It is no configuration of this codec, or none that is taken.
    pub fn config(&mut self, codec: Codec, config: Bytes) -> Result<Option<Config>, MediaError> {
        let configured = configured(codec, config)?;
        let slot = match codec.track() {
            Track::Video => &mut self.video,
            Track::Audio => &mut self.audio,
        };
        let known = slot.as_ref().is_some_and(|known| {
            let (old, new) = (&known.told, &configured.told);
            (old.codec, &old.config, known.length_size) == (new.codec, &new.config, configured.length_size)
        });
        if known {
            return Ok(None);
        }
        let told = configured.told.clone();
        *slot = Some(configured);
        Ok(Some(told))
    }

    /// A frame of the codec that `track` was last configured for, from a source that does not name it each time; nothing
    /// before that. Sound has neither composition time nor keyframes.
    ///
    /// # Errors
    /// A NAL unit claims more than there is.
    pub fn frame(&mut self, track: Track, keyframe: bool, composition_millis: i32, payload: Bytes) -> Result<Taken, MediaError> {
        match (track, &self.video, &self.audio) {
            (Track::Video, Some(video), _) => self.picture(video.told.codec, keyframe, composition_millis, payload),
            (Track::Audio, _, Some(_)) => Ok(Taken { unit: Some(sound_unit(payload)), ..Taken::default() }),
            _ => Ok(Taken::default()),
        }
    }

    fn picture(&mut self, codec: Codec, claimed: bool, composition_millis: i32, payload: Bytes) -> Result<Taken, MediaError> {
        let Some(video) = self.video.as_mut().filter(|video| video.told.codec == codec) else { return Ok(Taken::default()) };
        let (payload, keyframe, picture) = match codec {
            Codec::H264 => {
                let payload = avc::with_four_byte_lengths(payload, video.length_size)?;
                let keyframe = avc::is_keyframe(&payload, claimed);
                (payload, keyframe, None)
            }
            Codec::Hevc => {
                let payload = avc::with_four_byte_lengths(payload, video.length_size)?;
                let keyframe = hevc::is_keyframe(&payload, claimed);
                (payload, keyframe, None)
            }
            Codec::Av1 => {
                let payload = av1::without_temporal_delimiters(payload);
                let seen = av1::look(&payload);
                (payload, seen.keyframe.unwrap_or(claimed), seen.picture)
            }
            _ => {
                let seen = vp9::look(&payload);
                (payload, seen.keyframe.unwrap_or(claimed), seen.picture)
            }
        };
        if payload.is_empty() {
            return Ok(Taken::default());
        }
        // What the configuration does not say, a keyframe does.
        let config = picture.filter(|_| keyframe && picture != video.told.picture).map(|_| {
            video.told.picture = picture;
            video.told.clone()
        });
        Ok(Taken { config, unit: Some(Unit { track: Track::Video, composition_millis, keyframe, payload }), said: None })
    }

    /// `shape` is what the tag says, for codecs that say nothing.
    fn sound(&mut self, codec: Codec, shape: PcmConfig, payload: Bytes) -> Result<Taken, MediaError> {
        let ours = self.audio.as_ref().filter(|audio| audio.told.codec == codec);
        let shape = match codec {
            Codec::PcmAlaw | Codec::PcmMulaw => Ok(shape),
            Codec::Mp3 => mp3::frame_header(&payload).map_err(MediaError::from),
            Codec::Ac3 => ac3::frame_header(&payload).map_err(MediaError::from),
            _ if ours.is_some() => return Ok(Taken { unit: Some(sound_unit(payload)), ..Taken::default() }),
            _ => return Ok(Taken::default()),
        };
        let config = match (shape, ours) {
            (Ok(shape), Some(ours)) if PcmConfig::parse(&ours.told.config) == Ok(shape) => None,
            (Ok(shape), _) => self.config(codec, shape.encode())?,
            // One broken frame is the decoder's to skip; a stream that begins with one is of another kind.
            (Err(_), Some(_)) => None,
            (Err(error), None) => return Err(error),
        };
        Ok(Taken { config, unit: Some(sound_unit(payload)), said: None })
    }
}

fn sound_unit(payload: Bytes) -> Unit {
    Unit { track: Track::Audio, composition_millis: 0, keyframe: true, payload }
}

/// Reads a configuration and makes it what the feed promises.
fn configured(codec: Codec, config: Bytes) -> Result<Configured, MediaError> {
    if config.len() > MAX_CONFIG {
        return Err(MediaError::ConfigSize(config.len()));
    }
    let (config, name, picture, length_size) = match codec {
        Codec::H264 => {
            let mut avc = AvcConfig::parse(&config)?;
            let (picture, length_size) = (avc.picture()?, avc.length_size);
            avc.length_size = 4;
            (avc.encode(), avc.codec(), Some((picture.width, picture.height)), length_size)
        }
        Codec::Hevc => {
            let hevc = HevcConfig::parse(&config)?;
            (hevc::with_four_byte_length_size(config), hevc.codec(), Some(hevc.picture), hevc.length_size)
        }
        Codec::Av1 => {
            let av1 = Av1Config::parse(&config)?;
            (config, av1.codec(), av1.picture, 0)
        }
        Codec::Vp9 => {
            let config = vp9::without_box_header(config);
            let vp9 = Vp9Config::parse(&config)?;
            (config, vp9.codec(), None, 0)
        }
        Codec::Aac => {
            let aac = AacConfig::parse(&config)?;
            (config, aac.codec(), None, 0)
        }
        Codec::Opus => {
            let opus = OpusConfig::parse(&config)?;
            (config, opus.codec(), None, 0)
        }
        Codec::Flac => {
            let config = flac::stream_info(config);
            let flac = FlacConfig::parse(&config)?;
            (config, flac.codec(), None, 0)
        }
        Codec::Mp3 | Codec::Ac3 | Codec::PcmAlaw | Codec::PcmMulaw => {
            PcmConfig::parse(&config)?;
            (config, shapeless_name(codec).to_owned(), None, 0)
        }
    };
    Ok(Configured { told: Config { codec, config, name, picture }, length_size })
}

/// Codec strings that are the same whatever the sound is like; G.711's are QuickTime's sample entries.
fn shapeless_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Mp3 => mp3::CODEC,
        Codec::Ac3 => ac3::CODEC,
        Codec::PcmAlaw => "alaw",
        _ => "ulaw",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
