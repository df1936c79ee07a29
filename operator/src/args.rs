//! The operator's settings.

use lectern_podkit::telemetry::TelemetryArgs;
use std::net::SocketAddr;

/// Lectern's operator.
#[derive(Debug, Clone, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// This pod's name: who holds the Lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// The operator's namespace, where the pools' pods run.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// Where pods report to; served by the leader only.
    #[arg(long, env = "LECTERN_REPORT_LISTEN", default_value = "0.0.0.0:7100")]
    pub report_listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, env = "LECTERN_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    pub health_listen: SocketAddr,
    /// How pods reach `report_listen`; `http://lectern-operator.{namespace}.svc:7100` unless given.
    #[arg(long, env = "LECTERN_OPERATOR_URL")]
    pub operator_url: Option<String>,
    /// The Secret that the gateway's certificate is kept in. Without it none is issued.
    #[arg(long, env = "LECTERN_GATEWAY_TLS_SECRET")]
    pub gateway_tls_secret: Option<String>,
    /// The DNS names that the gateway's certificate is for.
    #[arg(long, env = "LECTERN_GATEWAY_DNS_NAMES", value_delimiter = ',')]
    pub gateway_dns_names: Vec<String>,
}

impl Args {
    /// How pods reach the report endpoint.
    pub fn operator_url(&self) -> String {
        self.operator_url
            .clone()
            .unwrap_or_else(|| format!("http://{}.{}.svc:{}", crate::MANAGER, self.pod_namespace, self.report_listen.port()))
    }

    /// The certificate that the gateway needs, if it is ours to issue.
    pub fn gateway_certificate(&self) -> Option<crate::trust::Wanted> {
        let secret = self.gateway_tls_secret.clone()?;
        Some(crate::trust::Wanted {
            namespace: self.pod_namespace.clone(),
            secret,
            dns_names: self.gateway_dns_names.clone(),
            usage: crate::trust::Usage::Server,
            owner: None,
        })
    }
}
