//! The stream's Secret: where to publish, and with which keys.
//!
//! Secrets are read by name and never listed or watched: that would open every Secret of the cluster to the operator. So a
//! key that is changed by hand is noticed when the stream is looked at next: with the next change of its spec, or within
//! five minutes.

use super::rotation::{Hashes, ROTATION_ANNOTATION, Texts, Unusable, previous_of};
use super::validate::{Refusal, RefusalReason, Wanted};
use crate::MANAGER;
use crate::apply;
use crate::context::{Context, Error};
use jiff::Timestamp;
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

/// Where to publish and what opens the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The RTMP address.
    pub url: String,
    /// The Secret.
    pub secret_name: String,
    /// The hashes of the keys in it.
    pub hashes: Hashes,
}

/// Secrets as they were read last, so that not every reconcile reads one. It holds hashes and no keys.
#[derive(Debug, Default)]
pub struct KeyBook(Mutex<HashMap<(String, String), Line>>);

#[derive(Debug)]
struct Line {
    uid: Option<String>,
    generation: Option<i64>,
    read: Instant,
    url: String,
    hashes: Hashes,
    /// The Secret still has the text of the key before.
    keeps_previous: bool,
}

impl KeyBook {
    /// The hashes of `stream`'s keys, if its Secret was read a short while ago, its spec is the same, and there is nothing to
    /// change in the Secret now.
    fn known(&self, at: &(String, String), stream: &LiveStream, url: &str, now: Timestamp) -> Option<Hashes> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = book.get(at)?;
        let same = line.uid == stream.metadata.uid && line.generation == stream.metadata.generation && line.url == url;
        if !same || line.read.elapsed() >= REMEMBERED {
            return None;
        }
        let previous = previous_of(&line.hashes.key, &stream.spec, told(stream), now);
        let is_over = line.keeps_previous && previous.is_none();
        (!is_over).then(|| Hashes { previous, ..line.hashes.clone() })
    }

    fn note(&self, at: (String, String), stream: &LiveStream, url: &str, keeps_previous: bool, hashes: Hashes) {
        let (uid, generation) = (stream.metadata.uid.clone(), stream.metadata.generation);
        let line = Line { uid, generation, read: Instant::now(), url: url.to_owned(), hashes, keeps_previous };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(at, line);
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
/// Brings it to what the spec asks for: a new key with each rotation, a backup key or none.
///
/// # Errors
/// A conflict where somebody has written to the Secret since it was read.
pub async fn ensure(stream: &LiveStream, wanted: &Wanted, now: Timestamp, ctx: &Context) -> Result<Result<Key, Refusal>, Error> {
    let namespace = stream.namespace().unwrap_or_default();
    let name = secret_name(&stream.name_any());
    let url = &wanted.pool.ingest.public_url;
    let at = (namespace.clone(), name.clone());
    let key = |hashes| Key { url: url.clone(), secret_name: name.clone(), hashes };
    if let Some(known) = ctx.keys.known(&at, stream, url, now) {
        return Ok(Ok(key(known)));
    }
    let secrets: Api<Secret> = Api::namespaced(ctx.client(), &namespace);
    let held = match secrets.get_opt(&name).await? {
        Some(held) => held,
        None => {
            // The least that it can be. What else is wanted is applied, so that it can be taken back.
            let first = Texts { key: new_key(), previous: None, backup: None, rotation: Some(stream.spec.stream_key.rotation) };
            let post = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            secrets.create(&post, &secret(stream, &name, url, &first)).await?
        }
    };
    let texts = match Texts::held(&held) {
        Ok(texts) => texts,
        Err(why) => return Ok(Err(unusable(&name, why))),
    };
    let should = texts.wanted(&stream.spec, told(stream), now, [new_key(), new_key()]);
    if should != texts || !is_ours(&held, stream, url) {
        let mut change = secret(stream, &name, url, &should);
        // A key that somebody sets right now must not be taken for the one that was read.
        change.metadata.resource_version = held.resource_version();
        apply::object(&secrets, &change).await?;
        if should.key != texts.key {
            tracing::info!(namespace, secret = name, rotation = stream.spec.stream_key.rotation, "made a new stream key");
        }
    }
    let hash = KeyHash::of(&should.key);
    let hashes = Hashes {
        rotation: should.rotation.unwrap_or_default(),
        previous: previous_of(&hash, &stream.spec, told(stream), now),
        backup: should.backup.as_deref().map(KeyHash::of),
        key: hash,
    };
    ctx.keys.note(at, stream, url, should.previous.is_some(), hashes.clone());
    Ok(Ok(key(hashes)))
}

fn told(stream: &LiveStream) -> Option<&lectern_crds::IngestStatus> {
    stream.status.as_ref()?.ingest.as_ref()
}

fn unusable(name: &str, why: Unusable) -> Refusal {
    let message = match why {
        Unusable::Entry(entry) => format!(
            "the Secret {name} has no usable `{entry}` (16 to 128 letters, digits, `-` or `_`); set one, or delete {} to get a new one",
            if entry == "key" { "the Secret" } else { "the entry" }
        ),
        Unusable::Same => {
            format!("in the Secret {name} `key` and `backupKey` are the same; delete the entry `backupKey` to get another")
        }
    };
    Refusal { reason: RefusalReason::BadKeySecret, message }
}

fn is_ours(secret: &Secret, stream: &LiveStream, url: &str) -> bool {
    let owned = secret.owner_references().iter().any(|owner| Some(&owner.uid) == stream.meta().uid.as_ref());
    let labelled = secret.labels().get(STREAM_LABEL).is_some_and(|label| *label == stream.name_any());
    let told = secret.data.as_ref().and_then(|data| data.get("url")).is_some_and(|held| held.0 == url.as_bytes());
    owned && labelled && told
}

fn secret(stream: &LiveStream, name: &str, url: &str, texts: &Texts) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "lectern".to_owned()),
        ("app.kubernetes.io/part-of", "lectern".to_owned()),
        ("app.kubernetes.io/component", "stream-key".to_owned()),
        (STREAM_LABEL, stream.name_any()),
        (POOL_LABEL, stream.spec.pool_name.clone()),
    ];
    let rotation = texts.rotation.map(|rotation| [(ROTATION_ANNOTATION.to_owned(), rotation.to_string())].into());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: stream.namespace(),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            annotations: rotation,
            owner_references: stream.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(texts.data(url)),
        ..Secret::default()
    }
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
    use k8s_openapi::ByteString;

    #[test]
    fn a_new_key_is_one_that_would_be_adopted() {
        let key = new_key();
        assert_eq!(key.len(), 35);
        let data = [("key".to_owned(), ByteString(key.clone().into_bytes()))].into();
        assert_eq!(Texts::held(&Secret { data: Some(data), ..Secret::default() }).unwrap().key, key);
        assert_ne!(key, new_key());
    }
}
