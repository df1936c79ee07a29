//! How faults are brought about, and how they pass.

use super::fault::DROPPED;
use super::{Fault, JUMPS, MOVE, Stage, transcoder};
use crate::condition;
use crate::http_proxy::Trouble;
use crate::lab::{Lab, STEP};
use crate::network::address_of;
use crate::shards::{is_ready, placement};
use crate::wait::{Look, eventually};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use lectern_contract::keys::RunPrefix;
use lectern_crds::{LiveStream, POOL_LABEL};
use std::time::Duration;

/// The ports of publishers and of players, in the pods.
const RTMP: u16 = 1935;
const HTTP: u16 = 8080;
/// The access key that follows a pool's first.
const NEXT_KEY: &str = "next";
/// Of a thousand packets on a lossy link.
const LOSS: u32 = 50;
/// What a slow server adds.
const SLOW: Duration = Duration::from_secs(2);

/// Whom faults strike: those that had the stream when the first one came.
#[derive(Debug, Clone)]
pub(super) struct Target {
    transcoder: String,
    /// The pool's others.
    transcoders: Vec<String>,
    shard: String,
    /// The pool's others.
    shards: Vec<String>,
    origins: Vec<String>,
    operators: Vec<String>,
    gateways: Vec<String>,
}

impl Target {
    pub async fn of(stage: &Stage<'_>) -> Result<Self> {
        let stream = stage.lecture.api().get(&stage.lecture.name).await?;
        let (transcoder, shard) = (transcoder(&stream).context("status.live.transcoder")?, placement(&stream)?.shard);
        let pool = &stage.ground.pool;
        Ok(Self {
            transcoders: others(stage.lab, "transcoder", pool, &transcoder).await?,
            transcoder,
            shards: others(stage.lab, "ingest", pool, &shard).await?,
            shard,
            origins: pods(stage.lab, "origin", Some(pool)).await?,
            operators: pods(stage.lab, "operator", None).await?,
            gateways: pods(stage.lab, "gateway", None).await?,
        })
    }

    /// All of them.
    pub fn pods(&self) -> Vec<String> {
        let owners = [&self.transcoder, &self.shard].into_iter();
        let others = [&self.transcoders, &self.shards, &self.origins, &self.operators, &self.gateways].into_iter().flatten();
        owners.chain(others).cloned().collect()
    }

    /// Those between whom no packet passes: all of the first, from the second.
    fn parted(&self, fault: Fault) -> Option<(Vec<String>, &[String])> {
        let one = |name: &String| vec![name.clone()];
        match fault {
            Fault::PublisherFromShard => Some((self.shards.iter().chain([&self.shard]).cloned().collect(), &[])),
            Fault::PlayerFromOrigin => Some((self.origins.clone(), &[])),
            Fault::ShardFromShard => Some((self.shards.clone(), std::slice::from_ref(&self.shard))),
            Fault::ShardFromTranscoder => Some((one(&self.transcoder), std::slice::from_ref(&self.shard))),
            Fault::TranscoderFromOrigin => Some((one(&self.transcoder), &self.origins)),
            // At the operators' end, because a pod sees its Service's address and not theirs.
            Fault::TranscoderFromOperator => Some((self.operators.clone(), std::slice::from_ref(&self.transcoder))),
            Fault::ShardFromOperator => Some((self.operators.clone(), std::slice::from_ref(&self.shard))),
            Fault::OriginFromOperator => Some((self.operators.clone(), &self.origins)),
            Fault::ShardFromApi | Fault::ShardFromS3 => Some((one(&self.shard), &[])),
            Fault::GatewayFromApi => Some((self.gateways.clone(), &[])),
            Fault::TranscoderFromTranscoder => Some((one(&self.transcoder), &self.transcoders)),
            Fault::TranscoderFromS3 | Fault::TranscoderFromSqs => Some((one(&self.transcoder), &[])),
            Fault::OriginFromS3 => Some((self.origins.clone(), &[])),
            Fault::OperatorFromApi | Fault::OperatorFromS3 | Fault::OperatorFromSqs => Some((self.operators.clone(), &[])),
            _ => None,
        }
    }

    /// Between whom packets are lost: all of the first, from the second.
    fn lossy(&self, fault: Fault) -> Option<(&[String], &[String])> {
        let transcoder = std::slice::from_ref(&self.transcoder);
        match fault {
            Fault::FeedLossy => Some((transcoder, std::slice::from_ref(&self.shard))),
            Fault::PushLossy => Some((transcoder, &self.origins)),
            _ => None,
        }
    }

    /// Who loses packets from and to whoever comes to this port of theirs.
    fn lossy_at(&self, fault: Fault) -> Option<(Vec<String>, u16)> {
        match fault {
            Fault::PublisherLossy => Some((self.shards.iter().chain([&self.shard]).cloned().collect(), RTMP)),
            Fault::PlayerLossy => Some((self.origins.clone(), HTTP)),
            _ => None,
        }
    }

    /// Whose processes hang, and a word of the command lines of those that do.
    fn frozen(&self, fault: Fault) -> Option<(&[String], &'static str)> {
        match fault {
            Fault::ChildFrozen => Some((std::slice::from_ref(&self.transcoder), "child")),
            Fault::SupervisorFrozen => Some((std::slice::from_ref(&self.transcoder), "supervise")),
            Fault::TranscoderFrozen => Some((std::slice::from_ref(&self.transcoder), "")),
            Fault::ShardFrozen => Some((std::slice::from_ref(&self.shard), "")),
            Fault::OriginFrozen => Some((&self.origins, "")),
            Fault::OperatorFrozen => Some((&self.operators, "")),
            _ => None,
        }
    }
}

impl Fault {
    /// The trouble that S3 and SQS give.
    pub(super) const fn troubles(self) -> Option<(Trouble, Trouble)> {
        match self {
            Self::S3Away | Self::S3LongAway => Some((Trouble::Away, Trouble::None)),
            Self::S3Slow => Some((Trouble::Slow(SLOW), Trouble::None)),
            Self::S3Errors => Some((Trouble::Errors, Trouble::None)),
            Self::S3Full => Some((Trouble::Full, Trouble::None)),
            Self::S3Expired => Some((Trouble::Expired, Trouble::None)),
            Self::S3AnswersLost => Some((Trouble::AnswersLost, Trouble::None)),
            Self::SqsAway => Some((Trouble::None, Trouble::Away)),
            Self::SqsSlow => Some((Trouble::None, Trouble::Slow(SLOW))),
            Self::SqsErrors => Some((Trouble::None, Trouble::Errors)),
            Self::SqsExpired => Some((Trouble::None, Trouble::Expired)),
            Self::SqsAnswersLost => Some((Trouble::None, Trouble::AnswersLost)),
            Self::S3AndSqsAway => Some((Trouble::Away, Trouble::Away)),
            _ => None,
        }
    }

    pub(super) async fn strikes(self, stage: &mut Stage<'_>, target: &Target, prefix: &RunPrefix) -> Result<()> {
        let lab = stage.lab;
        if let Some((s3, sqs)) = self.troubles() {
            let ways = stage.ground.ways()?;
            ways.s3.suffers(s3);
            ways.sqs.suffers(sqs);
        }
        if let Some((names, word)) = target.frozen(self) {
            for name in names {
                signal(lab, name, word, "STOP").await?;
            }
        }
        if let Some((names, others)) = target.parted(self) {
            for name in &names {
                self.parts(stage, name, others).await?;
            }
        }
        if let Some((names, port)) = target.lossy_at(self) {
            for name in &names {
                lab.is_lossy_at(name, port, LOSS).await?;
            }
        }
        if let Self::S3Lossy = self {
            let way = stage.ground.ways()?.s3.address;
            lab.is_lossy(&target.transcoder, way.ip(), Some(way.port()), LOSS).await?;
        }
        if let Some((names, others)) = target.lossy(self) {
            for name in names {
                for other in others {
                    lab.is_lossy(name, address_of(&lab.pods().get(other).await?)?, None, LOSS).await?;
                }
            }
        }
        if let Some((way, bad)) = self.link() {
            for link in stage.links(way)? {
                link.suffers(bad).await?;
            }
        }
        match self {
            Self::NodePaused => lab.node_stands_still(stage.ground.node()?).await,
            Self::NodeKilled | Self::LeadersNodeKilled | Self::OriginsNodeKilled => lab.node_dies(stage.ground.node()?).await,
            Self::WholeNodeKilled => {
                lab.node_dies(stage.ground.node()?).await?;
                stage.publisher_goes()?;
                tokio::time::sleep(DROPPED).await;
                stage.publisher = Some(stage.publisher_returns().await?);
                Ok(())
            }
            Self::PublisherDoubled => stage.publisher_is_doubled().await,
            Self::KeysChanged => stage.ground.has_keys(lab, NEXT_KEY).await,
            Self::ChartUpgraded => Box::pin(stage.upgrade.as_ref().context("an upgrade")?.happens((prefix, &stage.lecture))).await,
            Self::Nothing => Ok(()),
            Self::Move => stage.lecture.annotate(MOVE, "now").await,
            Self::Drain => drained(lab, &target.transcoder).await,
            Self::ShardDrain => drained(lab, &target.shard).await,
            Self::ShardsReplaced => {
                for shard in &target.shards {
                    let old = lab.pods().get(shard).await?.uid();
                    drained(lab, shard).await?;
                    lab.is_replaced(shard, old.as_deref()).await?;
                }
                drained(lab, &target.shard).await
            }
            Self::ChildKilled => signal(lab, &target.transcoder, "child", "KILL").await,
            Self::SupervisorKilled => signal(lab, &target.transcoder, "supervise", "KILL").await,
            Self::TranscoderCutOff => lab.is_cut_off(&target.transcoder).await,
            Self::TranscoderLost => lab.dies(&target.transcoder).await,
            Self::ShardKilled => {
                signal(lab, &target.shard, "", "KILL").await?;
                stage.publisher_goes()
            }
            Self::ShardLost => {
                lab.dies(&target.shard).await?;
                stage.publisher_goes()
            }
            Self::PublisherDropped => stage.publisher_goes(),
            Self::OriginKilled => killed(lab, &target.origins).await,
            Self::EachOriginKilled => each_killed(lab, &target.origins, &stage.ground.pool).await,
            Self::OperatorKilled => killed(lab, &target.operators).await,
            _ => Ok(()),
        }
    }

    /// No packet passes between a pod and others, or its way to S3, SQS or the API, or who comes to a port of its.
    async fn parts(self, stage: &Stage<'_>, pod: &str, others: &[String]) -> Result<()> {
        match self {
            Self::PublisherFromShard => stage.lab.is_deaf_at(pod, RTMP).await?,
            Self::PlayerFromOrigin => stage.lab.is_deaf_at(pod, HTTP).await?,
            _ => {}
        }
        let way = match self {
            Self::ShardFromS3 | Self::TranscoderFromS3 | Self::OriginFromS3 | Self::OperatorFromS3 => Some(stage.ground.ways()?.s3.address),
            Self::TranscoderFromSqs | Self::OperatorFromSqs => Some(stage.ground.ways()?.sqs.address),
            Self::OperatorFromApi | Self::ShardFromApi | Self::GatewayFromApi => Some(stage.lab.api_of_pods().await?),
            _ => None,
        };
        if let Some(way) = way {
            stage.lab.is_parted(pod, way.ip(), Some(way.port())).await?;
        }
        for other in others {
            stage.lab.is_parted(pod, address_of(&stage.lab.pods().get(other).await?)?, None).await?;
        }
        Ok(())
    }

    pub(super) async fn passes(self, stage: &mut Stage<'_>, target: &Target) -> Result<()> {
        if self.troubles().is_some() {
            let ways = stage.ground.ways()?;
            ways.s3.suffers(Trouble::None);
            ways.sqs.suffers(Trouble::None);
        }
        for name in target.frozen(self).map_or(&[][..], |(names, _)| names) {
            let word = target.frozen(self).map_or("", |(_, word)| word);
            // A kubelet may have restarted what did not answer it.
            signal(stage.lab, name, word, "CONT").await.ok();
        }
        if let Some((way, _)) = self.link() {
            for link in stage.links(way)? {
                link.is_well().await?;
            }
        }
        let lossy = target.lossy(self).map_or(&[][..], |(names, _)| names);
        let lossy_at = target.lossy_at(self).map_or_else(Vec::new, |(names, _)| names);
        for name in target.parted(self).map_or_else(Vec::new, |(names, _)| names).iter().chain(lossy).chain(&lossy_at) {
            stage.lab.passes_all(name).await.ok(); // and may have been deleted meanwhile
        }
        match self {
            Self::TranscoderCutOff | Self::S3Lossy => stage.lab.passes_all(&target.transcoder).await,
            Self::ShardKilled | Self::ShardLost | Self::PublisherDropped => {
                stage.publisher = Some(stage.publisher_returns().await?);
                Ok(())
            }
            Self::NodePaused => stage.lab.node_goes_on(stage.ground.node()?).await,
            _ if self.needs_node().is_some() => stage.lab.node_starts(stage.ground.node()?).await,
            _ => Ok(()),
        }
    }

    /// What was held back goes on, and the stream is well again.
    pub(super) async fn is_mended(self, stage: &Stage<'_>, target: &Target) -> Result<()> {
        match self {
            Self::ShardLost => stage.lab.comes_back(&target.shard).await?,
            Self::TranscoderCutOff => stage.lab.is_replaced(&target.transcoder, None).await?,
            Self::KeysChanged => stage.ground.is_asked_by(NEXT_KEY).await?,
            _ if self.needs_node().is_some() => stage.lab.node_is_ready(stage.ground.node()?).await?,
            Self::PublisherJumps => stage.publishes_on_after(JUMPS).await?,
            _ => {}
        }
        let well = |stream: &LiveStream| condition(stream, "Transcoding").is_some_and(|it| it.status == "True");
        stage.lecture.wait_for("Transcoding=True", STEP, well).await.map(drop)
    }
}

/// The pool's pods of a component but for the owner.
pub(super) async fn others(lab: &Lab, component: &str, pool: &str, owner: &str) -> Result<Vec<String>> {
    let all = pods(lab, component, Some(pool)).await?;
    Ok(all.into_iter().filter(|name| name != owner).collect())
}

/// The names of a component's pods, of one pool if it has pools.
pub(super) async fn pods(lab: &Lab, component: &str, pool: Option<&str>) -> Result<Vec<String>> {
    let of_pool = pool.map(|pool| format!(",{POOL_LABEL}={pool}")).unwrap_or_default();
    let labels = format!("app.kubernetes.io/component={component}{of_pool}");
    Ok(lab.pods().list(&ListParams::default().labels(&labels)).await?.iter().map(Pod::name_any).collect())
}

/// Deletes a pod, which has its time to go.
pub(super) async fn drained(lab: &Lab, name: &str) -> Result<()> {
    lab.pods().delete(name, &DeleteParams::default()).await.map(drop).map_err(Into::into)
}

/// SIGKILL for all that pods run, which are deleted before they are started again: a deleted pod alone would be told, and have two seconds.
async fn killed(lab: &Lab, names: &[String]) -> Result<()> {
    for name in names {
        signal(lab, name, "", "KILL").await?;
        lab.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

/// The same with a pool's origins, each once there are as many as before: the player is at one of them, and nobody knows at which.
async fn each_killed(lab: &Lab, names: &[String], pool: &str) -> Result<()> {
    let labels = format!("app.kubernetes.io/component=origin,{POOL_LABEL}={pool}");
    for name in names {
        killed(lab, std::slice::from_ref(name)).await?;
        eventually("the origins are complete again", STEP, async || {
            let ready = lab.pods().list(&ListParams::default().labels(&labels)).await?.iter().filter(|pod| is_ready(pod)).count();
            Ok(if ready == names.len() { Look::Found(()) } else { Look::NotYet(format!("{ready} of {} are ready", names.len())) })
        })
        .await?;
    }
    Ok(())
}

/// Sends a signal to the processes of a pod whose command line has this word at its end.
async fn signal(lab: &Lab, pod: &str, word: &str, signal: &str) -> Result<()> {
    const SCRIPT: &str = r#"found=1; for p in /proc/[0-9]*; do
        tr '\0' '\n' < "$p/environ" 2>/dev/null | grep -qx "POD_NAME=$1" || continue
        [ -z "$2" ] || tr '\0' ' ' < "$p/cmdline" | grep -q " $2" || continue
        kill -s "$3" "${p#/proc/}" && found=0
    done; exit $found"#;
    let found = lab.pods().get(pod).await?;
    lab.on_node(&found, &["sh", "-c", SCRIPT, "signal", pod, word, signal]).await
}
