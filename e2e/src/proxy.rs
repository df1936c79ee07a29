//! A way to a server that can be cut: on this machine, at an address that pods reach.

use crate::camera::this_machine;
use crate::lab::Lab;
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A TCP proxy; gone when dropped, with all its connections.
pub struct Proxy {
    /// Where pods find it.
    pub address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// To a port of this machine.
    pub async fn to(lab: &Lab, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((this_machine(lab).await?, 0)).await.context("a port for pods")?;
        let (address, cut) = (listener.local_addr()?, watch::Sender::new(false));
        let mut seen = cut.subscribe();
        tokio::spawn(async move {
            while let Some(accepted) = until_gone(&mut seen, listener.accept()).await {
                let Ok((client, _)) = accepted else { continue };
                tokio::spawn(pass_on(client, port, seen.clone()));
            }
        });
        Ok(Self { address, cut })
    }

    /// Breaks all connections, and every new one at once; or lets them through again.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

/// What comes of `work`, unless the proxy is dropped before.
async fn until_gone<T>(seen: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = async { while seen.changed().await.is_ok() {} } => None,
        done = work => Some(done),
    }
}

async fn pass_on(mut client: TcpStream, port: u16, mut seen: watch::Receiver<bool>) {
    if *seen.borrow_and_update() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        _ = seen.changed() => {}
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
    }
}
