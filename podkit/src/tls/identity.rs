//! A folder's files as a certificate, a key and those whom they trust.

use super::TlsError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// The certificate chain's file, the leaf first.
const CERTIFICATE: &str = "tls.crt";
/// The private key's file.
const KEY: &str = "tls.key";
/// The file of the CAs that peers' certificates are verified by.
const CA: &str = "ca.crt";
/// A bigger file is no key and no certificate.
const MAX_BYTES: u64 = 1024 * 1024;

/// Who a process is, and whom it trusts: what `tls.crt`, `tls.key` and, if there, `ca.crt` of a folder hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Reads the folder's files. Where the kubelet swaps them meanwhile, key and certificate may not belong together: the
    /// configurations below find that out.
    ///
    /// # Errors
    /// What is missing or wrong, by file.
    pub async fn load(folder: &Path) -> Result<Self, TlsError> {
        let chain = read(folder, CERTIFICATE).await?.ok_or(TlsError::Missing(CERTIFICATE))?;
        let key = read(folder, KEY).await?.ok_or(TlsError::Missing(KEY))?;
        let roots = read(folder, CA).await?;
        Ok(Self {
            chain: certificates(CERTIFICATE, &chain)?,
            key: PrivateKeyDer::from_pem_slice(&key).map_err(|source| TlsError::Pem { file: KEY, source })?,
            roots: roots.map_or_else(|| Ok(Vec::new()), |pem| certificates(CA, &pem))?,
        })
    }

    /// For a server that anybody may talk to: TLS 1.2 and 1.3, no client certificate asked for.
    ///
    /// # Errors
    /// Key and certificate do not belong together, or cannot be used.
    pub fn public_server(&self) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(config.with_no_client_auth().with_single_cert(self.chain.clone(), self.key.clone_key())?)
    }

    /// The same for a server of HTTP: HTTP/2 where the client has it, else 1.1.
    ///
    /// # Errors
    /// As [`Identity::public_server`].
    pub fn https_server(&self) -> Result<ServerConfig, TlsError> {
        let mut config = self.public_server()?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// For a server that only peers with a certificate of the CA may talk to. Sessions are not resumed: each handshake
    /// verifies anew, by the roots of now, and peers' connections last too long for it to matter.
    ///
    /// # Errors
    /// There is no CA, or something of it cannot be used.
    pub fn peer_server(&self) -> Result<ServerConfig, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider()).build()?;
        let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let mut config = config.with_client_cert_verifier(verifier).with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For a client that shows its certificate, to servers with a certificate of the CA.
    ///
    /// # Errors
    /// There is no CA, or something of it cannot be used.
    pub fn peer_client(&self) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let mut config = config.with_root_certificates(self.roots()?).with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        if self.roots.is_empty() {
            return Err(TlsError::Missing(CA));
        }
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone())?;
        }
        Ok(Arc::new(store))
    }
}

/// The one cryptography of all processes, named outright: other crates bring another, and rustls would not choose.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|source| TlsError::Pem { file, source })?;
    if certificates.is_empty() { Err(TlsError::Empty(file)) } else { Ok(certificates) }
}

/// A file's bytes; `None` where it is not there. What is over [`MAX_BYTES`] is cut, and then is no PEM.
async fn read(folder: &Path, file: &'static str) -> Result<Option<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { file, source };
    let opened = match tokio::fs::File::open(folder.join(file)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    let mut bytes = Vec::new();
    opened.take(MAX_BYTES).read_to_end(&mut bytes).await.map_err(unreadable)?;
    Ok(Some(bytes))
}
