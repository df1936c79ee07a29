//! A port of one pod on this machine: for what a Service would send to any of several pods, or to none.

use crate::lab::STEP;
use crate::settings::{self, PLATFORM, Settings};
use anyhow::{Context as _, Result};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running `kubectl port-forward`; it ends when dropped, with all its connections.
pub struct PortForward {
    _kubectl: Child,
    /// On 127.0.0.1.
    pub port: u16,
}

impl PortForward {
    /// Where a publisher comes to the shard that this leads to.
    pub fn rtmp(&self) -> String {
        format!("rtmp://127.0.0.1:{}/live", self.port)
    }

    /// To a port of a pod of the platform.
    pub async fn to(settings: &Settings, pod: &str, port: u16) -> Result<Self> {
        let mut kubectl = Command::new(settings::kubectl()?);
        kubectl.arg("--kubeconfig").arg(&settings.kubeconfig).args(["--namespace", PLATFORM, "port-forward", "--address", "127.0.0.1"]);
        kubectl.args([&format!("pod/{pod}"), &format!(":{port}")]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut kubectl = kubectl.spawn().context("kubectl cannot be started; make cluster")?;
        let mut words = BufReader::new(kubectl.stdout.take().context("kubectl's words")?).lines();
        // Forwarding from 127.0.0.1:40123 -> 1935
        let first = tokio::time::timeout(STEP, words.next_line()).await.with_context(|| format!("a port to {pod}"))??;
        let first = first.with_context(|| format!("kubectl ended before it had a port to {pod}"))?;
        let port = first.split([':', ' ']).find_map(|part| part.parse().ok()).with_context(|| format!("no port in {first:?}"))?;
        // It tells of every connection, and would end where nobody reads that.
        tokio::spawn(async move { while words.next_line().await.is_ok_and(|line| line.is_some()) {} });
        Ok(Self { _kubectl: kubectl, port })
    }
}
