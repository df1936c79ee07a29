//! Kubernetes Events: what happened to an object, for `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What happened, one word of a closed set.
    pub reason: &'static str,
    /// For people.
    pub text: String,
    /// It should be looked at.
    pub warning: bool,
}

impl Note {
    /// Something that went as it should.
    pub fn normal(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), warning: false }
    }

    /// Something that somebody should look at.
    pub fn warning(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), warning: true }
    }
}

/// The process's one recorder: repeated events are folded in it.
pub struct Events(Recorder);

impl Events {
    /// A recorder that signs as the pod `instance`.
    pub fn new(client: Client, instance: String) -> Self {
        Self(Recorder::new(client, Reporter { controller: "lectern.video/operator".into(), instance: Some(instance) }))
    }

    /// Publishes `note` about `object`. A failure is logged and no more: an event is a courtesy.
    pub async fn publish(&self, object: &ObjectReference, note: &Note) {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            // The API takes 1,024 bytes.
            note: Some(note.text.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, object).await {
            tracing::debug!(%error, reason = note.reason, "an event was not published");
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}
