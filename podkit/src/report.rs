//! Pushes a pod's reports to the operator: one a second, and at once when something changed.

use crate::{PodArgs, Task};
use lectern_contract::job::LiveJob;
use lectern_contract::report::{Answer, PATH, Report, Role};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often a report is sent when nothing changes. The operator takes three missed ones for a dead pod.
pub const EVERY: Duration = Duration::from_secs(1);

/// No report is sent sooner than this after the last one, however much changes.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// Jobs that the operator gives a pod in its answers, as often as it repeats them.
pub type Jobs = mpsc::UnboundedSender<LiveJob>;

/// Sends what `collect` returns until `stop`; `changed` sends it at once. Jobs that are answered go to `jobs`, where the pod takes any. An
/// operator that is away costs nothing but a log line when it goes and one when it returns.
pub fn run(
    pod: PodArgs,
    collect: Box<dyn Fn() -> Role + Send>,
    changed: Arc<Notify>,
    jobs: Option<Jobs>,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        let Some(base) = pod.operator_url.clone() else {
            stop.cancelled().await;
            return Ok(());
        };
        let url = format!("{}{PATH}", base.trim_end_matches('/'));
        let connection = || reqwest::Client::builder().timeout(EVERY).connect_timeout(EVERY).build().unwrap_or_default();
        let mut client = connection();
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
            let report = Report { pod: pod.pod_name.clone(), pool: pod.pool.clone(), role: collect() };
            let sent = match client.post(&url).json(&report).send().await.and_then(reqwest::Response::error_for_status) {
                Ok(answer) => hear(answer, jobs.as_ref()).await,
                Err(error) => Err(error),
            };
            if sent.is_err() {
                // A kept connection may lead to a stranger: one that was made before kube-proxy knew an endpoint leaves the
                // node as it is, and whoever has the Service's address out there may even answer.
                client = connection();
            }
            match (sent, reachable) {
                (Ok(_), false) => tracing::info!(url, "the operator takes reports again"),
                (Err(error), true) => tracing::warn!(url, %error, "the operator takes no reports; trying on"),
                _ => {
                    continue;
                }
            }
            reachable = !reachable;
        }
    })
}

/// Passes on the jobs in an answer.
async fn hear(answer: reqwest::Response, jobs: Option<&Jobs>) -> reqwest::Result<()> {
    if answer.status() != reqwest::StatusCode::OK {
        return Ok(());
    }
    let answer: Answer = answer.json().await?;
    for job in answer.jobs {
        // Who takes them goes only when the pod does.
        let _ = jobs.map(|jobs| jobs.send(job));
    }
    Ok(())
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
        let reports = tokio::spawn(run(pod, collect, Arc::default(), None, stop.clone()));

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
