//! A certificate as its Secret holds it: when it is made anew, and when only its CAs are. Pure but for the new key.
//!
//! When it runs out, what it is for and who has issued it is kept in annotations.

use super::rotation::Held;
use super::{TrustError, Wanted, labelled, text};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

const NOT_AFTER: &str = "lectern.video/not-after";
const NOT_BEFORE: &str = "lectern.video/not-before";
const DNS_NAMES: &str = "lectern.video/dns-names";
const ISSUER: &str = "lectern.video/issuer";
const WRITTEN: &str = "lectern.video/written";

/// What a Secret needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is as it should be.
    Nothing,
    /// Other CAs beside its certificate, which stays.
    Bundle,
    /// Another certificate.
    Certificate,
}

/// What the Secret of `wanted` needs. A certificate is kept while more than a third of its time is left, it is for the right names, and the
/// CA that issues now has issued it.
pub fn need(held: Option<&Secret>, wanted: &Wanted, ca: &Held, now: Timestamp) -> Need {
    let Some(held) = held else { return Need::Certificate };
    let says = |key: &str| held.annotations().get(key).map(String::as_str);
    let time = |key: &str| says(key)?.parse::<Timestamp>().ok();
    let (Some(from), Some(until), Some(_)) = (time(NOT_BEFORE), time(NOT_AFTER), written(held)) else { return Need::Certificate };
    let lasts = until.duration_since(now) > until.duration_since(from) / 3 || until == ca.issuing.until;
    let is_good = lasts
        && says(DNS_NAMES) == Some(wanted.dns_names.join(",").as_str())
        && says(ISSUER) == Some(ca.issuing.fingerprint().as_str())
        && text(held, "tls.crt").is_some()
        && text(held, "tls.key").is_some();
    match is_good {
        false => Need::Certificate,
        true if text(held, "ca.crt").is_some_and(|held| held == ca.bundle()) => Need::Nothing,
        true => Need::Bundle,
    }
}

/// When the operator wrote it last; `None` where it is not the operator's.
pub fn written(held: &Secret) -> Option<Timestamp> {
    held.annotations().get(WRITTEN)?.parse().ok()
}

/// The Secret as it should be; `None` where it is that already.
///
/// # Errors
/// No key or certificate could be made.
pub fn renewed(held: Option<&Secret>, wanted: &Wanted, ca: &Held, now: Timestamp) -> Result<Option<Secret>, TrustError> {
    let mut secret = match need(held, wanted, ca, now) {
        Need::Nothing => return Ok(None),
        Need::Certificate => {
            let issued = ca.issuing.issue(wanted, now)?;
            let data = [("tls.crt", issued.chain), ("tls.key", issued.key), ("ca.crt", ca.bundle())];
            let annotations = [
                (NOT_BEFORE, issued.from.to_string()),
                (NOT_AFTER, issued.until.to_string()),
                (DNS_NAMES, wanted.dns_names.join(",")),
                (ISSUER, ca.issuing.fingerprint()),
            ];
            labelled(&wanted.secret, data, annotations)
        }
        Need::Bundle => {
            let kept = |key| held.and_then(|held| text(held, key)).unwrap_or_default(); // there: it would need a certificate else
            let said = |key| held.and_then(|held| held.annotations().get(key).cloned()).unwrap_or_default();
            let data = [("tls.crt", kept("tls.crt")), ("tls.key", kept("tls.key")), ("ca.crt", ca.bundle())];
            labelled(&wanted.secret, data, [NOT_BEFORE, NOT_AFTER, DNS_NAMES, ISSUER].map(|key| (key, said(key))))
        }
    };
    secret.annotations_mut().insert(WRITTEN.to_owned(), now.to_string());
    secret.metadata.owner_references = wanted.owner.clone().map(|owner| vec![owner]);
    Ok(Some(secret))
}

#[cfg(test)]
mod tests {
    use super::super::Usage;
    use super::super::authority::Authority;
    use super::super::rotation::Rotation;
    use super::*;

    fn wanted(names: &[&str], usage: Usage) -> Wanted {
        let dns_names = names.iter().map(|name| (*name).into()).collect();
        Wanted { namespace: "lectern".into(), secret: "gateway-tls".into(), dns_names, usage, owner: None }
    }

    fn gateway() -> Wanted {
        wanted(&["gateway.example"], Usage::Server)
    }

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    fn ca() -> Held {
        Held { issuing: Authority::generate(at(0)).unwrap(), rotation: Rotation::Steady }
    }

    fn issued(wanted: &Wanted, ca: &Held) -> Secret {
        renewed(None, wanted, ca, at(0)).unwrap().unwrap()
    }

    #[test]
    fn a_certificate_is_kept_until_a_third_of_its_time_is_left() {
        let (ca, wanted) = (ca(), gateway());
        let held = issued(&wanted, &ca);
        assert_eq!(need(Some(&held), &wanted, &ca, at(59)), Need::Nothing);
        assert_eq!(need(Some(&held), &wanted, &ca, at(60)), Need::Certificate);
        assert!(renewed(Some(&held), &wanted, &ca, at(59)).unwrap().is_none());
    }

    #[test]
    fn a_pods_certificate_is_renewed_within_a_week() {
        let (ca, wanted) = (ca(), wanted(&["ingest.default.lectern.internal"], Usage::Peer));
        let held = issued(&wanted, &ca);
        assert_eq!(need(Some(&held), &wanted, &ca, at(4)), Need::Nothing);
        assert_eq!(need(Some(&held), &wanted, &ca, at(5)), Need::Certificate);
    }

    #[test]
    fn other_names_or_another_issuer_want_another_certificate() {
        let (first, wanted) = (ca(), gateway());
        let held = issued(&wanted, &first);
        let more = Wanted { dns_names: vec!["gateway.example".into(), "b.example".into()], ..gateway() };
        assert_eq!(need(Some(&held), &more, &first, at(1)), Need::Certificate);
        assert_eq!(need(Some(&held), &wanted, &ca(), at(1)), Need::Certificate);
    }

    #[test]
    fn a_ca_that_is_trusted_too_changes_the_bundle_and_not_the_certificate() {
        let (ca, wanted) = (ca(), gateway());
        let held = issued(&wanted, &ca);
        let next = Authority::generate(at(1)).unwrap();
        let both = Held { rotation: Rotation::Trusted(next.clone()), ..ca.clone() };
        assert_eq!(need(Some(&held), &wanted, &both, at(2)), Need::Bundle);
        let with_both = renewed(Some(&held), &wanted, &both, at(2)).unwrap().unwrap();
        for same in ["tls.crt", "tls.key"] {
            assert_eq!(text(&with_both, same), text(&held, same), "{same}");
        }
        let bundle = text(&with_both, "ca.crt").unwrap();
        assert!(bundle.contains(ca.issuing.anchor()) && bundle.contains(next.anchor()), "{bundle}");
        assert_eq!((written(&held), written(&with_both)), (Some(at(0)), Some(at(2))));
        assert_eq!(need(Some(&with_both), &wanted, &both, at(2)), Need::Nothing);
    }

    #[test]
    fn a_certificate_lasts_no_longer_than_its_ca_and_is_not_made_anew_for_it_again_and_again() {
        let (mut ca, wanted) = (ca(), gateway());
        ca.issuing.until = at(30);
        let held = issued(&wanted, &ca);
        assert_eq!(held.annotations()[NOT_AFTER], at(30).to_string());
        assert_eq!(need(Some(&held), &wanted, &ca, at(29)), Need::Nothing);
    }

    #[test]
    fn a_secret_that_says_nothing_of_its_certificate_is_replaced() {
        assert_eq!(need(Some(&Secret::default()), &gateway(), &ca(), at(1)), Need::Certificate);
        assert_eq!(need(None, &gateway(), &ca(), at(1)), Need::Certificate);
    }
}
