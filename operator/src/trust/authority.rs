//! A CA: its certificate, its key, and what it signs with them. No I/O.

use super::{Usage, Wanted, days};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};
use std::time::Duration;

const CA_DAYS: i64 = 3650;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Why a certificate and a key are no CA.
#[derive(Debug, thiserror::Error)]
pub enum UnusableCa {
    /// The Secret is not there.
    #[error("there is none")]
    Absent,
    /// The Secret lacks an entry, or it is no text.
    #[error("it has no usable {0}")]
    Missing(&'static str),
    /// The first certificate is no PEM of an X.509 certificate.
    #[error("its certificate cannot be read")]
    Unreadable,
    /// It may not sign others.
    #[error("its certificate is not a CA's (cert-manager: isCA: true)")]
    NoCa,
    /// The key is of no kind that we sign with.
    #[error("its key cannot be used: {0}")]
    Key(#[source] rcgen::Error),
    /// The two do not belong together.
    #[error("its key is not its certificate's")]
    OtherKey,
    /// Nobody would believe what it signs.
    #[error("its certificate ran out on {0}")]
    RunOut(Timestamp),
}

/// A CA that certificates can be issued by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate, PEM; of one that another CA has signed, that one's and so on after it.
    pub chain: String,
    /// Its key, PEM.
    pub key: String,
    /// When it becomes valid.
    pub from: Timestamp,
    /// When it runs out.
    pub until: Timestamp,
    is_root: bool,
}

impl Authority {
    /// A new one of our own.
    ///
    /// # Errors
    /// No key or certificate could be made.
    pub fn generate(now: Timestamp) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        // All have one name: operators from before there were rotations sign under it, and may come back (helm rollback).
        params.distinguished_name.push(DnType::CommonName, "Lectern CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (from, until) = (whole(now - days(1)), whole(now + days(CA_DAYS)));
        bound(&mut params, from, until);
        let key = KeyPair::generate()?;
        let chain = params.self_signed(&key)?.pem();
        Ok(Self { chain, key: key.serialize_pem(), from, until, is_root: true })
    }

    /// What these texts are.
    ///
    /// # Errors
    /// Why they are no CA.
    pub fn read(chain: String, key: String) -> Result<Self, UnusableCa> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).map_err(|_| UnusableCa::Unreadable)?;
        let certificate = pem.parse_x509().map_err(|_| UnusableCa::Unreadable)?;
        if !certificate.is_ca() {
            return Err(UnusableCa::NoCa);
        }
        let pair = KeyPair::from_pem(&key).map_err(UnusableCa::Key)?;
        if pair.public_key_raw() != certificate.public_key().subject_public_key.data.as_ref() {
            return Err(UnusableCa::OtherKey);
        }
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| UnusableCa::Unreadable);
        let (from, until) = (at(certificate.validity().not_before)?, at(certificate.validity().not_after)?);
        let is_root = certificate.subject() == certificate.issuer();
        Ok(Self { chain, key, from, until, is_root })
    }

    /// Its own certificate, PEM: what its peers trust, and not whoever has signed it.
    pub fn anchor(&self) -> &str {
        anchor(&self.chain)
    }

    /// The SHA-256 of its certificate's PEM, in hex.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.anchor()))
    }

    /// Less than a third of its time is left.
    pub fn ages(&self, now: Timestamp) -> bool {
        self.until.duration_since(now) < self.until.duration_since(self.from) / 3
    }

    /// A certificate and its key, PEM, from and until when it is valid: no longer than the CA's own.
    ///
    /// # Errors
    /// The names are none, or no key or certificate could be made.
    pub fn issue(&self, wanted: &Wanted, now: Timestamp) -> Result<Issued, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(self.anchor(), KeyPair::from_pem(&self.key)?)?;
        let (from, until) = (whole(now - days(1)), whole((now + days(wanted.usage.days())).min(self.until)));
        let mut params = CertificateParams::new(wanted.dns_names.clone())?;
        params.distinguished_name.push(DnType::CommonName, wanted.dns_names.first().cloned().unwrap_or_else(|| "lectern".into()));
        params.extended_key_usages = extended(wanted.usage);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        bound(&mut params, from, until);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?.pem();
        // Who trusts the CA above ours needs ours to get there.
        let chain = if self.is_root { leaf } else { leaf + &self.chain };
        Ok(Issued { chain, key: key.serialize_pem(), from, until })
    }
}

/// What a CA has issued.
#[derive(Debug)]
pub struct Issued {
    /// The certificate, PEM, and what leads from it to the root.
    pub chain: String,
    /// Its key, PEM.
    pub key: String,
    /// When it becomes valid.
    pub from: Timestamp,
    /// When it runs out.
    pub until: Timestamp,
}

/// The first certificate of a chain, PEM.
pub fn anchor(chain: &str) -> &str {
    let from = chain.find(BEGIN).unwrap_or(0);
    let until = chain.find(END).map_or(chain.len(), |end| end + END.len());
    chain.get(from..until).unwrap_or(chain)
}

fn extended(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    match usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    }
}

/// A certificate's times are whole seconds.
fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn bound(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    params.not_before = epoch + at(from);
    params.not_after = epoch + at(until);
}
