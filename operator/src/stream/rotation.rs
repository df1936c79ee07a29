//! What a stream's Secret should hold, and which keys open the stream: no client, no clock, no dice.
//!
//! The Secret says what the key is, the status since when. A new key is written to the Secret first, under the number of its
//! rotation, then to the status: whoever crashes in between finds the number done and makes no second key. Whenever the key
//! is not the one that the status tells of, whether made here or set by hand, the one before gets its overlap.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lectern_contract::KeyHash;
use lectern_crds::{IngestStatus, LiveStreamSpec};
use std::collections::BTreeMap;

use crate::conditions::whole_second;

/// On the Secret: the rotation that its key was made for.
pub const ROTATION_ANNOTATION: &str = "lectern.video/key-rotation";

/// The keys in a stream's Secret, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// `key`.
    pub key: String,
    /// `previousKey`: for whoever has to look it up. What opens the stream is the hash in the status.
    pub previous: Option<String>,
    /// `backupKey`.
    pub backup: Option<String>,
    /// The rotation that `key` was made for; `None` in a Secret that somebody else made.
    pub rotation: Option<i32>,
}

/// What of the Secret cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// The entry holds no key.
    Entry(&'static str),
    /// Both publishers would come with one key.
    Same,
}

/// Which keys open a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// The stream's key.
    pub key: KeyHash,
    /// The rotation that it was made for.
    pub rotation: i32,
    /// The key before it, while that may be used.
    pub previous: Option<Previous>,
    /// The key of the publisher that stands by.
    pub backup: Option<KeyHash>,
}

/// A key that may still be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// Its hash.
    pub hash: KeyHash,
    /// Until when.
    pub until: Timestamp,
}

impl Texts {
    /// The keys that `secret` holds.
    pub fn held(secret: &Secret) -> Result<Self, Unusable> {
        let data = secret.data.as_ref();
        let entry = |name: &'static str| match data.and_then(|data| data.get(name)) {
            None => Ok(None),
            Some(bytes) => sound(bytes).ok_or(Unusable::Entry(name)).map(Some),
        };
        let texts = Self {
            key: entry("key")?.ok_or(Unusable::Entry("key"))?,
            // Nothing depends on it: one that makes no sense is as good as none.
            previous: entry("previousKey").unwrap_or_default(),
            backup: entry("backupKey")?,
            rotation: secret.annotations().get(ROTATION_ANNOTATION).and_then(|number| number.parse().ok()),
        };
        if texts.backup.as_ref() == Some(&texts.key) { Err(Unusable::Same) } else { Ok(texts) }
    }

    /// What the Secret should hold, given what it holds and two `fresh` keys to take from.
    pub fn wanted(&self, spec: &LiveStreamSpec, told: Option<&IngestStatus>, now: Timestamp, fresh: [String; 2]) -> Self {
        let [fresh_key, fresh_backup] = fresh;
        // A key that somebody else made is the one that the status tells of, or the first: not a rotation behind.
        let rotation = self.rotation.unwrap_or_else(|| told.map_or(spec.stream_key.rotation, |told| told.key_rotation));
        let (key, previous) = if spec.stream_key.rotation > rotation {
            (fresh_key, Some(self.key.clone()))
        } else {
            (self.key.clone(), self.previous.clone())
        };
        let until = previous_of(&KeyHash::of(&key), spec, told, now);
        Self {
            previous: previous.filter(|text| until.as_ref().is_some_and(|previous| previous.hash == KeyHash::of(text))),
            backup: spec.reconnect.backup.then(|| self.backup.clone().unwrap_or(fresh_backup)),
            rotation: Some(rotation.max(spec.stream_key.rotation)),
            key,
        }
    }

    /// As a Secret's data, with the address to publish to.
    pub fn data(&self, url: &str) -> BTreeMap<String, ByteString> {
        let entries = [("url", Some(url)), ("key", Some(&self.key)), ("previousKey", self.previous.as_deref())];
        let entries = entries.into_iter().chain([("backupKey", self.backup.as_deref())]);
        entries.filter_map(|(name, text)| Some((name.to_owned(), ByteString(text?.as_bytes().to_vec())))).collect()
    }
}

/// The key that may still be used beside `key`: the one that the status tells of where that is another, else the one that
/// has time left.
pub fn previous_of(key: &KeyHash, spec: &LiveStreamSpec, told: Option<&IngestStatus>, now: Timestamp) -> Option<Previous> {
    let told = told?;
    let overlap = SignedDuration::from_secs(i64::from(spec.stream_key.overlap_seconds));
    if overlap.is_zero() {
        return None;
    }
    if told.key_hash != key.0 {
        // Rounded up: a second more rather than a lecturer who is shut out early.
        let until = whole_second(now).checked_add(overlap + SignedDuration::from_secs(1)).ok()?;
        return Some(Previous { hash: KeyHash(told.key_hash.clone()), until });
    }
    let until = told.previous_key_until.as_ref()?.0;
    (until > now).then(|| Some(Previous { hash: KeyHash(told.previous_key_hash.clone()?), until }))?
}

impl Hashes {
    /// What the status tells, but for the key before.
    pub fn of(told: &IngestStatus) -> Self {
        Self {
            key: KeyHash(told.key_hash.clone()),
            rotation: told.key_rotation,
            previous: None,
            backup: told.backup_key_hash.clone().map(KeyHash),
        }
    }

    /// As the status tells it, with the address and the Secret's name.
    pub fn told(&self, url: &str, secret_name: &str, camera_credentials: Option<String>) -> IngestStatus {
        IngestStatus {
            url: url.to_owned(),
            secret_name: secret_name.to_owned(),
            key_hash: self.key.0.clone(),
            key_rotation: self.rotation,
            previous_key_hash: self.previous.as_ref().map(|previous| previous.hash.0.clone()),
            previous_key_until: self.previous.as_ref().map(|previous| Time(previous.until)),
            backup_key_hash: self.backup.as_ref().map(|backup| backup.0.clone()),
            camera_credentials,
        }
    }
}

fn sound(bytes: &ByteString) -> Option<String> {
    let text = std::str::from_utf8(&bytes.0).ok()?;
    let sound = (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    sound.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FIRST: &str = "lk_first-first-first";
    const SECOND: &str = "lk_second-second";

    fn spec(rotation: i32, overlap: i32, backup: bool) -> LiveStreamSpec {
        let spec = json!({ "streamKey": { "rotation": rotation, "overlapSeconds": overlap }, "reconnect": { "backup": backup } });
        serde_json::from_value(spec).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn texts(key: &str, rotation: Option<i32>) -> Texts {
        Texts { key: key.into(), previous: None, backup: None, rotation }
    }

    fn fresh() -> [String; 2] {
        [SECOND.into(), "lk_backup-backup".into()]
    }

    /// What the status tells after a look at `texts`.
    fn told(texts: &Texts, spec: &LiveStreamSpec, before: Option<&IngestStatus>, now: Timestamp) -> IngestStatus {
        let key = KeyHash::of(&texts.key);
        let previous = previous_of(&key, spec, before, now);
        let backup = texts.backup.as_deref().map(KeyHash::of);
        Hashes { key, rotation: texts.rotation.unwrap_or(0), previous, backup }.told("rtmp://in/live", "s", None)
    }

    #[test]
    fn a_rotation_makes_a_new_key_and_keeps_the_one_before_until_the_overlap_has_passed() {
        let (before, after) = (spec(0, 600, false), spec(1, 600, false));
        let first = texts(FIRST, Some(0));
        let status = told(&first, &before, None, at(0));
        assert_eq!(status.previous_key_hash, None, "a first key has none before it");

        let second = first.wanted(&after, Some(&status), at(10), fresh());
        assert_eq!((second.key.as_str(), second.previous.as_deref(), second.rotation), (SECOND, Some(FIRST), Some(1)));
        let status = told(&second, &after, Some(&status), at(10));
        assert_eq!((status.key_rotation, status.previous_key_hash.clone()), (1, Some(KeyHash::of(FIRST).0)));
        assert_eq!(status.previous_key_until, Some(Time(at(611))));

        assert_eq!(second.wanted(&after, Some(&status), at(600), fresh()), second, "nothing to do meanwhile");
        let later = second.wanted(&after, Some(&status), at(611), fresh());
        assert_eq!((later.key.as_str(), later.previous.clone()), (SECOND, None));
        assert_eq!(told(&later, &after, Some(&status), at(611)).previous_key_hash, None);
    }

    #[test]
    fn a_crash_between_secret_and_status_makes_no_second_key() {
        let after = spec(1, 600, false);
        let status = told(&texts(FIRST, Some(0)), &spec(0, 600, false), None, at(0));
        let second = texts(FIRST, Some(0)).wanted(&after, Some(&status), at(10), fresh());
        let again = second.wanted(&after, Some(&status), at(20), ["lk_third-third-third".into(), "lk_fourth-fourth".into()]);
        assert_eq!(again, second);
        assert_eq!(told(&again, &after, Some(&status), at(20)).previous_key_hash, Some(KeyHash::of(FIRST).0));
    }

    #[test]
    fn a_key_set_by_hand_is_a_rotation_too() {
        let spec = spec(0, 60, false);
        let status = told(&texts(FIRST, Some(0)), &spec, None, at(0));
        let by_hand = texts("set-by-hand-by-someone", Some(0)).wanted(&spec, Some(&status), at(10), fresh());
        assert_eq!(by_hand.key, "set-by-hand-by-someone");
        let status = told(&by_hand, &spec, Some(&status), at(10));
        assert_eq!((status.previous_key_hash, status.previous_key_until), (Some(KeyHash::of(FIRST).0), Some(Time(at(71)))));
    }

    #[test]
    fn without_an_overlap_the_key_before_is_shut_out_at_once() {
        let status = told(&texts(FIRST, Some(0)), &spec(0, 600, false), None, at(0));
        let second = texts(FIRST, Some(0)).wanted(&spec(1, 0, false), Some(&status), at(10), fresh());
        assert_eq!((second.key.as_str(), second.previous.clone()), (SECOND, None));
        let long = told(&second, &spec(1, 600, false), Some(&status), at(10));
        assert!(long.previous_key_hash.is_some());
        let cut = told(&second, &spec(1, 0, false), Some(&long), at(20));
        assert_eq!(cut.previous_key_hash, None, "also one that had time left");
    }

    #[test]
    fn a_secret_that_was_there_before_the_stream_keeps_its_key() {
        let preset = texts("preset-preset-preset", None).wanted(&spec(3, 600, false), None, at(0), fresh());
        assert_eq!((preset.key.as_str(), preset.rotation), ("preset-preset-preset", Some(3)));
    }

    #[test]
    fn a_backup_key_comes_and_goes_with_the_spec_and_does_not_rotate() {
        let with = texts(FIRST, Some(0)).wanted(&spec(0, 600, true), None, at(0), fresh());
        assert_eq!(with.backup.as_deref(), Some("lk_backup-backup"));
        let rotated = with.wanted(&spec(1, 600, true), None, at(0), [SECOND.into(), "lk_other-backup-1".into()]);
        assert_eq!((rotated.backup.clone(), rotated.key.as_str()), (with.backup, SECOND));
        assert_eq!(rotated.wanted(&spec(1, 600, false), None, at(0), fresh()).backup, None);
    }

    #[test]
    fn what_is_written_reads_back() {
        let texts = Texts { previous: Some(FIRST.into()), backup: Some("lk_backup-backup".into()), ..texts(SECOND, Some(4)) };
        let mut secret = Secret { data: Some(texts.data("rtmp://in/live")), ..Secret::default() };
        secret.annotations_mut().insert(ROTATION_ANNOTATION.into(), "4".into());
        assert_eq!(Texts::held(&secret), Ok(texts));
    }

    #[test]
    fn keys_that_are_too_short_or_not_fit_for_a_url_or_alike_are_not_taken() {
        let holding = |entries: &[(&str, &str)]| {
            let data = entries.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
            Texts::held(&Secret { data: Some(data.collect()), ..Secret::default() })
        };
        for key in ["", "short", "with a space in the middle", "with/slash/in/the/middle"] {
            assert_eq!(holding(&[("key", key)]), Err(Unusable::Entry("key")), "{key:?}");
            assert_eq!(holding(&[("key", FIRST), ("backupKey", key)]), Err(Unusable::Entry("backupKey")), "{key:?}");
            assert_eq!(holding(&[("key", FIRST), ("previousKey", key)]).unwrap().previous, None, "{key:?}");
        }
        assert_eq!(Texts::held(&Secret::default()), Err(Unusable::Entry("key")));
        assert_eq!(holding(&[("key", FIRST), ("backupKey", FIRST)]), Err(Unusable::Same));
    }
}
