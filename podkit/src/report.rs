//! Pushes a pod's reports to the operator: one a second, and at once when something changed.

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
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How often a report is sent when nothing changes. The operator takes three missed ones for a dead pod.
pub const EVERY: Duration = Duration::from_secs(1);

/// No report is sent sooner than this after the last one, however much changes.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// Jobs that the operator gives a pod in its answers, as often as it repeats them.
pub type Jobs = mpsc::UnboundedSender<LiveJob>;

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

/// Where the operator is.
struct Operator {
    /// `host:port`.
    address: String,
    peers: PeerTls,
    kept: Option<SendRequest<Full<Bytes>>>,
}

/// Sends what `collect` returns until `stop`; `changed` sends it at once. The operator is met as one of `peers`. Jobs that are answered go to
/// `jobs`, where the pod takes any. An operator that is away costs nothing but a log line when it goes and one when it returns.
pub fn run(
    pod: PodArgs,
    peers: PeerTls,
    collect: Box<dyn Fn() -> Role + Send>,
    changed: Arc<Notify>,
    jobs: Option<Jobs>,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        let Some(mut operator) = pod.operator_url.as_deref().and_then(|url| Operator::at(url, peers)) else {
            stop.cancelled().await;
            return Ok(());
        };
        let began = wall_now();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reachable = true;
        let mut last = Instant::now() - AT_MOST_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
                () = changed.notified() => tokio::time::sleep_until(last + AT_MOST_EVERY).await,
            }
            last = Instant::now();
            let report = Report { pod: pod.pod_name.clone(), pool: pod.pool.clone(), began, role: collect() };
            let sent = timeout(EVERY, operator.send(&report)).await.map_err(Refused::from).flatten();
            let address = &operator.address;
            match (&sent, reachable) {
                (Ok(_), false) => tracing::info!(address, "the operator takes reports again"),
                (Err(error), true) => tracing::warn!(address, %error, "the operator takes no reports; trying on"),
                _ => {}
            }
            reachable = sent.is_ok();
            match sent {
                Ok(answer) => {
                    for (job, jobs) in answer.jobs.into_iter().zip(jobs.iter().cycle()) {
                        let _ = jobs.send(job); // who takes them goes only when the pod does
                    }
                }
                // A kept connection may lead to a stranger: one that was made before kube-proxy knew an endpoint leaves the
                // node as it is, and whoever has the Service's address out there may even answer.
                Err(_) => operator.kept = None,
            }
        }
    })
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
        let collect = Box::new(|| Role::Ingest { runs: Vec::new(), draining: false, orphans: Vec::new() });
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
}
