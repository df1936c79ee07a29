//! Engines: coded media in, a ladder's coded media out, on the run's clock.

mod audio;
mod audio_grid;
mod coded;
mod decode;
mod ff;
mod fit;
mod lead;
mod libav;
mod nvenc;
mod outlet;
mod pass;
mod passing;
mod plain;
mod rung;
mod scale;
mod shed;
mod slate;
mod software;
mod still;
mod tail;
mod video;
mod video_grid;

pub use libav::Libav;
pub use shed::Rungs;
pub use slate::Card;

use bytes::Bytes;
use lectern_contract::cost::Class;
use lectern_contract::feed::{AccessUnit, Codec, TimedMetadata, Track};
use lectern_contract::{Ladder, PartCount, SegmentDuration, Ticks};
use lectern_media::captions::Triplet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Something that decodes a feed once and encodes every rendition of a ladder.
///
/// Dropping an engine stops its threads; what they had not put out is lost. It is driven from a thread of its own,
/// because [`Engine::push`] takes as long as decoding does, and waits while the encoders are behind.
pub trait Engine: Send {
    /// Takes one thing off the feed. A unit that cannot be decoded is skipped, counted and logged.
    ///
    /// # Errors
    /// The engine is broken for good: an encoder cannot be opened, or has died.
    fn push(&mut self, input: Input) -> Result<(), EngineError>;

    /// Encodes what is left; every rendition that put something out then says [`Output::End`].
    ///
    /// # Errors
    /// As for [`Engine::push`].
    fn finish(self: Box<Self>) -> Result<(), EngineError>;
}

/// What an engine takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A track's parameters, first or changed.
    Config {
        /// Which track.
        track: Track,
        /// How it is coded.
        codec: Codec,
        /// As [`Codec`] says.
        config: Bytes,
    },
    /// One picture or sound frame.
    Unit(AccessUnit),
    /// Nothing more came: what decoders and encoders still hold should come out now.
    Gap,
    /// The silence has lasted for a segment: the open segments will not be completed.
    Cut,
    /// Nothing came of a track for so long that its renditions go on without it until this time: the slate, or silence.
    Fill(Track, Ticks),
    /// Something that the publisher says at this place of the feed: put out as it is.
    Said(TimedMetadata),
    /// Encoding is behind: the costliest rendition that another can stand in for is shed.
    Shed,
    /// There is room again: the rendition that was shed last comes back.
    Restore,
}

/// What an engine is asked to make.
#[derive(Debug, Clone)]
pub struct Order {
    /// The renditions. An [`Output`] names them by their place in [`Ladder::names`].
    pub ladder: Ladder,
    /// Pictures are forced to be keyframes where a segment of this length begins.
    pub segment_duration: SegmentDuration,
    /// Nothing that starts before this is put out: a predecessor did it.
    pub from: Ticks,
    /// What [`Input::Fill`] shows.
    pub card: Card,
    /// What encodes, where there is a choice.
    pub encoder: Backend,
    /// Where the source is what a rendition is to be, it may be that rendition.
    pub passthrough: bool,
    /// How many parts a segment is cut into, if it is. Their target duration depends on the frame rate: only a rendition of the same rate can stand in then.
    pub parts: Option<PartCount>,
    /// Pictures that begin a part before this are keyframes, too: what a dead predecessor has made of a segment can be gone on with there.
    pub joints_until: Ticks,
    /// Whom the engine follows.
    pub predecessor: Predecessor,
}

/// The init sections of a predecessor, by rendition, as soon as they are known; all clones are one. An engine that has no source yet goes on with what they say of it.
#[derive(Debug, Clone, Default)]
pub struct Predecessor(Arc<OnceLock<BTreeMap<String, Bytes>>>);

impl Predecessor {
    /// They are known from now on, once and for all.
    pub fn is_known(&self, inits: impl Iterator<Item = (String, Bytes)>) {
        self.0.get_or_init(|| inits.collect());
    }

    fn init(&self, rendition: &str) -> Option<&Bytes> {
        self.0.get()?.get(rendition)
    }
}

impl Order {
    /// Where the slate begins that is wanted up to `until`, of a source that has shown no picture yet.
    fn slate_begins(&self, until: Ticks) -> Ticks {
        self.from.max(until.since(SLATE_BEFORE))
    }
}

/// The renditions whose encoders make no keyframe before a part.
pub fn without_joints(ladder: &Ladder, duration: SegmentDuration) -> Vec<String> {
    let without = ladder.video.iter().filter(|rendition| software::keyframes(rendition, duration) != software::Keyframes::Asked);
    without.map(|rendition| rendition.name.clone()).collect()
}

/// How much of a slate is made at once for a source that has shown nothing; more is only waited for.
const SLATE_BEFORE: Ticks = Ticks::from_millis(1_000);

/// What encodes H.264 and HEVC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// x264 and x265.
    #[default]
    Software,
    /// An NVIDIA GPU; where it refuses or fails, software.
    Nvenc,
}

impl From<Backend> for Class {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Software => Self::Software,
            Backend::Nvenc => Self::Nvenc,
        }
    }
}

/// Whose pictures a rendition is put out with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Those of the encoder of the rendition at this place in [`Ladder::names`].
    Encoder(usize),
    /// The source's own.
    Source,
}

/// What an engine puts out, in the order of time per rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A rendition's codec parameters: before its first sample, and when they change.
    Config {
        /// Place in [`Ladder::names`].
        rendition: usize,
        /// Whose they are: another rendition's, where that one stands in.
        of: usize,
        /// An AVC-, HEVC- or AV1CodecConfigurationRecord, or an AudioSpecificConfig.
        config: Bytes,
    },
    /// One coded picture or sound frame.
    Sample {
        /// Place in [`Ladder::names`].
        rendition: usize,
        /// The sample.
        sample: Encoded,
    },
    /// The captions of a picture of the source, before any rendition puts out what is shown at that time.
    Captions {
        /// When the picture is shown.
        at: Ticks,
        /// What it carries.
        triplets: Vec<Triplet>,
    },
    /// What [`Input::Said`] has brought, before any rendition puts out what is shown or heard at that time.
    Said(TimedMetadata),
    /// A rendition is not encoded as it was ordered, and why.
    Degraded {
        /// Place in [`Ladder::names`].
        rendition: usize,
        /// For people.
        why: String,
    },
    /// From the start of a segment on a rendition is put out with the pictures of somebody else, or (`None`) with its own again; after the source's within a segment, too. It
    /// may take a while until that segment comes.
    StandIn {
        /// Place in [`Ladder::names`].
        rendition: usize,
        /// Whose pictures.
        by: Option<By>,
    },
    /// The open segment will get nothing more.
    Cut {
        /// Place in [`Ladder::names`].
        rendition: usize,
    },
    /// Nothing more comes of this rendition.
    End {
        /// Place in [`Ladder::names`].
        rendition: usize,
    },
}

impl Output {
    /// The same of another rendition.
    fn of(mut self, at: usize) -> Self {
        match &mut self {
            Self::Config { rendition, .. }
            | Self::Sample { rendition, .. }
            | Self::Degraded { rendition, .. }
            | Self::StandIn { rendition, .. }
            | Self::Cut { rendition }
            | Self::End { rendition } => *rendition = at,
            Self::Captions { .. } | Self::Said(_) => {}
        }
        self
    }
}

/// A coded picture or sound frame with its place in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Since the run's epoch, in the rendition's timescale (see `lectern_media::cmaf`). Decode and presentation time are
    /// one: nothing is reordered.
    pub start: u64,
    /// In the same timescale.
    pub duration: u32,
    /// Decoding can start here.
    pub sync: bool,
    /// H.264 and HEVC as NAL units with lengths of 4 bytes, AV1 as a temporal unit without delimiter, or a raw AAC frame.
    pub data: Bytes,
}

/// Why an engine is broken.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// libav refused.
    #[error("{what}: {source}")]
    Libav {
        /// What was tried.
        what: String,
        /// libav's error.
        #[source]
        source: ffmpeg_next::Error,
    },
    /// An encoder's parameter sets do not parse.
    #[error("the encoder's parameters are unusable: {0}")]
    Parameters(String),
    /// A rendition's thread is gone.
    #[error("rendition {0} has stopped")]
    Stopped(String),
    /// A thread cannot be started.
    #[error("no thread for rendition {rendition}: {source}")]
    Thread {
        /// Its name.
        rendition: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

impl EngineError {
    fn libav(what: impl Into<String>) -> impl FnOnce(ffmpeg_next::Error) -> Self {
        let what = what.into();
        move |source| Self::Libav { what, source }
    }
}

/// Where a rendition's thread puts its output; waits while the packager is behind. `false` once nobody listens.
fn put(out: &mpsc::Sender<Output>, output: Output) -> bool {
    out.blocking_send(output).is_ok()
}
