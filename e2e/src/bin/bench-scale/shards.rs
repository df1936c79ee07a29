//! A hundred shards that have nothing to say but that they are there: each reports over its own connection, with the pool's certificate, as the
//! real ones do.

use crate::operator::Operator;
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use lectern_contract::RunId;
use lectern_contract::report::Role;
use lectern_crds::DEFAULT_POOL;
use lectern_e2e::wait::{Look, eventually};
use lectern_podkit::tls::PeerTls;
use lectern_podkit::{CancellationToken, PodArgs, report};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The Secret of the shards' certificate.
const CERTIFICATE: &str = "lectern-ingest-default-tls";

/// All shards.
pub struct Fleet(Vec<Shard>);

struct Shard {
    draining: Arc<AtomicBool>,
    changed: Arc<Notify>,
    stop: CancellationToken,
}

/// The name of a shard's pod.
pub fn name(number: usize) -> String {
    format!("lectern-ingest-{DEFAULT_POOL}-{number}")
}

impl Fleet {
    /// Starts `count` shards that report to `operator`.
    pub async fn start(client: &Client, count: usize, operator: &str, folder: &Path) -> Result<Self> {
        let folder = folder.join("shard-tls");
        std::fs::create_dir_all(&folder)?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), crate::platform::NAMESPACE);
        let secret = eventually("the shards' certificate", Duration::from_secs(20), async || {
            Ok(secrets.get_opt(CERTIFICATE).await?.map_or(Look::NotYet("no Secret".into()), Look::Found))
        });
        for (file, bytes) in secret.await?.data.context("the shards' certificate is empty")? {
            std::fs::write(folder.join(file), bytes.0)?;
        }
        let peers = PeerTls::load(&folder, DEFAULT_POOL).await?;
        Ok(Self((0..count).map(|number| Shard::start(number, operator, peers.clone())).collect()))
    }

    /// Waits until the operator has heard of all of them.
    pub async fn are_heard(&self, operator: &Operator) -> Result<()> {
        // Those that were silenced are few; a count that stands at most of them says that connections are up again.
        let wanted = self.0.iter().filter(|shard| !shard.stop.is_cancelled()).count();
        let heard = move |metrics: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix("lectern_operator_reports_total{taken=\"yes\"} "));
            line.and_then(|count| count.parse::<usize>().ok()).is_some_and(|count| count >= 3 * wanted)
        };
        operator.until("all shards report", Duration::from_secs(30), heard).await
    }

    /// A shard says that it is going.
    pub fn drain(&self, number: usize) {
        self.0[number].draining.store(true, Ordering::Relaxed);
        self.0[number].changed.notify_one();
    }

    /// A shard says nothing any more.
    pub fn silence(&self, number: usize) {
        self.0[number].stop.cancel();
    }
}

impl Shard {
    fn start(number: usize, operator: &str, peers: PeerTls) -> Self {
        let shard = Self { draining: Arc::default(), changed: Arc::default(), stop: CancellationToken::new() };
        let pod = PodArgs {
            pod_name: name(number),
            pod_ip: [127, 0, 0, 1].into(),
            pod_namespace: crate::platform::NAMESPACE.to_owned(),
            pool: DEFAULT_POOL.to_owned(),
            operator_url: Some(operator.to_owned()),
        };
        let draining = shard.draining.clone();
        let collect =
            Arc::new(move |_: &[RunId]| Role::Ingest { runs: Vec::new(), draining: draining.load(Ordering::Relaxed), orphans: Vec::new() });
        tokio::spawn(report::run(pod, peers, collect, shard.changed.clone(), None, shard.stop.clone()));
        shard
    }
}
