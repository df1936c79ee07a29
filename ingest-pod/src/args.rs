//! What the shard is told on its command line or by its environment.

use crate::gate::GateLimits;
use crate::relay::Owners;
use crate::stream::Limits;
use lectern_cloud::BucketAt;
use lectern_contract::Ticks;
use lectern_podkit::args::Listen;
use lectern_podkit::tls::{PeerTls, PeerTlsArgs};
use lectern_podkit::{PodArgs, telemetry::TelemetryArgs};
use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// The pod's certificate for its peers.
    #[command(flatten)]
    pub peer_tls: PeerTlsArgs,
    /// Where publishers come in without TLS; `off`: nowhere.
    #[arg(long, env = "LECTERN_RTMP_LISTEN", default_value = "0.0.0.0:1935")]
    pub rtmp_listen: Listen,
    /// Where publishers come in with TLS (RTMPS).
    #[arg(long, env = "LECTERN_RTMPS_LISTEN", requires = "rtmps_tls_dir")]
    pub rtmps_listen: Option<SocketAddr>,
    /// The folder of the certificate that RTMPS shows: tls.crt and tls.key.
    #[arg(long, env = "LECTERN_RTMPS_TLS_DIR")]
    pub rtmps_tls_dir: Option<PathBuf>,
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
    /// The feed address of a shard, as transcoders reach it; filled in as the relay's.
    #[arg(long, env = "LECTERN_FEED_HOST_TEMPLATE", default_value = "{shard}.{service}.{namespace}.svc:7000")]
    pub feed_host_template: String,
    /// RTMP connections that are held at once; more are closed at once.
    #[arg(long, env = "LECTERN_MAX_CONNECTIONS", default_value_t = 4096)]
    pub max_connections: usize,
    /// RTMP connections that are held at once from one address (an IPv6 /64 counts as one).
    #[arg(long, env = "LECTERN_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 512)]
    pub max_connections_per_address: usize,
    /// RTMP connections from one address that do not publish yet.
    #[arg(long, env = "LECTERN_MAX_WAITING_PER_ADDRESS", default_value_t = 64)]
    pub max_waiting_per_address: usize,
    /// Wrong keys and broken handshakes that an address may have in a minute.
    #[arg(long, env = "LECTERN_MAX_FAILURES_PER_MINUTE", default_value_t = 60)]
    pub max_failures_per_minute: u32,
    /// Memory for media, in MiB. Near it runs keep less of their past, and new publishers are refused.
    #[arg(long, env = "LECTERN_MEMORY_MIB", default_value_t = 1024)]
    pub memory_mib: usize,
    /// Seconds of a run's media that are kept for transcoders, at most 60.
    #[arg(long, env = "LECTERN_HISTORY_SECONDS", default_value_t = 60)]
    pub history_seconds: u64,
    /// Milliseconds between two reads of a publisher: the more, the less CPU and the more delay.
    #[arg(long, env = "LECTERN_BATCH_MILLIS", default_value_t = 10)]
    pub batch_millis: u64,
    /// Threads that read publishers.
    #[arg(long, env = "LECTERN_PUMP_THREADS", default_value_t = 1)]
    pub pump_threads: usize,
    /// Seconds that publishers may stay after SIGTERM; their media is handed on to other shards meanwhile.
    #[arg(long, env = "LECTERN_DRAIN_SECONDS", default_value_t = 3600)]
    pub drain_seconds: u64,
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
    /// Who may connect.
    pub fn gate(&self) -> GateLimits {
        GateLimits {
            connections: self.max_connections,
            per_address: self.max_connections_per_address,
            waiting_per_address: self.max_waiting_per_address,
            failures_per_minute: self.max_failures_per_minute,
            ..GateLimits::default()
        }
    }

    /// The bucket that originals are recorded to, if one is named.
    pub fn bucket(&self) -> Option<BucketAt> {
        let name = self.bucket.as_deref().map(str::trim).filter(|name| !name.is_empty())?;
        Some(BucketAt::new(name, self.bucket_region.clone(), self.bucket_endpoint.clone()))
    }

    /// How much of a run is kept.
    pub fn limits(&self) -> Limits {
        Limits { span: Ticks::from_millis(self.history_seconds.saturating_mul(1000)), ..Limits::default() }
    }

    /// How the owners of other streams are reached.
    pub fn owners(&self, peers: PeerTls) -> Owners {
        let filled = |template: &str| template.replace("{service}", &self.ingest_service).replace("{namespace}", &self.pod.pod_namespace);
        Owners::new(filled(&self.relay_host_template), filled(&self.feed_host_template), peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["lectern-ingest", "--pod-name", "shard-0"].iter().chain(more))
    }

    #[test]
    fn plain_rtmp_can_be_turned_off_and_rtmps_wants_a_certificate() {
        assert_eq!(args(&[]).unwrap().rtmp_listen.0.unwrap().port(), 1935);
        assert_eq!(args(&["--rtmp-listen", "off"]).unwrap().rtmp_listen, Listen(None));
        assert!(args(&["--rtmp-listen", "1935"]).is_err());
        assert!(args(&["--rtmps-listen", "0.0.0.0:1936"]).is_err());
        assert!(args(&["--rtmps-listen", "0.0.0.0:1936", "--rtmps-tls-dir", "/tls/rtmps"]).is_ok());
    }
}
