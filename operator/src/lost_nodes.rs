//! Takes pods of a node that is gone out of their Services, tens of seconds before Kubernetes does.
//!
//! Kubernetes gives a node 40 s to speak again. Until then publishers and players are led to the shards and origins that were on it, and a shard counts as there
//! (`stream/owner.rs`). Who reports every second and says and answers nothing for three is missed, so what the node controller would write at last is written then: `Ready=False`. A kubelet that
//! lives writes its own word over it within seconds, so that a mistake mends itself; and there is another pod of the kind for each that is taken out.

use crate::metrics::Metrics;
use crate::pool::observe::is_ready;
use crate::pool::plan::{INGEST, ORIGIN};
use crate::pool::podspec::HEALTH_PORT;
use crate::reports::Reports;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use lectern_crds::POOL_LABEL;
use lectern_podkit::Task;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether other pods are silent than before: as often as for their streams.
const LOOK: Duration = Duration::from_millis(100);
/// Looks at the nodes for each change of what is silent, a second apart: pods of one node fall silent within a second of each other.
const LOOKS: u32 = 5;
const APART: Duration = Duration::from_secs(1);
/// Pods report each second. With the second that they have to answer it is three.
const SILENT_FOR: Duration = Duration::from_secs(2);
/// What answers answers within milliseconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// A pod of some pool.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    node: String,
    /// Its pool and its component.
    kind: (String, String),
    ip: Option<IpAddr>,
    ready: bool,
}

/// Looks after the pools' pods of `namespace` until `stop`.
pub fn run(client: Client, namespace: String, reports: Arc<Reports>, metrics: Metrics, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        let pods = Api::<Pod>::namespaced(client, &namespace);
        let (mut silent, mut left) = (BTreeSet::new(), 0);
        let mut next = Instant::now();
        while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let now = Instant::now();
            let missed = reports.silent(SILENT_FOR, now);
            if missed.iter().any(|pod| !silent.contains(pod)) {
                (left, next) = (LOOKS, now);
            }
            silent = missed;
            if left == 0 || now < next {
                continue;
            }
            (left, next) = (left - 1, now + APART);
            if let Err(error) = look(&pods, &reports.heard(SILENT_FOR, now), &metrics).await {
                tracing::warn!(%error, "silent pods' nodes could not be looked at");
            }
        }
        Ok(())
    })
}

async fn look(pods: &Api<Pod>, heard: &HashMap<String, bool>, metrics: &Metrics) -> Result<(), kube::Error> {
    let listed = pods.list(&ListParams::default().labels(POOL_LABEL).match_any()).await?;
    let seen: Vec<Seen> = listed.iter().filter_map(seen).collect();
    for (node, gone) in to_take_out(&seen, heard) {
        // Nobody there reports. Whoever answers at all, if only that it does not listen, is on a node that lives.
        if join_all(gone.iter().map(|pod| answers(pod))).await.contains(&true) {
            continue;
        }
        for pod in gone {
            match take_out(pods, &pod.name).await {
                Ok(()) => {
                    tracing::warn!(node, pod = pod.name, "its node is silent: it is taken out of its Service");
                    metrics.taken_out();
                }
                Err(error) => {
                    tracing::warn!(node, pod = pod.name, %error, "its node is silent, and it could not be taken out of its Service")
                }
            }
        }
    }
    Ok(())
}

fn seen(pod: &Pod) -> Option<Seen> {
    let status = pod.status.as_ref()?;
    let label = |name: &str| pod.labels().get(name).cloned().unwrap_or_default();
    Some(Seen {
        name: pod.name_any(),
        node: pod.spec.as_ref()?.node_name.clone()?,
        kind: (label(POOL_LABEL), label("app.kubernetes.io/component")),
        ip: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
        ready: is_ready(pod) && pod.metadata.deletion_timestamp.is_none(),
    })
}

/// By node, the shards and origins that are to be taken out if no one of them answers: those of nodes of which every pod that ever reported is silent, while
/// another node's are heard, and in whose place there is another on a node that is heard.
fn to_take_out<'a>(pods: &'a [Seen], heard: &HashMap<String, bool>) -> BTreeMap<&'a str, Vec<&'a Seen>> {
    let mut nodes = BTreeMap::<&str, bool>::new(); // whether anybody there is heard
    for pod in pods {
        if let Some(fresh) = heard.get(&pod.name) {
            *nodes.entry(&pod.node).or_default() |= fresh;
        }
    }
    let lives = |pod: &Seen| nodes.get(&*pod.node).copied().unwrap_or_default();
    let follows = |pod: &Seen| pods.iter().any(|other| other.kind == pod.kind && other.ready && lives(other));
    let is_served = |pod: &Seen| pod.ready && [INGEST, ORIGIN].contains(&&*pod.kind.1);
    let mut gone = BTreeMap::<&str, Vec<&Seen>>::new();
    for pod in pods.iter().filter(|pod| nodes.get(&*pod.node) == Some(&false) && is_served(pod) && follows(pod)) {
        gone.entry(&pod.node).or_default().push(pod);
    }
    gone
}

/// Whether anything of the pod's node answers for it.
async fn answers(pod: &Seen) -> bool {
    let Some(ip) = pod.ip else { return false };
    let asked = async {
        // A machine that is paused still takes connections.
        let mut socket = TcpStream::connect(SocketAddr::new(ip, HEALTH_PORT)).await?;
        socket.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        socket.read_u8().await.map(drop)
    };
    match timeout(ANSWERS_WITHIN, asked).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => is_of_a_neighbour(&error),
        Err(_) => false,
    }
}

/// Refused, or broken off, by a machine that is there; what is out of reach is said by those in between.
fn is_of_a_neighbour(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut)
}

/// As the node controller does it, but for the reason.
async fn take_out(pods: &Api<Pod>, name: &str) -> Result<(), kube::Error> {
    let condition = json!({
        "type": "Ready", "status": "False", "lastTransitionTime": Timestamp::now().to_string(),
        "reason": "NodeSilent", "message": "lectern-operator hears no pod of its node, and it does not answer",
    });
    match pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(json!({ "status": { "conditions": [condition] } }))).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, component: &str) -> Seen {
        let kind = ("default".to_owned(), component.to_owned());
        Seen { name: name.into(), node: node.into(), kind, ip: None, ready: true }
    }

    /// Two nodes with one pod of each component.
    fn two_nodes() -> Vec<Seen> {
        let of = |node: &'static str| [INGEST, "transcoder", ORIGIN].map(|component| pod(&format!("{component}-{node}"), node, component));
        [of("a"), of("b")].concat()
    }

    /// All report but those that are `silent` by now.
    fn heard(pods: &[Seen], silent: &[&str]) -> HashMap<String, bool> {
        pods.iter().map(|pod| (pod.name.clone(), !silent.contains(&&*pod.name))).collect()
    }

    fn out_of(pods: &[Seen], heard: &HashMap<String, bool>) -> Vec<String> {
        to_take_out(pods, heard).into_values().flatten().map(|pod| pod.name.clone()).collect()
    }

    fn out(pods: &[Seen], silent: &[&str]) -> Vec<String> {
        out_of(pods, &heard(pods, silent))
    }

    #[test]
    fn shards_and_origins_of_a_node_of_which_nobody_is_heard_are_taken_out() {
        assert_eq!(out(&two_nodes(), &["ingest-a", "transcoder-a", "origin-a"]), ["ingest-a", "origin-a"]);
        assert!(out(&two_nodes(), &["ingest-a", "transcoder-a"]).is_empty(), "the origin is heard");
        let mut pods = two_nodes();
        pods.push(pod("origin-c", "c", ORIGIN));
        assert_eq!(out(&pods, &["origin-c"]), ["origin-c"], "it was alone on its node");
    }

    /// Of the build before, which says nothing of its origins.
    #[test]
    fn a_pod_that_never_reported_says_nothing_of_its_node() {
        let pods = two_nodes();
        let mut heard = heard(&pods, &["ingest-a", "transcoder-a"]);
        assert!(out_of(&pods, &heard).is_empty());
        heard.remove("origin-a");
        assert_eq!(out_of(&pods, &heard), ["ingest-a", "origin-a"]);
    }

    #[test]
    fn one_silent_pod_says_nothing_of_its_node() {
        assert!(out(&two_nodes(), &["ingest-a"]).is_empty());
    }

    #[test]
    fn who_hears_nobody_at_all_takes_nobody_out() {
        assert!(out(&two_nodes(), &["ingest-a", "transcoder-a", "origin-a", "ingest-b", "transcoder-b", "origin-b"]).is_empty());
    }

    #[test]
    fn the_last_one_of_a_kind_stays() {
        let mut pods = two_nodes();
        pods.iter_mut().find(|pod| pod.name == "origin-b").unwrap().ready = false;
        let silent = ["ingest-a", "transcoder-a", "origin-a"];
        assert_eq!(out(&pods, &silent), ["ingest-a"]);
        pods.push(Seen { kind: ("other".into(), ORIGIN.into()), ..pod("origin-c", "b", ORIGIN) });
        assert_eq!(out(&pods, &silent), ["ingest-a"], "another pool's serves other lectures");
        pods.push(pod("origin-d", "a", ORIGIN));
        assert_eq!(out(&pods, &[&silent[..], &["origin-d"]].concat()), ["ingest-a"], "that one's node is silent, too");
        pods.push(pod("origin-e", "c", ORIGIN));
        assert_eq!(out(&pods, &[&silent[..], &["origin-d"]].concat()), ["ingest-a", "origin-a", "origin-d"]);
    }

    #[tokio::test]
    async fn whoever_refuses_is_on_a_node_that_lives() {
        let refused = Seen { ip: Some(IpAddr::from([127, 0, 0, 1])), ..pod("a", "a", ORIGIN) }; // where nobody listens at that port
        assert!(answers(&refused).await);
        assert!(!answers(&pod("a", "a", ORIGIN)).await, "it has no address");
        for (kind, lives) in [(ErrorKind::ConnectionRefused, true), (ErrorKind::ConnectionReset, true), (ErrorKind::HostUnreachable, false)]
        {
            assert_eq!(is_of_a_neighbour(&kind.into()), lives, "{kind}");
        }
    }
}
