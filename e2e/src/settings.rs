//! Where the platform under test is.

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::PathBuf;

/// The namespace that the chart is installed in.
pub const PLATFORM: &str = "lectern";

/// Addresses of the platform as this machine reaches them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `$KUBECONFIG`, or what `make cluster` wrote.
    pub kubeconfig: PathBuf,
    /// RTMP on 127.0.0.1.
    pub rtmp_port: u16,
    /// Player page, playlists and segments on localhost.
    pub http_port: u16,
    /// The gateway on localhost.
    pub gateway_port: u16,
    /// MiniStack on localhost.
    pub s3_port: u16,
    /// The bucket of the default pool.
    pub bucket: String,
}

impl Settings {
    /// From the environment, with `make cluster`'s values where it says nothing.
    pub fn from_env() -> Result<Self> {
        Ok(Self {
            kubeconfig: match std::env::var_os("KUBECONFIG") {
                Some(path) if !path.is_empty() => PathBuf::from(path),
                _ => home()?.join(".kube/lectern"),
            },
            rtmp_port: port("LECTERN_RTMP_PORT", 1935)?,
            http_port: port("LECTERN_HTTP_PORT", 8080)?,
            gateway_port: port("LECTERN_GATEWAY_PORT", 8443)?,
            s3_port: port("LECTERN_S3_PORT", 4566)?,
            bucket: std::env::var("LECTERN_BUCKET").unwrap_or_else(|_| "lectern".to_owned()),
        })
    }

    /// A client of the cluster.
    pub async fn cluster(&self) -> Result<kube::Client> {
        // kube's own choice of a provider is a process-wide one; whoever comes first sets it.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)
            .with_context(|| format!("no cluster: {} cannot be read; run `make cluster`, or set KUBECONFIG", self.kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }
}

/// The folder that caches live in, outside the clone.
pub fn cache() -> Result<PathBuf> {
    match std::env::var_os("LECTERN_CACHE") {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(home()?.join(".cache/lectern")),
    }
}

/// The kubectl of the cluster's version, which `make cluster` puts into the cache, else the machine's.
pub fn kubectl() -> Result<PathBuf> {
    let ours = cache()?.join("bin/kubectl");
    Ok(if ours.exists() { ours } else { "kubectl".into() })
}

/// `e2e/` in the clone: of which clone says whoever runs this (cargo, or `e2e/bench/run`), for another one may have built it.
pub fn e2e_folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| std::env::current_dir().unwrap_or_default(), PathBuf::from)
}

/// Where what a person may want to see of a test is put.
pub fn out_folder(of: &str) -> PathBuf {
    e2e_folder().with_file_name("out").join("e2e").join(of)
}

fn home() -> Result<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")
}

fn port(name: &str, otherwise: u16) -> Result<u16> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is no port: {text:?}")),
        Err(_) => Ok(otherwise),
    }
}

/// A port of this machine's loopback that nobody listens on just now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
