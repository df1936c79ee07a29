//! What the pods said last: the store behind `POST /v1/reports`, and which streams a report gives reason to look at.

mod given;
mod listen;
mod said;
mod stand_in;

use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing::post};
use given::Given;
use lectern_contract::cost::Needs;
use lectern_contract::report::{IngestRun, PATH, Report, Role, TranscoderRun, TranscoderState};
use lectern_contract::{Epoch, RunId, ShardName, StreamRef};
use lectern_podkit::Task;
use lectern_podkit::tls::{PeerRole, PeerTls};
use listen::{Listener, Reporter};
use said::{Heard, Ingest, Said, Transcoder, changes, weight};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

pub use said::moved_by_a_quarter;
pub use stand_in::Duty;

/// A pod that was silent for this long is taken for gone: three missed reports.
pub const STALE: Duration = Duration::from_secs(3);
/// How often silent pods are looked for: lectures wait for it.
const SWEEP: Duration = Duration::from_millis(100);
/// How long a silent pod's last words are kept.
const FORGET: Duration = Duration::from_secs(300);
/// The largest report that is taken: some ten thousand runs of one pod.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// Pods that are remembered; reports of more are refused, so that nobody can fill the memory with made-up names.
const MAX_PODS: usize = 5_000;

/// The last report of every pod.
#[derive(Debug)]
pub struct Reports {
    pods: Mutex<HashMap<String, Heard>>,
    /// Jobs past the queue. Locked after the pods, where both are.
    given: Mutex<Vec<Given>>,
    duty: Mutex<Duty>,
    changed: mpsc::UnboundedSender<Change>,
}

/// What deserves a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// One stream.
    Stream(StreamRef),
    /// All streams that are placed on a shard, those too that it has nothing to say of.
    Shard(ShardName),
    /// A pool, whose transcoders have more or less to do.
    Pool(String),
}

/// What is known of a stream's run at its shard.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardSaid {
    /// No report for three seconds, or none ever.
    Silent,
    /// It reports, and has seen no publisher of the run.
    NoPublisher,
    /// It reports the run.
    Run(Box<IngestRun>),
}

/// What is known of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It reports.
    Well,
    /// It reports that it is going.
    Draining,
    /// No report for three seconds, or none ever.
    Silent,
}

/// What a transcoder says of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscoderSaid {
    /// The pod.
    pub pod: String,
    /// Its words.
    pub run: TranscoderRun,
    /// They are not older than three seconds.
    pub fresh: bool,
}

impl Reports {
    /// No reports yet. What deserves a reconcile comes out of the receiver.
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Change>) {
        let (changed, changes) = mpsc::unbounded_channel();
        (Arc::new(Self { pods: Mutex::default(), given: Mutex::default(), duty: Mutex::default(), changed }), changes)
    }

    /// Takes a report in. `false` where there is no room for another pod.
    pub fn take(&self, report: Report, now: Instant) -> bool {
        let Report { pod, pool, began, mut role } = report;
        let sent = stand_in::jobs_in(&mut role);
        let mut heard = Heard { pool, began, said: Said::from(role), at: now, stale: false, dropped: HashMap::new(), jobs: HashMap::new() };
        let mut pods = self.lock();
        let before = pods.get(&pod);
        heard.dropped = before.map(|before| before.drops(&heard)).unwrap_or_default();
        heard.jobs = self.kept_jobs(before, sent, &heard);
        if before.is_none() && pods.len() >= MAX_PODS {
            return false;
        }
        let drains = |heard: &Heard| heard.said.ingest().is_some_and(|ingest| ingest.draining);
        let turned = before.map_or(drains(&heard), |before| before.stale || drains(before) != drains(&heard));
        let mut changed: BTreeSet<Change> = changes(before, &heard).into_iter().map(Change::Stream).collect();
        if turned && heard.said.ingest().is_some() {
            changed.insert(Change::Shard(ShardName(pod.clone())));
        }
        let working = |heard: &Heard| heard.said.transcoder().map(Transcoder::working);
        if working(&heard).is_some() && before.is_none_or(|before| before.stale || working(before) != working(&heard)) {
            changed.insert(Change::Pool(heard.pool.clone()));
        }
        pods.insert(pod, heard);
        drop(pods);
        self.announce(changed);
        true
    }

    /// Announces the pods that have just fallen silent with their streams, and forgets those that are long gone.
    pub fn sweep(&self, now: Instant) {
        let mut pods = self.lock();
        pods.retain(|_, heard| now.duration_since(heard.at) < FORGET);
        let mut changed = BTreeSet::new();
        for (pod, heard) in pods.iter_mut().filter(|(_, heard)| !heard.stale && !heard.is_fresh(now)) {
            heard.stale = true;
            changed.extend(heard.said.streams().cloned().map(Change::Stream));
            if heard.said.ingest().is_some() {
                changed.insert(Change::Shard(ShardName(pod.clone())));
            }
        }
        drop(pods);
        self.announce(changed);
    }

    /// What `shard` says of `run`.
    pub fn shard(&self, shard: &str, run: &RunId, now: Instant) -> ShardSaid {
        match fresh_ingest(self.lock().get(shard), now) {
            Some(ingest) => ingest.runs.get(run).map_or(ShardSaid::NoPublisher, |run| ShardSaid::Run(Box::new(run.clone()))),
            None => ShardSaid::Silent,
        }
    }

    /// How each of `shards` stands, in their order.
    pub fn standing<'a>(&self, shards: impl IntoIterator<Item = &'a ShardName>, now: Instant) -> Vec<Standing> {
        let pods = self.lock();
        let of = |shard: &ShardName| match fresh_ingest(pods.get(&shard.0), now) {
            Some(ingest) if ingest.draining => Standing::Draining,
            Some(_) => Standing::Well,
            None => Standing::Silent,
        };
        shards.into_iter().map(of).collect()
    }

    /// The shard that would adopt `run` from an owner of `epoch`: one that a publisher has reached and that is not going
    /// itself. Of several the first by name, so that all who ask are told the same.
    pub fn adopter(&self, run: &RunId, epoch: Epoch, now: Instant) -> Option<ShardName> {
        let pods = self.lock();
        let would = |ingest: &Ingest| !ingest.draining && ingest.orphans.get(run).is_some_and(|orphan| orphan.epoch == epoch);
        let adopters = pods.iter().filter(|(_, heard)| fresh_ingest(Some(heard), now).is_some_and(would));
        adopters.map(|(pod, _)| pod).min().cloned().map(ShardName)
    }

    /// The transcoder that has most to say of `run`: fresh words before old, owners before those that lost it, even where their words are old, the later
    /// epoch and attempt before the earlier.
    pub fn transcoder(&self, run: &RunId, now: Instant) -> Option<TranscoderSaid> {
        let pods = self.lock();
        let said = pods.iter().filter_map(|(pod, heard)| {
            let (transcoder, fresh) = (heard.said.transcoder()?, heard.is_fresh(now));
            let said = |run: &TranscoderRun, fresh| TranscoderSaid { pod: pod.clone(), run: run.clone(), fresh };
            let said_now = transcoder.runs.get(run).map(|run| said(run, fresh));
            said_now.or_else(|| heard.dropped.get(run).map(|(run, _)| said(run, false)))
        });
        // Who has lost the run says so for a minute, and knows nothing of how the one fares that has it.
        said.max_by_key(|said| (said.fresh && said.run.state != TranscoderState::Lost, weight(&said.run)))
    }

    /// How many jobs `pod` works on, and what they take; `None` where it has not reported lately.
    pub fn load(&self, pod: &str, now: Instant) -> Option<(usize, Needs)> {
        let pods = self.lock();
        let transcoder = pods.get(pod).filter(|heard| heard.is_fresh(now))?.said.transcoder()?;
        Some((transcoder.working(), transcoder.taken))
    }

    /// The pods of a pool that reported lately.
    pub fn heard_of(&self, pool: &str, now: Instant) -> usize {
        self.lock().values().filter(|heard| heard.pool == pool && heard.is_fresh(now)).count()
    }

    /// All pods that have reported in the last minutes, and whether they did `within` so much.
    pub fn heard(&self, within: Duration, now: Instant) -> HashMap<String, bool> {
        self.lock().iter().map(|(pod, heard)| (pod.clone(), heard.is_younger(within, now))).collect()
    }

    /// Those of them that did not.
    pub fn silent(&self, within: Duration, now: Instant) -> BTreeSet<String> {
        self.lock().iter().filter(|(_, heard)| !heard.is_younger(within, now)).map(|(pod, _)| pod.clone()).collect()
    }

    /// There may be something for `stream`.
    pub fn wake_stream(&self, stream: StreamRef) {
        self.announce([Change::Stream(stream)].into());
    }

    /// `pool` is asked for more.
    pub fn wake(&self, pool: &str) {
        self.announce([Change::Pool(pool.to_owned())].into());
    }

    fn announce(&self, changed: BTreeSet<Change>) {
        for change in changed {
            // The receiver goes only when the process does.
            let _ = self.changed.send(change);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh_ingest(heard: Option<&Heard>, now: Instant) -> Option<&Ingest> {
    heard.filter(|heard| heard.is_fresh(now))?.said.ingest()
}

/// Whether a transcoder that says this has the run in hand.
pub fn is_working(state: &TranscoderState) -> bool {
    matches!(state, TranscoderState::Starting { .. } | TranscoderState::Running { .. })
}

/// Serves the report endpoint, and sweeps silent pods, until `stop`.
pub fn serve(
    address: SocketAddr,
    peers: PeerTls,
    reports: Arc<Reports>,
    metrics: Metrics,
    stop: CancellationToken,
) -> Task<std::io::Error> {
    Box::pin(async move {
        let listener = Listener::bind(address, peers).await?;
        let router = Router::new().route(PATH, post(take)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state((reports.clone(), metrics));
        let sweeping = async {
            loop {
                tokio::time::sleep(SWEEP).await;
                reports.sweep(Instant::now());
            }
        };
        // Not gracefully: pods keep their connections open and would hold the old leader up; a cut report is sent again.
        tokio::select! {
            served = axum::serve(listener, router.into_make_service_with_connect_info::<Reporter>()) => served,
            () = sweeping => Ok(()),
            () = stop.cancelled() => Ok(()),
        }
    })
}

async fn take(
    State((reports, metrics)): State<(Arc<Reports>, Metrics)>,
    ConnectInfo(reporter): ConnectInfo<Reporter>,
    Json(report): Json<Report>,
) -> Response {
    let (pod, now) = (report.pod.clone(), Instant::now());
    let role = match report.role {
        Role::Ingest { .. } => PeerRole::Ingest,
        Role::Transcoder { .. } => PeerRole::Transcoder,
        Role::Origin => PeerRole::Origin,
    };
    if !reporter.is(role, &report.pool) {
        metrics.report(false);
        tracing::warn!(pod, pool = report.pool, ?role, "a report in the name of somebody else is refused");
        return StatusCode::FORBIDDEN.into_response();
    }
    let taken = reports.take(report, now);
    metrics.report(taken);
    if !taken {
        return StatusCode::INSUFFICIENT_STORAGE.into_response();
    }
    let answer = reports.answer(&pod, now);
    if answer.is_empty() { StatusCode::NO_CONTENT.into_response() } else { Json(answer).into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::cost::{Budget, Class, Needs};
    use lectern_contract::report::{Orphan, Publisher, Recording};
    use lectern_contract::{SegmentNumber, Ticks, WallMillis};

    fn stream() -> StreamRef {
        StreamRef { namespace: "school".into(), name: "algebra".into() }
    }

    fn shard(pod: &str, runs: Vec<IngestRun>, draining: bool, orphans: Vec<Orphan>) -> Report {
        Report { pod: pod.into(), pool: "default".into(), began: WallMillis(1), role: Role::Ingest { runs, draining, orphans } }
    }

    fn run(bitrate: u64) -> IngestRun {
        let remote = "192.0.2.1:9".into();
        let publisher = Publisher::Publishing { remote, backup: false, codecs: vec![], picture: None, bitrate, newest: Ticks(bitrate) };
        IngestRun { stream: stream(), run: "r".into(), publisher, standby: None, recording: None }
    }

    fn publishing(bitrate: u64) -> Report {
        shard("shard-0", vec![run(bitrate)], false, vec![])
    }

    fn orphan(epoch: u64) -> Orphan {
        Orphan { stream: stream(), run: "r".into(), epoch: Epoch(epoch) }
    }

    fn drained(changes: &mut mpsc::UnboundedReceiver<Change>) -> Vec<Change> {
        std::iter::from_fn(|| changes.try_recv().ok()).collect()
    }

    fn transcoder(slots: u32, runs: Vec<TranscoderRun>) -> Role {
        Role::Transcoder { slots, class: Class::Software, budget: Budget::default(), taken: Needs::default(), runs, jobs: vec![] }
    }

    fn transcoding(pod: &str, attempt: u32, epoch: u64, state: TranscoderState) -> Report {
        let runs = vec![TranscoderRun { stream: stream(), run: "r".into(), attempt, epoch: Epoch(epoch), state }];
        Report { pod: pod.into(), pool: "default".into(), began: WallMillis(1), role: transcoder(2, runs) }
    }

    fn running(confirmed: Option<u64>) -> TranscoderState {
        let confirmed = confirmed.map(SegmentNumber);
        TranscoderState::Running { confirmed, live_edge: SegmentNumber(9), lag: Ticks(0), bitrate: 1, trouble: None, remark: None }
    }

    fn announced(reports: &Reports, changes: &mut mpsc::UnboundedReceiver<Change>, report: Report) -> bool {
        reports.take(report, Instant::now());
        !drained(changes).is_empty()
    }

    #[tokio::test]
    async fn what_moves_every_second_announces_nothing() {
        let (reports, mut changes) = Reports::new();
        assert!(announced(&reports, &mut changes, publishing(1_000_000)), "a new publisher");
        assert!(!announced(&reports, &mut changes, publishing(1_200_000)), "20 % more");
        assert!(announced(&reports, &mut changes, publishing(2_000_000)), "67 % more");
        assert!(announced(&reports, &mut changes, transcoding("t-0", 1, 1, running(None))));
        assert!(announced(&reports, &mut changes, transcoding("t-0", 1, 1, running(Some(4)))), "the first confirmed segment");
        assert!(!announced(&reports, &mut changes, transcoding("t-0", 1, 1, running(Some(5)))), "the second");
    }

    #[tokio::test]
    async fn a_pod_that_falls_silent_is_announced_once_and_again_when_it_is_back() {
        let (reports, mut changes) = Reports::new();
        announced(&reports, &mut changes, publishing(1));
        let later = Instant::now() + STALE;
        assert_eq!(reports.shard("shard-0", &"r".into(), later), ShardSaid::Silent);
        reports.sweep(later);
        let told = [Change::Stream(stream()), Change::Shard("shard-0".into())];
        assert_eq!(drained(&mut changes), told, "its streams, and whoever else is placed there");
        reports.sweep(later);
        assert!(changes.try_recv().is_err(), "silence is news once");
        assert!(announced(&reports, &mut changes, publishing(1)), "back, with the same words");
    }

    #[tokio::test]
    async fn a_pod_that_comes_back_without_its_runs_announces_the_ones_it_lost() {
        let (reports, mut changes) = Reports::new();
        announced(&reports, &mut changes, publishing(1));
        reports.sweep(Instant::now() + STALE);
        assert!(!drained(&mut changes).is_empty());
        reports.take(shard("shard-0", vec![], false, vec![]), Instant::now());
        assert!(drained(&mut changes).contains(&Change::Stream(stream())));
    }

    #[tokio::test]
    async fn a_shard_that_begins_to_drain_wakes_all_that_are_placed_on_it_once() {
        let (reports, mut changes) = Reports::new();
        announced(&reports, &mut changes, publishing(1));
        reports.take(shard("shard-0", vec![run(1)], true, vec![]), Instant::now());
        assert_eq!(drained(&mut changes), [Change::Shard("shard-0".into())]);
        assert!(!announced(&reports, &mut changes, shard("shard-0", vec![run(1)], true, vec![])), "it goes on draining");
        let names = ["shard-0".into(), "shard-1".into()];
        assert_eq!(reports.standing(&names, Instant::now()), [Standing::Draining, Standing::Silent]);
    }

    #[tokio::test]
    async fn an_orphan_wakes_its_stream_at_once_and_names_its_adopter() {
        let (reports, mut changes) = Reports::new();
        announced(&reports, &mut changes, shard("shard-1", vec![], false, vec![]));
        reports.take(shard("shard-1", vec![], false, vec![orphan(3)]), Instant::now());
        assert_eq!(drained(&mut changes), [Change::Stream(stream())]);
        assert!(!announced(&reports, &mut changes, shard("shard-1", vec![], false, vec![orphan(3)])), "told once");
        let now = Instant::now();
        assert_eq!(reports.adopter(&"r".into(), Epoch(3), now), Some("shard-1".into()));
        assert_eq!(reports.adopter(&"r".into(), Epoch(4), now), None, "that was about an owner before");
        assert_eq!(reports.adopter(&"r".into(), Epoch(3), now + STALE), None, "it is silent itself");
        reports.take(shard("shard-1", vec![], true, vec![orphan(3)]), now);
        assert_eq!(reports.adopter(&"r".into(), Epoch(3), now), None, "it is going");
    }

    #[tokio::test]
    async fn a_standby_and_a_gap_in_the_original_are_news_and_how_far_it_is_stored_is_not() {
        let (reports, mut changes) = Reports::new();
        let mut said = run(1);
        let recording = |stored, gaps| Some(Recording { stored: Some(Ticks(stored)), gaps, trouble: None });
        announced(&reports, &mut changes, publishing(1));
        let mut is_news = |said: &IngestRun| announced(&reports, &mut changes, shard("shard-0", vec![said.clone()], false, vec![]));
        said.standby = Some("192.0.2.2:9".into());
        assert!(is_news(&said));
        said.recording = recording(1, 0);
        assert!(is_news(&said));
        said.recording = recording(2, 0);
        assert!(!is_news(&said));
        said.recording = recording(2, 1);
        assert!(is_news(&said));
    }

    #[tokio::test]
    async fn the_owner_of_a_run_speaks_before_one_that_lost_it() {
        let (reports, _changes) = Reports::new();
        let now = Instant::now();
        reports.take(transcoding("t-0", 2, 1, TranscoderState::Lost), now);
        reports.take(transcoding("t-1", 1, 2, running(Some(1))), now);
        assert_eq!(reports.transcoder(&"r".into(), now).unwrap().pod, "t-1");
        let later = now + STALE;
        reports.take(transcoding("t-0", 2, 1, TranscoderState::Lost), later);
        assert_eq!(reports.transcoder(&"r".into(), later).map(|said| (said.pod, said.fresh)), Some(("t-1".into(), false)), "it is silent");
        let jobs = |pod| reports.load(pod, now).map(|(jobs, _)| jobs);
        assert_eq!((jobs("t-0"), jobs("t-1"), jobs("t-2")), (Some(0), Some(1), None));
    }

    #[tokio::test]
    async fn what_a_process_had_in_hand_that_another_one_follows_is_lost_at_once() {
        let (reports, mut changes) = Reports::new();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let without = |began| Report { pod: "t-0".into(), pool: "default".into(), began: WallMillis(began), role: transcoder(2, vec![]) };
        let said = |now| reports.transcoder(&"r".into(), now).map(|said| (said.pod, said.fresh));
        reports.take(transcoding("t-0", 1, 1, running(Some(4))), now);
        reports.take(without(1), at(1));
        assert_eq!(said(at(1)), None, "a child has died, and the pod's next free slot takes its job");

        reports.take(transcoding("t-0", 1, 1, running(Some(4))), at(2));
        drained(&mut changes);
        reports.take(without(2), at(3));
        assert!(drained(&mut changes).contains(&Change::Stream(stream())));
        reports.take(without(2), at(4));
        assert_eq!(said(at(4)), Some(("t-0".into(), false)), "as of a pod that is silent");
        reports.take(transcoding("t-1", 2, 2, running(Some(5))), at(5));
        assert_eq!(said(at(5)), Some(("t-1".into(), true)));
        reports.take(transcoding("t-0", 3, 3, running(Some(6))), at(6));
        assert_eq!(reports.transcoder(&"r".into(), at(6)).map(|said| said.run.attempt), Some(3), "it has it again");
    }

    #[tokio::test]
    async fn of_what_a_process_had_in_hand_nobody_speaks_for_long() {
        let (reports, _changes) = Reports::new();
        let now = Instant::now();
        reports.take(transcoding("t-0", 1, 1, running(Some(4))), now);
        for second in 1..=20 {
            let role = transcoder(2, vec![]);
            reports
                .take(Report { pod: "t-0".into(), pool: "default".into(), began: WallMillis(2), role }, now + Duration::from_secs(second));
        }
        assert_eq!(reports.transcoder(&"r".into(), now + Duration::from_secs(20)), None);
    }

    #[tokio::test]
    async fn made_up_pods_cannot_fill_the_memory() {
        let (reports, _changes) = Reports::new();
        let idle = |n: usize| Report { pod: format!("t-{n}"), pool: "p".into(), began: WallMillis(1), role: transcoder(1, vec![]) };
        assert!((0..MAX_PODS).all(|n| reports.take(idle(n), Instant::now())));
        assert!(!reports.take(idle(MAX_PODS), Instant::now()));
        assert!(reports.take(idle(0), Instant::now()), "a pod that is known may go on");
    }
}
