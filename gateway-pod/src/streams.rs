//! The three calls over LiveStreams of one namespace.

use crate::error::StreamError;
use crate::names::{self, NAME_ANNOTATION, NAME_LABEL, NTH_ANNOTATION, USER_ANNOTATION, USER_LABEL};
use crate::requests::{End, Start};
use crate::view;
use crate::viewing::{Pass, signed_run};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use lectern_crds::{LadderChoice, LiveStream, LiveStreamSpec, Reconnect, Record, Source, StreamKey, viewing_secret};
use lectern_podkit::clock::wall_now;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long StartStream waits for the operator to place the stream.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long one answer of the API server may take: kube itself waits, and tries again, without an end.
const CALL: Duration = Duration::from_secs(4);
/// How long to wait before a watch that broke is started again.
const AGAIN: Duration = Duration::from_millis(300);
/// How many names StartStream tries.
const TRIES: u64 = 8;
const MANAGER: &str = "lectern-gateway";

/// LiveStreams of one namespace. Clones share one client.
#[derive(Clone)]
pub struct Streams {
    streams: Api<LiveStream>,
    secrets: Api<Secret>,
    /// The operator's Secrets, of which viewing keys are read.
    keys: Api<Secret>,
    patience: Duration,
}

/// What StartStream found or made.
#[derive(Debug, Clone)]
pub struct Found {
    /// The LiveStream, placed if the operator was quick enough.
    pub stream: LiveStream,
    /// Its stream key, if it is placed.
    pub key: Option<String>,
    /// Whether this call made it.
    pub made: bool,
}

impl Streams {
    /// The streams of `namespace`, for an operator in `operators`.
    pub fn new(client: Client, namespace: &str, operators: &str) -> Self {
        Self {
            streams: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            keys: Api::namespaced(client, operators),
            patience: PATIENCE,
        }
    }

    /// The same, but StartStream waits `patience` for a place.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The stream of this user and name that has not ended, or a new one; waits up to [`PATIENCE`] for its place.
    ///
    /// # Errors
    /// A stream that the operator refuses is ended at once, so that the next try starts from nothing.
    pub async fn start(&self, wanted: &Start) -> Result<Found, StreamError> {
        let (stream, made) = self.find_or_make(wanted).await?;
        let stream = self.settle(stream).await?;
        if let Some((reason, message)) = view::refusal_of(&stream) {
            self.end_it(&stream.name_any()).await?;
            return Err(StreamError::Refused { reason, message });
        }
        let key = self.key_of(&stream).await?;
        Ok(Found { stream, key, made })
    }

    /// Ends stream `id`, if it was started with this user and name; ending it twice is ending it once.
    pub async fn end(&self, id: &str, who: &End) -> Result<LiveStream, StreamError> {
        let stream = self.get(id).await?;
        if !is_of(&stream, &who.user_id, &who.name) {
            return Err(StreamError::NotYours(id.to_owned()));
        }
        if view::is_over(&stream) { Ok(stream) } else { self.end_it(id).await }
    }

    /// Stream `id`.
    pub async fn get(&self, id: &str) -> Result<LiveStream, StreamError> {
        let unknown = || StreamError::Unknown(id.to_owned());
        if !names::is_id(id) {
            return Err(unknown());
        }
        in_time("look at a stream", self.streams.get_opt(id)).await?.ok_or_else(unknown)
    }

    /// The stream, and whether this call made it.
    ///
    /// The name is a function of user, name and a count, so that of two calls at once the API server lets one make it; the
    /// other finds it.
    async fn find_or_make(&self, wanted: &Start) -> Result<(LiveStream, bool), StreamError> {
        let labels = format!("{USER_LABEL}={},{NAME_LABEL}={}", names::label(&wanted.user_id), names::label(&wanted.name));
        let known = in_time("look for a stream", self.streams.list(&ListParams::default().labels(&labels))).await?;
        let mut nth = 0;
        for stream in known.items.into_iter().filter(|stream| is_of(stream, &wanted.user_id, &wanted.name)) {
            if !view::is_over(&stream) {
                return Ok((stream, false));
            }
            nth = nth.max(nth_of(&stream).saturating_add(1));
        }
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        for nth in nth..nth.saturating_add(TRIES) {
            let fresh = live_stream(wanted, nth);
            match in_time("start a stream", self.streams.create(&params, &fresh)).await {
                Ok(made) => return Ok((made, true)),
                Err(StreamError::Kubernetes { source, .. }) if is(&source, 422) => return Err(StreamError::Inadmissible(said(&source))),
                Err(StreamError::Kubernetes { source, .. }) if is(&source, 409) => {}
                Err(error) => return Err(error),
            }
            match self.get(&fresh.name_any()).await {
                Ok(other) if is_of(&other, &wanted.user_id, &wanted.name) && !view::is_over(&other) => return Ok((other, false)),
                // It ended, or went, since the list was read: the next name.
                Ok(_) | Err(StreamError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StreamError::Busy)
    }

    /// The stream once it is placed, refused or over; as it was last seen when patience ends.
    async fn settle(&self, mut stream: LiveStream) -> Result<LiveStream, StreamError> {
        let deadline = Instant::now() + self.patience;
        while !(view::is_placed(&stream) || view::refusal_of(&stream).is_some() || view::is_over(&stream)) {
            match timeout_at(deadline, self.after(&stream)).await {
                Ok(newer) => stream = newer?,
                Err(_) => break,
            }
        }
        Ok(stream)
    }

    /// The next version of `stream`.
    async fn after(&self, stream: &LiveStream) -> Result<LiveStream, StreamError> {
        let (id, seen) = (stream.name_any(), stream.resource_version().unwrap_or_default());
        let params = WatchParams::default().fields(&format!("metadata.name={id}"));
        loop {
            match self.streams.watch(&params, &seen).await {
                Ok(events) => {
                    pin_mut!(events);
                    while let Some(event) = events.next().await {
                        match event {
                            Ok(WatchEvent::Added(newer) | WatchEvent::Modified(newer)) => return Ok(newer),
                            Ok(WatchEvent::Deleted(_)) => return Err(StreamError::Unknown(id)),
                            Ok(WatchEvent::Bookmark(_)) => {}
                            Ok(WatchEvent::Error(error)) => {
                                tracing::debug!(id, %error, "the watch ended");
                                break;
                            }
                            Err(error) => {
                                tracing::debug!(id, %error, "the watch broke");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(id, %error, "the watch did not start"),
            }
            sleep(AGAIN).await;
            // A watch cannot always go on where it broke (410): look for what it missed.
            match self.get(&id).await {
                Ok(newer) if newer.resource_version().as_deref() != Some(&seen) => return Ok(newer),
                Err(error @ StreamError::Unknown(_)) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// The stream key of a placed stream.
    async fn key_of(&self, stream: &LiveStream) -> Result<Option<String>, StreamError> {
        let Some(ingest) = stream.status.as_ref().and_then(|status| status.ingest.as_ref()) else { return Ok(None) };
        let secret = in_time("read the stream key", self.secrets.get_opt(&ingest.secret_name)).await?;
        let key = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove("key"));
        Ok(key.and_then(|key| String::from_utf8(key.0).ok()))
    }

    /// What opens `stream` for who gets its addresses.
    ///
    /// # Errors
    /// The API server's, and that the pool has no key yet.
    pub async fn pass(&self, stream: &LiveStream) -> Result<Pass, StreamError> {
        let Some(prefix) = signed_run(stream) else { return Ok(Pass::default()) };
        let secret = in_time("read the viewing key", self.keys.get_opt(&viewing_secret(&stream.spec.pool_name))).await?;
        Pass::signed(&prefix, secret.as_ref(), wall_now().0 / 1000)
    }

    async fn end_it(&self, id: &str) -> Result<LiveStream, StreamError> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "ended": true } }));
        match in_time("end a stream", self.streams.patch(id, &params, &patch)).await {
            Err(StreamError::Kubernetes { source, .. }) if is(&source, 404) => Err(StreamError::Unknown(id.to_owned())),
            other => other,
        }
    }
}

fn live_stream(wanted: &Start, nth: u64) -> LiveStream {
    let mut stream = LiveStream::new(
        &names::id(&wanted.user_id, &wanted.name, nth),
        LiveStreamSpec {
            title: wanted.name.clone(),
            pool_name: wanted.pool_name.clone().unwrap_or_else(|| lectern_crds::DEFAULT_POOL.to_owned()),
            source: Source::default(),
            ladder: wanted.ladder.clone().map_or_else(LadderChoice::default, |name| LadderChoice {
                name: Some(name),
                video: None,
                audio: None,
            }),
            latency: wanted.latency,
            dvr_window_seconds: None,
            viewing: wanted.viewing,
            reconnect: Reconnect::default(),
            stream_key: StreamKey::default(),
            record: Record::default(),
            schedule: None,
            ended: false,
        },
    );
    let labels = [
        ("app.kubernetes.io/managed-by", MANAGER.to_owned()),
        (USER_LABEL, names::label(&wanted.user_id)),
        (NAME_LABEL, names::label(&wanted.name)),
    ];
    let annotations =
        [(USER_ANNOTATION, wanted.user_id.clone()), (NAME_ANNOTATION, wanted.name.clone()), (NTH_ANNOTATION, nth.to_string())];
    stream.labels_mut().extend(labels.map(|(key, value)| (key.to_owned(), value)));
    stream.annotations_mut().extend(annotations.map(|(key, value)| (key.to_owned(), value)));
    stream
}

/// Whether the gateway made `stream` for this user and name. The annotations decide: labels hold hashes only.
fn is_of(stream: &LiveStream, user_id: &str, name: &str) -> bool {
    let annotation = |key: &str| stream.annotations().get(key).map(String::as_str);
    annotation(USER_ANNOTATION) == Some(user_id) && annotation(NAME_ANNOTATION) == Some(name)
}

fn nth_of(stream: &LiveStream) -> u64 {
    stream.annotations().get(NTH_ANNOTATION).and_then(|nth| nth.parse().ok()).unwrap_or(0)
}

async fn in_time<T>(doing: &'static str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, StreamError> {
    match timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|source| StreamError::Kubernetes { doing, source: Box::new(source) }),
        Err(_) => Err(StreamError::Slow { doing, limit: CALL }),
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
