//! Certificates: a CA, and those signed by it: the gateway's, and the pools' pods'. docs/trust.md says who issues what.
//!
//! All live in Secrets of the operator's namespace. [`turn`] keeps the CA and is the only one that writes it; whoever needs a certificate
//! reads it.

pub mod authority;
pub mod leaf;
pub mod rotation;
pub mod turn;

use crate::apply;
use authority::UnusableCa;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, ObjectMeta};
use lectern_podkit::Task;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The Secret that holds the CA.
pub const CA_SECRET: &str = "lectern-ca";

/// How often certificates are looked at: as often as pools are.
const LOOK: Duration = Duration::from_secs(30);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// How soon it is looked for one that there has never been.
const NOT_YET: Duration = Duration::from_secs(1);

/// Why a certificate could not be issued or kept.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The API server.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// A file could not be written.
    #[error("the certificate could not be written: {0}")]
    Files(#[from] std::io::Error),
    /// Key or certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// It is made within seconds.
    #[error("there is no Secret {CA_SECRET} yet")]
    NoCa,
    /// The leader makes it within seconds.
    #[error("there is no Secret {0} yet")]
    NoCertificate(String),
    /// The Secret of the CA holds something else.
    #[error("the Secret {CA_SECRET} cannot be used: {0}; delete it to have another CA made")]
    BadCa(#[from] UnusableCa),
    /// The Secret with somebody else's CA is not there, or holds something else.
    #[error("the CA in the Secret {secret} cannot be used: {source}")]
    BadGiven {
        /// Which Secret.
        secret: String,
        /// What is wrong with it.
        #[source]
        source: UnusableCa,
    },
}

/// Which certificate to keep.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The namespace of both Secrets.
    pub namespace: String,
    /// The Secret of the certificate.
    pub secret: String,
    /// The names that it is for; the first is its common name.
    pub dns_names: Vec<String>,
    /// What it is good for.
    pub usage: Usage,
    /// Whom the Secret goes with.
    pub owner: Option<OwnerReference>,
}

/// What a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A server that people and their programs connect to.
    Server,
    /// A pod, as server and as client of other pods. Short-lived: nobody revokes it.
    Peer,
}

impl Usage {
    fn days(self) -> i64 {
        match self {
            Self::Server => 90,
            Self::Peer => 7,
        }
    }
}

/// Keeps the certificate fresh until `stop`.
pub fn run(client: Client, wanted: Wanted, stop: CancellationToken) -> Task<std::convert::Infallible> {
    Box::pin(async move {
        loop {
            let pause = pause_after(ensure(&client, &wanted, Timestamp::now()).await, &wanted);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    })
}

/// Puts the certificate, its key and the CA's certificate into `folder`, where this process reads them.
async fn copy(client: &Client, wanted: &Wanted, folder: &Path) -> Result<(), TrustError> {
    let secret = Api::<Secret>::namespaced(client.clone(), &wanted.namespace).get_opt(&wanted.secret).await?;
    let secret = secret.ok_or_else(|| TrustError::NoCertificate(wanted.secret.clone()))?;
    tokio::fs::create_dir_all(folder).await?;
    for file in ["tls.key", "tls.crt", "ca.crt"] {
        let held = text(&secret, file).ok_or_else(|| TrustError::NoCertificate(wanted.secret.clone()))?;
        // Each whole; a pair that does not fit for a moment is tried again by who reads it.
        let (new, path) = (folder.join(format!("{file}.new")), folder.join(file));
        tokio::fs::write(&new, held).await?;
        tokio::fs::rename(&new, &path).await?;
    }
    Ok(())
}

/// Keeps in `folder` what the Secret of the certificate holds, until `stop`; from `leading` on the Secret, too. `there` is cancelled once it is there.
pub fn keep(
    client: Client,
    wanted: Wanted,
    folder: PathBuf,
    (leading, there): (CancellationToken, CancellationToken),
    stop: CancellationToken,
) -> Task<std::convert::Infallible> {
    Box::pin(async move {
        loop {
            let leads = leading.is_cancelled();
            let made = if leads { ensure(&client, &wanted, Timestamp::now()).await } else { Ok(()) };
            let copied = copy(&client, &wanted, &folder).await;
            if copied.is_ok() {
                there.cancel();
            }
            let pause = match made.and(copied) {
                // Of a new installation: the leader makes CA and certificate within a second or two.
                Err(TrustError::NoCa | TrustError::NoCertificate(_)) if !there.is_cancelled() => NOT_YET,
                kept => pause_after(kept, &wanted),
            };
            let begins_to_lead = async { if leads { std::future::pending().await } else { leading.cancelled().await } };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = begins_to_lead => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    })
}

/// How soon to look again; a failure is logged.
fn pause_after(looked: Result<(), TrustError>, wanted: &Wanted) -> Duration {
    match looked {
        Ok(()) => LOOK,
        Err(error) => {
            tracing::warn!(%error, secret = wanted.secret, "a certificate is not up to date; trying on");
            RETRY
        }
    }
}

/// Makes what is missing, about to run out, or of a CA that issues no more; and sees that the CAs beside it are those that are trusted.
///
/// # Errors
/// There is no CA, or the API server says no; trying again may help.
pub async fn ensure(client: &Client, wanted: &Wanted, now: Timestamp) -> Result<(), TrustError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &wanted.namespace);
    let ca = rotation::Held::read(&secrets.get_opt(CA_SECRET).await?.ok_or(TrustError::NoCa)?)?;
    let held = secrets.get_opt(&wanted.secret).await?;
    let Some(renewed) = leaf::renewed(held.as_ref(), wanted, &ca, now)? else { return Ok(()) };
    apply::object(&secrets, &renewed).await?;
    tracing::info!(secret = wanted.secret, names = wanted.dns_names.join(","), "a certificate, or the CAs beside it, were renewed");
    Ok(())
}

const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days * 24)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn labelled<const D: usize, const A: usize>(name: &str, data: [(&str, String); D], annotations: [(&str, String); A]) -> Secret {
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("app.kubernetes.io/part-of".to_owned(), "lectern".to_owned())].into()),
            annotations: Some(annotations.into_iter().map(owned).collect()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    }
}
