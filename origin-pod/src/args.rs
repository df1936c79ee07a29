//! The settings of the process.

use clap::Parser;
use lectern_cloud::BucketAt;
use lectern_podkit::PodArgs;
use lectern_podkit::args::Listen;
use lectern_podkit::telemetry::TelemetryArgs;
use lectern_podkit::tls::PeerTlsArgs;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serves live lectures over HTTP, from memory first and S3 behind it.
#[derive(Debug, Clone, Parser)]
#[command(name = "lectern-origin", version)]
pub struct Args {
    /// Where players and the CDN come in without TLS; `off`: nowhere.
    #[arg(long, env = "LECTERN_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: Listen,
    /// Where they come in with TLS (HTTPS).
    #[arg(long, env = "LECTERN_HTTPS_LISTEN", requires = "https_tls_dir")]
    pub https_listen: Option<SocketAddr>,
    /// The folder of the certificate that HTTPS shows: tls.crt and tls.key.
    #[arg(long, env = "LECTERN_HTTPS_TLS_DIR")]
    pub https_tls_dir: Option<PathBuf>,
    /// Where health and metrics are served.
    #[arg(long, env = "LECTERN_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    pub health_listen: SocketAddr,
    /// The bucket that transcoders write to.
    #[arg(long, env = "LECTERN_BUCKET")]
    pub bucket: String,
    /// The bucket's region.
    #[arg(long, env = "LECTERN_BUCKET_REGION", default_value = "us-east-1")]
    pub bucket_region: String,
    /// The URL of the S3 that has it; AWS where it is missing or empty.
    #[arg(long, env = "LECTERN_BUCKET_ENDPOINT")]
    pub bucket_endpoint: Option<String>,
    /// Segments held in memory, in MiB: three quarters for what is pushed, one for what is read from S3.
    #[arg(long, env = "LECTERN_MEMORY_MB", default_value_t = 512)]
    pub memory_mb: usize,
    /// The folder of the keys that sign links to lectures that not everybody may watch: `current` and `previous`. Without it nobody can watch those.
    #[arg(long, env = "LECTERN_VIEWING_KEYS_DIR")]
    pub viewing_keys_dir: Option<PathBuf>,
    /// The folder that has `hls.min.js`.
    #[arg(long, env = "LECTERN_PLAYER_DIR", default_value = "/player")]
    pub player_dir: PathBuf,
    /// Who this pod is.
    #[command(flatten)]
    pub pod: PodArgs,
    /// How transcoders are reached.
    #[command(flatten)]
    pub peer_tls: PeerTlsArgs,
    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Args {
    /// Where the bucket is.
    pub fn bucket_at(&self) -> BucketAt {
        BucketAt::new(&self.bucket, &self.bucket_region, self.bucket_endpoint.clone())
    }

    /// The bytes of memory for segments: what is pushed, and what is read from S3.
    pub fn memory(&self) -> (usize, usize) {
        let all = self.memory_mb.saturating_mul(1024 * 1024);
        (all / 4 * 3, all / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["lectern-origin", "--pod-name", "origin-0", "--bucket", "lectures"].iter().chain(more))
    }

    #[test]
    fn plain_http_can_be_turned_off_and_https_wants_a_certificate() {
        assert_eq!(args(&[]).unwrap().http_listen.0.unwrap().port(), 8080);
        assert_eq!(args(&["--http-listen", "off"]).unwrap().http_listen, Listen(None));
        assert!(args(&["--https-listen", "0.0.0.0:8443"]).is_err());
        assert!(args(&["--https-listen", "0.0.0.0:8443", "--https-tls-dir", "/tls/https"]).is_ok());
    }
}
