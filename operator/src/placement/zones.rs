//! In which zones the shards' nodes are, as far as anybody says.

use crate::context::Context;
use crate::pool::plan::INGEST;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use lectern_crds::POOL_LABEL;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The label of nodes, and from Kubernetes 1.35 on of their pods, too.
const ZONE: &str = "topology.kubernetes.io/zone";
/// How long it is known where a pool's shards are. Streams are not moved because of it, so that an old answer does little harm.
const HOLDS: Duration = Duration::from_secs(30);
/// Nodes that are remembered.
const MOST_NODES: usize = 5_000;

/// The zones of shards and nodes as they were seen last.
#[derive(Debug, Default)]
pub struct Zones(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By pool.
    pools: HashMap<String, (Until, ByShard)>,
    /// A node stays in its zone.
    nodes: HashMap<String, Option<Arc<str>>>,
}

/// When it is time to look again.
type Until = Instant;
/// Zones by the names of the shards that are in them.
type ByShard = Arc<HashMap<String, Arc<str>>>;

impl Zones {
    /// The zones of a pool's shards by name; a shard whose zone is unknown is not in it.
    pub fn of(&self, pool: &str) -> ByShard {
        self.lock().pools.get(pool).map(|(_, zones)| zones.clone()).unwrap_or_default()
    }

    /// Looks where the `shards` shards of `pool` are, unless that is known. Where nobody may say, zones are unknown and nothing else is wrong.
    pub async fn look(&self, pool: &str, shards: i32, ctx: &Context) {
        if self.lock().pools.get(pool).is_some_and(|(until, _)| Instant::now() < *until) {
            return;
        }
        let pods: Api<Pod> = Api::namespaced(ctx.client(), &ctx.namespace);
        let selector = format!("{POOL_LABEL}={pool},app.kubernetes.io/component={INGEST}");
        // Whichever version the API server has at hand is good enough.
        let found = match pods.list(&ListParams::default().labels(&selector).match_any()).await {
            Ok(found) => found.items,
            Err(error) => return tracing::debug!(pool, %error, "where the shards are is not known"),
        };
        let (mut zones, mut on_nodes) = (HashMap::new(), 0);
        for pod in &found {
            let own = pod.labels().get(ZONE).map(|zone| Arc::from(zone.as_str()));
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            on_nodes += i32::from(node.is_some());
            let zone = match (own, node) {
                (Some(zone), _) => Some(zone),
                (None, Some(node)) => self.of_node(node, ctx.client()).await,
                (None, None) => None,
            };
            zones.extend(zone.map(|zone| (pod.name_any(), zone)));
        }
        // While some are not on a node yet every look is a new one: the pool is woken by each step that a pod takes.
        let holds = if on_nodes >= shards { HOLDS } else { Duration::ZERO };
        self.lock().pools.insert(pool.to_owned(), (Instant::now() + holds, Arc::new(zones)));
    }

    async fn of_node(&self, node: &str, client: Client) -> Option<Arc<str>> {
        let known = self.lock().nodes.get(node).cloned();
        if let Some(zone) = known {
            return zone;
        }
        let zone = match Api::<Node>::all(client).get_metadata_opt(node).await {
            Ok(found) => found.and_then(|found| found.labels().get(ZONE).map(|zone| Arc::from(zone.as_str()))),
            // Asked again next time.
            Err(error) => {
                tracing::debug!(node, %error, "the zone of a node is not known");
                return None;
            }
        };
        let mut seen = self.lock();
        // Nodes come and go all the time where they are scaled: those that are gone are not kept for ever.
        if seen.nodes.len() >= MOST_NODES {
            seen.nodes.clear();
        }
        seen.nodes.insert(node.to_owned(), zone.clone());
        zone
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
