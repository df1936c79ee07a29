//! What can happen.

use super::{Stage, transcoder};
use crate::lab::STEP;
use crate::settings::PLATFORM;
use crate::shards::{on_node, placement};
use crate::{Shot, condition};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use lectern_crds::LiveStream;
use std::time::Duration;

/// How long what hangs, or is cut off, stays so.
const AWAY: Duration = Duration::from_secs(15);
/// How long a publisher stays away.
const DROPPED: Duration = Duration::from_secs(3);
/// Where a publisher that returns begins to count.
const RETURNED: u32 = 100_000;

/// A fault, or planned work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// `kubectl annotate … lectern.video/move=now`.
    Move,
    /// The transcoder's pod is deleted, as a drain does it.
    Drain,
    /// SIGKILL for the process that encodes.
    ChildKilled,
    /// SIGKILL for the pod's first process.
    SupervisorKilled,
    /// SIGSTOP for all of the transcoder's processes, and SIGCONT 15 s later.
    TranscoderFrozen,
    /// Nothing reaches the transcoder's pod and nothing leaves it, for 15 s.
    TranscoderCutOff,
    /// The transcoder's machine is gone without a word.
    TranscoderLost,
    /// The owning shard's machine is gone without a word; the publisher comes back.
    ShardLost,
    /// The origins are killed.
    OriginKilled,
    /// The operators are killed.
    OperatorKilled,
    /// The publisher's connection breaks, and it comes back 3 s later.
    PublisherDropped,
}

impl Fault {
    /// The longest that a player may show no new picture, in milliseconds; `None`: no bar.
    pub const fn longest_stall(self) -> Option<f64> {
        match self {
            Self::Move | Self::Drain => Some(200.0), // some pictures late on a busy machine, and no wait for data
            Self::ChildKilled => Some(2_000.0),      // a GOP
            Self::TranscoderLost => Some(6_000.0),
            _ => None,
        }
    }

    pub(super) async fn happens(self, stage: &mut Stage<'_>) -> Result<()> {
        let (lab, stream) = (stage.lab, stage.lecture.api().get(&stage.lecture.name).await?);
        let transcoder = transcoder(&stream).context("status.live.transcoder")?;
        match self {
            Self::Move => stage.lecture.annotate("lectern.video/move", "now").await,
            Self::Drain => lab.pods().delete(&transcoder, &DeleteParams::default()).await.map(drop).map_err(Into::into),
            Self::ChildKilled => signal(stage, &transcoder, "child", "KILL").await,
            Self::SupervisorKilled => signal(stage, &transcoder, "supervise", "KILL").await,
            Self::TranscoderFrozen => {
                signal(stage, &transcoder, "", "STOP").await?;
                tokio::time::sleep(AWAY).await;
                signal(stage, &transcoder, "", "CONT").await
            }
            Self::TranscoderCutOff => {
                lab.is_cut_off(&transcoder).await?;
                tokio::time::sleep(AWAY).await;
                lab.is_reached(&transcoder).await
            }
            Self::TranscoderLost => lab.dies(&transcoder).await,
            Self::ShardLost => {
                lab.dies(&placement(&stream)?.shard).await?;
                self.returns(stage).await
            }
            Self::OriginKilled => killed(stage, "origin").await,
            Self::OperatorKilled => killed(stage, "operator").await,
            Self::PublisherDropped => self.returns(stage).await,
        }
    }

    /// The publisher breaks off, and is there again some seconds later.
    async fn returns(self, stage: &mut Stage<'_>) -> Result<()> {
        stage.published.push(stage.publisher.take().context("a publisher")?.die()?);
        tokio::time::sleep(DROPPED).await;
        stage.publisher = Some(stage.lecture.publish(Shot { first: RETURNED, ..Shot::default() }).await?);
        Ok(())
    }

    /// What was held back goes on, and the stream is well again.
    pub(super) async fn is_mended(self, stage: &Stage<'_>) -> Result<()> {
        if self == Self::ShardLost {
            let stream = stage.lecture.api().get(&stage.lecture.name).await?;
            let here = placement(&stream)?.shard;
            for shard in stage.lab.shards().await?.into_iter().filter(|shard| *shard != here) {
                stage.lab.comes_back(&shard).await?;
            }
        }
        let well = |stream: &LiveStream| condition(stream, "Transcoding").is_some_and(|it| it.status == "True");
        stage.lecture.wait_for("Transcoding=True", STEP, well).await.map(drop)
    }
}

/// Deletes all pods of a component without a farewell.
async fn killed(stage: &Stage<'_>, component: &str) -> Result<()> {
    let labels = format!("app.kubernetes.io/component={component}");
    for pod in stage.lab.pods().list(&ListParams::default().labels(&labels)).await? {
        stage.lab.pods().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

/// Sends a signal to the processes of a pod whose command line has this word at its end.
async fn signal(stage: &Stage<'_>, pod: &str, word: &str, signal: &str) -> Result<()> {
    const SCRIPT: &str = r#"found=1; for p in /proc/[0-9]*; do
        tr '\0' '\n' < "$p/environ" 2>/dev/null | grep -qx "POD_NAME=$1" || continue
        tr '\0' ' ' < "$p/cmdline" | grep -q " $2" || continue
        kill -s "$3" "${p#/proc/}" && found=0
    done; exit $found"#;
    let found: Pod = stage.lab.pods().get(pod).await.with_context(|| format!("{PLATFORM}/{pod}"))?;
    on_node(&found, &["sh", "-c", SCRIPT, "signal", pod, word, signal]).await
}
