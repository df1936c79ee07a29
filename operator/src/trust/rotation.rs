//! How one CA takes the place of another without a connection refused meanwhile. Pure.
//!
//! ```text
//!               issues   is trusted
//! Steady        old      old
//!   │ asked for, old, or another is offered
//! Trusted       old      old, new     every Secret of the operator's certificates gets both
//!   │ the pause after the last of them was written
//! Left          new      new, old     every certificate is issued anew
//!   │ the pause after the last of them was written
//! Steady        new      new
//! ```
//!
//! The pause is longer than a kubelet takes to hand a Secret's new files to pods: so two pods are never more than one line apart, and
//! neighbours accept each other. All that this goes by is in Secrets: an operator that is killed at any line goes on there.

use super::authority::{Authority, UnusableCa};
use super::text;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeMap;

/// The CA as the operator's Secret holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What certificates are issued by.
    pub issuing: Authority,
    /// Whether another comes or goes.
    pub rotation: Rotation,
}

/// Where a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// There is none.
    Steady,
    /// The next is trusted and issues nothing yet.
    Trusted(Authority),
    /// The one before issues nothing any more and is still trusted: its certificate, PEM.
    Left(String),
}

/// Where the next CA comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// The operator makes it.
    Own,
    /// Somebody else makes it: this one now, or none that is usable.
    Given(Option<&'a Authority>),
}

/// What a step is decided by.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The CA.
    pub held: &'a Held,
    /// A person has asked for another.
    pub asked: bool,
    /// Where that comes from.
    pub source: Source<'a>,
    /// When the last Secret was written, once all are as `held` says; `None` before.
    pub settled: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
    /// How long Secrets take to reach all pods, amply.
    pub pause: SignedDuration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing (yet).
    Stay,
    /// Make a CA, and trust it.
    Make,
    /// Trust this one.
    Trust(Authority),
    /// Issue by the next one.
    Use,
    /// Trust the one before no more.
    Forget,
}

/// The next step.
pub fn next(seen: &Seen<'_>) -> Step {
    let has_settled = seen.settled.is_some_and(|written| seen.now.duration_since(written) >= seen.pause);
    match (&seen.held.rotation, seen.source) {
        (Rotation::Steady, Source::Own) if seen.asked || seen.held.issuing.ages(seen.now) => Step::Make,
        (Rotation::Steady, Source::Given(Some(given))) if given.anchor() != seen.held.issuing.anchor() => Step::Trust(given.clone()),
        (Rotation::Steady, _) => Step::Stay,
        (Rotation::Trusted(_), _) if has_settled => Step::Use,
        (Rotation::Left(_), _) if has_settled => Step::Forget,
        (Rotation::Trusted(_) | Rotation::Left(_), _) => Step::Stay,
    }
}

impl Held {
    /// What the Secret holds.
    ///
    /// # Errors
    /// It is no CA.
    pub fn read(secret: &Secret) -> Result<Self, UnusableCa> {
        let issuing = authority(secret, "tls.crt", "tls.key")?;
        let rotation = match (text(secret, "previous.crt"), text(secret, "next.crt")) {
            (Some(previous), _) => Rotation::Left(previous),
            (None, Some(_)) => Rotation::Trusted(authority(secret, "next.crt", "next.key")?),
            (None, None) => Rotation::Steady,
        };
        Ok(Self { issuing, rotation })
    }

    /// As a Secret's entries; `None` for what must not be there.
    pub fn entries(&self) -> BTreeMap<&'static str, Option<ByteString>> {
        let (next, previous) = match &self.rotation {
            Rotation::Steady => (None, None),
            Rotation::Trusted(next) => (Some(next), None),
            Rotation::Left(previous) => (None, Some(previous)),
        };
        let entries = [
            ("tls.crt", Some(&self.issuing.chain)),
            ("tls.key", Some(&self.issuing.key)),
            ("next.crt", next.map(|next| &next.chain)),
            ("next.key", next.map(|next| &next.key)),
            ("previous.crt", previous),
        ];
        entries.map(|(name, text)| (name, text.map(|text| ByteString(text.clone().into_bytes())))).into()
    }

    /// Those that are trusted, PEM: what peers verify each other by.
    pub fn bundle(&self) -> String {
        let other = match &self.rotation {
            Rotation::Steady => None,
            Rotation::Trusted(next) => Some(next.anchor()),
            Rotation::Left(previous) => Some(previous.as_str()),
        };
        std::iter::once(self.issuing.anchor()).chain(other).flat_map(|pem| [pem.trim_end(), "\n"]).collect()
    }

    /// After [`Step::Trust`].
    pub fn trusting(self, next: Authority) -> Self {
        Self { rotation: Rotation::Trusted(next), ..self }
    }

    /// After [`Step::Use`].
    pub fn using(self) -> Self {
        match self.rotation {
            Rotation::Trusted(next) => Self { rotation: Rotation::Left(self.issuing.anchor().to_owned()), issuing: next },
            Rotation::Steady | Rotation::Left(_) => self,
        }
    }

    /// After [`Step::Forget`].
    pub fn forgetting(self) -> Self {
        Self { rotation: Rotation::Steady, ..self }
    }
}

/// The CA in these entries of a Secret.
///
/// # Errors
/// It is none.
pub fn authority(secret: &Secret, chain: &'static str, key: &'static str) -> Result<Authority, UnusableCa> {
    let entry = |name| text(secret, name).ok_or(UnusableCa::Missing(name));
    Authority::read(entry(chain)?, entry(key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: SignedDuration = SignedDuration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn authority() -> Authority {
        Authority::generate(at(0)).unwrap()
    }

    fn held() -> Held {
        Held { issuing: authority(), rotation: Rotation::Steady }
    }

    fn seen<'a>(held: &'a Held, source: Source<'a>, now: Timestamp) -> Seen<'a> {
        Seen { held, asked: false, source, settled: None, now, pause: PAUSE }
    }

    fn written(held: &Held) -> Secret {
        let data = held.entries().into_iter().filter_map(|(name, bytes)| Some((name.to_owned(), bytes?))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn a_ca_in_its_first_two_thirds_that_nobody_wants_replaced_stays() {
        let held = held();
        let year = 365 * 86_400;
        assert_eq!(next(&seen(&held, Source::Own, at(0))), Step::Stay);
        assert_eq!(next(&seen(&held, Source::Own, at(6 * year))), Step::Stay);
        assert_eq!(next(&seen(&held, Source::Own, at(7 * year))), Step::Make, "a third is left");
        assert_eq!(next(&Seen { asked: true, ..seen(&held, Source::Own, at(0)) }), Step::Make);
    }

    #[test]
    fn the_next_one_is_used_once_all_have_been_told_of_it_for_long_enough() {
        let held = held().trusting(authority());
        let told = |settled, now| next(&Seen { settled, ..seen(&held, Source::Own, at(now)) });
        assert_eq!(told(None, 9_000), Step::Stay, "somebody has not been told");
        assert_eq!(told(Some(at(1_000)), 1_299), Step::Stay);
        assert_eq!(told(Some(at(1_000)), 1_300), Step::Use);
    }

    #[test]
    fn the_one_before_is_trusted_until_all_have_had_another_certificate_for_long_enough() {
        let held = held().trusting(authority()).using();
        let told = |settled, now| next(&Seen { settled, ..seen(&held, Source::Own, at(now)) });
        assert_eq!(told(None, 9_000), Step::Stay, "somebody still has one of it");
        assert_eq!(told(Some(at(1_000)), 1_299), Step::Stay);
        assert_eq!(told(Some(at(1_000)), 1_300), Step::Forget);
    }

    #[test]
    fn each_step_trusts_what_the_step_before_issued_by() {
        let (old, new) = (authority(), authority());
        let steady = Held { issuing: old.clone(), rotation: Rotation::Steady };
        let trusted = steady.clone().trusting(new.clone());
        let left = trusted.clone().using();
        let over = left.clone().forgetting();
        let line = |held: &Held| (held.issuing == new, held.bundle().contains(old.anchor()), held.bundle().contains(new.anchor()));
        assert_eq!(
            [&steady, &trusted, &left, &over].map(line),
            [(false, true, false), (false, true, true), (true, true, true), (true, false, true),]
        );
    }

    #[test]
    fn another_one_that_is_asked_for_in_a_rotation_waits_for_its_end() {
        let held = held().trusting(authority());
        let asked = Seen { asked: true, ..seen(&held, Source::Own, at(0)) };
        assert_eq!(next(&asked), Step::Stay);
        let given = authority();
        assert_eq!(next(&seen(&held, Source::Given(Some(&given)), at(0))), Step::Stay);
    }

    #[test]
    fn a_ca_that_is_given_takes_the_place_of_ours_and_none_is_made_beside_it() {
        let (held, given) = (held(), authority());
        assert_eq!(next(&seen(&held, Source::Given(Some(&given)), at(0))), Step::Trust(given.clone()));
        let asked = Seen { asked: true, ..seen(&held, Source::Given(Some(&held.issuing)), at(0)) };
        assert_eq!(next(&asked), Step::Stay, "it is made elsewhere");
        assert_eq!(next(&seen(&held, Source::Given(None), at(0))), Step::Stay, "it is away");
    }

    #[test]
    fn what_is_written_reads_back_at_every_step() {
        let steady = held();
        let trusted = steady.clone().trusting(authority());
        let left = trusted.clone().using();
        for held in [&steady, &trusted, &left, &left.clone().forgetting()] {
            assert_eq!(&Held::read(&written(held)).unwrap(), held);
        }
    }

    #[test]
    fn what_is_no_ca_is_refused_with_the_reason() {
        let (ca, other) = (authority(), authority());
        let refused = |chain: &str, key: &str| Authority::read(chain.to_owned(), key.to_owned()).unwrap_err().to_string();
        assert_eq!(Held::read(&Secret::default()).unwrap_err().to_string(), "it has no usable tls.crt");
        assert_eq!(refused("not a certificate", &ca.key), "its certificate cannot be read");
        assert_eq!(refused(&ca.chain, &other.key), "its key is not its certificate's");
        assert!(refused(&ca.chain, "not a key").starts_with("its key cannot be used"));
        let leaf = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        assert!(refused(&leaf.cert.pem(), &leaf.signing_key.serialize_pem()).contains("isCA: true"));
    }
}
