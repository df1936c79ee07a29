//! The operator's settings.

use jiff::SignedDuration;
use lectern_podkit::telemetry::TelemetryArgs;
use lectern_podkit::tls::PeerRole;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Lectern's operator.
#[derive(Debug, Clone, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// Something else than to operate.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// This pod's name: who holds the Lease.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// The operator's namespace, where the pools' pods run.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// Where pods report to; the leader tells them where the others listen.
    #[arg(long, env = "LECTERN_REPORT_LISTEN", default_value = "0.0.0.0:7100")]
    pub report_listen: SocketAddr,
    /// Where the operator's own certificate lies while it runs: a folder that nobody else writes.
    #[arg(long, env = "LECTERN_OPERATOR_TLS_DIR", default_value = "/tmp/lectern-operator-tls")]
    pub tls_dir: PathBuf,
    /// Health and metrics.
    #[arg(long, env = "LECTERN_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    pub health_listen: SocketAddr,
    /// How pods reach `report_listen`; `https://lectern-operator.{namespace}.svc:7100` unless given.
    #[arg(long, env = "LECTERN_OPERATOR_URL")]
    pub operator_url: Option<String>,
    /// A Secret of the operator's namespace, of type kubernetes.io/tls, with the CA that issues all certificates (cert-manager's, with
    /// `isCA: true`, say). Without it the operator makes a CA of its own.
    #[arg(long, env = "LECTERN_CA_SECRET")]
    pub ca_secret: Option<String>,
    /// Seconds between the steps of a CA's rotation: more than the kubelets take to hand out a Secret that has changed.
    #[arg(long, env = "LECTERN_CA_PAUSE_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(i64).range(120..=604_800))]
    pub ca_pause_seconds: i64,
    /// The Secret that the gateway's certificate is kept in. Without it none is issued.
    #[arg(long, env = "LECTERN_GATEWAY_TLS_SECRET")]
    pub gateway_tls_secret: Option<String>,
    /// The DNS names that the gateway's certificate is for.
    #[arg(long, env = "LECTERN_GATEWAY_DNS_NAMES", value_delimiter = ',')]
    pub gateway_dns_names: Vec<String>,
}

/// What else the program can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Moves the jobs of a dead-letter queue back to their queue: `kubectl exec deploy/lectern-operator -- /usr/local/bin/lectern-operator redrive`.
    Redrive(crate::redrive::RedriveArgs),
    /// Looks whether the installation works, and prints a line for each thing looked at: what `helm test` runs.
    Check(crate::check::CheckArgs),
    /// Prints a link to a lecture with `viewing: Signed`: `kubectl exec deploy/lectern-operator -- /usr/local/bin/lectern-operator view-link school/algebra`.
    ViewLink(crate::view_link::ViewLinkArgs),
    /// Takes the operator's finalizer off all LiveStreams, once no operator runs any more, and prints what stays: what `helm uninstall` runs.
    Release,
}

impl Args {
    /// How pods reach the report endpoint.
    pub fn operator_url(&self) -> String {
        self.operator_url
            .clone()
            .unwrap_or_else(|| format!("https://{}.{}.svc:{}", crate::MANAGER, self.pod_namespace, self.report_listen.port()))
    }

    /// The certificate that the operator shows the pods which report.
    pub fn certificate(&self) -> crate::trust::Wanted {
        crate::trust::Wanted {
            namespace: self.pod_namespace.clone(),
            secret: format!("{}-tls", crate::MANAGER),
            dns_names: vec![PeerRole::Operator.dns_name("")],
            usage: crate::trust::Usage::Peer,
            owner: None,
        }
    }

    /// Who keeps the CA.
    pub fn keeper(&self) -> crate::trust::turn::Keeper {
        crate::trust::turn::Keeper {
            namespace: self.pod_namespace.clone(),
            given: self.ca_secret.clone(),
            pause: SignedDuration::from_secs(self.ca_pause_seconds),
            beside: std::iter::once(self.certificate()).chain(self.gateway_certificate()).collect(),
        }
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
