//! Commands on the cluster's nodes, whoever made those: by a privileged pod of the test's own on each node that is asked for, which enters the node's namespaces.

use crate::lab::{Lab, STEP};
use crate::nodes::{node_of, ran};
use crate::settings::{self, PLATFORM};
use crate::shards::is_ready;
use crate::wait;
use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use std::path::Path;
use tokio::process::Command;

/// The image of the pods, where the node's own `/usr` is not to be used: with `sleep` and `nsenter`, as busybox has them.
const IMAGE: &str = "LECTERN_NODE_IMAGE";
/// All of a node's but for its users.
const ENTER: [&str; 8] = ["nsenter", "--target", "1", "--mount", "--uts", "--ipc", "--net", "--pid"];

impl Lab {
    /// Runs a command on a pod's node.
    pub(crate) async fn on_node(&self, pod: &Pod, command: &[&str]) -> Result<()> {
        let agent = self.agent(&node_of(pod)?).await?;
        let mut kubectl = self.exec(&agent, &[])?;
        kubectl.args(ENTER).args(command);
        ran(&mut kubectl, &format!("on {}: {command:?}", node_of(pod)?)).await
    }

    /// A program that is started on a pod's node, of a file that is brought there. It may outlive whoever started it, until the test's end.
    pub(crate) async fn program_on_node(&self, pod: &Pod, file: &Path, arguments: &[&str]) -> Result<Command> {
        const THERE: &str = "/tmp/program";
        let agent = self.agent(&node_of(pod)?).await?;
        let mut brought = self.exec(&agent, &["--stdin"])?;
        brought.args(["sh", "-c", "cat > $0.new && chmod +x $0.new && mv $0.new $0", THERE]).stdin(std::fs::File::open(file)?);
        ran(&mut brought, &format!("{} on {}", file.display(), node_of(pod)?)).await?;
        let mut program = self.exec(&agent, &[])?;
        program.arg(THERE).args(arguments);
        Ok(program)
    }

    /// `kubectl exec` in one of the pods, without the command.
    fn exec(&self, agent: &str, options: &[&str]) -> Result<Command> {
        let mut kubectl = Command::new(settings::kubectl()?);
        kubectl.arg("--kubeconfig").arg(&self.settings.kubeconfig);
        kubectl.args(["--namespace", &self.agents(), "exec", agent]).args(options).arg("--");
        Ok(kubectl)
    }

    /// Makes ready to run commands on these pods' nodes: it takes seconds, which a fault has not.
    pub async fn nodes_are_reached(&self, pods: &[String]) -> Result<()> {
        for pod in pods {
            self.agent(&node_of(&self.pods().get(pod).await?)?).await?;
        }
        Ok(())
    }

    /// The name of the pod on a node, once it runs.
    async fn agent(&self, node: &str) -> Result<String> {
        let (name, pods) = (format!("on-{node}"), Api::<Pod>::namespaced(self.client.clone(), &self.agents()));
        if pods.get_opt(&name).await?.is_none() {
            let namespace = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": self.agents(), "labels": {"pod-security.kubernetes.io/enforce": "privileged", "lectern.video/e2e": "true"}},
            }))?;
            is_there(Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &namespace).await)?;
            is_there(pods.create(&PostParams::default(), &self.agent_pod(&name, node).await?).await)?;
        }
        wait::watch(pods, &name, "runs", STEP, is_ready, |pod| format!("{:?}", pod.status)).await?;
        Ok(name)
    }

    /// What is on all nodes is an image of the platform's, which has no programs but its own: those are the node's.
    async fn agent_pod(&self, name: &str, node: &str) -> Result<Pod> {
        let own = std::env::var(IMAGE).ok().filter(|image| !image.is_empty());
        let (mounts, volumes) = match own {
            Some(_) => (json!([]), json!([])),
            None => {
                (json!([{"name": "usr", "mountPath": "/usr", "readOnly": true}]), json!([{"name": "usr", "hostPath": {"path": "/usr"}}]))
            }
        };
        let image = match own {
            Some(image) => image,
            None => {
                let operator = Api::<Deployment>::namespaced(self.client.clone(), PLATFORM).get("lectern-operator").await?;
                let pod = operator.spec.and_then(|spec| spec.template.spec).context("the operator's pod")?;
                pod.containers.into_iter().find_map(|container| container.image).context("the operator's image")?
            }
        };
        let container = json!({
            "name": "node", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "2147483647"],
            "env": [{"name": "PATH", "value": "/usr/sbin:/usr/bin:/sbin:/bin"}],
            "securityContext": {"privileged": true, "runAsUser": 0}, "volumeMounts": mounts,
        });
        Ok(serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "nodeName": node, "hostPID": true, "hostNetwork": true, "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}], "volumes": volumes, "containers": [container],
            },
        }))?)
    }

    /// Takes the pods away, once nothing has to be mended by them any more.
    pub(crate) async fn agents_go(&self) -> kube::Result<()> {
        match Api::<Namespace>::all(self.client.clone()).delete(&self.agents(), &DeleteParams::default()).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Their namespace: the test's own is a restricted one.
    fn agents(&self) -> String {
        format!("{}-nodes", self.namespace)
    }
}

/// Made now or before.
fn is_there<T>(created: kube::Result<T>) -> kube::Result<()> {
    match created {
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
