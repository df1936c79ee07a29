//! Versions of LiveStreams that this process has written over.
//!
//! The store shows what the watch has told, a moment after it was written. A reconcile that is woken in between, by the write before, would plan
//! on the old copy and be refused by the API server: with ten thousand streams that come at once, as many refusals as writes.

use kube::ResourceExt;
use lectern_crds::LiveStream;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// By the stream's uid, until a newer copy is seen.
#[derive(Debug, Default)]
pub struct Superseded(Mutex<HashMap<String, Vec<String>>>);

impl Superseded {
    /// `old` was written over, and is `new` now. A write that changed nothing leaves the copy what it is: the newest.
    pub fn note(&self, old: &LiveStream, new: &LiveStream) {
        let (Some(uid), Some(version)) = (old.uid(), old.resource_version()) else { return };
        if new.resource_version().is_none_or(|new| new == version) {
            return;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(uid).or_default().push(version);
    }

    /// Whether this copy was written over. Where it was not, it is the newest, and what was before is forgotten.
    pub fn holds(&self, stream: &LiveStream) -> bool {
        let (Some(uid), Some(version)) = (stream.uid(), stream.resource_version()) else { return false };
        let mut old = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = old.get(&uid).is_some_and(|versions| versions.contains(&version));
        if !holds {
            old.remove(&uid);
        }
        holds
    }

    /// The stream is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn copy(version: &str) -> LiveStream {
        let metadata = json!({ "name": "algebra", "namespace": "school", "uid": "1", "resourceVersion": version });
        serde_json::from_value(json!({ "metadata": metadata, "spec": {} })).unwrap()
    }

    #[test]
    fn copies_that_were_written_over_are_old_until_a_newer_one_is_seen() {
        let old = Superseded::default();
        assert!(!old.holds(&copy("1")));
        old.note(&copy("1"), &copy("2")); // its finalizer was written
        old.note(&copy("2"), &copy("3")); // and its status
        assert!(old.holds(&copy("1")) && old.holds(&copy("2")));
        assert!(!old.holds(&copy("3")));
        assert!(!old.holds(&copy("2")), "nothing is kept of a stream whose newest copy was seen");
    }

    #[test]
    fn a_write_that_changes_nothing_makes_no_copy_old() {
        let old = Superseded::default();
        old.note(&copy("1"), &copy("1"));
        assert!(!old.holds(&copy("1")));
    }
}
