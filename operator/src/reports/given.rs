//! Jobs past the queue: to which pod, and from when until when they are in the answers to its reports.

use super::Reports;
use super::said::Heard;
use lectern_contract::Ladder;
use lectern_contract::cost::Needs;
use lectern_contract::job::LiveJob;
use lectern_contract::report::{Answer, TranscoderRun, TranscoderState};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A pod that has not taken a job by then does not get it any more: another will.
const GIVEN_FOR: Duration = Duration::from_secs(10);

/// A job that a pod gets in the answer to its reports.
#[derive(Debug)]
pub(super) struct Given {
    pod: String,
    job: LiveJob,
    /// From when on it gets it.
    at: Instant,
}

impl Given {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.at) >= GIVEN_FOR
    }
}

impl Reports {
    /// The pod of `pool` with the most room for a job of `ladder`; `None` where there is none, or nobody has reported lately.
    pub fn roomiest(&self, pool: &str, ladder: &Ladder, now: Instant) -> Option<String> {
        let (pods, given) = (self.lock(), self.given());
        let free = |(name, heard): (&String, &Heard)| {
            let fresh = heard.pool == pool && heard.is_fresh(now);
            let transcoder = heard.said.transcoder().filter(|_| fresh)?;
            let promised: Vec<&LiveJob> = given.iter().filter(|given| given.pod == *name).map(|given| &given.job).collect();
            let of = |ladder: &Ladder| Needs::of(ladder, transcoder.class);
            let taken = promised.iter().map(|job| of(&job.ladder)).fold(transcoder.taken.and(of(ladder)), Needs::and);
            let slots = (transcoder.slots as usize).checked_sub(transcoder.working() + promised.len() + 1)?;
            transcoder.budget.lacks(taken).is_none().then(|| (slots, name.clone()))
        };
        pods.iter().filter_map(free).max().map(|(_, name)| name)
    }

    /// Gives `job` to the roomiest pod of `pool`, in the answers to its reports from `at` on, unless it is taken before; which that is. A pod that has it
    /// already and still reports keeps it.
    pub fn give(&self, pool: &str, job: &LiveJob, at: Instant, now: Instant) -> Option<String> {
        let same = |given: &&Given| given.job.run == job.run && given.job.attempt == job.attempt && !given.is_over(now);
        let held = self.given().iter().find(same).map(|given| given.pod.clone());
        if let Some(pod) = held.filter(|pod| self.load(pod, now).is_some()) {
            return Some(pod);
        }
        let pod = self.roomiest(pool, &job.ladder, now)?;
        let mut given = self.given();
        given.retain(|given| given.job.run != job.run);
        given.push(Given { pod: pod.clone(), job: job.clone(), at });
        Some(pod)
    }

    /// What is to be answered to a report of `pod`: the jobs that were given to it and that nobody has spoken of yet; which jobs are wanted of it, and who
    /// else wants its reports.
    pub fn answer(&self, pod: &str, now: Instant) -> Answer {
        let pods = self.lock();
        let mut given = self.given();
        let is_taken = |given: &Given| {
            let has_it = |heard: &Heard| {
                let runs = heard.said.transcoder().filter(|_| heard.is_fresh(now)).map(|transcoder| &transcoder.runs);
                // Who lost it to an owner that has died since says so for a minute.
                let newer = |run: &TranscoderRun| run.attempt > given.job.attempt;
                let takes = |run: &TranscoderRun| run.attempt == given.job.attempt && run.state != TranscoderState::Lost;
                runs.and_then(|runs| runs.get(&given.job.run)).is_some_and(|run| newer(run) || takes(run))
            };
            pods.values().any(has_it)
        };
        // All pods are looked at only for what this one would get: many report while many jobs are given.
        given.retain(|given| !(given.is_over(now) || given.pod == pod && given.at <= now && is_taken(given)));
        let jobs = given.iter().filter(|given| given.pod == pod && given.at <= now).map(|given| given.job.clone()).collect();
        Answer { jobs, wants: self.wants(pods.get(pod)), standbys: self.standbys() }
    }

    fn given(&self) -> MutexGuard<'_, Vec<Given>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::cost::{Budget, Class, PixelRate};
    use lectern_contract::report::{Report, Role};
    use lectern_contract::{Epoch, StreamRef, VideoCodec, VideoRendition};
    use serde_json::json;

    fn ladder() -> Ladder {
        let video = VideoRendition { name: "a".into(), width: 320, height: 180, frame_rate: 30, codec: VideoCodec::H264, bitrate: 1 };
        Ladder { video: vec![video], audio: vec![] }
    }

    fn job(run: &str) -> LiveJob {
        let fields = json!({
            "stream": { "namespace": "school", "name": run }, "title": "", "run": run, "attempt": 1, "anchor": 0, "feed": "", "ladder": ladder(),
            "segmentDuration": 2000, "prefix": format!("00/school/{run}/{run}"), "idleAfterMs": 1,
        });
        serde_json::from_value(fields).unwrap()
    }

    fn report(pod: &str, slots: u32, budget: Option<u64>, runs: &[&str]) -> Report {
        let run = |run: &&str| TranscoderRun {
            stream: StreamRef { namespace: "school".into(), name: (*run).into() },
            run: (*run).into(),
            attempt: 1,
            epoch: Epoch(1),
            state: TranscoderState::Starting { waiting_for: None },
        };
        let budget = Budget { pixels: budget.map(PixelRate), ..Budget::default() };
        let runs = runs.iter().map(run).collect();
        let role = Role::Transcoder { slots, class: Class::Software, budget, taken: Needs::default(), runs, jobs: vec![] };
        Report { pod: pod.into(), pool: "default".into(), began: lectern_contract::WallMillis(1), role }
    }

    #[tokio::test]
    async fn a_job_goes_to_the_pod_with_the_most_room_until_it_speaks_of_it() {
        let ((reports, _changes), now) = (Reports::new(), Instant::now());
        assert_eq!(reports.give("default", &job("r"), now, now), None, "nobody has reported");
        for said in
            [report("full", 1, None, &["other"]), report("one", 1, None, &[]), report("two", 2, None, &[]), report("poor", 9, Some(1), &[])]
        {
            reports.take(said, now);
        }
        assert_eq!(reports.give("default", &job("r"), now, now).as_deref(), Some("two"));
        assert_eq!(reports.answer("two", now).jobs, [job("r")]);
        assert_eq!(reports.answer("two", now).jobs.len(), 1, "repeated until it is known to have come");
        assert_eq!(reports.answer("one", now).jobs, []);
        let (second, third) = (reports.give("default", &job("s"), now, now), reports.give("default", &job("t"), now, now));
        assert_eq!((second.as_deref(), third.as_deref()), (Some("two"), Some("one")), "what is promised takes room, too");
        assert_eq!(reports.roomiest("default", &ladder(), now), None);
        reports.take(report("two", 2, None, &["r"]), now);
        assert_eq!(reports.answer("two", now).jobs, [job("s")]);
        assert_eq!(reports.answer("two", now + GIVEN_FOR).jobs, [], "another gets it by then");
    }

    #[tokio::test]
    async fn a_job_that_the_queue_gives_to_another_in_time_is_not_given() {
        let ((reports, _changes), now) = (Reports::new(), Instant::now());
        let (soon, later) = (now + Duration::from_millis(500), now + Duration::from_millis(900));
        for said in [report("one", 1, None, &[]), report("two", 2, None, &[])] {
            reports.take(said, now);
        }
        for run in ["r", "s"] {
            assert_eq!(reports.give("default", &job(run), soon, now).as_deref(), Some("two"), "and one has room for neither");
        }
        assert_eq!(reports.answer("two", now).jobs, [], "the queue comes first");
        assert_eq!(reports.give("default", &job("r"), later + GIVEN_FOR, later).as_deref(), Some("two"), "which has it since before");
        reports.take(report("one", 1, None, &["r"]), later);
        assert_eq!(reports.answer("two", later).jobs, [job("s")], "the queue has given the other to one");
    }
}
