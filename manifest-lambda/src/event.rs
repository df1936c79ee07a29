//! S3's events, down to the runs that they are about.

use lectern_contract::keys::RunPrefix;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A run of which `ended.json` or a ledger was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangedRun {
    /// The bucket that it is in.
    pub bucket: String,
    /// The bucket's region; empty where the event names none.
    pub region: String,
    /// The run's prefix.
    pub prefix: RunPrefix,
}

/// An event that is none of S3's.
#[derive(Debug, thiserror::Error)]
#[error("this is no S3 event: {source}")]
pub struct EventError {
    #[source]
    source: serde_json::Error,
}

#[derive(Deserialize)]
struct Notification {
    /// Absent in `s3:TestEvent`, which a bucket sends when its notifications are set.
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default)]
    aws_region: String,
    s3: Entity,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

/// The runs that `event` is about, each once: those of its records whose key is a run's `ended.json` or ledger. Other
/// keys are none of ours and are passed over (Amazon S3 user guide, "Event message structure"; keys are URL-encoded).
pub fn changed_runs(event: &serde_json::Value) -> Result<BTreeSet<ChangedRun>, EventError> {
    let notification = Notification::deserialize(event).map_err(|source| EventError { source })?;
    let of = |record: Record| {
        let key = decoded(&record.s3.object.key)?;
        let (prefix, rest) = RunPrefix::of_key(&key)?;
        let ours = rest == "ended.json" || rest.strip_prefix("ledger/").is_some_and(|name| name.ends_with(".ledger.json"));
        ours.then_some(ChangedRun { bucket: record.s3.bucket.name, region: record.aws_region, prefix })
    };
    Ok(notification.records.into_iter().filter_map(of).collect())
}

/// A key as it was before S3 encoded it: `+` is a space, `%2F` a slash. `None` where it is no UTF-8.
fn decoded(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk::<2>().filter(|_| *first == b'%').and_then(|two| {
            let digits = std::str::from_utf8(two).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        bytes.push(match (escaped, first) {
            (Some(byte), _) => byte,
            (None, b'+') => b' ',
            (None, plain) => *plain,
        });
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(key: &str) -> serde_json::Value {
        json!({ "awsRegion": "eu-central-1", "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "b" }, "object": { "key": key } } })
    }

    fn prefixes(event: serde_json::Value) -> Vec<String> {
        changed_runs(&event).unwrap().into_iter().map(|run| run.prefix.to_string()).collect()
    }

    #[test]
    fn a_test_event_is_about_no_run() {
        assert!(prefixes(json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b" })).is_empty());
    }

    #[test]
    fn several_records_of_a_run_are_one_run() {
        let event = json!({ "Records": [
            record("0a/school/algebra/r1/ended.json"),
            record("0a/school/algebra/r1/ledger/3.ledger.json"),
            record("0b%2Fschool%2Fart%2Fr2%2Fledger%2F0.ledger.json"),
        ]});
        assert_eq!(prefixes(event), ["0a/school/algebra/r1", "0b/school/art/r2"]);
    }

    #[test]
    fn keys_of_others_are_passed_over() {
        let event = json!({ "Records": [
            record("ended.json"), record("0a/school/algebra/r1/360p/ended.json"), record("0a/school/../r1/ended.json"),
            record("0a/school/algebra/r1/head.json"), record("%ff%fe"),
        ]});
        assert!(prefixes(event).is_empty());
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(decoded("a+b%2Fc%zz%").as_deref(), Some("a b/c%zz%"));
    }
}
