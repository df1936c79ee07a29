//! Who may report what, over real sockets.
#![allow(clippy::unwrap_used)]

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;

use ca::Ca;
use lectern_contract::cost::{Budget, Class, Needs};
use lectern_contract::job::LiveJob;
use lectern_contract::report::{PATH, Report, Role, TranscoderRun, TranscoderState};
use lectern_contract::{Epoch, RunId, WallMillis};
use lectern_operator::leader::Sighting;
use lectern_operator::metrics::Metrics;
use lectern_operator::reports::{self, Duty, Reports};
use lectern_operator::standby;
use lectern_podkit::tls::{PeerRole, PeerTls};
use lectern_podkit::{PodArgs, report};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

async fn peer(ca: &Ca, role: PeerRole, pool: &str) -> PeerTls {
    PeerTls::load(&ca.folder(&role.dns_name(pool)), pool).await.unwrap()
}

fn shard_of(pool: &str) -> Report {
    Report {
        pod: "shard-0".into(),
        pool: pool.into(),
        began: WallMillis(1),
        role: Role::Ingest { runs: vec![], draining: false, orphans: vec![] },
    }
}

/// The status of the answer; `None` where there is none.
async fn answer(peers: &PeerTls, address: SocketAddr, report: &Report) -> Option<u16> {
    let mut socket = peers.connect(&address.to_string(), PeerRole::Operator).await.ok()?;
    let body = serde_json::to_string(report).unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: o\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.ok()?;
    socket.flush().await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn a_pod_reports_for_itself_and_nobody_else() {
    let (ca, stop) = (Ca::new(), CancellationToken::new());
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (heard, _changes) = Reports::new();
    let operator = peer(&ca, PeerRole::Operator, "").await;
    tokio::spawn(reports::serve(address, operator, heard.clone(), Metrics::default(), stop.clone()));
    let shard = peer(&ca, PeerRole::Ingest, "default").await;
    let mut first = answer(&shard, address, &shard_of("default")).await;
    while first.is_none() {
        tokio::task::yield_now().await; // it does not listen yet
        first = answer(&shard, address, &shard_of("default")).await;
    }
    assert_eq!(first, Some(204));
    let now = tokio::time::Instant::now();
    assert_eq!(heard.heard_of("default", now), 1);

    assert_eq!(answer(&shard, address, &shard_of("other")).await, Some(403), "of another pool");
    let transcoder = peer(&ca, PeerRole::Transcoder, "default").await;
    assert_eq!(answer(&transcoder, address, &shard_of("default")).await, Some(403), "a transcoder is no shard");
    let origin = peer(&ca, PeerRole::Origin, "default").await;
    assert_eq!(answer(&origin, address, &shard_of("default")).await, Some(403), "an origin is no shard");
    assert_eq!(answer(&origin, address, &Report { pod: "origin-0".into(), role: Role::Origin, ..shard_of("default") }).await, Some(204));
    let stranger = peer(&Ca::new(), PeerRole::Ingest, "default").await;
    assert_eq!(answer(&stranger, address, &shard_of("default")).await, None, "of another CA");
    let mut clear = tokio::net::TcpStream::connect(address).await.unwrap();
    clear.write_all(format!("POST {PATH} HTTP/1.1\r\nhost: o\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = clear.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "in the clear");
    assert_eq!((heard.heard_of("default", now), heard.heard_of("other", now)), (2, 0));
    stop.cancel();
}

/// An operator that takes reports at some address until `stop`.
async fn operator(ca: &Ca, stop: &CancellationToken) -> (Arc<Reports>, SocketAddr, UnboundedReceiver<reports::Change>) {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (heard, changes) = Reports::new();
    let peers = peer(ca, PeerRole::Operator, "").await;
    tokio::spawn(reports::serve(address, peers, heard.clone(), Metrics::default(), stop.clone()));
    (heard, address, changes)
}

fn job() -> LiveJob {
    let fields = json!({
        "stream": { "namespace": "school", "name": "algebra" }, "title": "", "run": "r", "attempt": 1, "anchor": 0, "feed": "",
        "ladder": { "video": [], "audio": [] }, "segmentDuration": 2000, "prefix": "00/school/algebra/r", "idleAfterMs": 1,
    });
    serde_json::from_value(fields).unwrap()
}

/// A transcoder that has `has` in hand and reports to `leader` until `stop`; the jobs that it is given.
async fn transcoder(ca: &Ca, name: &str, has: Option<LiveJob>, leader: SocketAddr, stop: &CancellationToken) -> UnboundedReceiver<LiveJob> {
    let pod = PodArgs {
        pod_name: name.into(),
        pod_ip: [127, 0, 0, 1].into(),
        pod_namespace: "lectern".into(),
        pool: "default".into(),
        operator_url: Some(format!("https://{leader}")),
    };
    let collect = move |wants: &[RunId]| {
        let state = TranscoderState::Starting { waiting_for: None };
        let run = |job: &LiveJob| TranscoderRun {
            stream: job.stream.clone(),
            run: job.run.clone(),
            attempt: job.attempt,
            epoch: Epoch(1),
            state: state.clone(),
        };
        Role::Transcoder {
            slots: 1,
            class: Class::Software,
            budget: Budget::default(),
            taken: Needs::default(),
            runs: has.iter().map(run).collect(),
            jobs: has.iter().filter(|job| wants.contains(&job.run)).cloned().collect(),
        }
    };
    let (give, given) = mpsc::unbounded_channel();
    let answers = report::Answers { jobs: give, taken: watch::Sender::new(None) };
    let peers = peer(ca, PeerRole::Transcoder, "default").await;
    tokio::spawn(report::run(pod, peers, Arc::new(collect), Arc::default(), Some(answers), stop.clone()));
    given
}

#[tokio::test]
async fn a_leader_and_a_transcoder_that_die_together_are_stood_in_for() {
    let (ca, node, rest) = (Ca::new(), CancellationToken::new(), CancellationToken::new());
    let (leads, leader, _changes) = operator(&ca, &node).await;
    let (stands_by, standby, changes) = operator(&ca, &rest).await;
    stands_by.turn_to(Duty::StandBy);
    leads.turn_to(Duty::Lead { standbys: Some(vec![standby]) });
    let (lease, metrics) = (watch::Sender::new(None), Metrics::default());
    let _dies = transcoder(&ca, "t-0", Some(job()), leader, &node).await;
    let mut lives = transcoder(&ca, "t-1", None, leader, &rest).await;
    let knows_all = async {
        while stands_by.missed(Instant::now() + reports::STALE).is_empty() || stands_by.load("t-1", Instant::now()).is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), knows_all).await.expect("it hears of both, and of the job");
    node.cancel();
    let (sees, since) = (lease.subscribe(), Instant::now());
    let looks = async {
        loop {
            lease.send_replace(Some(Sighting { since, at: Instant::now() }));
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        _ = standby::run(&stands_by, changes, sees, &metrics, &rest) => panic!("it leads"),
        () = looks => {}
        given = lives.recv() => assert_eq!(given, Some(job())),
    }
    rest.cancel();
}
