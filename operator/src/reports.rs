//! What the pods said last: the store behind `POST /v1/reports`, and which streams a report gives reason to look at.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::{Json, Router, routing::post};
use lectern_contract::report::{PATH, Publisher, Report, Role, TranscoderRun, TranscoderState};
use lectern_contract::{RunId, StreamRef};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A pod that was silent for this long is taken for gone: three missed reports.
pub const STALE: Duration = Duration::from_secs(3);
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
    changed: mpsc::UnboundedSender<StreamRef>,
}

/// One pod's last report, by run.
#[derive(Debug, Clone)]
struct Heard {
    pool: String,
    said: Said,
    at: Instant,
    stale: bool,
}

#[derive(Debug, Clone)]
enum Said {
    Ingest(HashMap<RunId, (StreamRef, Publisher)>),
    Transcoder(HashMap<RunId, TranscoderRun>),
}

/// What is known of a shard.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardSaid {
    /// No report for three seconds, or none ever.
    Silent,
    /// It reports, and has seen no publisher of the run.
    NoPublisher,
    /// It reports the run.
    Publisher(Publisher),
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
    /// No reports yet. Streams that deserve a reconcile come out of the receiver.
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<StreamRef>) {
        let (changed, changes) = mpsc::unbounded_channel();
        (Arc::new(Self { pods: Mutex::default(), changed }), changes)
    }

    /// Takes a report in. `false` where there is no room for another pod.
    pub fn take(&self, report: Report, now: Instant) -> bool {
        let Report { pod, pool, role } = report;
        let heard = Heard { pool, said: Said::from(role), at: now, stale: false };
        let mut pods = self.lock();
        let before = pods.get(&pod);
        if before.is_none() && pods.len() >= MAX_PODS {
            return false;
        }
        let changed = changes(before, &heard);
        pods.insert(pod, heard);
        drop(pods);
        self.announce(changed);
        true
    }

    /// Announces the streams of pods that have just fallen silent, and forgets those that are long gone.
    pub fn sweep(&self, now: Instant) {
        let mut pods = self.lock();
        pods.retain(|_, heard| now.duration_since(heard.at) < FORGET);
        let mut changed = BTreeSet::new();
        for heard in pods.values_mut().filter(|heard| !heard.stale && now.duration_since(heard.at) >= STALE) {
            heard.stale = true;
            changed.extend(heard.said.streams().cloned());
        }
        drop(pods);
        self.announce(changed);
    }

    /// What `shard` says of `run`.
    pub fn shard(&self, shard: &str, run: &RunId, now: Instant) -> ShardSaid {
        let pods = self.lock();
        match pods.get(shard).filter(|heard| now.duration_since(heard.at) < STALE).map(|heard| &heard.said) {
            Some(Said::Ingest(runs)) => {
                runs.get(run).map_or(ShardSaid::NoPublisher, |(_, publisher)| ShardSaid::Publisher(publisher.clone()))
            }
            _ => ShardSaid::Silent,
        }
    }

    /// The transcoder that has most to say of `run`: fresh words before old, owners before those that lost it, the later
    /// epoch and attempt before the earlier.
    pub fn transcoder(&self, run: &RunId, now: Instant) -> Option<TranscoderSaid> {
        let pods = self.lock();
        let said = pods.iter().filter_map(|(pod, heard)| match &heard.said {
            Said::Transcoder(runs) => {
                let fresh = now.duration_since(heard.at) < STALE;
                runs.get(run).map(|run| TranscoderSaid { pod: pod.clone(), run: run.clone(), fresh })
            }
            Said::Ingest(_) => None,
        });
        said.max_by_key(|said| (said.fresh, weight(&said.run)))
    }

    /// How many jobs `pod` works on; `None` where it has not reported lately.
    pub fn jobs(&self, pod: &str, now: Instant) -> Option<usize> {
        match self.lock().get(pod).filter(|heard| now.duration_since(heard.at) < STALE).map(|heard| &heard.said)? {
            Said::Transcoder(runs) => Some(runs.values().filter(|run| is_working(&run.state)).count()),
            Said::Ingest(_) => None,
        }
    }

    /// The pods of a pool that reported lately.
    pub fn heard_of(&self, pool: &str, now: Instant) -> usize {
        self.lock().values().filter(|heard| heard.pool == pool && now.duration_since(heard.at) < STALE).count()
    }

    fn announce(&self, streams: BTreeSet<StreamRef>) {
        for stream in streams {
            // The receiver goes only when the process does.
            let _ = self.changed.send(stream);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Role> for Said {
    fn from(role: Role) -> Self {
        match role {
            Role::Ingest { runs, .. } => Self::Ingest(runs.into_iter().map(|run| (run.run, (run.stream, run.publisher))).collect()),
            Role::Transcoder { runs, .. } => {
                let mut kept: HashMap<RunId, TranscoderRun> = HashMap::new();
                // A pod may tell of two attempts of one run: an ended one lingers for a minute.
                for run in runs {
                    match kept.get(&run.run) {
                        Some(other) if weight(other) >= weight(&run) => {}
                        _ => drop(kept.insert(run.run.clone(), run)),
                    }
                }
                Self::Transcoder(kept)
            }
        }
    }
}

impl Said {
    fn streams(&self) -> impl Iterator<Item = &StreamRef> {
        let (ingest, transcoder) = match self {
            Self::Ingest(runs) => (Some(runs), None),
            Self::Transcoder(runs) => (None, Some(runs)),
        };
        let of_ingest = ingest.into_iter().flat_map(|runs| runs.values().map(|(stream, _)| stream));
        of_ingest.chain(transcoder.into_iter().flat_map(|runs| runs.values().map(|run| &run.stream)))
    }
}

fn weight(run: &TranscoderRun) -> (bool, u32, u64) {
    (!matches!(run.state, TranscoderState::Lost), run.attempt, run.epoch.0)
}

fn is_working(state: &TranscoderState) -> bool {
    matches!(state, TranscoderState::Starting { .. } | TranscoderState::Running { .. })
}

/// The streams that a report gives reason to look at: what a person would call a change, not what moves every second.
fn changes(before: Option<&Heard>, now: &Heard) -> BTreeSet<StreamRef> {
    let Some(before) = before else { return now.said.streams().cloned().collect() };
    if before.stale {
        // Back from silence: all that it carries, and all that it has lost meanwhile.
        return before.said.streams().chain(now.said.streams()).cloned().collect();
    }
    let mut changed = BTreeSet::new();
    match (&before.said, &now.said) {
        (Said::Ingest(before), Said::Ingest(now)) => {
            changed.extend(before.iter().filter(|(run, _)| !now.contains_key(run)).map(|(_, (stream, _))| stream.clone()));
            let differs = |run, publisher| before.get(run).is_none_or(|(_, old)| publisher_changed(old, publisher));
            changed.extend(now.iter().filter(|(run, (_, publisher))| differs(run, publisher)).map(|(_, (stream, _))| stream.clone()));
        }
        (Said::Transcoder(before), Said::Transcoder(now)) => {
            changed.extend(before.iter().filter(|(run, _)| !now.contains_key(run)).map(|(_, run)| run.stream.clone()));
            let differs = |run: &TranscoderRun| before.get(&run.run).is_none_or(|old| transcoder_changed(old, run));
            changed.extend(now.values().filter(|run| differs(run)).map(|run| run.stream.clone()));
        }
        // A pod's name that changes its trade: both its old and its new streams.
        (before, now) => changed.extend(before.streams().chain(now.streams()).cloned()),
    }
    changed
}

fn publisher_changed(before: &Publisher, now: &Publisher) -> bool {
    match (before, now) {
        (
            Publisher::Publishing { remote: a, codecs: b, picture: c, bitrate: old, .. },
            Publisher::Publishing { remote: x, codecs: y, picture: z, bitrate: new, .. },
        ) => (a, b, c) != (x, y, z) || moved_by_a_quarter(*old, *new),
        (before, now) => before != now,
    }
}

fn transcoder_changed(before: &TranscoderRun, now: &TranscoderRun) -> bool {
    let state = match (&before.state, &now.state) {
        (TranscoderState::Running { confirmed: a, trouble: b, .. }, TranscoderState::Running { confirmed: x, trouble: y, .. }) => {
            a.is_some() != x.is_some() || b.is_some() != y.is_some()
        }
        (before, now) => before != now,
    };
    state || before.attempt != now.attempt || before.epoch != now.epoch
}

/// More than 25 % up or down.
pub fn moved_by_a_quarter(old: u64, new: u64) -> bool {
    old.abs_diff(new) > old / 4
}

/// Serves the report endpoint, and sweeps silent pods twice a second, until `stop`.
pub async fn serve(address: SocketAddr, reports: Arc<Reports>, metrics: Metrics, stop: CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let router = Router::new().route(PATH, post(take)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state((reports.clone(), metrics));
    let sweeping = async {
        loop {
            tokio::time::sleep(STALE / 6).await;
            reports.sweep(Instant::now());
        }
    };
    // Not gracefully: pods keep their connections open and would hold the old leader up; a cut report is sent again.
    tokio::select! {
        served = axum::serve(listener, router) => served,
        () = sweeping => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

async fn take(State((reports, metrics)): State<(Arc<Reports>, Metrics)>, Json(report): Json<Report>) -> StatusCode {
    let taken = reports.take(report, Instant::now());
    metrics.report(taken);
    if taken { StatusCode::NO_CONTENT } else { StatusCode::INSUFFICIENT_STORAGE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::report::IngestRun;
    use lectern_contract::{Epoch, SegmentNumber, Ticks};

    fn stream() -> StreamRef {
        StreamRef { namespace: "school".into(), name: "algebra".into() }
    }

    fn publishing(bitrate: u64) -> Report {
        let publisher =
            Publisher::Publishing { remote: "192.0.2.1:9".into(), backup: false, codecs: vec![], picture: None, bitrate, newest: Ticks(bitrate) };
        let runs = vec![IngestRun { stream: stream(), run: "r".into(), publisher, standby: None, recording: None }];
        Report { pod: "shard-0".into(), pool: "default".into(), role: Role::Ingest { runs, draining: false, orphans: Vec::new() } }
    }

    fn transcoding(pod: &str, attempt: u32, epoch: u64, state: TranscoderState) -> Report {
        let runs = vec![TranscoderRun { stream: stream(), run: "r".into(), attempt, epoch: Epoch(epoch), state }];
        Report { pod: pod.into(), pool: "default".into(), role: Role::Transcoder { slots: 2, runs } }
    }

    fn running(confirmed: Option<u64>) -> TranscoderState {
        let confirmed = confirmed.map(SegmentNumber);
        TranscoderState::Running { confirmed, live_edge: SegmentNumber(9), lag: Ticks(0), bitrate: 1, trouble: None }
    }

    fn announced(reports: &Reports, changes: &mut mpsc::UnboundedReceiver<StreamRef>, report: Report) -> bool {
        reports.take(report, Instant::now());
        changes.try_recv().is_ok()
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
        assert!(changes.try_recv().is_ok());
        reports.sweep(later);
        assert!(changes.try_recv().is_err(), "silence is news once");
        assert!(announced(&reports, &mut changes, publishing(1)), "back, with the same words");
    }

    #[tokio::test]
    async fn a_pod_that_comes_back_without_its_runs_announces_the_ones_it_lost() {
        let (reports, mut changes) = Reports::new();
        announced(&reports, &mut changes, publishing(1));
        reports.sweep(Instant::now() + STALE);
        assert!(changes.try_recv().is_ok());
        let empty = Report { pod: "shard-0".into(), pool: "default".into(), role: Role::Ingest { runs: vec![], draining: false, orphans: vec![] } };
        assert!(announced(&reports, &mut changes, empty));
    }

    #[tokio::test]
    async fn the_owner_of_a_run_speaks_before_one_that_lost_it() {
        let (reports, _changes) = Reports::new();
        let now = Instant::now();
        reports.take(transcoding("t-0", 2, 1, TranscoderState::Lost), now);
        reports.take(transcoding("t-1", 1, 2, running(Some(1))), now);
        assert_eq!(reports.transcoder(&"r".into(), now).unwrap().pod, "t-1");
        assert_eq!((reports.jobs("t-0", now), reports.jobs("t-1", now), reports.jobs("t-2", now)), (Some(0), Some(1), None));
    }

    #[tokio::test]
    async fn made_up_pods_cannot_fill_the_memory() {
        let (reports, _changes) = Reports::new();
        let idle = |n: usize| Report { pod: format!("t-{n}"), pool: "p".into(), role: Role::Transcoder { slots: 1, runs: vec![] } };
        assert!((0..MAX_PODS).all(|n| reports.take(idle(n), Instant::now())));
        assert!(!reports.take(idle(MAX_PODS), Instant::now()));
        assert!(reports.take(idle(0), Instant::now()), "a pod that is known may go on");
    }
}
