//! Who may report what, over real sockets.
#![allow(clippy::unwrap_used)]

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;

use ca::Ca;
use lectern_contract::WallMillis;
use lectern_contract::report::{PATH, Report, Role};
use lectern_operator::metrics::Metrics;
use lectern_operator::reports::{self, Reports};
use lectern_podkit::tls::{PeerRole, PeerTls};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let stranger = peer(&Ca::new(), PeerRole::Ingest, "default").await;
    assert_eq!(answer(&stranger, address, &shard_of("default")).await, None, "of another CA");
    let mut clear = tokio::net::TcpStream::connect(address).await.unwrap();
    clear.write_all(format!("POST {PATH} HTTP/1.1\r\nhost: o\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let _ = clear.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "in the clear");
    assert_eq!((heard.heard_of("default", now), heard.heard_of("other", now)), (1, 0));
    stop.cancel();
}
