//! Which pool a lecture suffers in: the default one, or one of its own whose ways to S3 and SQS can be spoilt.

use super::{Fault, OnNode};
use crate::http_proxy::HttpProxy;
use crate::lab::{Elsewhere, Lab, STEP};
use crate::nodes::node_of;
use crate::settings::PLATFORM;
use crate::toxiproxy::Toxiproxy;
use crate::wait::{Look, eventually};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use lectern_cloud::testing::Backend;
use lectern_cloud::{BucketAt, Keys, Objects};
use lectern_contract::keys::RunPrefix;
use lectern_crds::{DEFAULT_POOL, Exposure};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The label that a node has its name in.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// The access key of the pods in the test cluster (`e2e/cluster/install`).
const KEY: &str = "test";
/// That of a pool of the suite's own, which MiniStack takes like any other.
const FIRST_KEY: &str = "first";
/// How long is listened for who asks.
const ASKED: Duration = Duration::from_secs(10);
/// A pool of two shards, two transcoders and an origin is there by then, and so is its first certificate.
const POOL: Duration = Duration::from_secs(2 * STEP.as_secs());

/// Who serves S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Store {
    /// MiniStack, in the cluster.
    Ministack,
    /// SeaweedFS, on this machine.
    Seaweedfs,
}

/// A pool.
pub(super) struct Ground {
    /// Its name.
    pub pool: String,
    /// The node that is struck, if one is, and what has to be there.
    pub node: Option<(String, OnNode)>,
    ways: Option<Ways>,
}

/// How the pool's pods, and the operators on its behalf, reach S3 and SQS.
pub(super) struct Ways {
    pub s3: HttpProxy,
    pub sqs: HttpProxy,
    /// Between the first and S3, and between the second and SQS.
    pub to_s3: Toxiproxy,
    pub to_sqs: Toxiproxy,
}

impl Ground {
    pub fn default() -> Self {
        Self { pool: DEFAULT_POOL.to_owned(), node: None, ways: None }
    }

    /// A pool as the default one is, with ways of its own; for a node's faults one whose transcoders alone are on some node. It goes with the test.
    pub async fn of_its_own(lab: &Lab, seaweedfs: Option<&Backend>, faults: &[Fault]) -> Result<Self> {
        let s3_port = seaweedfs.map_or(lab.settings.s3_port, Backend::port);
        let to = async |port: u16| Toxiproxy::to(&format!("127.0.0.1:{port}")).await;
        let (to_s3, to_sqs) = (to(s3_port).await?, to(lab.settings.s3_port).await?);
        let (s3, sqs) = (HttpProxy::to(lab, to_s3.address.port()).await?, HttpProxy::to(lab, to_sqs.address.port()).await?);
        let ways = Ways { s3, sqs, to_s3, to_sqs };
        let (pool, mut spec) = lab.small_pool("chaos").await?;
        (spec.ingest.shards, spec.transcoder.class.pods, spec.transcoder.class.slots) = (2, 2, 2);
        spec.queue.endpoint = Some(format!("http://{}", ways.sqs.address));
        spec.bucket.endpoint = Some(format!("http://{}", ways.s3.address));
        spec.credentials_secret = Some(pool.clone());
        if seaweedfs.is_some() {
            spec.bucket.manifest_function_arn = None; // it tells of no objects
        }
        let (node, port) = (a_node(lab).await?, rand::random_range(32_100..32_700));
        let at = |port| Exposure { service_type: Some("NodePort".to_owned()), node_port: Some(port) };
        (spec.ingest.exposure, spec.origin.exposure) = (at(port), at(port + 1));
        spec.ingest.public_url = format!("rtmp://{node}:{port}/live");
        spec.origin.public_url = format!("http://{node}:{}", port + 1);
        let (beside, struck) = nodes(lab).await?;
        let on_it = faults.iter().find_map(|fault| fault.needs_node());
        if matches!(on_it, Some(OnNode::All | OnNode::Origin)) || faults.contains(&Fault::EachOriginKilled) {
            spec.origin.replicas = 2;
        }
        let elsewhere = match on_it {
            Some(OnNode::Transcoder) => vec![&mut spec.ingest.scheduling, &mut spec.origin.scheduling],
            Some(OnNode::Origin) => vec![&mut spec.ingest.scheduling, &mut spec.transcoder.class.scheduling],
            Some(OnNode::All) | None => vec![],
        };
        for scheduling in elsewhere {
            scheduling.node_selector = BTreeMap::from([(HOSTNAME.to_owned(), beside.clone())]);
        }
        let ground = Self { pool, node: on_it.map(|what| (struck, what)), ways: Some(ways) };
        lab.goes_with_the_test(Elsewhere::Secret(ground.pool.clone()));
        // SeaweedFS knows no other, and MiniStack takes any.
        ground.has_keys(lab, if seaweedfs.is_some() { KEY } else { FIRST_KEY }).await?;
        lab.apply_pool(&ground.pool, &spec).await?;
        lab.pool_is_ready(&ground.pool, POOL).await?;
        Ok(ground)
    }

    /// Writes the pool's Secret.
    pub async fn has_keys(&self, lab: &Lab, id: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.pool},
            "stringData": {"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": KEY},
        });
        lab.secrets(PLATFORM).patch(&self.pool, &PatchParams::apply("lectern-e2e").force(), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Waits until nobody asks S3 or SQS with the pool's first key any more, and somebody does with this one.
    pub async fn is_asked_by(&self, id: &str) -> Result<()> {
        let ways = self.ways()?;
        eventually(&format!("requests by {id:?} and none by {FIRST_KEY:?}"), POOL, async || {
            let askers = [ways.s3.askers(), ways.sqs.askers()];
            // Heartbeats and uploads come more often than this.
            tokio::time::sleep(ASKED).await;
            let since = [ways.s3.askers(), ways.sqs.askers()];
            let is_it = since.iter().all(|keys| keys.contains(id) && !keys.contains(FIRST_KEY));
            Ok(if is_it { Look::Found(()) } else { Look::NotYet(format!("{askers:?}, {since:?}")) })
        })
        .await
    }

    pub fn ways(&self) -> Result<&Ways> {
        self.ways.as_ref().context("the default pool's ways to S3 and SQS are not ours")
    }

    pub fn node(&self) -> Result<&str> {
        self.node.as_ref().map(|(node, _)| &**node).context("no node is the lecture's own")
    }

    /// How many requests came to harm.
    pub fn spoilt(&self) -> u64 {
        self.ways.as_ref().map_or(0, |ways| ways.s3.spoilt() + ways.sqs.spoilt())
    }
}

/// A SeaweedFS that takes the pods' access key.
pub async fn seaweedfs() -> Result<Backend> {
    Ok(Backend::seaweedfs_for(keys()).await?)
}

/// What the Lambda does where S3 tells it of a run's end.
pub(super) async fn write_vod(seaweedfs: &Backend, bucket: &str, prefix: &RunPrefix) -> Result<()> {
    let at: BucketAt = seaweedfs.bucket_at(bucket);
    let objects = Objects::connect_with(&at, &keys()).await;
    lectern_manifest_lambda::handler::write_vod(&objects, prefix).await?;
    Ok(())
}

fn keys() -> Keys {
    Keys { id: KEY.to_owned(), secret: KEY.to_owned() }
}

/// Where MiniStack is, if it is in the cluster, or any other node; and another one.
async fn nodes(lab: &Lab) -> Result<(String, String)> {
    let (ministack, workers) =
        (Api::<Pod>::namespaced(lab.client.clone(), "ministack").get_opt("ministack-0").await?, lab.workers().await?);
    let beside = ministack.as_ref().map(node_of).transpose()?.or_else(|| workers.first().cloned()).context("a node")?;
    let other = workers.into_iter().find(|node| *node != beside).context("a second node")?;
    Ok((beside, other))
}

/// An address of a node: node ports are on all of them.
async fn a_node(lab: &Lab) -> Result<String> {
    let nodes = Api::<Node>::all(lab.client.clone()).list(&ListParams::default()).await?;
    let mut addresses = nodes.iter().flat_map(|node| node.status.iter().flat_map(|status| status.addresses.iter().flatten()));
    Ok(addresses.find(|address| address.type_ == "InternalIP").context("a node's address")?.address.clone())
}
