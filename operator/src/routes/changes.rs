//! Which LiveStreams have changed since the RouteSlices were brought up to date.

use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use lectern_contract::StreamRef;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Filled by the watch of LiveStreams, emptied by the task that keeps the slices.
#[derive(Debug, Default)]
pub struct Changes {
    some: Notify,
    waiting: Mutex<Changed>,
}

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The watch began anew: anything may have.
    pub all: bool,
    /// These have.
    pub streams: HashSet<StreamRef>,
}

impl Changes {
    /// Takes note of what the watch says; to be called after the store has taken it.
    pub fn note<K: ResourceExt>(&self, event: &Result<Event<K>, watcher::Error>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Event::Apply(stream) | Event::Delete(stream)) => {
                let (namespace, name) = (stream.namespace().unwrap_or_default(), stream.name_any());
                waiting.streams.insert(StreamRef { namespace, name });
            }
            Ok(Event::InitDone) => waiting.all = true,
            // The store shows nothing of a list before it is complete.
            Ok(Event::Init | Event::InitApply(_)) | Err(_) => return,
        }
        drop(waiting);
        self.some.notify_one();
    }

    /// Waits until there is something.
    pub async fn wait(&self) {
        self.some.notified().await;
    }

    /// Takes what there is.
    pub fn take(&self) -> Changed {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    #[tokio::test]
    async fn changes_wait_until_they_are_taken_and_each_is_there_once() {
        let object = |name: &str| ConfigMap {
            metadata: ObjectMeta { name: Some(name.into()), namespace: Some("school".into()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        let changes = Changes::default();
        for event in [Event::Init, Event::InitApply(object("listed")), Event::Apply(object("a")), Event::Apply(object("a"))] {
            changes.note(&Ok(event));
        }
        changes.wait().await;
        let taken = changes.take();
        assert_eq!((taken.all, taken.streams.len()), (false, 1));
        changes.note(&Ok(Event::<ConfigMap>::InitDone));
        assert!(changes.take().all);
        assert_eq!(changes.take(), Changed::default());
    }
}
