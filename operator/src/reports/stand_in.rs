//! What an operator is ready for that waits for the Lease: transcoders send it the jobs that they have in hand, as the queue keeps them, and it can
//! show those of a silent one to another before the queue does.

use super::said::Heard;
use super::{Reports, is_working};
use lectern_contract::RunId;
use lectern_contract::job::LiveJob;
use lectern_contract::report::Role;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Jobs that a pod is asked for at once: an answer and the report after it stay small.
const WANTED: usize = 64;

/// What an operator does with what it hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// It decides, and tells pods where the others are.
    Lead {
        /// Where those take reports, once that is known.
        standbys: Option<Vec<SocketAddr>>,
    },
    /// It waits for the Lease.
    StandBy,
}

impl Default for Duty {
    fn default() -> Self {
        Self::Lead { standbys: None }
    }
}

/// Takes the jobs out of a report.
pub(super) fn jobs_in(role: &mut Role) -> Vec<LiveJob> {
    match role {
        Role::Transcoder { jobs, .. } => std::mem::take(jobs),
        Role::Ingest { .. } | Role::Origin => Vec::new(),
    }
}

impl Reports {
    /// What to do from now on.
    pub fn turn_to(&self, duty: Duty) {
        *self.duty() = duty;
    }

    /// The jobs that transcoders had in hand of which nobody has heard for three seconds, and the pools that they are for; of a run the latest attempt.
    pub fn missed(&self, now: Instant) -> Vec<(String, Arc<LiveJob>)> {
        let pods = self.lock();
        let answered: HashSet<&RunId> = pods.values().flat_map(|heard| heard.answers_for(now)).collect();
        let mut missed = HashMap::<&RunId, (&str, &Arc<LiveJob>)>::new();
        for heard in pods.values() {
            let jobs = heard.may_have_lost(now).filter(|run| !answered.contains(run)).filter_map(|run| heard.jobs.get(run));
            for job in jobs {
                let known = missed.entry(&job.run).or_insert((&heard.pool, job));
                if known.1.attempt < job.attempt {
                    *known = (&heard.pool, job);
                }
            }
        }
        missed.into_values().map(|(pool, job)| (pool.to_owned(), job.clone())).collect()
    }

    /// The jobs to be kept of a pod that has `sent` some: none where the queue is looked after by the leader, which this operator is.
    pub(super) fn kept_jobs(&self, before: Option<&Heard>, sent: Vec<LiveJob>, now: &Heard) -> HashMap<RunId, Arc<LiveJob>> {
        if !self.stands_by() {
            return HashMap::new();
        }
        let known = before.into_iter().flat_map(|before| before.jobs.values().cloned());
        let all = known.chain(sent.into_iter().map(Arc::new));
        all.filter(|job| now.attempt(&job.run) == Some(job.attempt)).map(|job| (job.run.clone(), job)).collect()
    }

    /// The runs whose jobs are wanted of a pod.
    pub(super) fn wants(&self, pod: Option<&Heard>) -> Vec<RunId> {
        let said = pod.filter(|_| self.stands_by()).and_then(|heard| Some((heard, heard.said.transcoder()?)));
        let Some((heard, said)) = said else { return Vec::new() };
        let unknown = said.runs.values().filter(|run| is_working(&run.state) && !heard.jobs.contains_key(&run.run));
        unknown.map(|run| run.run.clone()).take(WANTED).collect()
    }

    /// Who else wants reports; `None` from an operator that cannot say.
    pub(super) fn standbys(&self) -> Option<Vec<SocketAddr>> {
        match &*self.duty() {
            Duty::Lead { standbys } => standbys.clone(),
            Duty::StandBy => None,
        }
    }

    fn stands_by(&self) -> bool {
        *self.duty() == Duty::StandBy
    }

    fn duty(&self) -> MutexGuard<'_, Duty> {
        self.duty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
