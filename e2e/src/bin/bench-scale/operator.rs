//! The operator as a child process.

use crate::control_plane::ControlPlane;
use anyhow::{Context as _, Result, bail};
use lectern_cloud::testing::Backend;
use lectern_e2e::process;
use lectern_e2e::settings::free_port;
use lectern_e2e::wait::{Look, asking_every};
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How often its metrics are asked, where when something happened matters.
const FINE: Duration = Duration::from_millis(20);
const LEAVES_WITHIN: Duration = Duration::from_secs(20);

/// A running operator. Dropping it kills it.
pub struct Operator {
    child: Child,
    pid: u32,
    reports: u16,
    health: u16,
    /// When it was started.
    pub started: Instant,
}

impl Operator {
    /// Starts one as the pod `pod`.
    pub async fn start(plane: &ControlPlane, cloud: &Backend, pod: &str) -> Result<Self> {
        Self::at(plane, cloud, pod, free_port()?, free_port()?)
    }

    /// Starts another one where this one, which must have ended, could be reached.
    pub fn again(&self, plane: &ControlPlane, cloud: &Backend, pod: &str) -> Result<Self> {
        Self::at(plane, cloud, pod, self.reports, self.health)
    }

    fn at(plane: &ControlPlane, cloud: &Backend, pod: &str, reports: u16, health: u16) -> Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(plane.folder.join("operator.log"))?;
        let mut command = Command::new(beside_this_program("lectern-operator")?);
        command
            .env("KUBECONFIG", plane.operators_kubeconfig())
            .env("MALLOC_ARENA_MAX", "1") // as in the chart
            .envs(cloud.environment())
            .envs([("POD_NAME", pod), ("POD_NAMESPACE", crate::platform::NAMESPACE)])
            .env("LECTERN_REPORT_LISTEN", format!("127.0.0.1:{reports}"))
            .env("LECTERN_HEALTH_LISTEN", format!("127.0.0.1:{health}"))
            .env("LECTERN_OPERATOR_TLS_DIR", plane.folder.join("operator-tls"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().context("the operator cannot be started")?;
        let pid = child.id().context("the operator has ended")?;
        Ok(Self { child, pid, reports, health, started: Instant::now() })
    }

    /// Where pods report to.
    pub fn reports_to(&self) -> String {
        format!("https://127.0.0.1:{}", self.reports)
    }

    /// Waits until it leads and has looked at every LiveStream; how long after its start that was.
    pub async fn in_sync(&self, within: Duration) -> Result<Duration> {
        self.until("the operator is in sync", within, |metrics| value(metrics, "lectern_operator_in_sync") == Some(1.0)).await?;
        Ok(self.started.elapsed())
    }

    /// Waits until its metrics say so.
    pub async fn until(&self, what: &str, within: Duration, holds: impl Fn(&str) -> bool) -> Result<()> {
        asking_every(FINE, what, within, async || {
            let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.health)).await?.text().await?;
            Ok(if holds(&metrics) { Look::Found(()) } else { Look::NotYet(metrics) })
        })
        .await
    }

    /// Resident memory now, and the most that it ever was, in bytes.
    pub fn memory(&self) -> Result<(u64, u64)> {
        process::resident_bytes(self.pid)
    }

    /// CPU seconds so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.pid)
    }

    /// As a node that fails does it.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// As a rollout does it.
    pub async fn stop(&mut self) -> Result<()> {
        StdCommand::new("kill").args(["-TERM", &self.pid.to_string()]).status()?;
        match tokio::time::timeout(LEAVES_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => bail!("the operator did not end well: {ended:?}"),
            Err(_) => bail!("the operator did not end within {LEAVES_WITHIN:?}"),
        }
    }
}

/// A gauge or counter without labels.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { bail!("{} is not built", path.display()) }
}
