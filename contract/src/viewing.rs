//! Who may watch a signed lecture: whoever has a token, which names a run and a time and which only a holder of the pool's key can make.
//!
//! A token is `{expiry}.{signature}`: the expiry in seconds since 1970, and the unpadded base64url (RFC 4648 §5) of the HMAC-SHA256
//! (RFC 2104), under the key, of three lines without a line break at their end: `lectern-view-v1`, the run's prefix, the expiry as it stands in the token.
//! A CDN that checks tokens itself does the same.

use crate::keys::RunPrefix;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::time::Duration;

/// The time that a link is made for unless another is asked for.
pub const USUAL: Duration = Duration::from_secs(4 * 60 * 60);
/// The longest time that a link is made for. Who signs keeps to it.
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The parameter of a URL's query that carries a token.
pub const QUERY: &str = "token";
/// The cookie that carries a token.
pub const COOKIE: &str = "lectern-view";
/// The entry of the pool's Secret, and the file, with the key that signs.
pub const CURRENT: &str = "current";
/// The one with the key before, whose tokens count until they run out.
pub const PREVIOUS: &str = "previous";

/// What is signed begins with it, so that no signature of another kind can ever pass for one of this.
const PURPOSE: &str = "lectern-view-v1";
/// Digits of an expiry: more than any time that a clock of 64 bits tells.
const MOST_DIGITS: usize = 20;
/// A signature's bytes, and the characters that they take.
const SIGNATURE: usize = 32;
const SIGNATURE_CHARS: usize = 43;

/// A pool's key: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct ViewingKey([u8; 32]);

impl fmt::Debug for ViewingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ViewingKey(…)")
    }
}

impl From<[u8; 32]> for ViewingKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// What is no key: it has so many bytes, and not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a viewing key has 32 bytes and not {0}")]
pub struct BadKey(pub usize);

impl TryFrom<&[u8]> for ViewingKey {
    type Error = BadKey;
    fn try_from(bytes: &[u8]) -> Result<Self, BadKey> {
        bytes.try_into().map(Self).map_err(|_| BadKey(bytes.len()))
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has not the shape of a token.
    #[error("this is no token: it was cut short or changed on its way")]
    Malformed,
    /// None of the pool's keys has signed it for this run.
    #[error("the token is not for this lecture, or its key has been changed since")]
    Foreign,
    /// It was good until then, in seconds since 1970.
    #[error("the token has run out")]
    Expired(u64),
}

/// A token that opens the run at `prefix` until `expiry`, in seconds since 1970.
pub fn sign(key: &ViewingKey, prefix: &RunPrefix, expiry: u64) -> String {
    let expiry = expiry.to_string();
    let signature = mac(key, prefix, &expiry).finalize().into_bytes();
    format!("{expiry}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// `url` with a token in its query.
pub fn link(url: &str, token: &str) -> String {
    format!("{url}?{QUERY}={token}")
}

/// Until when `token` opens the run at `prefix`, in seconds since 1970, as is `now`. How long it takes does not tell how much of a signature is right.
///
/// # Errors
/// Why it does not.
pub fn verify<'a>(keys: impl IntoIterator<Item = &'a ViewingKey>, prefix: &RunPrefix, token: &str, now: u64) -> Result<u64, Invalid> {
    let (text, signature) = token.split_once('.').ok_or(Invalid::Malformed)?;
    if text.len() > MOST_DIGITS || signature.len() != SIGNATURE_CHARS || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::Malformed);
    }
    let expiry: u64 = text.parse().map_err(|_| Invalid::Malformed)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| bytes.len() == SIGNATURE).ok_or(Invalid::Malformed)?;
    // The text and not the number is what was signed: a zero before it makes another token.
    let is_signed = |key| mac(key, prefix, text).verify_slice(&signature).is_ok();
    match keys.into_iter().any(is_signed) {
        false => Err(Invalid::Foreign),
        true if expiry <= now => Err(Invalid::Expired(expiry)),
        true => Ok(expiry),
    }
}

fn mac(key: &ViewingKey, prefix: &RunPrefix, expiry: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("an HMAC takes keys of any length");
    mac.update(format!("{PURPOSE}\n{prefix}\n{expiry}").as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamRef;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn key(fill: u8) -> ViewingKey {
        ViewingKey([fill; 32])
    }

    fn prefix(name: &str) -> RunPrefix {
        RunPrefix::of(&StreamRef { namespace: "school".into(), name: name.into() }, &"s-tro8w0-000001".into())
    }

    /// What `printf 'lectern-view-v1\n28/school/algebra/s-tro8w0-000001\n1800000060' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…`
    /// says: a CDN's own check has to come to the same.
    #[test]
    fn a_token_is_what_openssl_makes_of_the_same() {
        assert_eq!(prefix("algebra").as_str(), "28/school/algebra/s-tro8w0-000001");
        assert_eq!(sign(&key(7), &prefix("algebra"), NOW + 60), "1800000060.GI-Qv3twc5qgvJ9sTv5t4SDNsxrSG_VQAW0Y1f5jliQ");
    }

    #[test]
    fn the_key_before_still_opens_and_the_one_before_that_does_not() {
        let token = sign(&key(1), &prefix("algebra"), NOW + 60);
        assert_eq!(verify([&key(1)], &prefix("algebra"), &token, NOW), Ok(NOW + 60));
        assert_eq!(verify([&key(2), &key(1)], &prefix("algebra"), &token, NOW), Ok(NOW + 60));
        assert_eq!(verify([&key(3), &key(2)], &prefix("algebra"), &token, NOW), Err(Invalid::Foreign));
        assert_eq!(verify([], &prefix("algebra"), &token, NOW), Err(Invalid::Foreign));
    }

    #[test]
    fn a_token_runs_out_at_its_second() {
        let token = sign(&key(1), &prefix("algebra"), NOW);
        assert_eq!(verify([&key(1)], &prefix("algebra"), &token, NOW - 1), Ok(NOW));
        assert_eq!(verify([&key(1)], &prefix("algebra"), &token, NOW), Err(Invalid::Expired(NOW)));
        assert_eq!(
            verify([&key(1)], &prefix("geometry"), &token, NOW),
            Err(Invalid::Foreign),
            "that it has run out is told only of a true one"
        );
    }

    #[test]
    fn what_is_no_token_is_refused_before_anything_is_computed() {
        let true_one = sign(&key(1), &prefix("algebra"), NOW + 60);
        let signature = true_one.split_once('.').unwrap().1;
        let long = format!("{NOW}.{}", "A".repeat(1 << 20));
        let texts =
            ["".into(), ".".into(), format!("{NOW}"), format!(".{signature}"), format!("+{true_one}"), format!("{true_one}="), long];
        for text in texts.into_iter().chain([format!("{}.{signature}", "9".repeat(20)), format!("{NOW}.{}", "!".repeat(43))]) {
            assert_eq!(verify([&key(1)], &prefix("algebra"), &text, NOW), Err(Invalid::Malformed), "{:.80}", text);
        }
        assert_eq!(verify([&key(1)], &prefix("algebra"), &format!("0{true_one}"), NOW), Err(Invalid::Foreign));
    }

    #[test]
    fn a_key_has_32_bytes_and_is_not_shown() {
        assert_eq!(ViewingKey::try_from(&[1; 32][..]), Ok(key(1)));
        assert_eq!(ViewingKey::try_from(&[1; 33][..]), Err(BadKey(33)));
        assert_eq!(format!("{:?}", key(1)), "ViewingKey(…)");
    }

    proptest! {
        #[test]
        fn a_token_opens_its_own_run_until_its_time(fill: u8, name in "[a-z0-9]{1,20}", expiry in 1u64.., early in 1u64..) {
            let token = sign(&key(fill), &prefix(&name), expiry);
            let now = expiry.saturating_sub(early);
            prop_assert_eq!(verify([&key(fill)], &prefix(&name), &token, now), Ok(expiry));
            prop_assert_eq!(verify([&key(fill)], &prefix(&name), &token, expiry), Err(Invalid::Expired(expiry)));
            prop_assert_eq!(verify([&key(fill)], &prefix(&format!("{name}x")), &token, now), Err(Invalid::Foreign));
            prop_assert_eq!(verify([&key(fill.wrapping_add(1))], &prefix(&name), &token, now), Err(Invalid::Foreign));
        }

        #[test]
        fn whatever_character_is_changed_it_opens_nothing(at in any::<prop::sample::Index>(), to in "[ -~]", expiry in 2 * NOW..3 * NOW) {
            let token = sign(&key(1), &prefix("algebra"), expiry);
            let at = at.index(token.len());
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token);
            prop_assert!(verify([&key(1)], &prefix("algebra"), &changed, NOW).is_err(), "{changed}");
        }
    }
}
