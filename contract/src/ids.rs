//! Names of things, each a type of its own so that none can be taken for another.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

name! {
    /// One run of a LiveStream, from its placement to its end: `{unix seconds, base 36}-{random}`, and before that `s-` where only those
    /// who have a link may watch it ([`crate::viewing`]); a valid DNS label.
    RunId
}

/// What the ids of signed runs begin with. A run's age is never it: that would be the 29th second of 1970.
pub const SIGNED: &str = "s-";

impl RunId {
    /// Only those who have a link may watch the run. Its name says so, and with it every key and path: who finds a recording years later
    /// in S3 knows it, too.
    pub fn is_signed(&self) -> bool {
        self.0.starts_with(SIGNED)
    }
}

name! {
    /// An ingest shard: the name of its pod.
    ShardName
}
name! {
    /// A process that may own a run: the transcoder pod's name and the child's number in it.
    Owner
}

/// A LiveStream's place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamRef {
    /// The namespace of the LiveStream.
    pub namespace: String,
    /// The name of the LiveStream.
    pub name: String,
}

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A fencing number: grows by one each time the ownership of a run moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next owner.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The SHA-256 of a stream key, as 64 hex digits. Keys carry 160 random bits, so their hash may stand in a RouteSlice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub String);

impl KeyHash {
    /// The hash of `key`.
    pub fn of(key: &str) -> Self {
        Self(hex::encode(Sha256::digest(key.as_bytes())))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({}…)", self.0.get(..8).unwrap_or(&self.0))
    }
}
