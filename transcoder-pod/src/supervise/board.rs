//! What the pod's report says of its jobs.

use super::budget::Purse;
use crate::child::ChildSays;
use lectern_contract::job::LiveJob;
use lectern_contract::report::{Role, TranscoderRun, TranscoderState};
use lectern_contract::{Epoch, RunId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// An ended job is repeated for this long, in case that the operator was away.
const REPEAT: Duration = Duration::from_secs(60);

/// The jobs by their number in this pod; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Board {
    jobs: Arc<Mutex<BTreeMap<u64, Job>>>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Job {
    run: TranscoderRun,
    /// As it came.
    job: LiveJob,
    ended: Option<Instant>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notified when a job's state becomes another (not when its numbers grow).
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// A job was taken.
    pub fn begin(&self, number: u64, job: &LiveJob) {
        let state = TranscoderState::Starting { waiting_for: None };
        let run = TranscoderRun { stream: job.stream.clone(), run: job.run.clone(), attempt: job.attempt, epoch: Epoch(0), state };
        let mut jobs = self.lock();
        // What a former job of this run came to is history now.
        jobs.retain(|_, known| known.ended.is_none() || known.run.run != job.run);
        jobs.insert(number, Job { run, job: job.clone(), ended: None });
        drop(jobs);
        self.changed.notify_one();
    }

    /// Whether a child here works on `run`.
    pub fn works_on(&self, run: &RunId) -> bool {
        self.lock().values().any(|job| job.ended.is_none() && job.run.run == *run)
    }

    /// A child spoke.
    pub fn says(&self, number: u64, says: &ChildSays) {
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(&number) else { return };
        let other = std::mem::discriminant(&job.run.state) != std::mem::discriminant(&says.state) || job.run.epoch != says.epoch;
        job.run.epoch = says.epoch;
        job.run.state = says.state.clone();
        drop(jobs);
        if other {
            self.changed.notify_one();
        }
    }

    /// A job is over. One that is done with is repeated for a while; one that others will do is forgotten.
    pub fn end(&self, number: u64, done: bool) {
        let mut jobs = self.lock();
        let run = jobs.get(&number).map(|job| (job.run.run.clone(), job.run.state == TranscoderState::Lost));
        // A duplicate that lost against this pod's own job of the run has nothing to say.
        let shadowed = run.is_some_and(|(run, lost)| lost && jobs.iter().any(|(other, job)| *other != number && job.run.run == run));
        if done && !shadowed {
            if let Some(job) = jobs.get_mut(&number) {
                job.ended = Some(Instant::now());
            }
        } else {
            jobs.remove(&number);
        }
        drop(jobs);
        self.changed.notify_one();
    }

    /// For the report to an operator that wants the jobs of these runs.
    pub fn role(&self, slots: u32, purse: &Purse, wants: &[RunId]) -> Role {
        let mut jobs = self.lock();
        jobs.retain(|_, job| job.ended.is_none_or(|ended| ended.elapsed() < REPEAT));
        let runs = jobs.values().map(|job| job.run.clone()).collect();
        let wanted = jobs.values().filter(|job| job.ended.is_none() && wants.contains(&job.run.run));
        let jobs = wanted.map(|job| job.job.clone()).collect();
        Role::Transcoder { slots, class: purse.class(), budget: purse.budget(), taken: purse.taken(), runs, jobs }
    }
}
