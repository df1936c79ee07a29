//! Who comes with reports: pods with a certificate of the operator's CA.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use lectern_podkit::tls::{PeerProof, PeerRole, PeerStream, PeerTls};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes that are done and wait to be served.
const WAITING: usize = 64;
/// Pause after a failed accept: out of file descriptors does not mend within microseconds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who reports.
#[derive(Debug, Clone)]
pub struct Reporter(PeerProof);

impl Reporter {
    /// Whether it is such a pod of this pool.
    pub fn is(&self, role: PeerRole, pool: &str) -> bool {
        self.0.is(role, pool)
    }
}

impl Connected<IncomingStream<'_, Listener>> for Reporter {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Shakes hands with all who connect, side by side.
#[derive(Debug)]
pub struct Listener {
    come: mpsc::Receiver<(PeerStream, Reporter)>,
}

impl Listener {
    /// Listens at this address.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(address: SocketAddr, peers: PeerTls) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (came, come) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while !came.is_closed() {
                let socket = tokio::select! {
                    () = came.closed() => return,
                    accepted = listener.accept() => accepted,
                };
                match socket {
                    Ok((socket, remote)) => {
                        let (peers, came) = (peers.clone(), came.clone());
                        tokio::spawn(async move {
                            match timeout(HANDSHAKE, peers.accept_any(socket)).await {
                                // Who served has gone with the process.
                                Ok(Ok((stream, proof))) => drop(came.send((stream, Reporter(proof))).await),
                                Ok(Err(error)) => tracing::debug!(%remote, %error, "somebody without a certificate"),
                                Err(_) => tracing::debug!(%remote, "a handshake takes too long"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Ok(Self { come })
    }
}

impl axum::serve::Listener for Listener {
    type Io = PeerStream;
    type Addr = Reporter;

    async fn accept(&mut self) -> (PeerStream, Reporter) {
        match self.come.recv().await {
            Some(came) => came,
            None => std::future::pending().await, // the task that accepts ends after this only
        }
    }

    fn local_addr(&self) -> io::Result<Reporter> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
