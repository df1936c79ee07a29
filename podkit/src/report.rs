//! Pushes a pod's reports to the operators: one a second, and at once when something changed.

use crate::clock::wall_now;
use crate::tls::{PeerRole, PeerTls};
use crate::{PodArgs, Task};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use lectern_contract::job::LiveJob;
use lectern_contract::report::{Answer, PATH, Report, Role};
use lectern_contract::{RunId, WallMillis};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How often a report is sent when nothing changes. The operator takes three missed ones for a dead pod.
pub const EVERY: Duration = Duration::from_secs(1);

/// The same to who stands by, while the leader takes none: a lecture may wait for a job in the answer.
const OFTEN: Duration = Duration::from_millis(250);

/// No report is sent sooner than this after the last one, however much changes.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// Operators that stand by and get reports; there is seldom more than one.
const MOST_STANDBYS: usize = 8;

/// What operators answer, for a pod that takes jobs.
#[derive(Debug, Clone)]
pub struct Answers {
    /// The jobs that they give it, as often as they repeat them.
    pub jobs: mpsc::UnboundedSender<LiveJob>,
    /// When the leader took a report for the last time, as of when that was begun.
    pub taken: watch::Sender<Option<Instant>>,
}

/// What a pod has to say to an operator that wants the jobs of these runs.
pub type Collect = Arc<dyn Fn(&[RunId]) -> Role + Send + Sync>;

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", EVERY.as_secs())]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("it answers what nobody understands: {0}")]
    Answer(#[from] serde_json::Error),
}

/// Where an operator is.
struct Operator {
    /// `host:port`.
    address: String,
    peers: PeerTls,
    kept: Option<SendRequest<Full<Bytes>>>,
}

/// Sends what `collect` returns until `stop`; `changed` sends it at once. Reports go to the operator that leads, and to those that stand by, of
/// which its answers tell. Operators are met as one of `peers`. What is answered goes to `answers`, where the pod takes jobs. An operator that is
/// away costs nothing but a log line when it goes and one when it returns.
pub fn run(
    pod: PodArgs,
    peers: PeerTls,
    collect: Collect,
    changed: Arc<Notify>,
    answers: Option<Answers>,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        let Some(leader) = pod.operator_url.as_deref().and_then(|url| Operator::at(url, peers)) else {
            stop.cancelled().await;
            return Ok(());
        };
        let (news, standbys) = (watch::Sender::new(()), watch::Sender::new(BTreeSet::new()));
        let jobs = answers.as_ref().map(|answers| answers.jobs.clone());
        let reporter = Reporter { pod, began: wall_now(), collect, jobs, news: news.clone(), leader_is_away: Arc::default() };
        let follow = reporter.clone().follow(standbys.subscribe(), leader.peers.clone());
        let pass_on = async {
            loop {
                changed.notified().await;
                news.send_replace(());
            }
        };
        let told = |answer: Option<&Answer>, began| {
            reporter.leader_is_away.store(answer.is_none(), Ordering::Relaxed);
            let Some(answer) = answer else { return };
            if let Some(answers) = &answers {
                answers.taken.send_replace(Some(began));
            }
            let Some(now) = &answer.standbys else { return }; // it does not lead, or has not looked for them yet
            let now: BTreeSet<SocketAddr> = now.iter().copied().take(MOST_STANDBYS).collect();
            standbys.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = reporter.clone().report(leader, || EVERY, told) => {}
            () = follow => {}
            () = pass_on => {}
        }
        Ok(())
    })
}

/// What goes to every operator.
#[derive(Clone)]
struct Reporter {
    pod: PodArgs,
    began: WallMillis,
    collect: Collect,
    jobs: Option<mpsc::UnboundedSender<LiveJob>>,
    /// Something changed.
    news: watch::Sender<()>,
    leader_is_away: Arc<AtomicBool>,
}

impl Reporter {
    /// Reports to `operator` for good, so often; `told` gets its answer to each, if there is one, and when the report was begun.
    async fn report(self, mut operator: Operator, every: impl Fn() -> Duration, told: impl Fn(Option<&Answer>, Instant)) {
        let (mut news, mut wants) = (self.news.subscribe(), Vec::new());
        let mut reachable = true;
        let mut last = Instant::now() - EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(last + every()) => {}
                _ = news.changed() => tokio::time::sleep_until(last + AT_MOST_EVERY).await, // its sender is ours
            }
            last = Instant::now();
            let role = (self.collect)(&std::mem::take(&mut wants));
            let report = Report { pod: self.pod.pod_name.clone(), pool: self.pod.pool.clone(), began: self.began, role };
            let sent = timeout(EVERY, operator.send(&report)).await.map_err(Refused::from).flatten();
            let address = &operator.address;
            match (&sent, reachable) {
                (Ok(_), false) => tracing::info!(address, "the operator takes reports again"),
                (Err(error), true) => tracing::warn!(address, %error, "the operator takes no reports; trying on"),
                _ => {}
            }
            reachable = sent.is_ok();
            told(sent.as_ref().ok(), last);
            match sent {
                Ok(answer) => {
                    wants = answer.wants;
                    for (job, jobs) in answer.jobs.into_iter().zip(self.jobs.iter().cycle()) {
                        let _ = jobs.send(job); // who takes them goes only when the pod does
                    }
                }
                // A kept connection may lead to a stranger: one that was made before kube-proxy knew an endpoint leaves the
                // node as it is, and whoever has the Service's address out there may even answer.
                Err(_) => operator.kept = None,
            }
        }
    }

    /// Reports to each of `standbys`, as long as it is one.
    async fn follow(self, mut standbys: watch::Receiver<BTreeSet<SocketAddr>>, peers: PeerTls) {
        let (mut tasks, mut known) = (JoinSet::new(), HashMap::<SocketAddr, AbortHandle>::new());
        loop {
            let now = standbys.borrow_and_update().clone();
            known.retain(|address, task| {
                let stays = now.contains(address);
                if !stays {
                    task.abort();
                }
                stays
            });
            for address in now {
                let begin = || {
                    let operator = Operator { address: address.to_string(), peers: peers.clone(), kept: None };
                    let leader_is_away = self.leader_is_away.clone();
                    let every = move || if leader_is_away.load(Ordering::Relaxed) { OFTEN } else { EVERY };
                    tasks.spawn(self.clone().report(operator, every, |_, _| {}))
                };
                known.entry(address).or_insert_with(begin);
            }
            tokio::select! {
                _ = standbys.changed() => {} // its sender lives as long as this
                // One ends when it is told to, or panics.
                Some(Err(ended)) = tasks.join_next() => if let Ok(panic) = ended.try_into_panic() {
                    std::panic::resume_unwind(panic);
                },
            }
        }
    }
}

impl Operator {
    /// `None`, and a word in the log, for what is no URL of one.
    fn at(url: &str, peers: PeerTls) -> Option<Self> {
        let parsed = Url::parse(url).ok();
        let found = parsed.as_ref().and_then(|url| Some((url.scheme(), url.host_str()?, url.port_or_known_default()?)));
        let peers = match found {
            Some(("https", ..)) => peers,
            Some(("http", ..)) => PeerTls::plain(),
            _ => {
                tracing::error!(url, "no reports are sent: that is no URL of an operator");
                return None;
            }
        };
        let (_, host, port) = found?;
        Some(Self { address: format!("{host}:{port}"), peers, kept: None })
    }

    async fn send(&mut self, report: &Report) -> Result<Answer, Refused> {
        let mut sender = match self.kept.take().filter(|kept| !kept.is_closed()) {
            Some(kept) => kept,
            None => {
                let stream = self.peers.connect(&self.address, PeerRole::Operator).await?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection); // ends with its sender
                sender
            }
        };
        sender.ready().await?;
        let body = Bytes::from(serde_json::to_vec(report)?);
        let request = Request::post(PATH).header(header::HOST, &self.address).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        match status {
            StatusCode::OK => {
                self.kept = Some(sender);
                Ok(serde_json::from_slice(&body)?)
            }
            StatusCode::NO_CONTENT => {
                self.kept = Some(sender);
                Ok(Answer::default())
            }
            other => Err(Refused::Status(other)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::report::Orphan;
    use lectern_contract::{Epoch, StreamRef};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Reads a request as far as it has come; false at the connection's end.
    async fn asks(socket: &mut TcpStream) -> bool {
        socket.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0)
    }

    #[tokio::test]
    async fn a_report_that_is_not_taken_is_sent_again_over_another_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod = PodArgs {
            pod_name: "pod".to_owned(),
            pod_ip: [127, 0, 0, 1].into(),
            pod_namespace: "lectern".to_owned(),
            pool: "default".to_owned(),
            operator_url: Some(format!("http://{}", listener.local_addr().unwrap())),
        };
        let collect = Arc::new(|_: &[RunId]| Role::Ingest { runs: Vec::new(), draining: false, orphans: Vec::new() });
        let stop = CancellationToken::new();
        let reports = tokio::spawn(run(pod, PeerTls::plain(), collect, Arc::default(), None, stop.clone()));

        let (mut stranger, _) = listener.accept().await.unwrap();
        assert!(asks(&mut stranger).await);
        stranger.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let stranger_is_asked_again = async {
            if !asks(&mut stranger).await {
                std::future::pending::<()>().await; // it was let go, as it should be
            }
        };
        tokio::select! {
            () = stranger_is_asked_again => panic!("the stranger got the next report, too"),
            accepted = listener.accept() => assert!(asks(&mut accepted.unwrap().0).await),
        }
        stop.cancel();
        reports.await.unwrap().unwrap();
    }

    /// An operator that answers each report with what `answer` holds by then, and passes on what wants it heard.
    async fn operator(answer: watch::Receiver<Answer>) -> (SocketAddr, mpsc::UnboundedReceiver<Report>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (heard, hears)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
        let take = move |axum::Json(report): axum::Json<Report>| {
            let _ = heard.send(report);
            std::future::ready(axum::Json(answer.borrow().clone()))
        };
        let router = axum::Router::new().route(PATH, axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (address, hears)
    }

    #[tokio::test]
    async fn who_stands_by_gets_the_same_reports_and_the_jobs_that_it_asks_for() {
        let (leads, stands_by) = (watch::Sender::new(Answer::default()), watch::Sender::new(Answer::default()));
        let (leader, mut leader_hears) = operator(leads.subscribe()).await;
        let (standby, mut standby_hears) = operator(stands_by.subscribe()).await;
        let pod = PodArgs {
            pod_name: "pod".to_owned(),
            pod_ip: [127, 0, 0, 1].into(),
            pod_namespace: "lectern".to_owned(),
            pool: "default".to_owned(),
            operator_url: Some(format!("http://{leader}")),
        };
        // What is asked for comes back as the names of streams, which are easier made than jobs.
        let collect = Arc::new(|wants: &[RunId]| {
            let name = |run: &RunId| StreamRef { namespace: "school".into(), name: run.0.clone() };
            let orphan = |run: &RunId| Orphan { stream: name(run), run: run.clone(), epoch: Epoch(1) };
            Role::Ingest { runs: Vec::new(), draining: false, orphans: wants.iter().map(orphan).collect() }
        });
        let asked_for = |report: &Report| match &report.role {
            Role::Ingest { orphans, .. } => orphans.len(),
            Role::Transcoder { .. } | Role::Origin => 0,
        };
        let (stop, changed) = (CancellationToken::new(), Arc::new(Notify::new()));
        let reports = tokio::spawn(run(pod, PeerTls::plain(), collect, changed.clone(), None, stop.clone()));

        assert!(leader_hears.recv().await.is_some());
        assert!(standby_hears.try_recv().is_err(), "nobody has told of it");
        leads.send_replace(Answer { standbys: Some(vec![standby]), ..Answer::default() });
        assert_eq!(asked_for(&standby_hears.recv().await.unwrap()), 0);
        stands_by.send_replace(Answer { wants: vec!["r".into()], ..Answer::default() });
        while asked_for(&standby_hears.recv().await.unwrap()) == 0 {}
        changed.notify_one();
        assert!(standby_hears.recv().await.is_some());
        leads.send_replace(Answer::default());
        for _ in 0..2 {
            leader_hears.recv().await.unwrap();
        }
        while standby_hears.try_recv().is_ok() {}
        assert!(standby_hears.recv().await.is_some(), "who does not know says nothing against it");
        while let Ok(report) = leader_hears.try_recv() {
            assert_eq!(asked_for(&report), 0, "the leader has not asked");
        }

        leads.send_replace(Answer { standbys: Some(vec![]), ..Answer::default() });
        while standby_hears.try_recv().is_ok() {}
        for _ in 0..3 {
            leader_hears.recv().await.unwrap();
        }
        while standby_hears.try_recv().is_ok() {} // what was under way
        leader_hears.recv().await.unwrap();
        leader_hears.recv().await.unwrap();
        assert!(standby_hears.try_recv().is_err(), "it stands by no more");
        stop.cancel();
        reports.await.unwrap().unwrap();
    }
}
