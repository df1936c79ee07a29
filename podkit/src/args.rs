//! Settings that pods have alike: who a pod is, from the downward API, and where it listens.

use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;

/// The settings that the operator gives every pod of a pool.
#[derive(Debug, Clone, clap::Args)]
pub struct PodArgs {
    /// The pod's name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// The pod's address, which other pods reach it by.
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    pub pod_ip: std::net::IpAddr,
    /// The pod's namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "lectern")]
    pub pod_namespace: String,
    /// The StreamPool that the pod belongs to.
    #[arg(long, env = "LECTERN_POOL", default_value = "default")]
    pub pool: String,
    /// Where reports go: `https://lectern-operator.lectern.svc:7100`, whose certificate must be the operator's; with `http` in the clear, for tests.
    /// Without it none are sent.
    #[arg(long, env = "LECTERN_OPERATOR_URL")]
    pub operator_url: Option<String>,
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
