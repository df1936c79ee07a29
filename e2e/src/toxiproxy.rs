//! Slow and late links by Shopify's toxiproxy: a TCP proxy that is told what to spoil. A process of the test's own, gone when dropped, or with the test where it is on a node.

use crate::lab::Lab;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// The program.
const SERVER: &str = "toxiproxy-server";

/// How long the program may take to listen.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// What a link does to what passes, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything comes so much later, give or take the second figure, both in milliseconds.
    Late(u32, u32),
    /// No more than so many kB a second pass, on each connection.
    Thin(u32),
}

/// A running toxiproxy with one link.
pub struct Toxiproxy {
    _program: Child,
    api: String,
    client: reqwest::Client,
    /// Where the link begins.
    pub address: SocketAddr,
}

impl Toxiproxy {
    /// A good link to `server` ("host:port"), that begins on this machine.
    pub async fn to(server: &str) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut program = Command::new(SERVER);
        program.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
        Self::by(program, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), 0, server).await
    }

    /// A good link to `server`, that begins on a pod's node: where pods reach each other.
    pub async fn on_node_of(lab: &Lab, pod: &Pod, server: SocketAddr) -> Result<Self> {
        let node: IpAddr = pod.status.as_ref().and_then(|status| status.host_ip.as_deref()).context("the node's address")?.parse()?;
        let port = rand::random_range(20_000..29_999); // below those that Linux gives to whoever asks for none
        let server_file = program()?;
        let program = lab.program_on_node(pod, &server_file, &["-host", &node.to_string(), "-port", &port.to_string()]).await?;
        Self::by(program, SocketAddr::new(node, port), port + 1, &server.to_string()).await
    }

    /// Starts it; it answers at `api`, and the link begins beside that.
    async fn by(mut program: Command, api: SocketAddr, port: u16, server: &str) -> Result<Self> {
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = program.kill_on_drop(true).spawn().context("toxiproxy-server cannot be started; scripts/install chaos")?;
        let (host, api, client) = (api.ip(), format!("http://{api}"), reqwest::Client::new());
        let up = async {
            while client.get(format!("{api}/version")).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
        };
        tokio::time::timeout(UP_WITHIN, up).await.context("toxiproxy does not listen")?;
        let link = json!({"name": "link", "listen": SocketAddr::new(host, port), "upstream": server, "enabled": true});
        let made: Value = post(&client, &format!("{api}/proxies"), &link).await?.json().await?;
        let address = made["listen"].as_str().context("toxiproxy's listen")?.parse()?;
        Ok(Self { _program: program, api, client, address })
    }

    /// From now on, until [`Toxiproxy::is_well`].
    pub async fn suffers(&self, link: Link) -> Result<()> {
        let (kind, attributes) = match link {
            Link::Late(latency, jitter) => ("latency", json!({"latency": latency, "jitter": jitter})),
            Link::Thin(rate) => ("bandwidth", json!({"rate": rate})),
        };
        for stream in ["upstream", "downstream"] {
            let toxic = json!({"type": kind, "stream": stream, "attributes": attributes});
            post(&self.client, &format!("{}/proxies/link/toxics", self.api), &toxic).await?;
        }
        Ok(())
    }

    /// The link is good again.
    pub async fn is_well(&self) -> Result<()> {
        post(&self.client, &format!("{}/reset", self.api), &json!({})).await.map(drop)
    }
}

/// Where the program is.
fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(SERVER)).find(|file| file.is_file());
    found.context("toxiproxy-server is not in PATH; scripts/install chaos")
}

async fn post(client: &reqwest::Client, url: &str, body: &Value) -> Result<reqwest::Response> {
    let answer = client.post(url).json(body).send().await.with_context(|| url.to_owned())?;
    ensure!(answer.status().is_success(), "{url} answers {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    Ok(answer)
}
