//! Pushes a pod's reports to the operator: one a second, and at once when something changed.

use crate::PodArgs;
use crate::Task;
use lectern_contract::report::{PATH, Report, Role};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often a report is sent when nothing changes. The operator takes three missed ones for a dead pod.
pub const EVERY: Duration = Duration::from_secs(1);

/// No report is sent sooner than this after the last one, however much changes.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// Sends what `collect` returns until `stop`; `changed` sends it at once. An operator that is away costs nothing but a
/// log line when it goes and one when it returns.
pub fn run(pod: PodArgs, collect: Box<dyn Fn() -> Role + Send>, changed: Arc<Notify>, stop: CancellationToken) -> Task<Infallible> {
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
            let sent = client.post(&url).json(&report).send().await.and_then(reqwest::Response::error_for_status);
            if sent.is_err() {
                // Whoever is at the other end of a connection that is kept open need not be the operator any more (seen: a
                // pod that was told 404 for twelve minutes, while all others were heard).
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
