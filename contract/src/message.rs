//! What stands in a job queue: a job as JSON, with the version of its schema and its kind.
//!
//! A field that may be left out needs no new version: who does not know it passes it by. One that changes what a job means does, and then who is older leaves the
//! message alone. SQS delivers in any order, late and more than once; what a job may do is decided by the run's [`crate::head`], not by its message.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The newest version of the schema that this build understands.
pub const VERSION: u32 = 1;

/// Something that a queue carries.
pub trait Message: Serialize + DeserializeOwned {
    /// What the message says that it is.
    const KIND: &'static str;

    /// The text to send.
    fn to_message(&self) -> String {
        let message = Written { version: VERSION, kind: Self::KIND, job: self };
        serde_json::to_string(&message).unwrap_or_default() // structs of strings and numbers always encode
    }

    /// Reads a text that was received. One without version and kind is of version 1, and of the kind that is wanted.
    ///
    /// # Errors
    /// Why it is no such job, for people.
    fn of_message(text: &str) -> Result<Self, NoJob> {
        let Head { version, kind } = serde_json::from_str(text)?;
        if version > VERSION {
            return Err(NoJob::Newer(version));
        }
        if let Some(kind) = kind.filter(|kind| kind != Self::KIND) {
            return Err(NoJob::Kind { kind, wanted: Self::KIND });
        }
        Ok(serde_json::from_str(text)?)
    }
}

/// Why a message is no job that is understood.
#[derive(Debug, thiserror::Error)]
pub enum NoJob {
    /// Who sent it is newer.
    #[error("its schema is version {0}, and this build knows {VERSION}: it is for a newer one")]
    Newer(u32),
    /// It is in the wrong queue.
    #[error("it is a job of kind {kind:?}, and this queue is for {wanted:?}")]
    Kind {
        /// What it says that it is.
        kind: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// It is not what its version and kind say.
    #[error("it does not parse: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a, J> {
    version: u32,
    kind: &'static str,
    #[serde(flatten)]
    job: &'a J,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default = "first")]
    version: u32,
    kind: Option<String>,
}

const fn first() -> u32 {
    1
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::job::{ArchiveJob, LiveJob};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn archive() -> Value {
        json!({ "stream": { "namespace": "school", "name": "algebra" }, "run": "r1", "title": "Algebra", "prefix": "0a/school/algebra/r1", "video": [] })
    }

    fn with(field: &str, value: Value) -> String {
        let mut message = archive();
        message[field] = value;
        message.to_string()
    }

    #[test]
    fn a_job_is_read_as_it_was_written_and_fields_of_later_builds_are_passed_by() {
        let job: ArchiveJob = serde_json::from_value(archive()).unwrap();
        let message: Value = serde_json::from_str(&job.to_message()).unwrap();
        assert_eq!((&message["version"], &message["kind"]), (&json!(1), &json!("archive")));
        assert_eq!(ArchiveJob::of_message(&message.to_string()).unwrap(), job);
        for text in [archive().to_string(), with("hue", json!("blue"))] {
            assert_eq!(ArchiveJob::of_message(&text).unwrap(), job);
        }
    }

    #[test]
    fn what_is_newer_or_of_another_kind_is_left_alone_and_says_why() {
        let words = |text: &str| ArchiveJob::of_message(text).unwrap_err().to_string();
        assert_eq!(words(&with("version", json!(2))), "its schema is version 2, and this build knows 1: it is for a newer one");
        assert_eq!(words(&with("kind", json!("live"))), "it is a job of kind \"live\", and this queue is for \"archive\"");
        assert!(words(r#"{"version":1,"kind":"archive"}"#).starts_with("it does not parse: missing field"));
        assert!(LiveJob::of_message(&with("kind", json!("archive"))).is_err());
        // A version of which not even the fields are known is told by its number all the same.
        assert!(matches!(LiveJob::of_message(r#"{"version":7,"what":[]}"#), Err(NoJob::Newer(7))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), deep in 0usize..2_000) {
            let _ = LiveJob::of_message(&text);
            let _ = LiveJob::of_message(&("[".repeat(deep) + &text));
        }
    }
}
