//! Kubernetes Events: what happened to an object, for `kubectl describe`.
//!
//! Written one after the other beside the reconciles, which never wait for them. kube's own `Recorder` would fold repeated ones, and keeps each
//! for six minutes to do so; a [`Note`] is told when something changes, so that there is nothing to fold, and ten thousand streams are remembered
//! once.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Who reports.
const CONTROLLER: &str = "lectern.video/operator";
/// Events that wait to be written; what comes on top of them is left out.
const WAITING: usize = 1_000;
/// How long one may take.
const CALL: Duration = Duration::from_secs(5);
/// The API takes 1,024.
const MAX_BYTES: usize = 1_000;

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

/// Where notes are handed in.
#[derive(Debug)]
pub struct Events(mpsc::Sender<Event>, String);

/// Notes on their way.
pub type Written = mpsc::Receiver<Event>;

impl Events {
    /// Signs as the pod `instance`. What comes out of the receiver is for [`write`].
    pub fn new(instance: String) -> (Self, Written) {
        let (noted, written) = mpsc::channel(WAITING);
        (Self(noted, instance), written)
    }

    /// Hands in `note` about `object`. Where too many wait it is left out: an event is a courtesy.
    pub fn publish(&self, object: ObjectReference, note: Note) {
        let reason = note.reason;
        if self.0.try_send(event(object, note, &self.1, Timestamp::now())).is_err() {
            tracing::debug!(reason, "an event was left out");
        }
    }
}

/// Writes events until `stop`. A failure is logged and no more.
pub async fn write(client: Client, mut noted: Written, stop: CancellationToken) -> Result<(), Infallible> {
    while let Some(Some(event)) = stop.run_until_cancelled(noted.recv()).await {
        let events: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
        match tokio::time::timeout(CALL, events.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, reason = event.reason, "an event was not published"),
            Err(_) => tracing::debug!(reason = event.reason, "an event was not published within {CALL:?}"),
        }
    }
    stop.cancelled().await;
    Ok(())
}

fn event(object: ObjectReference, note: Note, instance: &str, now: Timestamp) -> Event {
    let name = object.name.clone().unwrap_or_default();
    Event {
        // The time makes it unique, as in client-go.
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: object.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some("Reconcile".to_owned()),
        reason: Some(note.reason.to_owned()),
        note: Some(note.text[..note.text.floor_char_boundary(MAX_BYTES)].to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        regarding: Some(object),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_events_of_one_object_have_names_of_their_own_and_fit_the_api() {
        let object = ObjectReference { name: Some("algebra".into()), namespace: Some("school".into()), ..ObjectReference::default() };
        let at = |nanos| Timestamp::from_nanosecond(nanos).unwrap();
        let long = event(object.clone(), Note::warning("Refused", "ü".repeat(2_000)), "pod", at(1));
        assert_eq!(long.metadata.name.as_deref(), Some("algebra.1"));
        assert!(long.note.unwrap().len() <= 1_024);
        assert_eq!((long.type_.as_deref(), long.metadata.namespace.as_deref()), (Some("Warning"), Some("school")));
        assert_ne!(event(object, Note::normal("Placed", ""), "pod", at(2)).metadata.name, long.metadata.name);
    }

    #[tokio::test]
    async fn what_does_not_fit_any_more_is_left_out_and_nobody_waits() {
        let (events, mut written) = Events::new("pod".into());
        for _ in 0..=WAITING {
            events.publish(ObjectReference::default(), Note::normal("Placed", ""));
        }
        assert_eq!(std::iter::from_fn(|| written.try_recv().ok()).count(), WAITING);
    }
}
