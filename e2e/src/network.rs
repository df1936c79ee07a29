//! The pods' network, taken away and given back by iptables in their namespaces: nothing is closed by that, packets are only lost.

use crate::lab::{Elsewhere, Lab};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use std::net::{IpAddr, SocketAddr};

/// Runs what follows the address in the network namespace that has it.
const INSIDE: &str = r#"address=$1; shift
    for name in $(ip netns list | cut -d" " -f1); do
        ip -n "$name" -o -4 address show | grep -qF " $address/" || continue
        ip netns exec "$name" "$@"; exit $?
    done; exit 1"#;

impl Lab {
    /// Where pods reach the Kubernetes API: its Service, which they do not see behind.
    pub async fn api_of_pods(&self) -> Result<SocketAddr> {
        let service = Api::<Service>::namespaced(self.client.clone(), "default").get("kubernetes").await?;
        let spec = service.spec.context("the API's Service")?;
        let port = spec.ports.iter().flatten().next().context("its port")?.port;
        Ok(SocketAddr::new(spec.cluster_ip.context("its address")?.parse()?, u16::try_from(port)?))
    }

    /// A machine loses its network: nothing reaches the pod and nothing leaves it before [`Lab::is_reached`] or the test's end.
    pub async fn is_cut_off(&self, pod: &str) -> Result<()> {
        self.rules(pod, r#"for chain in INPUT OUTPUT; do iptables -w -I "$chain" -j DROP || exit 1; done"#, &[]).await
    }

    /// Nothing passes any more between the pod and an address, or one port of it, before [`Lab::is_reached`] or the test's end.
    pub async fn is_parted(&self, pod: &str, from: IpAddr, port: Option<u16>) -> Result<()> {
        const BOTH_WAYS: &str = r#"iptables -w -I INPUT -s "$1" ${2:+-p tcp --sport "$2"} -j DROP &&
            iptables -w -I OUTPUT -d "$1" ${2:+-p tcp --dport "$2"} -j DROP"#;
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        self.rules(pod, BOTH_WAYS, &[&from.to_string(), &port]).await
    }

    /// Nothing passes any more between the pod and whoever comes to a port of its, before [`Lab::is_reached`] or the test's end.
    pub async fn is_deaf_at(&self, pod: &str, port: u16) -> Result<()> {
        const BOTH_WAYS: &str = r#"iptables -w -I INPUT -p tcp --dport "$1" -j DROP && iptables -w -I OUTPUT -p tcp --sport "$1" -j DROP"#;
        self.rules(pod, BOTH_WAYS, &[&port.to_string()]).await
    }

    /// Of the packets between the pod and whoever comes to a port of its so many in a thousand are lost, by lot, before [`Lab::is_reached`] or the test's end.
    pub async fn is_lossy_at(&self, pod: &str, port: u16, permille: u32) -> Result<()> {
        const BOTH_WAYS: &str = r#"iptables -w -I INPUT -p tcp --dport "$1" -m statistic --mode random --probability "$2" -j DROP &&
            iptables -w -I OUTPUT -p tcp --sport "$1" -m statistic --mode random --probability "$2" -j DROP"#;
        self.rules(pod, BOTH_WAYS, &[&port.to_string(), &probability(permille)]).await
    }

    /// Of the packets between the pod and an address, or one port of it, so many in a thousand are lost, by lot, before [`Lab::is_reached`] or the test's end.
    pub async fn is_lossy(&self, pod: &str, from: IpAddr, port: Option<u16>, permille: u32) -> Result<()> {
        const BOTH_WAYS: &str = r#"iptables -w -I INPUT -s "$1" ${3:+-p tcp --sport "$3"} -m statistic --mode random --probability "$2" -j DROP &&
            iptables -w -I OUTPUT -d "$1" ${3:+-p tcp --dport "$3"} -m statistic --mode random --probability "$2" -j DROP"#;
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        self.rules(pod, BOTH_WAYS, &[&from.to_string(), &probability(permille), &port]).await
    }

    /// Whoever in the pod comes to `server` is led by `way`, before the test's end; who has come already has to come again.
    pub async fn is_led(&self, pod: &str, server: SocketAddr, way: SocketAddr) -> Result<()> {
        const LED: &str = r#"iptables -w -t nat -I OUTPUT -p tcp -d "$1" --dport "$2" -j DNAT --to-destination "$3" &&
            iptables -w -I OUTPUT -p tcp -d "$1" --dport "$2" -j REJECT --reject-with tcp-reset"#;
        self.rules(pod, LED, &[&server.ip().to_string(), &server.port().to_string(), &way.to_string()]).await
    }

    async fn rules(&self, pod: &str, script: &str, arguments: &[&str]) -> Result<()> {
        self.goes_with_the_test(Elsewhere::CutOffPod(pod.to_owned()));
        self.inside(pod, script, arguments).await
    }

    /// The network is back; waits until the pod is ready.
    pub async fn is_reached(&self, pod: &str) -> Result<()> {
        self.passes_all(pod).await?;
        self.is_replaced(pod, None).await
    }

    /// Takes all rules away: a pod has none but ours.
    pub(crate) async fn passes_all(&self, pod: &str) -> Result<()> {
        self.inside(pod, "iptables -w -F INPUT && iptables -w -F OUTPUT && iptables -w -t nat -F OUTPUT", &[]).await
    }

    async fn inside(&self, pod: &str, script: &str, arguments: &[&str]) -> Result<()> {
        let found = self.pods().get(pod).await?;
        let address = address_of(&found)?.to_string();
        self.on_node(&found, &[&["sh", "-c", INSIDE, "inside", &address, "sh", "-c", script, "rules"], arguments].concat()).await
    }
}

/// As iptables takes it.
fn probability(permille: u32) -> String {
    format!("{:.3}", f64::from(permille) / 1000.0)
}

/// The pod's address.
pub fn address_of(pod: &Pod) -> Result<IpAddr> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("the pod's address")?;
    Ok(address.parse()?)
}
