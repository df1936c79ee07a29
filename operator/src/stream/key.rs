//! The stream's Secret: where to publish, and with which key.
//!
//! Secrets are read by name and never listed or watched: that would open every Secret of the cluster to the operator. So a
//! key that is changed by hand is noticed when the stream is looked at next: with the next change of its spec, or within
//! five minutes.

use super::validate::{Refusal, RefusalReason, Wanted};
use crate::MANAGER;
use crate::apply;
use crate::context::{Context, Error};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};
use lectern_contract::KeyHash;
use lectern_crds::{LiveStream, POOL_LABEL, STREAM_LABEL};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Lowercase base 32 without the letters that are taken for digits.
const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How long a key that was read is taken for the key that is there; a little less than an idle stream's next look.
const REMEMBERED: Duration = Duration::from_secs(290);
/// 32 digits of 5 bits: 160 random bits.
const LENGTH: usize = 32;

/// Where to publish and what the key's hash is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The RTMP address.
    pub url: String,
    /// The Secret.
    pub secret_name: String,
    /// The hash of the key in it.
    pub hash: KeyHash,
}

/// Keys as they were read last, so that not every reconcile reads a Secret.
#[derive(Debug, Default)]
pub struct KeyBook(Mutex<HashMap<(String, String), Line>>);

#[derive(Debug)]
struct Line {
    uid: Option<String>,
    generation: Option<i64>,
    read: Instant,
    key: Key,
}

impl KeyBook {
    /// The key of `stream`, if it was read a short while ago and the stream's spec is the same.
    fn known(&self, at: &(String, String), stream: &LiveStream) -> Option<Key> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = book.get(at)?;
        let same = line.uid == stream.metadata.uid && line.generation == stream.metadata.generation;
        (same && line.read.elapsed() < REMEMBERED).then(|| line.key.clone())
    }

    fn note(&self, at: (String, String), stream: &LiveStream, key: Key) {
        let (uid, generation) = (stream.metadata.uid.clone(), stream.metadata.generation);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(at, Line { uid, generation, read: Instant::now(), key });
    }

    /// Forgets a Secret whose stream is gone.
    pub fn forget(&self, namespace: &str, secret: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace.to_owned(), secret.to_owned()));
    }
}

/// The name of a stream's Secret.
pub fn secret_name(stream: &str) -> String {
    format!("{stream}-stream-key")
}

/// Makes the Secret, or takes the one that is there: its key is what counts, so that a key can be set and changed by hand.
pub async fn ensure(stream: &LiveStream, wanted: &Wanted, ctx: &Context) -> Result<Result<Key, Refusal>, Error> {
    let namespace = stream.namespace().unwrap_or_default();
    let name = secret_name(&stream.name_any());
    let url = &wanted.pool.ingest.public_url;
    let at = (namespace.clone(), name.clone());
    if let Some(known) = ctx.keys.known(&at, stream).filter(|key| key.url == *url) {
        return Ok(Ok(known));
    }
    let secrets: Api<Secret> = Api::namespaced(ctx.client(), &namespace);
    let text = match secrets.get_opt(&name).await? {
        None => {
            let text = new_key();
            let post = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            secrets.create(&post, &secret(stream, &name, url, &text)).await?;
            text
        }
        Some(held) => match held_key(&held) {
            None => return Ok(Err(unusable(&name))),
            Some(text) if is_ours(&held, stream, url) => text,
            Some(text) => {
                apply::object(&secrets, &secret(stream, &name, url, &text)).await?;
                text
            }
        },
    };
    let key = Key { url: url.clone(), secret_name: name, hash: KeyHash::of(&text) };
    ctx.keys.note(at, stream, key.clone());
    Ok(Ok(key))
}

fn unusable(name: &str) -> Refusal {
    let message = format!(
        "the Secret {name} has no usable `key` (16 to 128 letters, digits, `-` or `_`); set one, or delete the Secret to get a new key"
    );
    Refusal { reason: RefusalReason::BadKeySecret, message }
}

fn held_key(secret: &Secret) -> Option<String> {
    let text = String::from_utf8(secret.data.as_ref()?.get("key")?.0.clone()).ok()?;
    let sound = (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    sound.then_some(text)
}

fn is_ours(secret: &Secret, stream: &LiveStream, url: &str) -> bool {
    let owned = secret.owner_references().iter().any(|owner| Some(&owner.uid) == stream.meta().uid.as_ref());
    let labelled = secret.labels().get(STREAM_LABEL).is_some_and(|label| *label == stream.name_any());
    let told = secret.data.as_ref().and_then(|data| data.get("url")).is_some_and(|held| held.0 == url.as_bytes());
    owned && labelled && told
}

fn secret(stream: &LiveStream, name: &str, url: &str, key: &str) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "lectern".to_owned()),
        ("app.kubernetes.io/part-of", "lectern".to_owned()),
        ("app.kubernetes.io/component", "stream-key".to_owned()),
        (STREAM_LABEL, stream.name_any()),
        (POOL_LABEL, stream.spec.pool_name.clone()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: stream.namespace(),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            owner_references: stream.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some([("url".to_owned(), bytes(url)), ("key".to_owned(), bytes(key))].into()),
        ..Secret::default()
    }
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

/// `lk_` and 160 random bits, from the thread's cryptographically secure generator.
fn new_key() -> String {
    let random: [u8; LENGTH] = rand::random();
    // 256 is a multiple of 32, so that every digit is equally likely.
    random.iter().fold("lk_".to_owned(), |key, byte| key + &char::from(DIGITS[usize::from(byte % 32)]).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(key: &str) -> Secret {
        Secret { data: Some([("key".to_owned(), bytes(key))].into()), ..Secret::default() }
    }

    #[test]
    fn a_new_key_is_one_that_would_be_adopted() {
        let key = new_key();
        assert_eq!(key.len(), 35);
        assert_eq!(held_key(&holding(&key)), Some(key.clone()));
        assert_ne!(key, new_key());
    }

    #[test]
    fn a_key_that_is_too_short_or_not_fit_for_a_url_is_not_adopted() {
        for key in ["", "short", "with a space in the middle", "with/slash/in/the/middle"] {
            assert_eq!(held_key(&holding(key)), None, "{key:?}");
        }
        assert_eq!(held_key(&Secret::default()), None);
    }
}
