//! The publisher's end of a run: what every protocol adapts to.

use super::{Closing, Heritage, Media, Run, VideoSeen};
use crate::metrics::{Counted, Metrics};
use bytes::Bytes;
use lectern_contract::feed::{Codec, Track};
use lectern_media::source::{Config, MediaError, TagReader, Taken, Unit};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// A publisher's hold on a run. Dropped, the publisher is gone and the run waits for the next one.
#[derive(Debug)]
pub struct Publication {
    run: Arc<Run>,
    number: u64,
    told: watch::Receiver<Option<Closing>>,
    reader: TagReader,
    reason: String,
    /// When the batch under way came; readers are told with [`Publication::flush`] only.
    batch: Option<Instant>,
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
    /// Something that cannot be read, or a codec that is not taken.
    #[error(transparent)]
    Media(#[from] MediaError),
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
            reader: TagReader::default(),
            reason: "the connection was lost".to_owned(),
            batch: None,
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

    /// What the publisher takes along to the run's next owner, where the run has moved.
    pub fn heritage(&self) -> Option<Heritage> {
        self.run.heritage(self.number)
    }

    /// Goes on where the owner before stopped. For a publisher whose parameters are told and whose media is not; where the run has other
    /// media already, nothing happens.
    pub fn inherit(&self, heritage: &Heritage) {
        self.run.inherit(self.number, heritage);
    }

    /// From now on, all that is added came at `now`, and readers are told of it by [`Publication::flush`] only: one look at
    /// the clock and one call for many tags.
    pub fn batch(&mut self, now: Instant) {
        self.batch = Some(now);
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

    /// Takes an FLV tag body as RTMP carries it: `kind` 8 is sound, 9 is picture, 18 is data, others are passed over; `timestamp` is
    /// the publisher's own, in milliseconds.
    pub fn tag(&mut self, kind: u8, timestamp: u32, body: Bytes) -> Result<(), PublishError> {
        let taken = self.reader.tag(kind, body)?;
        self.take(timestamp, taken)
    }

    /// A track is coded like this from here on; `config` as [`Codec`] says, with any length size of NAL units.
    pub fn configure(&mut self, codec: Codec, config: Bytes) -> Result<(), PublishError> {
        match self.reader.config(codec, config)? {
            Some(config) => self.parameters(config),
            None => Ok(()),
        }
    }

    /// One picture, framed as [`Codec`] and its configuration say; times are the publisher's own, in milliseconds.
    /// Pictures before the first keyframe or configuration are passed over.
    pub fn picture(&mut self, dts_millis: u32, composition_millis: i32, keyframe: bool, payload: Bytes) -> Result<(), PublishError> {
        let taken = self.reader.frame(Track::Video, keyframe, composition_millis, payload)?;
        self.take(dts_millis, taken)
    }

    /// One sound frame, framed as [`Codec`] says; the time is the publisher's own, in milliseconds.
    pub fn sound(&mut self, dts_millis: u32, payload: Bytes) -> Result<(), PublishError> {
        let taken = self.reader.frame(Track::Audio, true, 0, payload)?;
        self.take(dts_millis, taken)
    }

    fn take(&mut self, dts_millis: u32, taken: Taken) -> Result<(), PublishError> {
        if let Some(config) = taken.config {
            self.parameters(config)?;
        }
        if let Some(said) = taken.said {
            self.append(Media::Said(said))?;
        }
        let Some(unit) = taken.unit else { return Ok(()) };
        self.bytes_in.inc_by(unit.payload.len() as u64);
        let Unit { track, composition_millis, keyframe, payload } = unit;
        self.append(Media::Unit { track, dts_millis, composition_millis, keyframe, payload })
    }

    fn parameters(&mut self, told: Config) -> Result<(), PublishError> {
        let Config { codec, config, name, picture } = told;
        self.append(match codec.track() {
            Track::Video => Media::Video { codec, config, seen: VideoSeen { codec: name, picture } },
            Track::Audio => Media::Audio { codec, config, name },
        })
    }

    fn append(&mut self, media: Media) -> Result<(), PublishError> {
        let news = self.run.append(self.number, media, self.batch.unwrap_or_else(Instant::now))?;
        self.untold = Some(news || self.untold == Some(true));
        if self.batch.is_none() {
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
