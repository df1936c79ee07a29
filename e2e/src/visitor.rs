//! Who comes to a TLS server of the platform: whom it is shown, and a connection that is held.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection to an HTTPS server; HTTP 1.1, one request after the other.
pub struct Visitor {
    /// The certificates that it was shown, DER, the server's own first.
    pub shown: Vec<CertificateDer<'static>>,
    requests: SendRequest<Empty<Bytes>>,
    host: String,
}

impl Visitor {
    /// To 127.0.0.1, where `name` is expected, with a certificate of `root`, PEM.
    pub async fn of(port: u16, name: &str, root: &str) -> Result<Self> {
        let stream = connected(port, name, root).await?;
        let shown = certificates(&stream)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection); // its end is the requests' error
        Ok(Self { shown, requests, host: name.to_owned() })
    }

    /// What the path is answered with, once all of it has come. Over the one connection: an error where that is gone.
    pub async fn get(&mut self, path: &str) -> Result<StatusCode> {
        self.requests.ready().await.context("the connection is gone")?;
        let request = http::Request::get(path).header(http::header::HOST, &self.host).body(Empty::new())?;
        let answer = self.requests.send_request(request).await.with_context(|| path.to_owned())?;
        let status = answer.status();
        answer.into_body().collect().await.with_context(|| path.to_owned())?;
        Ok(status)
    }
}

/// The certificates that a server on 127.0.0.1 shows before it asks for the client's, which has none; else as [`Visitor::of`].
pub async fn shown_to_strangers(port: u16, name: &str, root: &str) -> Result<Vec<CertificateDer<'static>>> {
    certificates(&connected(port, name, root).await?)
}

/// A certificate's DER of its PEM, the first where there are more.
pub fn der(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).context("no PEM of a certificate")
}

async fn connected(port: u16, name: &str, root: &str) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(der(root)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    Ok(connector.connect(ServerName::try_from(name.to_owned())?, socket).await?)
}

fn certificates(stream: &TlsStream<TcpStream>) -> Result<Vec<CertificateDer<'static>>> {
    let shown = stream.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(shown.iter().map(|one| one.clone().into_owned()).collect())
}
