//! What the shard is told on its command line or by its environment.

use crate::relay::Owners;
use lectern_cloud::BucketAt;
use lectern_podkit::{PodArgs, telemetry::TelemetryArgs};
use std::net::SocketAddr;

/// Lectern's ingest shard.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "lectern-ingest", version)]
pub struct Args {
    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// Who this pod is.
    #[command(flatten)]
    pub pod: PodArgs,
    /// Where publishers come in.
    #[arg(long, env = "LECTERN_RTMP_LISTEN", default_value = "0.0.0.0:1935")]
    pub rtmp_listen: SocketAddr,
    /// Where transcoders read runs.
    #[arg(long, env = "LECTERN_FEED_LISTEN", default_value = "0.0.0.0:7000")]
    pub feed_listen: SocketAddr,
    /// Where other shards hand on publishers of this shard's streams.
    #[arg(long, env = "LECTERN_RELAY_LISTEN", default_value = "0.0.0.0:7001")]
    pub relay_listen: SocketAddr,
    /// Where health and metrics are served.
    #[arg(long, env = "LECTERN_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    pub health_listen: SocketAddr,
    /// The headless Service that gives every shard of the pool a name.
    #[arg(long, env = "LECTERN_INGEST_SERVICE", default_value = "lectern-ingest")]
    pub ingest_service: String,
    /// The relay address of a shard; `{shard}`, `{service}` and `{namespace}` are filled in.
    #[arg(long, env = "LECTERN_RELAY_HOST_TEMPLATE", default_value = "{shard}.{service}.{namespace}.svc:7001")]
    pub relay_host_template: String,
    /// RTMP connections that are held at once; more are closed at once.
    #[arg(long, env = "LECTERN_MAX_CONNECTIONS", default_value_t = 4096)]
    pub max_connections: usize,
    /// The bucket that originals are recorded to; without it none are.
    #[arg(long, env = "LECTERN_BUCKET")]
    pub bucket: Option<String>,
    /// Its region.
    #[arg(long, env = "LECTERN_BUCKET_REGION", default_value = "us-east-1")]
    pub bucket_region: String,
    /// Its server's URL; without it, AWS.
    #[arg(long, env = "LECTERN_BUCKET_ENDPOINT")]
    pub bucket_endpoint: Option<String>,
}

impl Args {
    /// The bucket that originals are recorded to, if one is named.
    pub fn bucket(&self) -> Option<BucketAt> {
        let name = self.bucket.as_deref().map(str::trim).filter(|name| !name.is_empty())?;
        Some(BucketAt::new(name, self.bucket_region.clone(), self.bucket_endpoint.clone()))
    }

    /// How the owners of other streams are reached.
    pub fn owners(&self) -> Owners {
        let template = self.relay_host_template.replace("{service}", &self.ingest_service);
        Owners::new(template.replace("{namespace}", &self.pod.pod_namespace))
    }
}
