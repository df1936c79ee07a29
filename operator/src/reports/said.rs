//! What one pod said last, and what of a new report is news.

use lectern_contract::cost::{Budget, Class, Needs};
use lectern_contract::job::LiveJob;
use lectern_contract::report::{IngestRun, Orphan, Publisher, Recording, Role, TranscoderRun, TranscoderState};
use lectern_contract::{RunId, StreamRef, WallMillis};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One pod's last report.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    /// The pod's pool.
    pub pool: String,
    /// When its process began, by its own clock.
    pub began: WallMillis,
    /// Its words, by run.
    pub said: Said,
    /// When it came.
    pub at: Instant,
    /// Its silence has been announced.
    pub stale: bool,
    /// What the process before this one had in hand, and since when nobody there has. The queue shows these jobs to others only after seconds in which students wait.
    pub dropped: HashMap<RunId, (TranscoderRun, Instant)>,
    /// The jobs of its runs, as far as it has sent them: it is asked for them by an operator that stands by.
    pub jobs: HashMap<RunId, Arc<LiveJob>>,
}

/// From then on whoever has such a run has spoken of it, or nobody ever will (`stream/dispatch.rs` waits as long).
pub(super) const SPOKEN_OF: Duration = Duration::from_secs(10);

impl Heard {
    /// It came less than three reports ago.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.is_younger(super::STALE, now)
    }

    /// It came less than `age` ago.
    pub fn is_younger(&self, age: Duration, now: Instant) -> bool {
        now.duration_since(self.at) < age
    }

    /// What of this pod's runs is in nobody's hands since it says `now`.
    pub fn drops(&self, now: &Self) -> HashMap<RunId, (TranscoderRun, Instant)> {
        let Some(there) = now.said.transcoder() else { return HashMap::new() };
        let is_another = self.began != now.began && now.began != WallMillis(0);
        let had = self.said.transcoder().filter(|_| is_another).into_iter().flat_map(|before| &before.runs);
        let had = had.filter(|(_, run)| super::is_working(&run.state)).map(|(id, run)| (id.clone(), (run.clone(), now.at)));
        let dropped_before = self.dropped.iter().filter(|(_, (_, since))| now.at.duration_since(*since) < SPOKEN_OF);
        let dropped = dropped_before.map(|(id, dropped)| (id.clone(), dropped.clone())).chain(had);
        dropped.filter(|(id, _)| !there.runs.contains_key(id)).collect()
    }

    /// What this pod was heard to have in hand for the last time, whoever has it by `now`: all of one that is silent, and what its process before this one had.
    pub fn may_have_lost(&self, now: Instant) -> impl Iterator<Item = &RunId> {
        let is_recent = move |since| now.duration_since(since) < SPOKEN_OF;
        let silent = self.said.transcoder().filter(|_| !self.is_fresh(now) && is_recent(self.at));
        let had = silent.into_iter().flat_map(|said| &said.runs).filter(|(_, run)| super::is_working(&run.state)).map(|(id, _)| id);
        had.chain(self.dropped.iter().filter(move |(_, (_, since))| is_recent(*since)).map(|(id, _)| id))
    }

    /// The runs that need nobody else by what it says: it has them, and is not silent, or they are over.
    pub fn answers_for(&self, now: Instant) -> impl Iterator<Item = &RunId> {
        let fresh = self.is_fresh(now);
        let answers = move |run: &TranscoderRun| match run.state {
            TranscoderState::Ended { .. } => true,
            TranscoderState::Lost => false,
            _ => fresh,
        };
        let runs = self.said.transcoder().into_iter().flat_map(|said| &said.runs);
        runs.filter(move |(_, run)| answers(run)).map(|(id, _)| id)
    }

    /// The attempt of `run` that it has, or that its process before this one had.
    pub fn attempt(&self, run: &RunId) -> Option<u32> {
        let has = self.said.transcoder().and_then(|said| said.runs.get(run)).filter(|run| super::is_working(&run.state));
        has.or_else(|| self.dropped.get(run).map(|(run, _)| run)).map(|run| run.attempt)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    Ingest(Ingest),
    Transcoder(Transcoder),
    Origin,
}

/// What a transcoder says.
#[derive(Debug, Clone, Default)]
pub(super) struct Transcoder {
    pub slots: u32,
    pub class: Class,
    pub budget: Budget,
    pub taken: Needs,
    pub runs: HashMap<RunId, TranscoderRun>,
}

/// What a shard says.
#[derive(Debug, Clone, Default)]
pub(super) struct Ingest {
    pub draining: bool,
    pub runs: HashMap<RunId, IngestRun>,
    pub orphans: HashMap<RunId, Orphan>,
}

impl From<Role> for Said {
    fn from(role: Role) -> Self {
        match role {
            Role::Ingest { runs, draining, orphans } => Self::Ingest(Ingest {
                draining,
                runs: runs.into_iter().map(|run| (run.run.clone(), run)).collect(),
                orphans: orphans.into_iter().map(|orphan| (orphan.run.clone(), orphan)).collect(),
            }),
            Role::Transcoder { slots, class, budget, taken, runs, jobs: _ } => {
                let mut kept: HashMap<RunId, TranscoderRun> = HashMap::new();
                // A pod may tell of two attempts of one run: an ended one lingers for a minute.
                for run in runs {
                    match kept.get(&run.run) {
                        Some(other) if weight(other) >= weight(&run) => {}
                        _ => drop(kept.insert(run.run.clone(), run)),
                    }
                }
                Self::Transcoder(Transcoder { slots, class, budget, taken, runs: kept })
            }
            Role::Origin => Self::Origin,
        }
    }
}

impl Said {
    /// The shard's words, if it is one.
    pub fn ingest(&self) -> Option<&Ingest> {
        match self {
            Self::Ingest(ingest) => Some(ingest),
            Self::Transcoder(_) | Self::Origin => None,
        }
    }

    /// The transcoder's words, if it is one.
    pub fn transcoder(&self) -> Option<&Transcoder> {
        match self {
            Self::Transcoder(transcoder) => Some(transcoder),
            Self::Ingest(_) | Self::Origin => None,
        }
    }

    /// The streams that are named in it.
    pub fn streams(&self) -> impl Iterator<Item = &StreamRef> {
        let of_ingest = self.ingest().into_iter().flat_map(|ingest| ingest.runs.values().map(|run| &run.stream).chain(ingest.orphaned()));
        of_ingest.chain(self.transcoder().into_iter().flat_map(|transcoder| transcoder.runs.values().map(|run| &run.stream)))
    }
}

impl Transcoder {
    /// How many jobs it has in hand.
    pub fn working(&self) -> usize {
        self.runs.values().filter(|run| super::is_working(&run.state)).count()
    }
}

impl Ingest {
    /// The streams whose owner it cannot reach.
    pub fn orphaned(&self) -> impl Iterator<Item = &StreamRef> {
        self.orphans.values().map(|orphan| &orphan.stream)
    }
}

/// Who is to be believed of two that speak of one run: who puts media out or has closed the run before those that would like to, and those
/// before who has lost it; then the later attempt and epoch.
pub(super) fn weight(run: &TranscoderRun) -> (u8, u32, u64) {
    let standing = match run.state {
        TranscoderState::Ended { .. } | TranscoderState::Running { .. } => 2,
        TranscoderState::Starting { .. } | TranscoderState::Idle | TranscoderState::Failed { .. } => 1,
        TranscoderState::Lost => 0,
    };
    (standing, run.attempt, run.epoch.0)
}

/// The streams that a report gives reason to look at: what a person would call a change, not what moves every second.
pub(super) fn changes(before: Option<&Heard>, now: &Heard) -> BTreeSet<StreamRef> {
    let Some(before) = before else { return now.said.streams().cloned().collect() };
    if before.stale {
        // Back from silence: all that it carries, and all that it has lost meanwhile.
        return before.said.streams().chain(now.said.streams()).cloned().collect();
    }
    let mut changed = BTreeSet::new();
    match (&before.said, &now.said) {
        (Said::Ingest(before), Said::Ingest(now)) => {
            changed.extend(before.runs.iter().filter(|(run, _)| !now.runs.contains_key(run)).map(|(_, run)| run.stream.clone()));
            let differs = |run: &IngestRun| before.runs.get(&run.run).is_none_or(|old| ingest_changed(old, run));
            changed.extend(now.runs.values().filter(|run| differs(run)).map(|run| run.stream.clone()));
            let is_new = |orphan: &Orphan| before.orphans.get(&orphan.run) != Some(orphan);
            changed.extend(now.orphans.values().filter(|orphan| is_new(orphan)).map(|orphan| orphan.stream.clone()));
        }
        (Said::Transcoder(Transcoder { runs: before, .. }), Said::Transcoder(Transcoder { runs: now, .. })) => {
            changed.extend(before.iter().filter(|(run, _)| !now.contains_key(run)).map(|(_, run)| run.stream.clone()));
            let differs = |run: &TranscoderRun| before.get(&run.run).is_none_or(|old| transcoder_changed(old, run));
            changed.extend(now.values().filter(|run| differs(run)).map(|run| run.stream.clone()));
        }
        // A pod's name that changes its trade: both its old and its new streams.
        (before, now) => changed.extend(before.streams().chain(now.streams()).cloned()),
    }
    changed
}

fn ingest_changed(before: &IngestRun, now: &IngestRun) -> bool {
    publisher_changed(&before.publisher, &now.publisher)
        || before.standby != now.standby
        || recording_changed(before.recording.as_ref(), now.recording.as_ref())
}

fn publisher_changed(before: &Publisher, now: &Publisher) -> bool {
    match (before, now) {
        (
            Publisher::Publishing { remote: a, backup: b, codecs: c, picture: d, bitrate: old, .. },
            Publisher::Publishing { remote: w, backup: x, codecs: y, picture: z, bitrate: new, .. },
        ) => (a, b, c, d) != (w, x, y, z) || moved_by_a_quarter(*old, *new),
        (before, now) => before != now,
    }
}

/// How far it is stored moves all the time; whether anything is, what is missing and whether something is amiss does not.
fn recording_changed(before: Option<&Recording>, now: Option<&Recording>) -> bool {
    let gist = |recording: &Recording| (recording.stored.is_some(), recording.gaps, recording.trouble.is_some());
    before.map(gist) != now.map(gist)
}

fn transcoder_changed(before: &TranscoderRun, now: &TranscoderRun) -> bool {
    let state = match (&before.state, &now.state) {
        (
            TranscoderState::Running { confirmed: a, trouble: b, remark: c, .. },
            TranscoderState::Running { confirmed: x, trouble: y, remark: z, .. },
        ) => a.is_some() != x.is_some() || b.is_some() != y.is_some() || c != z,
        (before, now) => before != now,
    };
    state || before.attempt != now.attempt || before.epoch != now.epoch
}

/// More than 25 % up or down.
pub fn moved_by_a_quarter(old: u64, new: u64) -> bool {
    old.abs_diff(new) > old / 4
}
