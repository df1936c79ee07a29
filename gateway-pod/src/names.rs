//! Names that are made of what people write.

use sha2::{Digest, Sha256};

/// The longest slug, in characters: with the suffix it leaves room below a LiveStream's 52.
pub const MAX_SLUG: usize = 30;
/// The longest LiveStream name.
const MAX_ID: usize = 52;
const SUFFIX: usize = 8;

/// The label of a LiveStream that the gateway made: its user, hashed.
pub const USER_LABEL: &str = "gateway.lectern.video/user";
/// The label of a LiveStream that the gateway made: its name, hashed.
pub const NAME_LABEL: &str = "gateway.lectern.video/name";
/// The annotation with the user as it was given.
pub const USER_ANNOTATION: &str = "gateway.lectern.video/user-id";
/// The annotation with the name as it was given.
pub const NAME_ANNOTATION: &str = "gateway.lectern.video/stream-name";
/// The annotation that counts the streams of one user and name, from 0.
pub const NTH_ANNOTATION: &str = "gateway.lectern.video/nth";

/// `name` as a DNS label of 1 to [`MAX_SLUG`] characters: lower-case ASCII letters and digits stay, all else becomes single
/// hyphens. `lecture` where nothing is left.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for character in name.chars() {
        if slug.len() >= MAX_SLUG {
            break;
        }
        match character.to_ascii_lowercase() {
            kept @ ('a'..='z' | '0'..='9') => slug.push(kept),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "lecture".to_owned() } else { slug.to_owned() }
}

/// The name of the `nth` LiveStream of `user` called `name`: `{slug}-{8 characters}`.
///
/// The characters look random and are a hash: of two gateways that start the same stream at the same time, one finds the name
/// taken, so that there is never a second stream. Nobody gains by guessing a name: every call needs a key, and a player
/// URL holds the run's own random part.
pub fn id(user: &str, name: &str, nth: u64) -> String {
    // Lengths come first, so that no two triples hash the same text.
    let hash = Sha256::digest(format!("{}:{user}{}:{name}{nth}", user.len(), name.len()));
    // 32 characters that cannot be misread (no i, l, o, u), 5 bits each.
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let suffix: String = hash.iter().take(SUFFIX).map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    format!("{}-{suffix}", slug(name))
}

/// `text` as a label value: 40 hex digits of its SHA-256. A collision is caught by the annotation beside it.
pub fn label(text: &str) -> String {
    let mut hash = hex::encode(Sha256::digest(text));
    hash.truncate(40);
    hash
}

/// Whether `id` can be a LiveStream's name. What cannot never gets into a request to the API server.
pub fn is_id(id: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    id.len() <= MAX_ID && id.bytes().all(inner) && edge(id.bytes().next()) && edge(id.bytes().last()) && !id.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slug_reads_like_its_name() {
        assert_eq!(slug("Algebra 1: groups & rings"), "algebra-1-groups-rings");
        assert_eq!(slug("  Übung  "), "bung");
        assert_eq!(slug("代数"), "lecture");
    }

    #[test]
    fn the_same_stream_has_the_same_name_and_the_next_one_another() {
        assert_eq!(id("ada", "Algebra", 0), id("ada", "Algebra", 0));
        assert_ne!(id("ada", "Algebra", 0), id("ada", "Algebra", 1));
        assert_ne!(id("ada", "Algebra", 0), id("bob", "Algebra", 0));
        assert_ne!(id("a", "1:b", 0), id("a1:", "b", 0));
    }

    #[test]
    fn a_path_is_no_id() {
        for bad in ["", "-a", "a-", "A", "a/b", "../secrets", "a..b", "a%2fb", "a b", "ä", &"a".repeat(53)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_people_write_becomes_a_name_that_kubernetes_takes(user in ".{0,128}", name in ".{0,200}", nth in any::<u64>()) {
            prop_assert!((1..=MAX_SLUG).contains(&slug(&name).len()));
            prop_assert!(is_id(&id(&user, &name, nth)));
            prop_assert!(!id(&user, &name, nth).contains('.'));
            prop_assert_eq!(label(&name).len(), 40);
        }
    }
}
