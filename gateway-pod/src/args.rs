//! The gateway's settings.

use lectern_podkit::telemetry::TelemetryArgs;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Lectern's gateway: start, end and watch live lectures over HTTPS.
///
/// It turns three calls into LiveStreams of one namespace and keeps no state of its own:
/// POST /v1/streams, POST /v1/streams/{id}/end, GET /v1/streams/{id}/watch.
/// The Kubernetes API is found as kubectl finds it: the pod's ServiceAccount, or KUBECONFIG.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "lectern-gateway", version, about, long_about)]
pub struct Args {
    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// Where HTTPS is served.
    #[arg(long, env = "LECTERN_GATEWAY_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where health and metrics are served, without TLS and without keys: /healthz, /readyz, /metrics.
    #[arg(long, env = "LECTERN_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    pub health_listen: SocketAddr,
    /// The namespace of the gateway's LiveStreams.
    #[arg(long, env = "LECTERN_STREAM_NAMESPACE", default_value = "lectures")]
    pub stream_namespace: String,
    /// The operator's namespace, with the Secrets of the keys that links to signed lectures are made with.
    #[arg(long, env = "POD_NAMESPACE", default_value = "lectern")]
    pub operator_namespace: String,
    /// A folder with tls.crt and tls.key in PEM. The gateway waits until both are there and takes up what changes.
    #[arg(long, env = "LECTERN_GATEWAY_TLS_DIR", default_value = "/tls")]
    pub tls_dir: PathBuf,
    /// A folder with one file per client: its name is the client's, its content the bearer key (at least 20 characters).
    /// Changes are taken up.
    #[arg(long, env = "LECTERN_GATEWAY_KEYS_DIR", default_value = "/keys")]
    pub keys_dir: PathBuf,
}
