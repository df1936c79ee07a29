//! The stream's Secret: where to publish, and with which keys.
//!
//! Secrets are read by name and never listed or watched: that would open every Secret of the cluster to the operator. So a
//! key that is changed by hand is noticed with the next change of the stream's spec, or within five minutes, in its turn
//! ([`in_turn`](crate::wakes::in_turn)).

use super::claims::ACCEPTED;
use super::rotation::{Hashes, ROTATION_ANNOTATION, Texts, Unusable, previous_of};
use super::validate::{Refusal, RefusalReason};
use crate::MANAGER;
use crate::apply;
use crate::conditions;
use crate::context::{Context, Error};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Resource, ResourceExt};
use lectern_contract::KeyHash;
use lectern_crds::{LiveStream, POOL_LABEL, STREAM_LABEL};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lowercase base 32 without the letters that are taken for digits.
const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
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

/// What is known of Secrets, by the stream's uid, so that not every reconcile reads one: whether what the status tells is what was read.
#[derive(Debug, Default)]
pub struct KeyBook(Mutex<HashMap<String, Line>>);

#[derive(Debug)]
struct Line {
    /// Of the spec's generation and of what was read.
    stamp: u64,
    /// What was read, until the status tells it: with ten thousand streams that need not be held twice.
    untold: Option<Box<Hashes>>,
    /// The Secret still has the text of the key before.
    keeps_previous: bool,
    /// It is time to read it again.
    doubted: bool,
}

impl KeyBook {
    /// The hashes of `stream`'s keys, if its Secret was read a short while ago, by this process or the one before, its spec is the same, and
    /// there is nothing to change in the Secret now.
    fn known(&self, stream: &LiveStream, url: &str, now: Timestamp) -> Option<Hashes> {
        let mut book = self.lock();
        let line = match book.entry(stream.uid()?) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(empty) => empty.insert(Line::told(stream, url)?),
        };
        let held = line.stamp;
        let is_it = |hashes: &Hashes| stamp(stream, url, hashes) == held;
        let hashes = match told(stream).map(Hashes::of).filter(is_it) {
            _ if line.doubted => return None,
            Some(told) => {
                line.untold = None;
                told
            }
            None => line.untold.as_deref().filter(|untold| is_it(untold))?.clone(),
        };
        let previous = previous_of(&hashes.key, &stream.spec, told(stream), now);
        let is_over = line.keeps_previous && previous.is_none();
        (!is_over).then_some(Hashes { previous, ..hashes })
    }

    fn note(&self, stream: &LiveStream, url: &str, keeps_previous: bool, hashes: &Hashes) {
        let Some(uid) = stream.uid() else { return };
        let untold = Some(Box::new(hashes.clone()));
        self.lock().insert(uid, Line { stamp: stamp(stream, url, hashes), untold, keeps_previous, doubted: false });
    }

    /// Somebody may have changed the Secret meanwhile: it is read when its stream is looked at next.
    pub fn doubt(&self, uid: &str) {
        if let Some(line) = self.lock().get_mut(uid) {
            line.doubted = true;
        }
    }

    /// Forgets a Secret whose stream is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// What the status tells, where it tells of the spec as it is: a new leader need not read ten thousand Secrets before it can work. Each is
    /// read in its stream's turn.
    fn told(stream: &LiveStream, url: &str) -> Option<Self> {
        let status = stream.status.as_ref()?;
        let told = status.ingest.as_ref()?;
        let holds = status.observed_generation == stream.metadata.generation && conditions::holds(&status.conditions, ACCEPTED);
        // What is in the Secret beside its key, only the Secret says.
        if !holds || told.url != url || told.previous_key_hash.is_some() {
            return None;
        }
        Some(Self { stamp: stamp(stream, url, &Hashes::of(told)), untold: None, keeps_previous: false, doubted: false })
    }
}

/// Of the spec's generation, the address and the hashes but that of the key before, which has a time of its own.
fn stamp(stream: &LiveStream, url: &str, hashes: &Hashes) -> u64 {
    let mut hasher = DefaultHasher::new();
    let backup = hashes.backup.as_ref().map(|backup| &backup.0);
    (stream.metadata.generation, url, &hashes.key.0, hashes.rotation, backup).hash(&mut hasher);
    hasher.finish()
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
pub async fn ensure(stream: &LiveStream, url: &str, now: Timestamp, ctx: &Context) -> Result<Result<Key, Refusal>, Error> {
    let namespace = stream.namespace().unwrap_or_default();
    let name = secret_name(&stream.name_any());
    let key = |hashes| Key { url: url.to_owned(), secret_name: name.clone(), hashes };
    if let Some(known) = ctx.keys.known(stream, url, now) {
        return Ok(Ok(key(known)));
    }
    let secrets: Api<Secret> = Api::namespaced(ctx.client(), &namespace);
    let held = match made_first(stream, &secrets, url).await? {
        Some(made) => made,
        None => match secrets.get_opt(&name).await? {
            Some(held) => held,
            None => make(stream, &secrets, url).await?,
        },
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
    ctx.keys.note(stream, url, should.previous.is_some(), &hashes);
    Ok(Ok(key(hashes)))
}

/// The Secret of a stream that has none so far, most likely: nobody is asked, it is made. `None` where there is one, or the stream is not new.
async fn made_first(stream: &LiveStream, secrets: &Api<Secret>, url: &str) -> Result<Option<Secret>, kube::Error> {
    if told(stream).is_some() {
        return Ok(None);
    }
    match make(stream, secrets, url).await {
        Err(error) if apply::is_conflict(&error) => Ok(None),
        made => made.map(Some),
    }
}

/// The least that it can be. What else is wanted is applied, so that it can be taken back.
async fn make(stream: &LiveStream, secrets: &Api<Secret>, url: &str) -> Result<Secret, kube::Error> {
    let first = Texts { key: new_key(), previous: None, backup: None, rotation: Some(stream.spec.stream_key.rotation) };
    let post = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    secrets.create(&post, &secret(stream, &secret_name(&stream.name_any()), url, &first)).await
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
    use serde_json::json;

    #[test]
    fn a_new_key_is_one_that_would_be_adopted() {
        let key = new_key();
        assert_eq!(key.len(), 35);
        let data = [("key".to_owned(), ByteString(key.clone().into_bytes()))].into();
        assert_eq!(Texts::held(&Secret { data: Some(data), ..Secret::default() }).unwrap().key, key);
        assert_ne!(key, new_key());
    }

    const URL: &str = "rtmp://in/live";

    /// A stream whose status tells of a key, with `change` on top.
    fn told_of(change: serde_json::Value) -> LiveStream {
        let ingest = json!({ "url": URL, "secretName": "algebra-stream-key", "keyHash": KeyHash::of("k").0, "keyRotation": 2 });
        let accepted = json!({ "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let mut object = json!({
            "metadata": { "name": "algebra", "namespace": "school", "uid": "u1", "generation": 3 },
            "spec": {},
            "status": { "observedGeneration": 3, "conditions": [accepted], "ingest": ingest },
        });
        for (path, value) in change.as_object().into_iter().flatten() {
            *object.pointer_mut(path).unwrap() = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn known(stream: &LiveStream) -> (KeyBook, Option<Hashes>) {
        let book = KeyBook::default();
        let known = book.known(stream, URL, Timestamp::UNIX_EPOCH);
        (book, known)
    }

    #[test]
    fn a_new_leader_takes_the_key_that_the_status_tells_of_and_reads_the_secret_in_its_turn() {
        let stream = told_of(json!({}));
        let (book, hashes) = known(&stream);
        assert_eq!(hashes, Some(Hashes { key: KeyHash::of("k"), rotation: 2, previous: None, backup: None }));
        book.doubt("u1");
        assert_eq!(book.known(&stream, URL, Timestamp::UNIX_EPOCH), None);
        book.note(&stream, URL, false, &hashes.unwrap());
        assert!(book.known(&stream, URL, Timestamp::UNIX_EPOCH).is_some(), "it was read");
    }

    #[test]
    fn a_key_that_was_read_is_known_until_the_status_has_told_it_and_then_tells_another() {
        let (before, after) = (told_of(json!({})), told_of(json!({ "/status/ingest/keyHash": KeyHash::of("l").0 })));
        let (book, hashes) = known(&before);
        book.note(&before, URL, false, &Hashes { key: KeyHash::of("l"), ..hashes.unwrap() });
        let key = |stream: &LiveStream| book.known(stream, URL, Timestamp::UNIX_EPOCH).map(|hashes| hashes.key);
        for stream in [&before, &after] {
            assert_eq!(key(stream), Some(KeyHash::of("l")));
        }
        assert_eq!(key(&before), None, "somebody has changed the status");
    }

    #[test]
    fn a_status_that_tells_of_another_spec_or_of_less_than_the_secret_holds_is_not_taken_for_it() {
        assert_eq!(known(&told_of(json!({ "/metadata/generation": 4 }))).1, None, "a rotation, or a backup key");
        assert_eq!(known(&told_of(json!({ "/status/conditions/0/status": "False" }))).1, None, "the Secret is refused");
        assert_eq!(known(&told_of(json!({ "/status/ingest/url": "rtmp://elsewhere/live" }))).1, None, "the pool has another address");
        let mut two = told_of(json!({}));
        two.status.as_mut().unwrap().ingest.as_mut().unwrap().previous_key_hash = Some(KeyHash::of("j").0);
        assert_eq!(known(&two).1, None, "the text of the key before has to go in time");
    }
}
