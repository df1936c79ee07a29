//! What the operator does that waits for the Lease: where nobody leads, it shows the job of a transcoder that is gone to another pod.
//!
//! A node can take the leader and a transcoder along. Nobody misses the transcoder then before the Lease has run out, and the queue shows its job again only
//! after seconds in which students wait. What is shown here is the same attempt that the queue would show, sooner: nothing is decided and nothing written, so that it
//! does no harm where the leader lives after all. Who owns the run is S3's to say. Who sees no Lease, because the API server or the own network is away, shows nothing.

use crate::leader::Sighting;
use crate::metrics::Metrics;
use crate::reports::{Change, Reports};
use lectern_contract::RunId;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How often it is looked for jobs that nobody has: as often as for silent pods.
const LOOK: Duration = Duration::from_millis(100);
/// A leader that lives renews its Lease every two seconds, and we look four times a second: half a second is left for slow answers.
const NOBODY_LEADS: Duration = Duration::from_millis(2_750);
/// A job is shown once: from then on the queue has it again.
const ONCE: Duration = Duration::from_secs(10);
/// Where nobody has room for a job, that is looked for again after so long.
const NO_ROOM: Duration = Duration::from_secs(1);
/// Jobs that are shown in one look: a zone can take hundreds along.
const AT_ONCE: usize = 64;

/// Stands by until `leading`; what deserves a reconcile from then on comes out of what is returned. `lease` is what is seen of the Lease.
pub async fn run(
    reports: &Reports,
    mut changes: mpsc::UnboundedReceiver<Change>,
    lease: watch::Receiver<Option<Sighting>>,
    metrics: &Metrics,
    leading: &CancellationToken,
) -> mpsc::UnboundedReceiver<Change> {
    let mut left_alone = HashMap::<RunId, Instant>::new(); // until then
    while leading.run_until_cancelled(sleep(LOOK)).await.is_some() {
        while changes.try_recv().is_ok() {} // who leads looks at every stream to begin with
        let now = Instant::now();
        left_alone.retain(|_, until| now < *until);
        let still = lease.borrow().and_then(|seen| seen.stands_still_for(now));
        if still.is_none_or(|still| still < NOBODY_LEADS) {
            continue;
        }
        let missed = reports.missed(now).into_iter().filter(|(_, job)| !left_alone.contains_key(&job.run));
        for (pool, job) in missed.take(AT_ONCE).collect::<Vec<_>>() {
            let given = reports.give(&pool, &job, now, now);
            left_alone.insert(job.run.clone(), now + if given.is_some() { ONCE } else { NO_ROOM });
            if let Some(pod) = given {
                tracing::warn!(stream = %job.stream, run = %job.run, attempt = job.attempt, pod, "nobody leads, and its transcoder is silent: another is shown the job");
                metrics.stood_in();
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::Duty;
    use lectern_contract::cost::{Budget, Class, Needs};
    use lectern_contract::job::LiveJob;
    use lectern_contract::report::{Report, Role, TranscoderRun, TranscoderState};
    use lectern_contract::{Epoch, Ladder, WallMillis};
    use serde_json::json;
    use std::sync::Arc;

    fn job() -> LiveJob {
        let fields = json!({
            "stream": { "namespace": "school", "name": "algebra" }, "title": "", "run": "r", "attempt": 2, "anchor": 0, "feed": "",
            "ladder": Ladder { video: vec![], audio: vec![] }, "segmentDuration": 2000, "prefix": "00/school/algebra/r", "idleAfterMs": 1,
        });
        serde_json::from_value(fields).unwrap()
    }

    /// What a pod says that has `runs` in hand, and tells of their `jobs`.
    fn report(pod: &str, began: u64, runs: &[LiveJob], jobs: Vec<LiveJob>) -> Report {
        let state = TranscoderState::Starting { waiting_for: None };
        let run = |job: &LiveJob| TranscoderRun {
            stream: job.stream.clone(),
            run: job.run.clone(),
            attempt: job.attempt,
            epoch: Epoch(1),
            state: state.clone(),
        };
        let runs = runs.iter().map(run).collect();
        let role = Role::Transcoder { slots: 1, class: Class::Software, budget: Budget::default(), taken: Needs::default(), runs, jobs };
        Report { pod: pod.into(), pool: "default".into(), began: WallMillis(began), role }
    }

    /// A lecture's transcoder of two and the operator that stands by, in a clock that goes on when everybody waits.
    struct Lecture {
        reports: Arc<Reports>,
        /// When the leader renewed its Lease last; `None`: the API server is away.
        renewed: watch::Sender<Option<Instant>>,
        leading: CancellationToken,
    }

    impl Lecture {
        /// It has begun.
        fn begin() -> Self {
            let (reports, changes) = Reports::new();
            reports.turn_to(Duty::StandBy);
            let (renewed, leading) = (watch::Sender::new(Some(Instant::now())), CancellationToken::new());
            let lecture = Self { reports: reports.clone(), renewed: renewed.clone(), leading: leading.clone() };
            let lease = watch::Sender::new(None);
            let sees = lease.subscribe();
            tokio::spawn(async move { run(&reports, changes, sees, &Metrics::default(), &leading).await });
            tokio::spawn(async move {
                loop {
                    let since = *renewed.borrow();
                    if let Some(since) = since {
                        lease.send_replace(Some(Sighting { since, at: Instant::now() }));
                    }
                    sleep(Duration::from_millis(500)).await;
                }
            });
            lecture.says(&report("t-0", 1, &[job()], vec![]));
            assert_eq!(lecture.reports.answer("t-0", Instant::now()).wants, ["r".into()], "it is asked for the job");
            lecture.says(&report("t-0", 1, &[job()], vec![job()]));
            assert_eq!(lecture.reports.answer("t-0", Instant::now()).wants, [], "once");
            lecture
        }

        fn says(&self, report: &Report) {
            assert!(self.reports.take(report.clone(), Instant::now()));
        }

        fn renew(&self) {
            self.renewed.send_replace(Some(Instant::now()));
        }

        /// A second goes by in which t-1 reports, which is idle; what it is answered.
        async fn second(&self) -> Vec<LiveJob> {
            sleep(Duration::from_secs(1)).await;
            self.says(&report("t-1", 1, &[], vec![]));
            self.reports.answer("t-1", Instant::now()).jobs
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_leads_the_job_of_a_silent_transcoder_is_shown_to_another() {
        let lecture = Lecture::begin();
        lecture.renew();
        assert_eq!([lecture.second().await, lecture.second().await, lecture.second().await], [vec![], vec![], vec![]]);
        assert_eq!(lecture.second().await, [job()], "as its message would be");
        lecture.says(&report("t-1", 1, &[job()], vec![]));
        assert_eq!(lecture.reports.answer("t-1", Instant::now()).jobs, [], "it has taken it");
        lecture.says(&report("t-1", 1, &[], vec![]));
        assert_eq!(lecture.second().await, [], "and is not shown it again");
    }

    #[tokio::test(start_paused = true)]
    async fn while_somebody_leads_nothing_is_shown() {
        let lecture = Lecture::begin();
        for _ in 0..10 {
            lecture.renew();
            assert_eq!(lecture.second().await, []);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_see_the_lease_shows_nothing() {
        let lecture = Lecture::begin();
        lecture.renewed.send_replace(None);
        for _ in 0..10 {
            assert_eq!(lecture.second().await, [], "it may be the only one that is cut off");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_has_lost_for_an_owner_that_died_is_shown() {
        let lecture = Lecture::begin();
        lecture.renew();
        let lost = |at: &Report| {
            let mut report = at.clone();
            let Role::Transcoder { runs, slots, .. } = &mut report.role else { return report };
            (runs[0].state, *slots) = (TranscoderState::Lost, 0);
            report
        };
        let mut shown = Vec::new();
        for _ in 0..6 {
            lecture.says(&lost(&report("t-2", 1, &[job()], vec![]))); // it handed the run over, and has no room besides
            shown.extend(lecture.second().await);
        }
        assert_eq!(shown.first(), Some(&job()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_to_lead_stands_by_no_more() {
        let lecture = Lecture::begin();
        lecture.renew();
        lecture.leading.cancel();
        lecture.reports.turn_to(Duty::Lead { standbys: Some(vec![([10, 1, 2, 3], 7100).into()]) });
        for _ in 0..5 {
            assert_eq!(lecture.second().await, []);
        }
        let answer = lecture.reports.answer("t-1", Instant::now());
        assert_eq!(answer.standbys, Some(vec![([10, 1, 2, 3], 7100).into()]));
        lecture.says(&report("t-1", 1, &[job()], vec![job()]));
        assert_eq!(lecture.reports.answer("t-1", Instant::now()).wants, []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_has_in_hand_meanwhile_is_not_shown() {
        let lecture = Lecture::begin();
        lecture.renew();
        for _ in 0..6 {
            sleep(Duration::from_secs(1)).await;
            lecture.says(&report("t-2", 1, &[job()], vec![])); // the queue was quicker
            assert_eq!(lecture.second().await, []);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_had_in_hand_that_another_one_follows_is_shown_too() {
        let lecture = Lecture::begin();
        lecture.renew();
        let mut shown = Vec::new();
        for _ in 0..4 {
            lecture.says(&report("t-0", 2, &[], vec![]));
            let to_the_same = lecture.reports.answer("t-0", Instant::now()).jobs;
            shown.extend(lecture.second().await.into_iter().chain(to_the_same));
        }
        assert_eq!(shown.first(), Some(&job()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_another_attempt_is_not_kept() {
        let lecture = Lecture::begin();
        let later = LiveJob { attempt: 3, ..job() };
        lecture.says(&report("t-0", 1, std::slice::from_ref(&later), vec![]));
        assert_eq!(lecture.reports.answer("t-0", Instant::now()).wants, ["r".into()]);
        lecture.says(&report("t-0", 1, std::slice::from_ref(&later), vec![job(), later.clone()]));
        assert_eq!(lecture.reports.answer("t-0", Instant::now()).wants, []);
        lecture.renew();
        let mut shown = Vec::new();
        for _ in 0..6 {
            shown.extend(lecture.second().await);
        }
        assert_eq!(shown.first(), Some(&later));
    }
}
