//! A run at its shard: one publisher at a time writes it, any number of readers read it, and neither waits for the other.

mod bitrate;
mod history;
mod publication;
mod reader;

pub use history::Limits;
pub use publication::{Publication, PublishError};
pub use reader::{Batch, Reader};

use crate::metrics::Metrics;
use crate::routes::Route;
use bitrate::Bitrate;
use history::{Configs, History};
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, Track};
use lectern_contract::report::{IngestRun, Publisher, Recording};
use lectern_contract::{RunId, ShardName, StreamRef, Ticks, WallMillis};
use lectern_media::timeline::Timeline;
use lectern_podkit::clock::wall_now;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Sound alone has no keyframes that matter: readers can start once in this span.
const SOUND_START_EVERY: Ticks = Ticks(90_000);

/// Why a publisher has to go, or a run is no longer served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// A newer publisher with the same key has the stream now.
    TakenOver,
    /// The stream has ended.
    Ended,
    /// Another shard owns the stream now.
    Moved(ShardName),
    /// No route names the run any more.
    Unrouted,
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenOver => f.write_str("another publisher took over"),
            Self::Ended => f.write_str("the stream has ended"),
            Self::Moved(shard) => write!(f, "the stream moved to shard {shard}"),
            Self::Unrouted => f.write_str("the stream is no longer known here"),
        }
    }
}

/// What all runs of a shard share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// How much of each run is kept.
    pub limits: Limits,
    /// The shard's metrics.
    pub metrics: Metrics,
    /// Told when a report would say something new.
    pub changed: Arc<Notify>,
}

/// A run that this shard owns.
#[derive(Debug)]
pub struct Run {
    id: RunId,
    stream: StreamRef,
    anchor: WallMillis,
    shared: Shared,
    state: Mutex<State>,
    recording: Mutex<Option<Recording>>,
    /// Counts changes; readers wait for it to move.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    timeline: Timeline,
    history: History,
    configs: Configs,
    slot: Slot,
    bitrate: Bitrate,
    closed: Option<Closing>,
    publishers_seen: u64,
}

/// The place of the one publisher.
#[derive(Debug)]
enum Slot {
    Never,
    Publishing(Live),
    Gone { reason: String },
}

#[derive(Debug)]
struct Live {
    number: u64,
    remote: String,
    closing: watch::Sender<Option<Closing>>,
    video: Option<VideoSeen>,
    audio: Option<String>,
    /// Pictures before this publisher's first keyframe could not be decoded.
    keyframe_seen: bool,
}

#[derive(Debug)]
struct VideoSeen {
    codec: String,
    picture: Option<(u32, u32)>,
}

impl Run {
    /// A run that nobody has published yet.
    pub fn new(route: &Route, shared: Shared) -> Arc<Self> {
        let run = Self {
            id: route.run.clone(),
            stream: route.stream.clone(),
            anchor: route.anchor,
            state: Mutex::new(State {
                timeline: Timeline::anchored(elapsed_since(route.anchor)),
                history: History::new(shared.limits),
                configs: Configs::default(),
                slot: Slot::Never,
                bitrate: Bitrate::default(),
                closed: None,
                publishers_seen: 0,
            }),
            shared,
            recording: Mutex::default(),
            version: watch::Sender::new(0),
        };
        Arc::new(run)
    }

    /// The LiveStream.
    pub fn stream(&self) -> &StreamRef {
        &self.stream
    }

    /// The run's id.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Makes `remote` (an address, for people) the run's publisher. The newest wins: whoever published before is told
    /// [`Closing::TakenOver`].
    ///
    /// # Errors
    /// The reason, if the run is closed.
    pub fn publish(self: &Arc<Self>, remote: String) -> Result<Publication, Closing> {
        let mut state = self.lock();
        if let Some(closing) = &state.closed {
            return Err(closing.clone());
        }
        if let Slot::Publishing(previous) = &state.slot {
            tracing::info!(run = %self.id, stream = %self.stream, previous = previous.remote, remote, "a new publisher takes over");
            previous.closing.send_replace(Some(Closing::TakenOver));
            state.gap(Closing::TakenOver.to_string());
        } else {
            tracing::info!(run = %self.id, stream = %self.stream, remote, "a publisher came");
        }
        state.publishers_seen += 1;
        let number = state.publishers_seen;
        let (closing, told) = watch::channel(None);
        state.slot = Slot::Publishing(Live { number, remote, closing, video: None, audio: None, keyframe_seen: false });
        state.timeline.reconnected(elapsed_since(self.anchor));
        drop(state);
        self.tell(true);
        Ok(Publication::new(self.clone(), number, told, &self.shared.metrics))
    }

    /// A reader that begins at the last keyframe at or before `from`, else at the oldest one kept; with `None` at the
    /// newest one. It waits where there is nothing yet.
    pub fn reader(self: &Arc<Self>, from: Option<Ticks>) -> Reader {
        Reader::new(self.clone(), from)
    }

    /// Ends the run at this shard: its publisher is told why, its readers get what there is and then the verdict.
    pub fn close(&self, closing: Closing) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        if let Slot::Publishing(live) = &state.slot {
            live.closing.send_replace(Some(closing.clone()));
        }
        if !matches!(state.slot, Slot::Never) {
            state.slot = Slot::Gone { reason: closing.to_string() };
        }
        tracing::info!(run = %self.id, stream = %self.stream, why = %closing, "closed");
        state.closed = Some(closing);
        drop(state);
        self.tell(true);
    }

    /// What a report says about the run; `None` before its first publisher.
    pub fn report(&self) -> Option<IngestRun> {
        let mut state = self.lock();
        let bitrate = state.bitrate.at(elapsed_since(self.anchor).as_millis());
        let publisher = match &state.slot {
            Slot::Never => return None,
            Slot::Gone { reason } => Publisher::Gone { reason: reason.clone() },
            Slot::Publishing(live) => Publisher::Publishing {
                remote: live.remote.clone(),
                backup: false,
                codecs: live.video.iter().map(|video| video.codec.clone()).chain(live.audio.clone()).collect(),
                picture: live.video.as_ref().and_then(|video| video.picture),
                bitrate,
                newest: state.timeline.newest().unwrap_or_default(),
            },
        };
        Some(IngestRun { stream: self.stream.clone(), run: self.id.clone(), publisher, standby: None, recording: self.recording() })
    }

    /// How far the original is recorded; `None` if it is not.
    pub fn recording(&self) -> Option<Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of how the original's recording does.
    pub fn note_recording(&self, note: impl FnOnce(&mut Recording)) {
        let mut slot = self.recording.lock().unwrap_or_else(PoisonError::into_inner); // whole, whatever panicked
        let recording = slot.get_or_insert(Recording { stored: None, gaps: 0, trouble: None });
        let before = (recording.gaps, recording.trouble.is_some());
        note(recording);
        let news = before != (recording.gaps, recording.trouble.is_some());
        drop(slot);
        if news {
            self.shared.changed.notify_one();
        }
    }

    /// What a publisher has sent.
    fn append(&self, number: u64, media: Media) -> Result<(), Closing> {
        let now = elapsed_since(self.anchor);
        let mut state = self.lock();
        let news = state.append(number, media, now)?;
        drop(state);
        self.tell(news);
        Ok(())
    }

    /// The publisher with this number is gone.
    fn left(&self, number: u64, reason: &str) {
        let mut state = self.lock();
        if state.live(number).is_err() {
            return; // it was told to go, and its place is another's
        }
        tracing::info!(run = %self.id, stream = %self.stream, reason, "the publisher is gone");
        state.gap(reason.to_owned());
        state.slot = Slot::Gone { reason: reason.to_owned() };
        drop(state);
        self.tell(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic halfway runs under this lock, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes readers, and the reporter if there is news for it.
    fn tell(&self, news: bool) {
        self.version.send_modify(|version| *version = version.wrapping_add(1));
        if news {
            self.shared.changed.notify_one();
        }
    }
}

/// What a publisher adds to a run.
enum Media {
    Video { codec: Codec, config: bytes::Bytes, seen: VideoSeen },
    Audio { codec: Codec, config: bytes::Bytes, name: String },
    Unit { track: Track, dts_millis: u32, composition_millis: i32, keyframe: bool, payload: bytes::Bytes },
}

impl State {
    /// The publisher with this number, if it still is the one.
    fn live(&mut self, number: u64) -> Result<&mut Live, Closing> {
        match &mut self.slot {
            Slot::Publishing(live) if live.number == number => Ok(live),
            _ => Err(self.closed.clone().unwrap_or(Closing::TakenOver)),
        }
    }

    /// True if a report would say something new.
    fn append(&mut self, number: u64, media: Media, now: Ticks) -> Result<bool, Closing> {
        let live = self.live(number)?;
        match media {
            Media::Video { codec, config, seen } => {
                live.video = Some(seen);
                self.config(Track::Video, codec, config);
                Ok(true)
            }
            Media::Audio { codec, config, name } => {
                live.audio = Some(name);
                self.config(Track::Audio, codec, config);
                Ok(true)
            }
            Media::Unit { track, dts_millis, composition_millis, keyframe, payload } => {
                let configured = match track {
                    Track::Video => live.video.is_some(),
                    Track::Audio => live.audio.is_some(),
                };
                let decodable = track == Track::Audio || keyframe || live.keyframe_seen;
                if !configured || !decodable {
                    return Ok(false);
                }
                let news = track == Track::Video && !live.keyframe_seen;
                live.keyframe_seen |= track == Track::Video;
                let sound_only = live.video.is_none();
                self.bitrate.add(payload.len(), now.as_millis());
                let stamp = self.timeline.push(track, dts_millis, composition_millis, now);
                let start = match track {
                    Track::Video => keyframe,
                    Track::Audio => sound_only && self.history.newest_start().is_none_or(|last| stamp.dts.since(last) >= SOUND_START_EVERY),
                };
                let unit = AccessUnit { track, dts: stamp.dts, pts: stamp.pts, keyframe, payload };
                self.history.push(unit, start, &self.configs);
                Ok(news)
            }
        }
    }

    fn config(&mut self, track: Track, codec: Codec, config: bytes::Bytes) {
        if self.configs.put(track, codec, config.clone()) {
            self.history.note(FeedFrame::Config { track, codec, config });
        }
    }

    /// Notes that nothing follows what is there; nothing at all needs no note.
    fn gap(&mut self, reason: String) {
        if let Some(from) = self.timeline.end() {
            self.history.note(FeedFrame::Gap { from, reason });
        }
    }
}

/// The time since a run's epoch; zero before it.
fn elapsed_since(anchor: WallMillis) -> Ticks {
    Ticks::from_millis(wall_now().0.saturating_sub(anchor.0))
}
