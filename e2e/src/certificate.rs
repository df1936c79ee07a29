//! A certificate of the school's own, as a Secret holds it and as a server shows it.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::Command;

/// A certificate for `localhost` that signed itself.
pub struct Certificate {
    /// PEM.
    pub certificate: String,
    key: String,
}

impl Certificate {
    /// A new one.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }

    /// The entries of a Secret of type `kubernetes.io/tls`.
    pub fn entries(&self) -> Value {
        json!({"tls.crt": self.certificate, "tls.key": self.key})
    }

    /// Whether a server on 127.0.0.1 shows this one in a handshake that begins now; OpenSSL asks.
    pub async fn is_shown_at(&self, port: u16) -> Result<bool> {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost"]);
        let said = client.stdin(Stdio::null()).output().await.context("openssl cannot be started; scripts/install test")?;
        // It shows the certificate as PEM, among much else.
        Ok(one_line(&String::from_utf8_lossy(&said.stdout)).contains(&one_line(&self.certificate)))
    }
}

fn one_line(pem: &str) -> String {
    pem.split_whitespace().collect()
}
