//! Who this pod is, from the downward API.

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
