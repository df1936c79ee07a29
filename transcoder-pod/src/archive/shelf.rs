//! What the engine puts out becomes segments in S3, and entries in the ledgers once a minute of them is whole.

use super::books::{Books, Plan};
use super::{ArchiveError, is_alive};
use crate::engine::{Encoded, Output};
use crate::packager::{Made, Packager, Segment, init_number};
use crate::publish::MINUTE;
use bytes::{Buf as _, Bytes};
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{ArchiveState, LedgerSegment};
use lectern_contract::{SegmentNumber, VideoRendition};
use lectern_media::cmaf;
use std::collections::BTreeMap;

/// All renditions of one job.
#[derive(Debug)]
pub struct Shelf<'a> {
    books: &'a Books,
    plan: Plan,
    renditions: Vec<Rendition>,
    /// What is stored and stands in no ledger yet, by minute and rendition.
    pending: BTreeMap<u64, BTreeMap<String, Vec<LedgerSegment>>>,
}

#[derive(Debug)]
struct Rendition {
    video: VideoRendition,
    packager: Packager,
    /// The init section in use, or the newest of a predecessor's.
    init: Option<(u32, Bytes)>,
    /// The newest segment that came out.
    newest: Option<SegmentNumber>,
}

impl<'a> Shelf<'a> {
    /// What predecessors have stored is gone on with.
    ///
    /// # Errors
    /// S3's.
    pub async fn open(books: &'a Books, plan: Plan) -> Result<Self, ArchiveError> {
        let before = plan.next().and_then(|next| next.0.checked_sub(1)).map(SegmentNumber);
        let mut renditions = Vec::new();
        for video in &books.job().video {
            let packager = Packager::new(cmaf::VIDEO_TIMESCALE, plan.segment_duration, None, before);
            let init = books.newest_init(&video.name).await?;
            renditions.push(Rendition { video: video.clone(), packager, init, newest: None });
        }
        Ok(Self { books, plan, renditions, pending: BTreeMap::new() })
    }

    /// How far the work is.
    pub fn state(&self) -> ArchiveState {
        let (all, renditions) = (self.plan.wanted.len(), self.plan.entered.len());
        let pending: usize = self.pending.values().flat_map(BTreeMap::values).map(Vec::len).sum();
        let done = self.plan.entered.values().map(|entered| entered.len()).sum::<usize>() + pending;
        ArchiveState::Encoding { done: done as u64, of: (all * renditions) as u64 }
    }

    /// Which segments are missing after all, for people.
    pub fn lacks(&self) -> Option<String> {
        self.plan.entered.iter().find_map(|(name, entered)| {
            let missing: Vec<String> =
                self.plan.wanted.keys().filter(|number| !entered.contains(number)).map(ToString::to_string).collect();
            let first = missing.first()?;
            Some(format!("{} segments of {name} cannot be made of the original, the first is {first}", missing.len()))
        })
    }

    /// Takes one thing that the engine put out; `false`: the run was deleted.
    ///
    /// # Errors
    /// S3's, or the engine's output cannot be packaged.
    pub async fn take(&mut self, output: Output) -> Result<bool, ArchiveError> {
        match output {
            Output::Config { rendition, config, .. } => self.configure(rendition, &config).await,
            Output::Sample { rendition, sample } => self.sample(rendition, sample).await,
            Output::Cut { rendition } | Output::End { rendition } => {
                let made = self.renditions[rendition].packager.cut()?;
                self.shelve(rendition, made).await
            }
            Output::Degraded { rendition, why } => {
                tracing::warn!(rendition = self.renditions[rendition].video.name, why, "a rendition is encoded otherwise than ordered");
                Ok(true)
            }
            Output::Captions { .. } | Output::Said(_) | Output::StandIn { .. } => Ok(true),
        }
    }

    async fn configure(&mut self, at: usize, config: &[u8]) -> Result<bool, ArchiveError> {
        let rendition = &mut self.renditions[at];
        let VideoRendition { name, codec, width, height, .. } = rendition.video.clone();
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX); // admission refuses more
        let body = cmaf::video_init(codec, side(width), side(height), config)?;
        let (number, stored) = init_number(rendition.init.as_ref(), &body);
        let made = rendition.packager.set_init(number)?;
        rendition.init = Some((number, body.clone()));
        Ok((stored || self.books.store(&ObjectName::Init(name, number), &body).await?) && self.shelve(at, made).await?)
    }

    async fn sample(&mut self, at: usize, sample: Encoded) -> Result<bool, ArchiveError> {
        let made = self.renditions[at].packager.push(sample)?;
        self.shelve(at, made).await
    }

    async fn shelve(&mut self, at: usize, made: Vec<Made>) -> Result<bool, ArchiveError> {
        for made in made {
            let Made::Segment(segment) = made else { continue };
            if !self.store(at, segment).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn store(&mut self, at: usize, segment: Segment) -> Result<bool, ArchiveError> {
        let Segment { number, offset, duration, init, mut body, .. } = segment;
        let name = self.renditions[at].video.name.clone();
        self.renditions[at].newest = Some(number);
        let is_entered = self.plan.entered.get(&name).is_some_and(|entered| entered.contains(&number));
        if is_entered || !self.plan.wanted.contains_key(&number) {
            return Ok(true);
        }
        let body = body.copy_to_bytes(body.remaining());
        if !self.books.store(&ObjectName::segment(&name, number), &body).await? {
            return Ok(false);
        }
        is_alive();
        let entry = LedgerSegment { number, offset, duration, bytes: body.len() as u64, init };
        self.pending.entry(self.minute_of(number)).or_default().entry(name).or_default().push(entry);
        // Minutes that all renditions have left behind get nothing more.
        let slowest = self.renditions.iter().map(|rendition| rendition.newest.map_or(0, |newest| self.minute_of(newest))).min();
        while let Some((minute, _)) = self.pending.first_key_value()
            && slowest.is_some_and(|slowest| *minute < slowest)
        {
            self.enter().await?;
        }
        Ok(true)
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// S3's.
    pub async fn close(&mut self) -> Result<(), ArchiveError> {
        while !self.pending.is_empty() {
            self.enter().await?;
        }
        Ok(())
    }

    /// Enters the oldest minute.
    async fn enter(&mut self) -> Result<(), ArchiveError> {
        let Some((minute, segments)) = self.pending.pop_first() else { return Ok(()) };
        self.books.enter(minute, &segments).await?;
        for (name, segments) in segments {
            self.plan.entered.entry(name).or_default().extend(segments.iter().map(|segment| segment.number));
        }
        Ok(())
    }

    fn minute_of(&self, number: SegmentNumber) -> u64 {
        number.start(self.plan.segment_duration).0 / MINUTE
    }
}
