//! What the shard is told on its command line or by its environment.

use crate::relay::Owners;
use lectern_podkit::tls::{PeerTls, PeerTlsArgs};
use lectern_podkit::{PodArgs, telemetry::TelemetryArgs};
use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

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
}

impl Args {
    /// How the owners of other streams are reached.
    pub fn owners(&self, peers: PeerTls) -> Owners {
        let filled = |template: &str| template.replace("{service}", &self.ingest_service).replace("{namespace}", &self.pod.pod_namespace);
        Owners::new(filled(&self.relay_host_template), filled(&self.feed_host_template), peers)
    }
}

/// An address to listen on, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = AddrParseError;
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        if text == "off" { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))) }
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
