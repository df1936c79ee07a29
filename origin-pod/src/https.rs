//! HTTPS: what [`crate::http`] serves, behind TLS, with the newest certificate for each connection.

use crate::viewing::OverTls;
use axum::serve::Listener;
use axum::{Extension, Router};
use lectern_podkit::health::Readiness;
use lectern_podkit::tls::ServerTls;
use lectern_podkit::{CancellationToken, Task};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// Handshakes at a time; who comes then waits in the kernel's queue.
const HANDSHAKES: usize = 256;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `router` once a certificate is in `folder` (tls.crt, tls.key), until `stop`, and then lets requests under way finish.
/// `readiness`: of a pod that serves nothing else, and is ready only then.
pub fn serve(
    listener: TcpListener,
    folder: PathBuf,
    router: Router,
    readiness: Option<Readiness>,
    stop: CancellationToken,
) -> Task<io::Error> {
    Box::pin(async move {
        let waiting = |obstacle: &str| {
            if let Some(readiness) = &readiness {
                readiness.not_ready(obstacle);
            }
        };
        let Some(tls) = stop.run_until_cancelled(ServerTls::https_when_there(&folder, waiting)).await else { return Ok(()) };
        if let Some(readiness) = &readiness {
            readiness.ready();
        }
        let greeted = Greeted { listener, tls, handshakes: JoinSet::new() };
        axum::serve(greeted, router.layer(Extension(OverTls))).with_graceful_shutdown(stop.cancelled_owned()).await
    })
}

/// A listener whose connections have shaken hands. Each does so in a task of its own: who is slow holds up nobody.
struct Greeted {
    listener: TcpListener,
    tls: ServerTls,
    handshakes: JoinSet<io::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl Listener for Greeted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(panicked) => tracing::error!(%panicked, "a TLS handshake panicked"),
                },
                (socket, peer) = Listener::accept(&mut self.listener), if self.handshakes.len() < HANDSHAKES => {
                    let tls = self.tls.clone();
                    self.handshakes.spawn(async move { Ok((greet(&tls, socket).await?, peer)) });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn greet(tls: &ServerTls, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    // As in the clear: a segment's last bytes must not wait for the acknowledgement of those before.
    socket.set_nodelay(true)?;
    timeout(PATIENCE, tls.accept(socket)).await?
}
