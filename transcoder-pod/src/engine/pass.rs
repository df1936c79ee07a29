//! The access units of the source as the samples of a rendition: what [`passing`](super::passing) decides, done.

use super::outlet::Step;
use super::passing::{Move, Passing, Unit};
use super::rung::Told;
use super::{By, Encoded, Order, Output, ff};
use bytes::Bytes;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame;
use lectern_contract::feed::{AccessUnit, Codec};
use lectern_contract::{Ticks, VideoCodec, VideoRendition};
use lectern_media::avc::{self, AvcConfig};
use lectern_media::cmaf;
use std::sync::{Arc, Mutex, PoisonError};

/// The id of an encoder's parameter sets beside those of a source: the highest (ISO/IEC 14496-10 §7.4.2.1.1).
const BESIDE_SOURCE: u8 = 31;

/// The parameters of a rendition's own encoder, and with them, from the beginning, those of the source: the init section stays when the source is
/// passed on, and no player notices.
#[derive(Debug, Default)]
pub struct Own {
    source: Option<AvcConfig>,
    /// Of the encoder that was opened last.
    record: Mutex<Option<AvcConfig>>,
}

impl Own {
    /// The id of the encoder's parameter sets: sources have theirs under 0.
    pub fn set_id(&self) -> u8 {
        if self.source.is_some() { BESIDE_SOURCE } else { 0 }
    }

    /// The encoder's `record`, with the source's sets where they fit in.
    pub fn complete(&self, record: Bytes) -> Bytes {
        let both = self.source.as_ref().and_then(|source| AvcConfig::parse(&record).ok()?.with(source));
        let whole = both.as_ref().map_or(record, AvcConfig::encode);
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = both;
        whole
    }

    /// Whether the init section has the sets of `source`, too.
    fn has(&self, source: &AvcConfig) -> bool {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|record| record.has(source)) // whole, whatever panicked
    }
}

/// A rendition that the source may be passed on as.
pub struct Pass {
    rendition: usize,
    size: (u32, u32),
    frame: Ticks,
    own: Arc<Own>,
    passing: Passing,
    source: Option<AvcConfig>,
    /// The newest sample: it lasts until the next one.
    pending: Option<Encoded>,
    /// Something was passed since the encoder last stopped.
    is_on: bool,
    /// When the newest one starts that was passed.
    newest: Ticks,
    /// The rendition has gone on without the source until then.
    filled: Ticks,
}

impl Pass {
    /// For number `at` of the ladder, if it is one that a source can agree with: in H.264, and not cut into parts (a part that lacks a picture
    /// could not be filled any more).
    ///
    /// `codec` and `config`: the source's at the beginning. Should it change, nothing is passed on any more.
    pub fn new(at: usize, rendition: &VideoRendition, order: &Order, codec: Codec, config: &[u8]) -> Option<Self> {
        Self::of(at, rendition, order, parsed(codec, config)?)
    }

    /// The same before anything is known of the source but what the `init` section of a predecessor says. This rendition needs it, then, too: what the predecessor has
    /// shown and stored is gone on with.
    pub fn after(at: usize, rendition: &VideoRendition, order: &Order, init: &[u8]) -> Option<Self> {
        let source = cmaf::avc_of_init(init)?.apart_from(BESIDE_SOURCE.into())?;
        Self::of(at, rendition, order, source)
    }

    fn of(at: usize, rendition: &VideoRendition, order: &Order, source: AvcConfig) -> Option<Self> {
        let passing = Passing::new(rendition.frame_rate, rendition.bitrate, order.segment_duration)?;
        let can = order.passthrough && order.parts.is_none() && rendition.codec == VideoCodec::H264;
        let picture = source.picture().ok()?;
        let size = (rendition.width, rendition.height);
        (can && (picture.width, picture.height) == size).then(|| Self {
            rendition: at,
            size,
            frame: Ticks(lectern_contract::TICKS_PER_SECOND / u64::from(rendition.frame_rate)), // not zero, says Passing
            own: Arc::new(Own { source: Some(source.clone()), record: Mutex::default() }),
            passing,
            source: Some(source),
            pending: None,
            is_on: false,
            newest: Ticks(0),
            filled: Ticks(0),
        })
    }

    /// Its place in the ladder.
    pub const fn rendition(&self) -> usize {
        self.rendition
    }

    /// Whether its encoder rests, or will soon.
    pub const fn is_armed(&self) -> bool {
        self.passing.is_armed()
    }

    /// When the newest picture starts that was passed on; zero before the first.
    pub const fn newest(&self) -> Ticks {
        self.newest
    }

    /// Where the rendition's encoder says what it is.
    pub fn own(&self) -> Arc<Own> {
        self.own.clone()
    }

    /// The source is coded like this from here on.
    pub fn configured(&mut self, codec: Codec, config: &[u8]) -> Vec<Told> {
        self.source = parsed(codec, config);
        self.done(|passing| passing.agrees(false))
    }

    /// A picture of the source, decoded.
    pub fn shown(&mut self, picture: &frame::Video) -> Vec<Told> {
        let agrees = self.source.as_ref().is_some_and(|source| self.own.has(source))
            && (picture.format(), picture.width(), picture.height()) == (Pixel::YUV420P, self.size.0, self.size.1)
            && !picture.is_interlaced()
            && !ff::is_turned(picture)
            && matches!((picture.aspect_ratio().0, picture.aspect_ratio().1), (0, _) | (1, 1));
        self.done(|passing| passing.agrees(agrees))
    }

    /// The next access unit of the source.
    pub fn take(&mut self, unit: &AccessUnit) -> Vec<Told> {
        if unit.pts < self.filled {
            return Vec::new(); // it comes too late: its place is taken
        }
        let Some(data) = self.source.as_ref().and_then(|source| source.without_sets(&unit.payload)) else { return self.interrupt() };
        let idr = unit.keyframe && avc::is_idr(&data);
        let seen = Unit { dts: unit.dts, pts: unit.pts, idr, bytes: data.len() };
        match self.passing.take(seen) {
            Some(Move::Pass(start)) => {
                let mut told = self.ends(start);
                if !std::mem::replace(&mut self.is_on, true) {
                    told.push(relayed(Output::StandIn { rendition: self.rendition, by: Some(By::Source) }));
                }
                self.newest = start;
                self.pending = Some(Encoded { start: start.0, duration: 0, sync: idr, data });
                told
            }
            other => self.follow(other),
        }
    }

    /// The source has stopped, or goes on elsewhere.
    pub fn interrupt(&mut self) -> Vec<Told> {
        self.done(Passing::interrupt)
    }

    /// The source has stopped, and the rendition goes on without it until `until`.
    pub fn fill(&mut self, until: Ticks) -> Vec<Told> {
        self.filled = self.filled.max(until);
        self.interrupt()
    }

    /// The source has stopped, and the open segment gets nothing more.
    pub fn cut(&mut self) -> Vec<Told> {
        let mut told = self.finish();
        if self.is_on {
            told.push(relayed(Output::Cut { rendition: self.rendition }));
        }
        told.extend(self.interrupt());
        told
    }

    /// The last sample, whatever comes after it.
    pub fn finish(&mut self) -> Vec<Told> {
        let end = self.pending.as_ref().map_or(0, |pending| pending.start).saturating_add(self.frame.0);
        self.ends(Ticks(end))
    }

    fn done(&mut self, what: impl FnOnce(&mut Passing) -> Option<Move>) -> Vec<Told> {
        let done = what(&mut self.passing);
        self.follow(done)
    }

    fn follow(&mut self, done: Option<Move>) -> Vec<Told> {
        match done {
            Some(Move::Arm(at)) => vec![Told::Turn { at, hurry: false }],
            Some(Move::Encode(at)) => {
                let mut told = self.ends(at);
                if std::mem::take(&mut self.is_on) {
                    told.push(relayed(Output::StandIn { rendition: self.rendition, by: None }));
                }
                told.extend([Told::Relayed(Step::Over), Told::Turn { at, hurry: false }]);
                told
            }
            Some(Move::Pass(_)) | None => Vec::new(), // only a unit is passed
        }
    }

    /// The newest sample lasts until `end`.
    fn ends(&mut self, end: Ticks) -> Vec<Told> {
        let Some(pending) = self.pending.take() else { return Vec::new() };
        let duration = u32::try_from(end.0.saturating_sub(pending.start)).unwrap_or(u32::MAX);
        vec![relayed(Output::Sample { rendition: self.rendition, sample: Encoded { duration, ..pending } })]
    }
}

fn parsed(codec: Codec, config: &[u8]) -> Option<AvcConfig> {
    Some(codec).filter(|codec| *codec == Codec::H264).and_then(|_| AvcConfig::parse(config).ok())
}

fn relayed(output: Output) -> Told {
    Told::Relayed(Step::Put(output))
}
