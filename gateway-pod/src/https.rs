//! HTTPS: waits for its certificate, and takes up a renewed one without dropping a connection.

use crate::files;
use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use lectern_podkit::Task;
use lectern_podkit::health::Readiness;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The certificate chain's file.
const CERTIFICATE: &str = "tls.crt";
/// The private key's file.
const KEY: &str = "tls.key";
/// How long calls may finish after a stop: StartStream's patience and a little.
const GRACE: Duration = Duration::from_secs(12);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The folder cannot be read.
    #[error("the folder cannot be read: {0}")]
    Folder(#[from] std::io::Error),
    /// A file is not there yet.
    #[error("there is no {0} yet")]
    Missing(&'static str),
    /// A file is not PEM, or holds nothing of its kind.
    #[error("{file} cannot be read: {source}")]
    Pem {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not belong together, or this TLS takes neither.
    #[error("certificate and key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why HTTPS is not served.
#[derive(Debug, thiserror::Error)]
#[error("HTTPS cannot be served on {address}: {source}")]
pub struct HttpsError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Makes aws-lc-rs the process's cryptography. Several crates bring one, and rustls wants to be told; the first call wins.
pub fn install_crypto() {
    // An Err says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Serves `router` with the certificate in `folder` until `stop`. Ready once a certificate is there.
pub fn serve(address: SocketAddr, folder: PathBuf, router: Router, readiness: Readiness, stop: CancellationToken) -> Task<HttpsError> {
    Box::pin(async move {
        let Some((files, config)) = stop.run_until_cancelled(first(&folder, &readiness)).await else { return Ok(()) };
        let config = RustlsConfig::from_config(config);
        let wrap = |source| HttpsError { address, source };
        let listener = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener)).map_err(wrap)?;
        let handle = Handle::new();
        let server = from_tcp_rustls(listener, config.clone()).map_err(wrap)?.handle(handle.clone()).serve(router.into_make_service());
        readiness.ready();
        tracing::info!(%address, "HTTPS is served");

        tokio::pin!(server);
        let ended = tokio::select! {
            ended = &mut server => ended,
            () = renew(&folder, files, &config) => Ok(()), // it never returns
            () = stop.cancelled() => {
                readiness.not_ready("stopping");
                handle.graceful_shutdown(Some(GRACE));
                server.await
            }
        };
        ended.map_err(wrap)
    })
}

type Files = BTreeMap<String, Vec<u8>>;

/// The first usable certificate, however long it takes to come.
async fn first(folder: &Path, readiness: &Readiness) -> (Files, Arc<ServerConfig>) {
    let mut said = None;
    loop {
        match load(folder).await {
            Ok(loaded) => return loaded,
            Err(error) => {
                let obstacle = format!("waiting for a certificate in {}: {error}", folder.display());
                if said.as_ref() != Some(&obstacle) {
                    tracing::info!("{obstacle}");
                    readiness.not_ready(obstacle.clone());
                    said = Some(obstacle);
                }
            }
        }
        tokio::time::sleep(files::EVERY).await;
    }
}

/// Takes up whatever `folder` holds anew, for ever. What cannot be used is said once, and the last certificate stays.
async fn renew(folder: &Path, mut current: Files, config: &RustlsConfig) {
    let mut said = None;
    loop {
        tokio::time::sleep(files::EVERY).await;
        match load(folder).await {
            Ok((files, _)) if files == current => said = None,
            Ok((files, renewed)) => {
                config.reload_from_config(renewed);
                current = files;
                said = None;
                tracing::info!("a new certificate is in use");
            }
            Err(error) => {
                let trouble = error.to_string();
                if said.as_ref() != Some(&trouble) {
                    tracing::warn!(%error, "the certificate in {} cannot be used; the last one stays", folder.display());
                    said = Some(trouble);
                }
            }
        }
    }
}

async fn load(folder: &Path) -> Result<(Files, Arc<ServerConfig>), CertificateError> {
    let mut files = files::read(folder).await?;
    files.retain(|name, _| name == CERTIFICATE || name == KEY);
    let config = server_config(&files)?;
    Ok((files, config))
}

fn server_config(files: &Files) -> Result<Arc<ServerConfig>, CertificateError> {
    let file = |name: &'static str| files.get(name).ok_or(CertificateError::Missing(name));
    let pem = |file| move |source| CertificateError::Pem { file, source };
    let (chain, key) = (file(CERTIFICATE)?, file(KEY)?);
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(pem(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem(KEY))?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
