//! Slow and late links by Shopify's toxiproxy: a TCP proxy that is told what to spoil. A process of the test's own, gone when dropped.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

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
    /// Where the link begins, on this machine.
    pub address: SocketAddr,
}

impl Toxiproxy {
    /// A good link to `server` ("host:port").
    pub async fn to(server: &str) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut program = Command::new("toxiproxy-server");
        program.args(["-host", "127.0.0.1", "-port", &port.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = program.kill_on_drop(true).spawn().context("toxiproxy-server cannot be started; scripts/install chaos")?;
        let (api, client) = (format!("http://127.0.0.1:{port}"), reqwest::Client::new());
        let up = async {
            while client.get(format!("{api}/version")).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
        };
        tokio::time::timeout(UP_WITHIN, up).await.context("toxiproxy does not listen")?;
        let link = json!({"name": "link", "listen": "127.0.0.1:0", "upstream": server, "enabled": true});
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

async fn post(client: &reqwest::Client, url: &str, body: &Value) -> Result<reqwest::Response> {
    let answer = client.post(url).json(body).send().await.with_context(|| url.to_owned())?;
    ensure!(answer.status().is_success(), "{url} answers {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    Ok(answer)
}
