//! Keeps the run's books in S3: ledgers, the multivariant playlist, the MPD, the head, `ended.json`. The only task that moves the
//! head, and always after what the head speaks of.

use super::document::{Written, entered, marked, marked_mpd, marked_playlist};
use super::patient::Patient;
use super::restore::{MINUTE, Restored};
use super::{empty_window, live_mpd};
use crate::head::{HeadError, Ownership};
use crate::status::Status;
use bytes::Bytes;
use lectern_cloud::Objects;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::{CAPTIONS, ObjectName};
use lectern_contract::ledger::{Ended, EndedRendition, Ledger, LedgerSegment};
use lectern_contract::{Ladder, SegmentNumber, Ticks};
use lectern_media::cmaf;
use lectern_media::dash::{Representation, Stretch};
use lectern_media::hls::{Kind, LiveWindow, Multivariant, multivariant};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// A rendition of which nothing waits for S3 and that is this many segments behind the others no longer holds the head back: its track has gone.
const STALLED: u64 = 5;
/// And one of which something waits holds it back by so much: a successor makes anew what the head has not passed, from what shards keep (60 s), and students wait
/// until it is through. What is older can be had from this child alone.
const HELD: Ticks = Ticks::from_millis(30_000);
/// The newest ledgers, which are not read again before they are written.
const HELD_LEDGERS: usize = 4;
/// S3 may be away for as long as the uploaders' backlog lasts, and longer; a keeper has nothing better to do.
const PATIENCE: Duration = Duration::from_secs(3600);
/// On the way out it has: the pod is being stopped.
const LAST_PATIENCE: Duration = Duration::from_secs(15);

/// What the keeper hears.
#[derive(Debug)]
pub enum Event {
    /// A rendition has parameters: it will be made.
    Rendition {
        /// As the engine counts them.
        rendition: usize,
        /// As the multivariant playlist names it.
        named: EndedRendition,
    },
    /// A segment waits for S3.
    Made {
        /// As the engine counts them.
        rendition: usize,
        /// Its number.
        number: SegmentNumber,
    },
    /// S3 has a segment, and a playlist that names it.
    Confirmed {
        /// As the engine counts them.
        rendition: usize,
        /// The segment.
        segment: LedgerSegment,
    },
    /// A rendition will not have this segment: it was given up.
    GivenUp {
        /// As the engine counts them.
        rendition: usize,
        /// Its number.
        number: SegmentNumber,
    },
    /// Somebody with a newer epoch has written.
    Overtaken,
    /// S3 has another init section of this number.
    InitTaken {
        /// As the engine counts them.
        rendition: usize,
        /// Its number.
        number: u32,
    },
}

/// How the keeper parts from the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The run has ended: write `ended.json`, close the head.
    Ended,
    /// A successor will go on: take the address off the head.
    Released {
        /// Segments that were shown are not stored.
        unstored: bool,
    },
}

/// Why the books cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The head.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A predecessor that was taken for dead has stored an init section of the same number: another child gives its own another.
    #[error("init section {number} of rendition {rendition} is a predecessor's")]
    InitTaken {
        /// As the engine counts them.
        rendition: usize,
        /// Its number.
        number: u32,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    objects: Objects,
    job: LiveJob,
    status: Status,
    ownership: Ownership,
    restored: Restored,
    multivariant: Written,
    mpd: Written,
    ledgers: BTreeMap<u64, Written>,
    /// Somebody has a newer epoch, as it seems.
    overtaken: bool,
    /// An init section could not be stored: rendition and number.
    init_taken: Option<(usize, u32)>,
    dirty: BTreeSet<u64>,
    renditions: BTreeMap<usize, EndedRendition>,
    /// The newest segment that was made, and the newest that S3 has or that was given up.
    made: BTreeMap<usize, SegmentNumber>,
    progress: BTreeMap<usize, SegmentNumber>,
    /// The first number that this keeper heard of.
    began: Option<SegmentNumber>,
    confirmed: BTreeSet<usize>,
    named: usize,
    /// What S3 has confirmed, by the rendition's name: the MPD there names nothing else.
    windows: BTreeMap<String, LiveWindow>,
    /// The next segment when the MPD was last written.
    listed: Option<SegmentNumber>,
}

impl Keeper {
    /// A keeper that goes on from `restored`.
    pub fn new(objects: Objects, job: LiveJob, status: Status, ownership: Ownership, restored: Restored) -> Self {
        let epoch = ownership.head().epoch;
        let written = |name: &ObjectName| Written::new(objects.clone(), job.prefix.key(name), epoch, marked);
        Self {
            windows: restored.windows.clone(),
            multivariant: written(&ObjectName::Multivariant),
            mpd: written(&ObjectName::Mpd),
            ledgers: BTreeMap::new(),
            overtaken: false,
            init_taken: None,
            objects,
            job,
            status,
            ownership,
            restored,
            dirty: BTreeSet::new(),
            renditions: BTreeMap::new(),
            made: BTreeMap::new(),
            progress: BTreeMap::new(),
            began: None,
            confirmed: BTreeSet::new(),
            named: 0,
            listed: None,
        }
    }

    /// Keeps the books until all senders of events are gone.
    ///
    /// # Errors
    /// [`HeadError::Lost`]: stop at once.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Result<Self, KeeperError> {
        while let Some(event) = events.recv().await {
            self.note(event);
            while let Ok(event) = events.try_recv() {
                self.note(event);
            }
            self.write(PATIENCE).await?;
        }
        Ok(self)
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Rendition { rendition, named } => drop(self.renditions.insert(rendition, named)),
            Event::Made { rendition, number } => drop(self.made.insert(rendition, number)),
            Event::Confirmed { rendition, segment } => {
                self.confirmed.insert(rendition);
                self.passed(rendition, segment.number);
                self.enter(rendition, segment);
            }
            Event::GivenUp { rendition, number } => self.passed(rendition, number),
            Event::Overtaken => self.overtaken = true,
            Event::InitTaken { rendition, number } => self.init_taken = Some((rendition, number)),
        }
    }

    fn passed(&mut self, rendition: usize, number: SegmentNumber) {
        self.began.get_or_insert(number);
        let progress = self.progress.entry(rendition).or_insert(number);
        *progress = number.max(*progress);
    }

    fn enter(&mut self, rendition: usize, segment: LedgerSegment) {
        let Some(name) = self.renditions.get(&rendition).map(|named| named.name.clone()) else { return };
        self.windows.entry(name.clone()).or_insert_with(|| empty_window(&self.job)).push(segment.into());
        let restored = &mut self.restored;
        restored.first = Some(restored.first.map_or(segment.number, |first| first.min(segment.number)));
        restored.last = restored.last.max(Some(segment.number));
        let minute = segment.number.start(self.job.segment_duration).0 / MINUTE;
        let (run, epoch) = (self.job.run.clone(), self.ownership.head().epoch);
        let ledger = restored.ledgers.entry(minute).or_insert_with(|| Ledger { run, epoch, minute, segments: BTreeMap::new() });
        ledger.epoch = epoch;
        let segments = ledger.segments.entry(name).or_default();
        match segments.binary_search_by_key(&segment.number, |known| known.number) {
            Ok(at) => segments[at] = segment, // a predecessor's, made anew
            Err(at) => segments.insert(at, segment),
        }
        restored.minutes.insert(minute);
        self.dirty.insert(minute);
    }

    /// Whether a rendition that has parameters may still get its first segment; later its track is taken for absent, unless that waits for S3.
    fn waits_for_first(&self) -> bool {
        let newest = self.progress.values().max().copied().unwrap_or_default();
        let early = self.began.is_none_or(|began| newest.0 < began.0.saturating_add(STALLED));
        let held = self.began.is_none_or(|began| self.held_from(newest) <= began);
        let lacking = |rendition| !self.progress.contains_key(rendition) && (early || held && self.made.contains_key(rendition));
        self.renditions.keys().any(lacking)
    }

    /// The oldest segment that the head waits for, where the `newest` is there in some rendition.
    fn held_from(&self, newest: SegmentNumber) -> SegmentNumber {
        SegmentNumber(newest.0.saturating_sub(HELD.0 / self.job.segment_duration.ticks().0))
    }

    /// The first segment that is not done in every rendition that still runs, or of which something still waits: after S3 was away the sound is there long before
    /// the pictures.
    fn next_segment(&self) -> Option<SegmentNumber> {
        if self.waits_for_first() {
            return None;
        }
        let newest = *self.progress.values().max()?;
        let of = |rendition| {
            let (done, made) = (self.progress.get(rendition), self.made.get(rendition));
            let runs = done.is_some_and(|done| done.0.saturating_add(STALLED) >= newest.0);
            match (done.map_or(SegmentNumber(0), |done| done.next()), made > done) {
                (next, _) if runs => Some(next),
                (next, true) => Some(next.max(self.held_from(newest))),
                (_, false) => None,
            }
        };
        self.renditions.keys().filter_map(of).min()
    }

    /// Writes what is confirmed, and moves the head past it.
    async fn write(&mut self, patience: Duration) -> Result<(), KeeperError> {
        self.write_documents(patience).await?;
        if let Some(next) = self.next_segment().filter(|next| *next > self.ownership.head().next_segment) {
            let status = self.status.clone();
            let told =
                |trouble: Option<String>| status.trouble("head", trouble.map(|trouble| format!("the head cannot be moved: {trouble}")));
            self.ownership.change_patiently(patience, |head| head.next_segment = next, told).await?;
            self.status.confirmed(SegmentNumber(next.0 - 1)); // next is one more than a number
        }
        Ok(())
    }

    /// All but the head: that is moved past a segment only when it is in all of them.
    async fn write_documents(&mut self, patience: Duration) -> Result<(), KeeperError> {
        if let Some((rendition, number)) = self.init_taken {
            return Err(KeeperError::InitTaken { rendition, number });
        }
        for minute in std::mem::take(&mut self.dirty) {
            self.put_ledger(minute, patience).await;
        }
        while self.restored.ledgers.len() > HELD_LEDGERS {
            // Closed, as a rule. Where a rendition is later than that, its minute is begun anew, and takes in what is there by then.
            if let Some((minute, _)) = self.restored.ledgers.pop_first() {
                self.ledgers.remove(&minute);
            }
        }
        if self.confirmed.len() > self.named && !self.waits_for_first() {
            let renditions: Vec<EndedRendition> = self.confirmed_renditions().cloned().collect();
            let text = multivariant(&Multivariant { kind: Kind::Live, renditions: &renditions });
            let patient = Patient::new(&self.status, ObjectName::Multivariant, patience);
            self.overtaken |= patient.write(&mut self.multivariant, None, |mark, _| marked_playlist(&text, mark)).await;
            self.named = renditions.len();
        }
        // Once a segment and not once a rendition's segment: a put less for each of the others, and all reach equally far.
        let next = self.next_segment();
        if self.named > 0 && next > self.listed {
            let renditions: Vec<EndedRendition> = self.confirmed_renditions().cloned().collect();
            self.put_mpd(&renditions, false, patience).await;
            self.listed = next;
        }
        if std::mem::take(&mut self.overtaken) {
            self.ownership.change_patiently(patience, |_| {}, |_| {}).await?; // says by whom
        }
        Ok(())
    }

    fn confirmed_renditions(&self) -> impl Iterator<Item = &EndedRendition> {
        self.renditions.iter().filter(|(rendition, _)| self.confirmed.contains(rendition)).map(|(_, named)| named)
    }

    async fn put_mpd(&mut self, renditions: &[EndedRendition], ended: bool, patience: Duration) {
        // No open segments: S3 has whole ones.
        let listed: Vec<_> = renditions
            .iter()
            .filter_map(|named| Some(Representation { named, stretch: Stretch::newest(self.windows.get(&named.name)?)? }))
            .collect();
        let to = listed.iter().map(|it| it.stretch.last()).max();
        let Some(text) = live_mpd(&self.job, listed, None, ended) else { return };
        let patient = Patient::new(&self.status, ObjectName::Mpd, patience);
        self.overtaken |= patient.write(&mut self.mpd, to, |mark, _| marked_mpd(&text, mark)).await;
    }

    /// Writes a minute's ledger; what an older owner has entered meanwhile stays.
    async fn put_ledger(&mut self, minute: u64, patience: Duration) {
        let Some(ledger) = self.restored.ledgers.get_mut(&minute) else { return };
        let name = ObjectName::Ledger(minute);
        let (key, epoch) = (self.job.prefix.key(&name), self.ownership.head().epoch);
        let document = self.ledgers.entry(minute).or_insert_with(|| Written::new(self.objects.clone(), key, epoch, entered));
        let text = |_, there: Option<&[u8]>| {
            if let Some(known) = there.and_then(|there| serde_json::from_slice(there).ok()) {
                ledger.absorb(known);
            }
            json(ledger)
        };
        self.overtaken |= Patient::new(&self.status, name, patience).write(document, None, text).await;
    }

    async fn put(&self, name: ObjectName, body: Bytes, patience: Duration) {
        let key = self.job.prefix.key(&name);
        let mut patient = Patient::new(&self.status, name, patience);
        while let Err(error) = self.objects.put(&key, body.clone()).await {
            if patient.gives_up(&error).await {
                return;
            }
        }
    }

    /// Writes what must be there at the end. The first and the last segment of the run.
    ///
    /// # Errors
    /// As [`Keeper::run`]; [`HeadError::Storage`] where S3 stays away for longer than a stopping pod can wait.
    pub async fn part(mut self, parting: Parting) -> Result<(Option<SegmentNumber>, Option<SegmentNumber>), KeeperError> {
        let patience = if parting == Parting::Ended { PATIENCE } else { LAST_PATIENCE };
        self.write_documents(patience).await?;
        if parting == Parting::Ended {
            let renditions = self.all_renditions();
            self.put_mpd(&renditions, true, patience).await;
            let ended = Ended {
                run: self.job.run.clone(),
                anchor: self.job.anchor,
                segment_duration: self.job.segment_duration,
                minutes: self.restored.minutes.iter().copied().collect(),
                renditions,
            };
            self.put(ObjectName::Ended, json(&ended), patience).await;
        }
        // One write and not two: a successor waits for it.
        let next = self.next_segment();
        let finish = |head: &mut lectern_contract::head::Head| {
            head.next_segment = head.next_segment.max(next.unwrap_or_default());
            head.address = None;
            head.unstored = parting == Parting::Released { unstored: true };
            head.ended |= parting == Parting::Ended;
        };
        self.ownership.change_patiently(patience, finish, |_| {}).await?;
        if let Some(last) = next.and_then(|next| next.0.checked_sub(1)) {
            self.status.confirmed(SegmentNumber(last));
        }
        Ok((self.restored.first, self.restored.last))
    }

    /// This child's renditions and those that only a predecessor made, in the ladder's order.
    fn all_renditions(&self) -> Vec<EndedRendition> {
        let mut all = self.renditions.clone();
        for (at, named) in ladder_renditions(&self.job.ladder).into_iter().enumerate() {
            let Some((_, init)) = self.restored.inits.get(&named.name) else { continue };
            let Some(codec) = cmaf::codec_of_init(init) else { continue };
            all.entry(at).or_insert(EndedRendition { codec, ..named });
        }
        if self.restored.windows.contains_key(CAPTIONS) && !all.values().any(EndedRendition::is_text) {
            all.insert(usize::MAX, EndedRendition::captions());
        }
        all.into_values().collect()
    }
}

/// The ladder's renditions as playlists name them, codecs still empty.
pub fn ladder_renditions(ladder: &Ladder) -> Vec<EndedRendition> {
    let video = ladder.video.iter().map(|video| EndedRendition {
        name: video.name.clone(),
        codec: String::new(),
        bitrate: video.bitrate,
        picture: Some(lectern_contract::ledger::Picture { width: video.width, height: video.height, frame_rate: video.frame_rate }),
    });
    let audio = ladder.audio.iter().map(|audio| EndedRendition {
        name: audio.name.clone(),
        codec: String::new(),
        bitrate: audio.bitrate,
        picture: None,
    });
    video.chain(audio).collect()
}

/// As an object in S3.
pub(crate) fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into() // structs of strings and numbers always encode
}
