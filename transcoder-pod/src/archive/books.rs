//! What S3 knows of an ended run: what there is to encode, and what is entered when it is.

use super::{ArchiveError, patiently};
use crate::publish::{json, ladder_renditions, newest_init, numbers};
use bytes::Bytes;
use lectern_cloud::{Objects, Precondition, PutIfError, StorageError};
use lectern_contract::head::Head;
use lectern_contract::job::ArchiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{Archive, ArchiveState, Ended, EndedRendition, Ledger, LedgerSegment};
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks};
use lectern_media::cmaf;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// The run's documents.
#[derive(Debug, Clone)]
pub struct Books {
    objects: Objects,
    job: ArchiveJob,
}

/// What there is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long segments are.
    pub segment_duration: SegmentDuration,
    /// How much earlier than the original's clock the segments' begins.
    pub shift: Ticks,
    /// The recording's segments, and how long each is: those of a rendition that was encoded live.
    pub wanted: BTreeMap<SegmentNumber, Ticks>,
    /// What the ledgers have of each rendition that is to be encoded.
    pub entered: BTreeMap<String, BTreeSet<SegmentNumber>>,
}

impl Plan {
    /// The first segment that a rendition lacks; `None`: nothing is left to be encoded.
    pub fn next(&self) -> Option<SegmentNumber> {
        self.wanted.keys().copied().find(|number| self.entered.values().any(|entered| !entered.contains(number)))
    }

    /// Where the recording's first segment ends, at the latest.
    pub fn first_ends(&self) -> Ticks {
        self.wanted.keys().next().map_or(Ticks(0), |first| first.next().start(self.segment_duration))
    }

    /// Where the recording ends.
    pub fn end(&self) -> Ticks {
        self.wanted.iter().next_back().map_or(Ticks(0), |(last, duration)| last.start(self.segment_duration).plus(*duration))
    }
}

impl Books {
    /// Those of the job's run.
    pub fn new(objects: Objects, job: ArchiveJob) -> Self {
        Self { objects, job }
    }

    /// The bucket.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The job.
    pub fn job(&self) -> &ArchiveJob {
        &self.job
    }

    /// What there is to do; `None`: the run has not ended, or was deleted.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(&self) -> Result<Option<Plan>, ArchiveError> {
        let Some((ended, _)) = self.read::<Ended>(&ObjectName::Ended).await? else { return Ok(None) };
        let shift = self.read::<Head>(&ObjectName::Head).await?.map_or(Ticks(0), |(head, _)| head.shift);
        let is_ours = |name: &str| self.job.video.iter().any(|video| video.name == name);
        let media = || ended.renditions.iter().filter(|named| !named.is_text() && !is_ours(&named.name));
        let lead = media().find(|named| named.picture.is_some()).or_else(|| media().next()).map(|named| named.name.clone());
        let mut entered: BTreeMap<String, BTreeSet<SegmentNumber>> =
            self.job.video.iter().map(|it| (it.name.clone(), BTreeSet::new())).collect();
        let mut wanted = BTreeMap::new();
        for minute in &ended.minutes {
            let Some((ledger, _)) = self.read::<Ledger>(&ObjectName::Ledger(*minute)).await? else { continue };
            for (rendition, segments) in ledger.segments {
                if Some(&rendition) == lead.as_ref() {
                    wanted.extend(segments.iter().map(|segment| (segment.number, segment.duration)));
                }
                if let Some(entered) = entered.get_mut(&rendition) {
                    entered.extend(segments.iter().map(|segment| segment.number));
                }
            }
        }
        Ok(Some(Plan { segment_duration: ended.segment_duration, shift, wanted, entered }))
    }

    /// The original's pieces, in order: from when on, and their keys.
    ///
    /// # Errors
    /// S3's.
    pub async fn pieces(&self) -> Result<Vec<(Ticks, String)>, ArchiveError> {
        let folder = format!("{}/original/", self.job.prefix);
        let keys = patiently(|| self.objects.list(&folder)).await?;
        let mut starts: Vec<Ticks> = numbers(&keys, &folder, ".mp4").map(Ticks).collect();
        starts.sort_unstable();
        Ok(starts.into_iter().map(|start| (start, self.job.prefix.key(&ObjectName::Original(start)))).collect())
    }

    /// The newest init section that S3 has of a rendition.
    ///
    /// # Errors
    /// S3's.
    pub async fn newest_init(&self, rendition: &str) -> Result<Option<(u32, Bytes)>, ArchiveError> {
        let newest = patiently(|| newest_init(&self.objects, &self.job.prefix, rendition)).await?;
        let Some(newest) = newest else { return Ok(None) };
        let key = self.job.prefix.key(&ObjectName::Init(rendition.to_owned(), newest));
        Ok(patiently(|| self.objects.get(&key)).await?.map(|object| (newest, object.body)))
    }

    /// Stores an object of a rendition's; `false`: the run was deleted meanwhile, and what was stored is gone again.
    ///
    /// Who deletes a run deletes its `ended.json` first and lists the rest after (the operator's `finish`): so either that list has what is stored here, or
    /// `ended.json` is gone by the time it is stored.
    ///
    /// # Errors
    /// S3's.
    pub async fn store(&self, name: &ObjectName, body: &Bytes) -> Result<bool, ArchiveError> {
        let key = self.job.prefix.key(name);
        patiently(|| self.objects.put(&key, body.clone())).await?;
        if self.read::<Ended>(&ObjectName::Ended).await?.is_some() {
            return Ok(true);
        }
        tracing::info!(run = %self.job.run, "the run was deleted; what was stored of it goes, too");
        let folders = self.job.video.iter().map(|it| format!("{}/{}/", self.job.prefix, it.name));
        for prefix in folders.chain([self.job.prefix.key(&ObjectName::Archive)]) {
            patiently(|| self.objects.delete_prefix(&prefix)).await?;
        }
        Ok(false)
    }

    /// Enters `segments`, by rendition, in the ledger of `minute`.
    ///
    /// # Errors
    /// S3's. A ledger that is not there was deleted with its run, and is not made anew.
    pub async fn enter(&self, minute: u64, segments: &BTreeMap<String, Vec<LedgerSegment>>) -> Result<(), ArchiveError> {
        self.amend(&ObjectName::Ledger(minute), |ledger: &mut Ledger| {
            let ours = Ledger { segments: segments.clone(), ..ledger.clone() };
            ledger.absorb(ours);
        })
        .await
    }

    /// Names the job's renditions in `ended.json`, if the recording has all of them whole.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn name_renditions(&self) -> Result<(), ArchiveError> {
        let mut named = Vec::new();
        for rendition in ladder_renditions(&self.job.ladder()) {
            let Some((_, init)) = self.newest_init(&rendition.name).await? else { continue };
            let Some(codec) = cmaf::codec_of_init(&init) else { continue };
            named.push(EndedRendition { codec, ..rendition });
        }
        self.amend(&ObjectName::Ended, |ended: &mut Ended| {
            let new = named.iter().filter(|new| ended.renditions.iter().all(|known| known.name != new.name)).cloned().collect::<Vec<_>>();
            // Pictures come before sounds.
            let at = ended.renditions.iter().rposition(|known| known.picture.is_some()).map_or(0, |last| last + 1);
            ended.renditions.splice(at..at, new);
        })
        .await
    }

    /// Writes down how far the work is.
    ///
    /// # Errors
    /// S3's.
    pub async fn tell(&self, state: ArchiveState) -> Result<(), ArchiveError> {
        let said = Archive { run: self.job.run.clone(), state };
        let body = json(&said);
        self.store(&ObjectName::Archive, &body).await.map(drop)
    }

    /// Changes a document in the place of the version that was read; nothing where there is none.
    async fn amend<T: DeserializeOwned + Serialize>(&self, name: &ObjectName, change: impl Fn(&mut T)) -> Result<(), ArchiveError> {
        let key = self.job.prefix.key(name);
        loop {
            let Some((mut value, etag)) = self.read::<T>(name).await? else { return Ok(()) };
            change(&mut value);
            let body = json(&value);
            let written = patiently(|| async {
                match self.objects.put_if(&key, body.clone(), Precondition::Matches(etag.clone())).await {
                    Ok(_) => Ok(true),
                    Err(PutIfError::Conflict { .. }) => Ok(false), // another's, or an attempt of ours: what is there is read
                    Err(PutIfError::Storage(error)) => Err::<_, StorageError>(error),
                }
            });
            if written.await? {
                return Ok(());
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, name: &ObjectName) -> Result<Option<(T, lectern_cloud::Etag)>, ArchiveError> {
        let key = self.job.prefix.key(name);
        let Some(object) = patiently(|| self.objects.get(&key)).await? else { return Ok(None) };
        let value = serde_json::from_slice(&object.body).map_err(|error| ArchiveError::Malformed { key, what: error.to_string() })?;
        Ok(Some((value, object.etag)))
    }
}
