//! Certificates: a CA of the operator's own, and those signed by it: the gateway's, and the pools' pods'.
//!
//! All live in Secrets of the operator's namespace. When a certificate runs out and what it is for is kept in annotations,
//! so that nothing here has to parse X.509.

use crate::apply;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use lectern_podkit::Task;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The Secret that holds the CA.
pub const CA_SECRET: &str = "lectern-ca";

const NOT_AFTER: &str = "lectern.video/not-after";
const NOT_BEFORE: &str = "lectern.video/not-before";
const DNS_NAMES: &str = "lectern.video/dns-names";
const CA_DAYS: i64 = 3650;
/// How often certificates are looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(10);

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
    /// The CA's Secret lacks a key, or it is no text.
    #[error("the Secret {CA_SECRET} has no usable {0}; delete it to have another CA made")]
    BadCa(&'static str),
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

    fn extended(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
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
///
/// # Errors
/// It cannot be made, or not be written; trying again may help.
pub async fn keep_in(client: &Client, wanted: &Wanted, folder: &Path) -> Result<(), TrustError> {
    ensure(client, wanted, Timestamp::now()).await?;
    let secret = Api::<Secret>::namespaced(client.clone(), &wanted.namespace).get(&wanted.secret).await?;
    tokio::fs::create_dir_all(folder).await?;
    for file in ["tls.key", "tls.crt", "ca.crt"] {
        // Each whole; a pair that does not fit for a moment is tried again by who reads it.
        let (new, path) = (folder.join(format!("{file}.new")), folder.join(file));
        tokio::fs::write(&new, text(&secret, file).unwrap_or_default()).await?;
        tokio::fs::rename(&new, &path).await?;
    }
    Ok(())
}

/// Keeps the certificate in `folder` fresh until `stop`.
pub fn keep(client: Client, wanted: Wanted, folder: PathBuf, stop: CancellationToken) -> Task<std::convert::Infallible> {
    Box::pin(async move {
        let mut pause = LOOK;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = pause_after(keep_in(&client, &wanted, &folder).await, &wanted);
        }
        Ok(())
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

/// Makes what is missing or about to run out.
pub async fn ensure(client: &Client, wanted: &Wanted, now: Timestamp) -> Result<(), TrustError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &wanted.namespace);
    let ca = ensure_ca(&secrets, now).await?;
    let ca_pem = text(&ca, "tls.crt").ok_or(TrustError::BadCa("tls.crt"))?;
    let ca_key = text(&ca, "tls.key").ok_or(TrustError::BadCa("tls.key"))?;
    let held = secrets.get_opt(&wanted.secret).await?;
    if held.as_ref().is_some_and(|held| is_fresh(held, &wanted.dns_names, &ca_pem, now)) {
        return Ok(());
    }
    let issuer = Issuer::new(ca_params(now)?, KeyPair::from_pem(&ca_key)?);
    let leaf = issue(&issuer, wanted, &ca_pem, now)?;
    apply::object(&secrets, &leaf).await?;
    tracing::info!(secret = wanted.secret, names = wanted.dns_names.join(","), "a certificate was issued");
    Ok(())
}

/// Reads the CA, or makes it: once, for all replicas and for good.
async fn ensure_ca(secrets: &Api<Secret>, now: Timestamp) -> Result<Secret, TrustError> {
    if let Some(ca) = secrets.get_opt(CA_SECRET).await? {
        return Ok(ca);
    }
    let key = KeyPair::generate()?;
    let certificate = ca_params(now)?.self_signed(&key)?;
    let data = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())];
    let secret = secret(CA_SECRET, data, [(NOT_AFTER, (now + days(CA_DAYS)).to_string())]);
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(made) => Ok(made),
        // An operator before us won; its CA is the one.
        Err(error) if apply::is_conflict(&error) => Ok(secrets.get(CA_SECRET).await?),
        Err(error) => Err(error.into()),
    }
}

/// More than a third of its time is left, it is for the right names, and this CA signed it.
fn is_fresh(held: &Secret, names: &[String], ca_pem: &str, now: Timestamp) -> bool {
    let time = |key: &str| held.annotations().get(key)?.parse::<Timestamp>().ok();
    let (Some(from), Some(until)) = (time(NOT_BEFORE), time(NOT_AFTER)) else { return false };
    let (left, whole) = (until.duration_since(now), until.duration_since(from));
    left > whole / 3
        && held.annotations().get(DNS_NAMES).is_some_and(|held| *held == names.join(","))
        && text(held, "ca.crt").is_some_and(|held| held == ca_pem)
        && text(held, "tls.crt").is_some()
        && text(held, "tls.key").is_some()
}

fn issue(issuer: &Issuer<'_, KeyPair>, wanted: &Wanted, ca_pem: &str, now: Timestamp) -> Result<Secret, TrustError> {
    let (from, until) = (now - days(1), now + days(wanted.usage.days()));
    let mut params = CertificateParams::new(wanted.dns_names.clone())?;
    params.distinguished_name.push(DnType::CommonName, wanted.dns_names.first().cloned().unwrap_or_else(|| "lectern".into()));
    params.extended_key_usages = wanted.usage.extended();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    bound(&mut params, from, until);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let data = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", ca_pem.to_owned())];
    let annotations = [(NOT_BEFORE, from.to_string()), (NOT_AFTER, until.to_string()), (DNS_NAMES, wanted.dns_names.join(","))];
    let mut secret = secret(&wanted.secret, data, annotations);
    secret.metadata.owner_references = wanted.owner.clone().map(|owner| vec![owner]);
    Ok(secret)
}

/// The CA's parameters: what an issuer signs with is the name, which must not change while the CA's Secret lives.
fn ca_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Lectern CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    bound(&mut params, now - days(1), now + days(CA_DAYS));
    Ok(params)
}

fn bound(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    params.not_before = epoch + at(from);
    params.not_after = epoch + at(until);
}

const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(days * 24)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn secret<const D: usize, const A: usize>(name: &str, data: [(&str, String); D], annotations: [(&str, String); A]) -> Secret {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Wanted {
        let dns_names = names.iter().map(|name| (*name).into()).collect();
        Wanted { namespace: "lectern".into(), secret: "gateway-tls".into(), dns_names, usage: Usage::Server, owner: None }
    }

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    fn issued() -> Secret {
        let issuer = Issuer::new(ca_params(at(0)).unwrap(), KeyPair::generate().unwrap());
        issue(&issuer, &wanted(&["gateway.example"]), "the CA", at(0)).unwrap()
    }

    #[test]
    fn a_certificate_is_kept_until_a_third_of_its_time_is_left() {
        let names = wanted(&["gateway.example"]).dns_names;
        assert!(is_fresh(&issued(), &names, "the CA", at(59)));
        assert!(!is_fresh(&issued(), &names, "the CA", at(60)));
    }

    #[test]
    fn a_pods_certificate_is_renewed_within_a_week() {
        let issuer = Issuer::new(ca_params(at(0)).unwrap(), KeyPair::generate().unwrap());
        let wanted = Wanted { usage: Usage::Peer, ..wanted(&["ingest.default.lectern.internal"]) };
        let held = issue(&issuer, &wanted, "the CA", at(0)).unwrap();
        assert!(is_fresh(&held, &wanted.dns_names, "the CA", at(4)));
        assert!(!is_fresh(&held, &wanted.dns_names, "the CA", at(5)));
    }

    #[test]
    fn other_names_or_another_ca_want_another_certificate() {
        assert!(!is_fresh(&issued(), &wanted(&["gateway.example", "b.example"]).dns_names, "the CA", at(1)));
        assert!(!is_fresh(&issued(), &wanted(&["gateway.example"]).dns_names, "another CA", at(1)));
    }

    #[test]
    fn a_secret_that_says_nothing_of_its_certificate_is_replaced() {
        assert!(!is_fresh(&Secret::default(), &[], "the CA", at(1)));
    }
}
