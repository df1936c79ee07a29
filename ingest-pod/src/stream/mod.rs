//! A run at its shard: one publisher at a time writes it, any number of readers read it, and neither waits for the other.

mod bitrate;
mod clock;
mod heritage;
mod history;
mod publication;
mod reader;
mod ring;
mod said;
mod seats;

pub use heritage::{Heritage, MOST_PAST};
pub use history::Limits;
pub use publication::{Publication, PublishError};
pub use reader::{Batch, Reader};

use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::routes::{Route, Seat};
use bitrate::Bitrate;
use clock::Clock;
use history::{Configs, History};
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, Track};
use lectern_contract::relay::Asked;
use lectern_contract::report::{IngestRun, Publisher, Recording};
use lectern_contract::{Epoch, RunId, ShardName, StreamRef, Ticks};
use lectern_crds::Takeover;
use lectern_media::metadata::Said;
use lectern_media::timeline::Timeline;
use said::Saying;
use seats::{Arrival, Departure, Live, Seats};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
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

impl Closing {
    /// The stream goes on, with another owner.
    pub fn is_a_move(&self) -> bool {
        matches!(self, Self::Moved(_))
    }
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
    /// The memory that they keep it in.
    pub memory: Memory,
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
    epoch: Epoch,
    shared: Shared,
    state: Mutex<State>,
    recording: Mutex<Option<Recording>>,
    /// The newest access unit of picture and of sound that came from the owner before; never set where none handed anything over.
    inherited: OnceLock<[Option<Ticks>; 2]>,
    /// Counts changes; readers wait for it to move.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    clock: Clock,
    timeline: Timeline,
    history: History,
    configs: Configs,
    saying: Saying,
    seats: Seats,
    takeover: Takeover,
    bitrate: Bitrate,
    closed: Option<Closing>,
    /// Somebody has had some of the history.
    is_read: bool,
    /// The publisher that was heard when the run moved, by its number.
    heir: Option<u64>,
    publishers_seen: u64,
}

#[derive(Debug, Clone)]
struct VideoSeen {
    codec: String,
    picture: Option<(u32, u32)>,
}

/// Why a publisher may not have a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Occupied {
    /// The run is closed.
    #[error("{0}")]
    Closed(Closing),
    /// Another publisher is there, and the stream's takeover says that the first one wins.
    #[error("another publisher has this key in use, and spec.reconnect.takeover is FirstWins: it has to leave first")]
    ByAnother,
    /// Another publisher has asked for the run since, while this one's way to it was lost, or while it waited for one.
    #[error("another publisher took over")]
    ByNewer,
}

impl From<Closing> for Occupied {
    fn from(closing: Closing) -> Self {
        Self::Closed(closing)
    }
}

impl Run {
    /// A run that nobody has published yet.
    pub fn new(route: &Route, shared: Shared) -> Arc<Self> {
        let clock = Clock::anchored(route.anchor);
        let run = Self {
            id: route.run.clone(),
            stream: route.stream.clone(),
            epoch: route.epoch,
            state: Mutex::new(State {
                clock,
                timeline: Timeline::anchored(clock.now()),
                history: History::new(shared.limits, shared.memory.clone()),
                configs: Configs::default(),
                saying: Saying::default(),
                seats: Seats::default(),
                takeover: route.takeover,
                bitrate: Bitrate::default(),
                closed: None,
                is_read: false,
                heir: None,
                publishers_seen: 0,
            }),
            shared,
            recording: Mutex::default(),
            inherited: OnceLock::new(),
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

    /// Under which epoch this shard owns it.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What happens from now on when a second publisher comes with the same key.
    pub fn set_takeover(&self, takeover: Takeover) {
        self.lock().takeover = takeover;
    }

    /// Seats a publisher, which `asked` to publish so long ago: `remote` is its address, for people, and the same for as long as its connection lasts. Whoever had the seat before is told
    /// [`Closing::TakenOver`], or wins, as the stream says; beside a publisher with the other key it stands by.
    ///
    /// # Errors
    /// [`Occupied`].
    pub fn publish(self: &Arc<Self>, seat: Seat, remote: String, asked: Asked) -> Result<Publication, Occupied> {
        let mut state = self.lock();
        if let Some(closing) = &state.closed {
            return Err(closing.clone().into());
        }
        state.publishers_seen += 1;
        let (number, takeover, now) = (state.publishers_seen, state.takeover, state.clock.now());
        let (closing, told) = watch::channel(None);
        let live = Live {
            number,
            seat,
            remote: remote.clone(),
            asked: Instant::now().checked_sub(asked.ago),
            closing,
            video: None,
            audio: None,
            keyframe_seen: false,
            last_media: now,
        };
        let arrival = state.seats.seat(live, takeover).map_err(|_| match takeover {
            Takeover::FirstWins => Occupied::ByAnother,
            Takeover::NewestWins => Occupied::ByNewer,
        })?;
        tracing::info!(run = %self.id, stream = %self.stream, remote, ?seat, ?arrival, "a publisher came");
        match arrival {
            Arrival::Heard => state.timeline.reconnected(now),
            Arrival::TookOver => {
                state.gap(Closing::TakenOver.to_string());
                state.timeline.reconnected(now);
            }
            Arrival::StandsBy => {}
        }
        drop(state);
        self.tell(true);
        Ok(Publication::new(self.clone(), number, told, &self.shared.metrics))
    }

    /// A reader that begins at the last keyframe at or before `from`, else at the oldest one kept; with `None` at the
    /// newest one. It waits where there is nothing yet.
    pub fn reader(self: &Arc<Self>, from: Option<Ticks>) -> Reader {
        Reader::new(self.clone(), from)
    }

    /// Says why nobody publishes, where nobody does: `the camera refuses the password`.
    pub fn explain(&self, reason: &str) {
        if self.lock().seats.explain(reason) {
            self.tell(true);
        }
    }

    /// Ends the run at this shard: its publishers are told why, its readers get what there is and then the verdict.
    pub fn close(&self, closing: Closing) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.heir = state.seats.heard().filter(|live| closing.is_a_move() && live.keyframe_seen).map(|live| live.number);
        state.seats.close(&closing);
        tracing::info!(run = %self.id, stream = %self.stream, why = %closing, "closed");
        state.closed = Some(closing);
        drop(state);
        self.tell(true);
    }

    /// What a report says about the run; `None` before its first publisher.
    pub fn report(&self) -> Option<IngestRun> {
        let mut state = self.lock();
        let now = state.clock.now();
        let bitrate = state.bitrate.at(now.as_millis());
        let newest = state.timeline.newest().unwrap_or_default();
        let publisher = match (state.seats.heard(), state.seats.gone()) {
            (Some(live), _) => Publisher::Publishing {
                remote: live.remote.clone(),
                backup: live.seat == Seat::Backup,
                codecs: live
                    .video
                    .iter()
                    .map(|(_, _, seen)| &seen.codec)
                    .chain(live.audio.iter().map(|(.., name)| name))
                    .cloned()
                    .collect(),
                picture: live.video.as_ref().and_then(|(_, _, seen)| seen.picture),
                bitrate,
                newest,
            },
            (None, Some(reason)) => Publisher::Gone { reason: reason.to_owned() },
            (None, None) => return None,
        };
        let standby = state.seats.standby().map(|live| live.remote.clone());
        Some(IngestRun { stream: self.stream.clone(), run: self.id.clone(), publisher, standby, recording: self.recording() })
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

    /// What a publisher has sent, and came at `now`. Readers learn of it with the next [`Run::tell`]; true if a report would
    /// say something new.
    fn append(&self, number: u64, media: Media, now: Instant) -> Result<bool, Closing> {
        let span = self.shared.memory.span(self.shared.limits.span);
        let mut state = self.lock();
        let now = state.clock.at(now);
        state.history.keep(span);
        state.append(number, media, now)
    }

    /// The publisher with this number is gone.
    fn left(&self, number: u64, reason: &str) {
        let mut state = self.lock();
        let departure = state.seats.leave(number, reason);
        match departure {
            Departure::Nothing => {}
            Departure::Silence => state.gap(reason.to_owned()),
            Departure::Succession => {
                state.gap(format!("{reason}; the publisher that stood by follows"));
                let now = state.clock.now();
                state.heard_anew(now);
            }
        }
        drop(state);
        tracing::info!(run = %self.id, stream = %self.stream, reason, ?departure, "a publisher is gone");
        self.tell(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic halfway runs under this lock, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes readers, and the reporter if there is news for it.
    fn tell(&self, news: bool) {
        // A reader that comes just now looks at what is there before it waits.
        if self.version.receiver_count() > 0 {
            self.version.send_modify(|version| *version = version.wrapping_add(1));
        }
        if news {
            self.shared.changed.notify_one();
        }
    }
}

/// What a publisher adds to a run.
enum Media {
    Video {
        codec: Codec,
        config: bytes::Bytes,
        seen: VideoSeen,
    },
    Audio {
        codec: Codec,
        config: bytes::Bytes,
        name: String,
    },
    Unit {
        track: Track,
        dts_millis: u32,
        composition_millis: i32,
        keyframe: bool,
        payload: bytes::Bytes,
    },
    /// Not decodable: who sends nothing else is taken for silent.
    Said(Said),
}

impl State {
    /// True if a report would say something new.
    fn append(&mut self, number: u64, media: Media, now: Ticks) -> Result<bool, Closing> {
        let opens = matches!(media, Media::Unit { track: Track::Video, keyframe: true, .. });
        let swaps = opens && self.seats.should_swap(number, now);
        if swaps {
            self.seats.swap();
            self.gap("the publisher sent nothing; the one that stood by follows".to_owned());
            self.heard_anew(now);
        }
        let heard = self.seats.heard().is_some_and(|live| live.number == number);
        let closed = self.closed.clone().unwrap_or(Closing::TakenOver);
        let live = self.seats.find(number).ok_or(closed)?;
        live.configure(&media);
        if !heard {
            return Ok(false); // it stands by: its parameters are kept, its media is not needed yet
        }
        if !matches!(media, Media::Said(_)) {
            live.last_media = now;
        }
        Ok(self.take(media, now) || swaps)
    }

    /// Takes what the publisher that is heard has sent. True if a report would say something new.
    fn take(&mut self, media: Media, now: Ticks) -> bool {
        match media {
            Media::Video { codec, config, .. } => self.config(Track::Video, codec, config),
            Media::Audio { codec, config, .. } => self.config(Track::Audio, codec, config),
            Media::Unit { track, dts_millis, composition_millis, keyframe, payload } => {
                let Some(live) = self.seats.heard_mut() else { return false };
                let decodable = track == Track::Audio || keyframe || live.keyframe_seen;
                if !live.is_configured(track) || !decodable {
                    return false;
                }
                let first = track == Track::Video && !live.keyframe_seen;
                live.keyframe_seen |= track == Track::Video;
                self.bitrate.add(payload.len(), now.as_millis());
                let placed = self.timeline.push(track, dts_millis, composition_millis, now);
                if let Some(from) = placed.gap {
                    self.history.note(&FeedFrame::Gap { from, reason: "the publisher left out some of its media".to_owned() });
                }
                let stamp = placed.stamp;
                let start = self.is_start(track, keyframe, stamp.dts);
                let unit = AccessUnit { track, dts: stamp.dts, pts: stamp.pts, keyframe, payload };
                self.history.push(&unit, start, &self.configs);
                return first;
            }
            Media::Said(said) => {
                // Before any media nobody could say when it was said.
                if let Some(metadata) = self.timeline.newest().and_then(|newest| self.saying.place(said, newest)) {
                    self.history.note(&FeedFrame::Metadata(metadata));
                }
                return false;
            }
        }
        true
    }

    /// Whether readers may begin with this access unit of the publisher that is heard.
    fn is_start(&self, track: Track, keyframe: bool, dts: Ticks) -> bool {
        match track {
            Track::Video => keyframe,
            Track::Audio => {
                let sound_only = self.seats.heard().is_none_or(|live| live.video.is_none());
                sound_only && self.history.newest_start().is_none_or(|last| dts.since(last) >= SOUND_START_EVERY)
            }
        }
    }

    /// Another publisher is heard from here on.
    fn heard_anew(&mut self, now: Ticks) {
        self.timeline.reconnected(now);
        let Some(live) = self.seats.heard_mut() else { return };
        live.keyframe_seen = false;
        live.last_media = now;
        for (track, codec, config) in live.configs() {
            self.config(track, codec, config);
        }
    }

    fn config(&mut self, track: Track, codec: Codec, config: bytes::Bytes) {
        if self.configs.put(track, codec, config.clone()) {
            self.history.note(&FeedFrame::Config { track, codec, config });
        }
    }

    /// Notes that nothing follows what is there; nothing at all needs no note.
    fn gap(&mut self, reason: String) {
        if let Some(from) = self.timeline.end() {
            self.history.note(&FeedFrame::Gap { from, reason });
        }
    }
}
