//! The ingest shards of the default pool as pods: what they count, how they go, how they come back.

use crate::lab::{Elsewhere, Lab, STEP};
use crate::settings::PLATFORM;
use crate::wait::{self, Look, eventually};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use lectern_contract::RunId;
use lectern_crds::{DEFAULT_POOL, LiveStream, POOL_LABEL, PlacementStatus, Route, RouteSlice};
use serde_json::json;
use std::collections::BTreeMap;

/// On a pod that may not go.
const HELD: &str = "lectern.video/e2e";

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Where a stream is.
pub fn placement(stream: &LiveStream) -> Result<PlacementStatus> {
    stream.status.as_ref().and_then(|status| status.placement.clone()).context("status.placement")
}

impl Lab {
    /// The platform's pods.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), PLATFORM)
    }

    /// The operators that lead: one, but for moments.
    pub async fn leaders(&self) -> Result<Vec<Pod>> {
        Ok(self.pods().list(&ListParams::default().labels("lectern.video/leader=true")).await?.items)
    }

    /// Uid and restarts of the pods that a selector finds, by name.
    pub async fn lives(&self, selector: &str) -> Result<BTreeMap<String, (String, i32)>> {
        let found = self.pods().list(&ListParams::default().labels(selector)).await?;
        let life = |pod: &Pod| {
            let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            (pod.uid().unwrap_or_default(), containers.map(|container| container.restart_count).sum())
        };
        Ok(found.iter().map(|pod| (pod.name_any(), life(pod))).collect())
    }

    /// The same, once none of them is coming or going any more: the release may have been installed a moment ago.
    pub async fn steady(&self, selector: &str) -> Result<BTreeMap<String, (String, i32)>> {
        eventually("the pool's pods stay", STEP, async || {
            let pods = self.pods().list(&ListParams::default().labels(selector)).await?;
            let moving: Vec<_> =
                pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() || !is_ready(pod)).map(Pod::name_any).collect();
            Ok(if moving.is_empty() { Look::Found(()) } else { Look::NotYet(format!("{moving:?} come or go")) })
        })
        .await?;
        self.lives(selector).await
    }

    /// Makes a node take no pods before [`Lab::is_open`] or the test's end.
    pub async fn is_cordoned(&self, node: &str) -> Result<()> {
        self.goes_with_the_test(Elsewhere::CordonedNode(node.to_owned()));
        self.cordon(node, true).await.with_context(|| format!("cordoning {node}"))
    }

    /// The node takes pods again.
    pub async fn is_open(&self, node: &str) -> Result<()> {
        self.cordon(node, false).await.with_context(|| format!("uncordoning {node}"))
    }

    pub(crate) async fn cordon(&self, node: &str, closed: bool) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": closed}}));
        Api::<Node>::all(self.client.clone()).patch(node, &PatchParams::default(), &patch).await.map(drop)
    }

    /// `kubectl drain` of the platform's pods of a node, but for those of other tests' pools: each is evicted, and asked again where a budget says not yet; returns
    /// their names.
    pub async fn is_evicted(&self, node: &str) -> Result<Vec<String>> {
        let there = self.pods().list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
        let ours = there.iter().filter(|pod| pod.labels().get(POOL_LABEL).is_none_or(|pool| pool == DEFAULT_POOL));
        let names: Vec<String> = ours.map(Pod::name_any).collect();
        for name in &names {
            eventually(&format!("{name} is evicted"), STEP, async || match self.pods().evict(name, &EvictParams::default()).await {
                Ok(_) => Ok(Look::Found(())),
                Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Look::Found(())),
                Err(kube::Error::Api(answer)) if answer.code == 429 => Ok(Look::NotYet(answer.message.clone())),
                Err(other) => Err(other.into()),
            })
            .await?;
        }
        Ok(names)
    }

    /// The names of the default pool's shards.
    pub async fn shards(&self) -> Result<Vec<String>> {
        let labels = format!("{}={DEFAULT_POOL},app.kubernetes.io/component=ingest", lectern_crds::POOL_LABEL);
        let found = self.pods().list(&ListParams::default().labels(&labels)).await?;
        Ok(found.iter().map(Pod::name_any).collect())
    }

    /// What a shard counts now: the sum of a metric over its labels, 0 before it has counted anything.
    pub async fn counted(&self, shard: &str, metric: &str) -> Result<f64> {
        let path = format!("/api/v1/namespaces/{PLATFORM}/pods/{shard}:9090/proxy/metrics");
        let text = self.client.request_text(http::Request::get(path).body(Vec::new())?).await.with_context(|| shard.to_owned())?;
        let values = text.lines().filter_map(|line| line.strip_prefix(metric)).filter(|rest| rest.starts_with([' ', '{']));
        values.map(|rest| Ok(rest.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }

    /// Waits until a shard counts so many.
    pub async fn counts(&self, shard: &str, metric: &str, wanted: f64) -> Result<()> {
        eventually(&format!("{metric} of {shard} is {wanted}"), STEP, async || {
            let now = self.counted(shard, metric).await?;
            Ok(if now == wanted { Look::Found(()) } else { Look::NotYet(now.to_string()) })
        })
        .await
    }

    /// The routes of a run in all RouteSlices.
    pub async fn routes(&self, run: &RunId) -> Result<Vec<Route>> {
        let slices = Api::<RouteSlice>::namespaced(self.client.clone(), PLATFORM).list(&ListParams::default()).await?;
        Ok(slices.into_iter().flat_map(|slice| slice.spec.routes).filter(|route| route.run_id == run.0).collect())
    }

    /// A machine fails: the pod's processes are killed, without a signal that they could answer, and nobody starts them again
    /// before [`Lab::comes_back`] or the test's end.
    pub async fn dies(&self, pod: &str) -> Result<()> {
        let found = self.pods().get(pod).await?;
        let containers = found.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let containers: Vec<_> =
            containers.filter_map(|container| container.container_id.as_deref()?.strip_prefix("containerd://")).collect();
        ensure!(!containers.is_empty(), "{pod} has no container");
        // With a finalizer the deleted pod stays, so that its StatefulSet cannot make another one of its name.
        self.goes_with_the_test(Elsewhere::HeldPod(pod.to_owned()));
        self.patch(pod, json!([HELD])).await?;
        for container in containers {
            self.on_node(&found, &["ctr", "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", container]).await?;
        }
        self.pods().delete(pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// A pod that has died is started anew; waits until it is ready.
    pub async fn comes_back(&self, pod: &str) -> Result<()> {
        let gone = self.pods().get(pod).await?.uid();
        self.patch(pod, json!(null)).await?;
        self.is_replaced(pod, gone.as_deref()).await
    }

    /// Waits until a ready pod that is not `gone`, a uid, has the name.
    pub async fn is_replaced(&self, pod: &str, gone: Option<&str>) -> Result<()> {
        let fresh = |pod: &Pod| pod.uid().as_deref() != gone && is_ready(pod);
        let tell = |pod: &Pod| format!("{:?}, ready: {}", pod.uid(), is_ready(pod));
        wait::watch(self.pods(), pod, "comes back", STEP, fresh, tell).await.map(drop)
    }

    async fn patch(&self, pod: &str, finalizers: serde_json::Value) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        self.pods().patch(pod, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Lets go of a pod that a test has held.
    pub(crate) async fn let_go(&self, pod: &str) -> kube::Result<()> {
        self.patch(pod, json!(null)).await
    }
}
