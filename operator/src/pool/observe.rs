//! What runs for a pool.

use super::plan::{TRANSCODER, ingest_name, origin_name};
use super::pods::Seen as SeenPod;
use super::transcoder::{CLASS_LABEL, HASH_ANNOTATION, marks};
use crate::context::{Context, Error};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use lectern_contract::Ladder;
use lectern_contract::cost::Needs;
use lectern_crds::{DEFAULT_CLASS, POOL_LABEL, StreamPool};
use tokio::time::Instant;

/// What runs for a pool.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Ingest shards that are ready.
    pub shards: i32,
    /// Origins that are ready.
    pub origins: i32,
    /// The transcoder pods.
    pub pods: Vec<SeenPod>,
    /// LiveStreams that have a shard.
    pub streams: u32,
    /// The ladders of those that wait for a transcoder.
    pub waiting: Vec<Ladder>,
}

/// Looks.
pub async fn observe(pool: &StreamPool, ctx: &Context) -> Result<Seen, Error> {
    let name = pool.name_any();
    let (client, namespace, now) = (ctx.client(), ctx.namespace.as_str(), Instant::now());
    let shards: Option<StatefulSet> = Api::namespaced(client.clone(), namespace).get_opt(&ingest_name(&name)).await?;
    let origins: Option<Deployment> = Api::namespaced(client.clone(), namespace).get_opt(&origin_name(&name)).await?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let selector = format!("{POOL_LABEL}={name},app.kubernetes.io/component={TRANSCODER}");
    ctx.zones.look(&name, pool.spec.ingest.shards, ctx).await;
    let listed = pods.list(&ListParams::default().labels(&selector)).await?;
    Ok(Seen {
        shards: shards.and_then(|set| set.status?.ready_replicas).unwrap_or(0),
        origins: origins.and_then(|deployment| deployment.status?.ready_replicas).unwrap_or(0),
        pods: listed.items.iter().map(|pod| seen(pod, ctx.reports.load(&pod.name_any(), now))).collect(),
        streams: ctx.book.streams(&name),
        waiting: ctx.waiting.ladders(&name),
    })
}

/// Whether a pod's condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn seen(pod: &Pod, load: Option<(usize, Needs)>) -> SeenPod {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    SeenPod {
        name: pod.name_any(),
        uid: pod.uid(),
        hash: pod.annotations().get(HASH_ANNOTATION).cloned().unwrap_or_default(),
        is_going: pod.meta().deletion_timestamp.is_some(),
        is_over: matches!(phase, Some("Failed" | "Succeeded")),
        is_ready: is_ready(pod),
        jobs: load.map(|(jobs, _)| jobs),
        taken: load.map(|(_, taken)| taken).unwrap_or_default(),
        class: pod.labels().get(CLASS_LABEL).cloned().unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
        may_go: marks(true).iter().all(|(name, value)| pod.annotations().get(*name) == Some(value)),
    }
}
