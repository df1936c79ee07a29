//! Which pool a lecture suffers in: the default one, or one of its own whose ways to S3 and SQS can be spoilt.

use crate::http_proxy::HttpProxy;
use crate::lab::{Lab, STEP};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use lectern_cloud::testing::Backend;
use lectern_cloud::{BucketAt, Keys, Objects};
use lectern_contract::keys::RunPrefix;
use lectern_crds::{DEFAULT_POOL, Exposure};
use std::time::Duration;

/// The access key of the pods in the test cluster (`e2e/cluster/install`).
const KEY: &str = "test";
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
    ways: Option<Ways>,
}

/// How the pool's pods, and the operators on its behalf, reach S3 and SQS.
pub(super) struct Ways {
    pub s3: HttpProxy,
    pub sqs: HttpProxy,
}

impl Ground {
    pub fn default() -> Self {
        Self { pool: DEFAULT_POOL.to_owned(), ways: None }
    }

    /// A pool as the default one is, with ways of its own; it goes with the test.
    pub async fn of_its_own(lab: &Lab, seaweedfs: Option<&Backend>) -> Result<Self> {
        let s3_port = seaweedfs.map_or(lab.settings.s3_port, Backend::port);
        let ways = Ways { s3: HttpProxy::to(lab, s3_port).await?, sqs: HttpProxy::to(lab, lab.settings.s3_port).await? };
        let (pool, mut spec) = lab.small_pool("chaos").await?;
        (spec.ingest.shards, spec.transcoder.class.pods, spec.transcoder.class.slots) = (2, 2, 2);
        spec.queue.endpoint = Some(format!("http://{}", ways.sqs.address));
        spec.bucket.endpoint = Some(format!("http://{}", ways.s3.address));
        if seaweedfs.is_some() {
            spec.bucket.manifest_function_arn = None; // it tells of no objects
        }
        let (node, port) = (a_node(lab).await?, rand::random_range(32_100..32_700));
        let at = |port| Exposure { service_type: Some("NodePort".to_owned()), node_port: Some(port) };
        (spec.ingest.exposure, spec.origin.exposure) = (at(port), at(port + 1));
        spec.ingest.public_url = format!("rtmp://{node}:{port}/live");
        spec.origin.public_url = format!("http://{node}:{}", port + 1);
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, POOL).await?;
        Ok(Self { pool, ways: Some(ways) })
    }

    pub fn ways(&self) -> Result<&Ways> {
        self.ways.as_ref().context("the default pool's ways to S3 and SQS are not ours")
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

/// An address of a node: node ports are on all of them.
async fn a_node(lab: &Lab) -> Result<String> {
    let nodes = Api::<Node>::all(lab.client.clone()).list(&ListParams::default()).await?;
    let mut addresses = nodes.iter().flat_map(|node| node.status.iter().flat_map(|status| status.addresses.iter().flatten()));
    Ok(addresses.find(|address| address.type_ == "InternalIP").context("a node's address")?.address.clone())
}
