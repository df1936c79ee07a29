//! A camera in the school's network: gst-rtsp-server on this machine, at an address that pods reach.

use crate::lab::{Lab, STEP};
use crate::settings;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running camera, 320 × 180 in H.264 with AAC; it is gone when dropped.
pub struct Camera {
    process: Child,
    /// Where its stream is.
    pub url: String,
}

impl Camera {
    /// A camera that asks for a user name and a password.
    pub async fn start(lab: &Lab, user: &str, password: &str) -> Result<Self> {
        let address = this_machine(lab).await?;
        let script = settings::e2e_folder().with_file_name("ingest-pod/tests/camera.py");
        let mut camera = Command::new("/usr/bin/python3");
        camera.arg(script).args(["--address", &address.to_string(), "--user", &format!("{user}:{password}")]);
        camera.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = camera.spawn().context("Python cannot be started; scripts/install test")?;
        let mut port = String::new();
        let mut words = BufReader::new(process.stdout.take().context("the camera's words")?);
        tokio::time::timeout(STEP, words.read_line(&mut port)).await.context("the camera's port")??;
        let port: u16 = port.trim().parse().context("the camera told no port; scripts/install test")?;
        Ok(Self { process, url: format!("rtsp://{address}:{port}/cam") })
    }

    /// It hangs: its connections stay open, and nothing comes any more.
    pub async fn freezes(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// It goes on where it hung.
    pub async fn returns(&self) -> Result<()> {
        self.signal("CONT").await
    }

    async fn signal(&self, signal: &str) -> Result<()> {
        let process = self.process.id().context("the camera has ended")?.to_string();
        let sent = Command::new("kill").args(["-s", signal, &process]).status().await?;
        ensure!(sent.success(), "kill -s {signal}: {sent}");
        Ok(())
    }
}

/// The address under which the cluster's nodes see this machine.
pub(crate) async fn this_machine(lab: &Lab) -> Result<IpAddr> {
    let nodes = Api::<Node>::all(lab.client.clone()).list(&ListParams::default().limit(1)).await?;
    let addresses = nodes.iter().flat_map(|node| node.status.iter().flat_map(|status| status.addresses.iter().flatten()));
    let node = addresses.filter(|address| address.type_ == "InternalIP").find_map(|address| address.address.parse::<Ipv4Addr>().ok());
    // Nothing is sent: the kernel only looks up the way.
    let way = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    way.connect((node.context("a node's address")?, 9))?;
    Ok(way.local_addr()?.ip())
}
