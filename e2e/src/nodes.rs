//! The cluster's nodes, which are containers of this machine and of their names (kind's way): paused, killed, and back.

use crate::lab::{Elsewhere, Lab, STEP};
use crate::{settings, wait};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use std::time::Duration;
use tokio::process::Command;

/// A kubelet that has missed to say that it is there does so again.
const BACK_WITHIN: Duration = Duration::from_secs(2 * STEP.as_secs());

impl Lab {
    /// Nothing on the node runs any more, and nobody is told, before [`Lab::node_goes_on`] or the test's end.
    pub async fn node_stands_still(&self, node: &str) -> Result<()> {
        self.goes_with_the_test(Elsewhere::StruckNode(node.to_owned()));
        docker(&["pause", node]).await
    }

    /// It goes on where it was.
    pub async fn node_goes_on(&self, node: &str) -> Result<()> {
        docker(&["unpause", node]).await
    }

    /// The node's machine is gone without a word, before [`Lab::node_starts`] or the test's end.
    pub async fn node_dies(&self, node: &str) -> Result<()> {
        self.goes_with_the_test(Elsewhere::StruckNode(node.to_owned()));
        docker(&["kill", node]).await
    }

    /// Its machine boots, and has the network that it had.
    pub async fn node_starts(&self, node: &str) -> Result<()> {
        docker(&["start", node]).await?;
        // A boot takes away the routes to other nodes' pods.
        let connect = settings::e2e_folder().join("cluster/node/connect");
        ran(Command::new(&connect).env("KUBECONFIG", &self.settings.kubeconfig), &connect.display().to_string()).await
    }

    /// Waits until the node is Ready.
    pub async fn node_is_ready(&self, node: &str) -> Result<()> {
        let ready = |node: &Node| {
            let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let tell = |node: &Node| format!("{:?}", node.status.as_ref().map(|status| &status.conditions));
        wait::watch(Api::all(self.client.clone()), node, "Ready", BACK_WITHIN, ready, tell).await.map(drop)
    }

    /// The names of the nodes that pods can be on that tolerate nothing.
    pub async fn workers(&self) -> Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let takes_any = |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty));
        Ok(nodes.into_iter().filter(takes_any).filter_map(|node| node.metadata.name).collect())
    }

    /// Whatever was done to it.
    pub(crate) async fn node_is_mended(&self, node: &str) {
        docker(&["unpause", node]).await.ok(); // it may go on already
        self.node_starts(node).await.ok(); // as it may do here
        self.node_is_ready(node).await.ok();
    }
}

/// Whether the cluster's nodes are containers of this machine, which alone can be struck.
pub async fn can_be_struck(client: kube::Client) -> Result<bool> {
    for node in Api::<Node>::all(client).list(&ListParams::default()).await? {
        if docker(&["container", "inspect", node.metadata.name.as_deref().unwrap_or_default()]).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The pod's node.
pub fn node_of(pod: &Pod) -> Result<String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod's node")
}

async fn docker(arguments: &[&str]) -> Result<()> {
    ran(Command::new("docker").args(arguments), &format!("docker {arguments:?}")).await
}

/// Runs a command to its end; what it says is told where it fails.
pub(crate) async fn ran(command: &mut Command, what: &str) -> Result<()> {
    let done = command.output().await.with_context(|| what.to_owned())?;
    ensure!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
