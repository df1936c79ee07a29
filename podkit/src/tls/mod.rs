//! TLS from folders of files, as Kubernetes mounts Secrets: mutual between the pods of a pool ([`PeerTls`]), one-sided
//! towards publishers, players and CDNs ([`ServerTls`]).
//!
//! Files that change are taken up by the next connection, the CA's too; open connections keep what they began with. Files
//! that cannot be used are logged once, and the last good ones stay.

mod follow;
mod identity;
mod peer;
mod server;

pub use identity::Identity;
pub use peer::{PeerProof, PeerRefused, PeerStream, PeerTls, PeerTlsArgs};
pub use server::ServerTls;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use std::io;

/// What a pod is to its peers. Its certificate says so: a DNS name that no resolver knows, signed by the operator's CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// An ingest shard of the pool.
    Ingest,
    /// A transcoder of the pool.
    Transcoder,
    /// An origin of the pool.
    Origin,
    /// The operator, of all pools.
    Operator,
}

impl PeerRole {
    /// The name in the certificates of this role: `ingest.{pool}.lectern.internal`.
    pub fn dns_name(self, pool: &str) -> String {
        match self {
            Self::Ingest => format!("ingest.{pool}.lectern.internal"),
            Self::Transcoder => format!("transcoder.{pool}.lectern.internal"),
            Self::Origin => format!("origin.{pool}.lectern.internal"),
            Self::Operator => "operator.lectern.internal".to_owned(),
        }
    }

    fn server_name(self, pool: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.dns_name(pool);
        ServerName::try_from(name.clone()).map_err(|source| TlsError::Name { name, source })
    }
}

/// Why the files of a folder are no identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there.
    #[error("there is no {0} yet")]
    Missing(&'static str),
    /// A file is there and cannot be read.
    #[error("{file} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        file: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or holds nothing of its kind.
    #[error("{file} is no PEM: {source}")]
    Pem {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// Certificate and key do not belong together, or this TLS takes neither.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The CA's certificate cannot verify anybody.
    #[error("ca.crt cannot be used: {0}")]
    Ca(#[from] rustls::server::VerifierBuilderError),
    /// A pool whose name is no part of a DNS name.
    #[error("{name} is no DNS name, so no certificate can be for it: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: InvalidDnsNameError,
    },
}
