//! TLS towards the world: no client certificate asked for.

use super::follow::Followed;
use super::{Identity, TlsError};
use rustls::ServerConfig;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A server's certificate, the newest one for each new connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls(Followed<ServerConfig>);

impl ServerTls {
    /// With the certificate in `folder`: `tls.crt` and `tls.key`, PEM. Inside a runtime: a task of it reads them again.
    ///
    /// # Errors
    /// The files are missing or unusable now.
    pub async fn load(folder: &Path) -> Result<Self, TlsError> {
        Followed::load(folder, Identity::public_server).await.map(Self)
    }

    /// As [`ServerTls::load`], once the files are there and usable. What it waits for is logged, and told to `waiting`.
    pub async fn when_there(folder: &Path, waiting: impl Fn(&str)) -> Self {
        Self(Followed::when_there(folder, Identity::public_server, waiting).await)
    }

    /// As [`ServerTls::when_there`], for a server of HTTP, 1.1 and 2.
    pub async fn https_when_there(folder: &Path, waiting: impl Fn(&str)) -> Self {
        Self(Followed::when_there(folder, Identity::https_server, waiting).await)
    }

    /// Shakes hands with who has just connected. It has no time limit of its own: give it one.
    ///
    /// # Errors
    /// The connection is lost, or the peer speaks no TLS that we do.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.now()).accept(socket).await
    }

    /// The configuration for a connection that begins now, for who drives TLS without a runtime.
    pub fn newest(&self) -> Arc<ServerConfig> {
        self.0.now()
    }

    /// Waits until a newer certificate is in use.
    pub async fn renewed(&mut self) {
        self.0.renewed().await;
    }
}
