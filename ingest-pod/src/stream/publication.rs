//! The publisher's end of a run: what every protocol adapts to.

use super::{Closing, Media, Run, VideoSeen};
use crate::metrics::{Counted, Metrics};
use bytes::Bytes;
use lectern_contract::feed::{Codec, Track};
use lectern_media::aac::{AacConfig, AacError};
use lectern_media::avc::{self, AvcConfig, AvcError};
use lectern_media::flv::{self, AudioTag, FlvError, VideoTag};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use tokio::sync::watch;

/// RTMP's message types of media (Adobe RTMP specification §7.1).
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// A publisher's hold on a run. Dropped, the publisher is gone and the run waits for the next one.
#[derive(Debug)]
pub struct Publication {
    run: Arc<Run>,
    number: u64,
    told: watch::Receiver<Option<Closing>>,
    length_size: u8,
    reason: String,
    /// Readers are told with [`Publication::flush`] only.
    batched: bool,
    /// Readers have not been told of what was added last; true if a report would say something new.
    untold: Option<bool>,
    bytes_in: Counter,
    _counted: Counted,
}

/// Why media was not taken; the publisher has to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The run has no place for this publisher any more.
    #[error("{0}")]
    Closed(Closing),
    /// A tag that cannot be read, or a codec that is not taken.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// A broken H.264 configuration or access unit.
    #[error(transparent)]
    Avc(#[from] AvcError),
    /// A broken AAC configuration.
    #[error(transparent)]
    Aac(#[from] AacError),
}

impl From<Closing> for PublishError {
    fn from(closing: Closing) -> Self {
        Self::Closed(closing)
    }
}

impl Publication {
    pub(super) fn new(run: Arc<Run>, number: u64, told: watch::Receiver<Option<Closing>>, metrics: &Metrics) -> Self {
        Self {
            run,
            number,
            told,
            length_size: 4,
            reason: "the connection was lost".to_owned(),
            batched: false,
            untold: None,
            bytes_in: metrics.bytes_in.clone(),
            _counted: Counted::up(&metrics.publishers),
        }
    }

    /// The run that is published.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Waits until the publisher has to go, and says why. May be cancelled and called again.
    pub async fn closing(&mut self) -> Closing {
        match self.told.wait_for(Option::is_some).await {
            // The sender lives in the run's slot: gone without a word, the slot is another's.
            Err(_) => Closing::TakenOver,
            Ok(closing) => closing.clone().unwrap_or(Closing::TakenOver),
        }
    }

    /// Why the publisher has to go; `None` while it may stay. Costs one look at an atomic.
    pub fn closed(&mut self) -> Option<Closing> {
        match self.told.has_changed() {
            Ok(false) => None,
            Ok(true) => self.told.borrow_and_update().clone(),
            Err(_) => Some(self.told.borrow().clone().unwrap_or(Closing::TakenOver)),
        }
    }

    /// From now on readers are told of what was added by [`Publication::flush`] only: one call after many tags wakes every
    /// reader once.
    pub fn batched(mut self) -> Self {
        self.batched = true;
        self
    }

    /// Lets readers know of what was added.
    pub fn flush(&mut self) {
        if let Some(news) = self.untold.take() {
            self.run.tell(news);
        }
    }

    /// The publisher leaves, for a reason that people will read.
    pub fn leave(mut self, reason: impl Into<String>) {
        self.reason = reason.into();
    }

    /// Takes an FLV tag body as RTMP carries it: `kind` 8 is sound, 9 is picture, others are passed over; `timestamp` is
    /// the publisher's own, in milliseconds.
    pub fn tag(&mut self, kind: u8, timestamp: u32, body: Bytes) -> Result<(), PublishError> {
        match kind {
            VIDEO => match flv::video(body)? {
                VideoTag::Config(record) => self.h264(&record),
                VideoTag::Frame { keyframe, composition_millis, nal_units } => {
                    let payload = avc::with_four_byte_lengths(nal_units, self.length_size)?;
                    self.picture(timestamp, composition_millis, keyframe, payload)
                }
                VideoTag::Nothing => Ok(()),
            },
            AUDIO => match flv::audio(body)? {
                AudioTag::Config(config) => self.aac(config),
                AudioTag::Frame(payload) => self.sound(timestamp, payload),
                AudioTag::Nothing => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// H.264 follows, under this AVCDecoderConfigurationRecord.
    pub fn h264(&mut self, record: &[u8]) -> Result<(), PublishError> {
        let mut config = AvcConfig::parse(record)?;
        let picture = config.picture()?;
        self.length_size = config.length_size;
        config.length_size = 4; // what readers are promised, and what `tag` makes of every access unit
        let seen = VideoSeen { codec: config.codec(), picture: Some((picture.width, picture.height)) };
        self.append(Media::Video { codec: Codec::H264, config: config.encode(), seen })
    }

    /// AAC follows, under this AudioSpecificConfig.
    pub fn aac(&mut self, config: Bytes) -> Result<(), PublishError> {
        let name = AacConfig::parse(&config)?.codec();
        self.append(Media::Audio { codec: Codec::Aac, config, name })
    }

    /// One picture: NAL units with 4-byte lengths; times are the publisher's own, in milliseconds. Pictures before the
    /// first keyframe or configuration are passed over.
    pub fn picture(&mut self, dts_millis: u32, composition_millis: i32, keyframe: bool, payload: Bytes) -> Result<(), PublishError> {
        self.unit(Media::Unit { track: Track::Video, dts_millis, composition_millis, keyframe, payload })
    }

    /// One raw AAC access unit; the time is the publisher's own, in milliseconds.
    pub fn sound(&mut self, dts_millis: u32, payload: Bytes) -> Result<(), PublishError> {
        self.unit(Media::Unit { track: Track::Audio, dts_millis, composition_millis: 0, keyframe: true, payload })
    }

    fn unit(&mut self, media: Media) -> Result<(), PublishError> {
        if let Media::Unit { payload, .. } = &media {
            self.bytes_in.inc_by(payload.len() as u64);
        }
        self.append(media)
    }

    fn append(&mut self, media: Media) -> Result<(), PublishError> {
        let news = self.run.append(self.number, media)?;
        self.untold = Some(news || self.untold == Some(true));
        if !self.batched {
            self.flush();
        }
        Ok(())
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.flush();
        self.run.left(self.number, &self.reason);
    }
}
