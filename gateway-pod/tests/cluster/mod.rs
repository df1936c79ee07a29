//! A scripted Kubernetes API: LiveStreams and Secrets in memory, and an operator that acts when a stream is watched.
#![allow(dead_code, missing_docs, reason = "each test binary uses its part")]

use axum::body::Body as HttpBody;
use axum::http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use lectern_gateway_pod::api::{Gateway, router};
use lectern_gateway_pod::keys::Keys;
use lectern_gateway_pod::metrics::Metrics;
use lectern_gateway_pod::streams::Streams;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tower::ServiceExt;

/// The run that the scripted operator makes, whatever is asked for.
pub const PREFIX: &str = "0a/lectures/algebra/s-tro8w0-000001";
/// 32 times the byte 7, in base64.
pub const VIEWING_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
pub const KEY: &str = "a-key-of-more-than-20-characters";

/// What the scripted operator does with a stream that somebody watches.
#[derive(Clone, Copy, PartialEq)]
pub enum Operator {
    Places,
    Refuses,
    Sleeps,
}

#[derive(Clone)]
pub struct Cluster(Arc<Mutex<Inside>>);

struct Inside {
    streams: BTreeMap<String, Value>,
    version: u64,
    operator: Operator,
    /// Answers every request in place of the API.
    trouble: Option<(StatusCode, Value)>,
    /// Answers the next creation in its place.
    inadmissible: Option<String>,
    /// Of the pool, in base64.
    viewing_key: String,
    requests: Vec<String>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub body: Value,
}

impl Cluster {
    pub fn with(operator: Operator) -> Self {
        Self(Arc::new(Mutex::new(Inside {
            streams: BTreeMap::new(),
            version: 1,
            operator,
            trouble: None,
            inadmissible: None,
            viewing_key: VIEWING_KEY.to_owned(),
            requests: Vec::new(),
        })))
    }

    fn inside<T>(&self, work: impl FnOnce(&mut Inside) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    pub fn operator(&self, operator: Operator) {
        self.inside(|inside| inside.operator = operator);
    }

    pub fn away(&self) {
        self.inside(|inside| inside.trouble = Some((StatusCode::SERVICE_UNAVAILABLE, failure(503, "ServiceUnavailable", "etcd is away"))));
    }

    pub fn refuses_creation(&self, message: &str) {
        self.inside(|inside| inside.inadmissible = Some(message.to_owned()));
    }

    pub fn viewing_key(&self, key: &str) {
        self.inside(|inside| inside.viewing_key = key.to_owned());
    }

    pub fn streams(&self) -> Vec<Value> {
        self.inside(|inside| inside.streams.values().cloned().collect())
    }

    pub fn requests(&self) -> Vec<String> {
        self.inside(|inside| inside.requests.clone())
    }

    /// Changes a stream as people and the operator do.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        self.inside(|inside| change(inside.streams.get_mut(id).unwrap()));
    }

    /// Calls the gateway with a valid key.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(
            Request::builder()
                .method(method)
                .uri(path)
                .header("authorization", format!("Bearer {KEY}"))
                .body(HttpBody::from(body))
                .unwrap(),
        )
        .await
    }

    /// Calls the gateway.
    pub async fn raw(&self, request: Request<HttpBody>) -> Answer {
        let (keys, _) = Keys::of_files(&[("school".to_owned(), KEY.as_bytes().to_vec())].into());
        let (_sender, keys) = watch::channel(keys);
        let streams = Streams::new(self.client(), "lectures", "lectern").with_patience(Duration::from_millis(700));
        let response = router(Gateway::new(streams, keys, Metrics::registered().0)).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let api = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                // Lets calls that run at once take turns.
                tokio::task::yield_now().await;
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let sent = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let path = parts.uri.path().to_owned();
                let query = parts.uri.query().unwrap_or_default().to_owned();
                let (status, text) = cluster.inside(|inside| inside.answer(&parts.method, &path, &query, sent));
                Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(text.into_bytes())).unwrap())
            }
        });
        kube::Client::new(api, "lectures")
    }
}

impl Inside {
    fn answer(&mut self, method: &Method, path: &str, query: &str, sent: Value) -> (StatusCode, String) {
        let streams = "/apis/lectern.video/v1alpha1/namespaces/lectures/livestreams";
        let secrets = "/api/v1/namespaces/lectures/secrets/";
        let watched = query.contains("watch=true");
        self.requests.push(format!("{}{method} {path}", if watched { "WATCH " } else { "" }));
        if let Some((status, body)) = &self.trouble {
            return (*status, body.to_string());
        }
        if path == "/api/v1/namespaces/lectern/secrets/lectern-viewing-default" {
            let data = json!({ "current": self.viewing_key });
            return ok(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "lectern-viewing-default" }, "data": data }));
        }
        if let Some(secret) = path.strip_prefix(secrets) {
            // `key` is base64 of `the-stream-key`.
            let data = json!({ "key": "dGhlLXN0cmVhbS1rZXk=" });
            return ok(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": secret }, "data": data }));
        }
        let id =
            path.strip_prefix(streams).unwrap_or_else(|| panic!("the gateway may not ask for {path}")).trim_start_matches('/').to_owned();
        match (method.as_str(), id.as_str()) {
            ("GET", "") if watched => self.watch(query),
            ("GET", "") => ok(
                json!({ "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStreamList", "metadata": {}, "items": self.labelled(query) }),
            ),
            ("POST", "") => self.create(sent),
            ("GET", id) => self.streams.get(id).map_or_else(|| missing(id), |stream| ok(stream.clone())),
            ("PATCH", id) => {
                self.version += 1;
                let version = self.version.to_string();
                let Some(stream) = self.streams.get_mut(id) else { return missing(id) };
                stream["spec"]["ended"] = sent["spec"]["ended"].clone();
                stream["metadata"]["resourceVersion"] = json!(version);
                ok(stream.clone())
            }
            other => panic!("the gateway may not do {other:?}"),
        }
    }

    fn labelled(&self, query: &str) -> Vec<Value> {
        let wanted = |stream: &&Value| {
            let labels = stream["metadata"]["labels"].as_object().unwrap();
            ["user", "name"].iter().all(|label| query.contains(labels[&format!("gateway.lectern.video/{label}")].as_str().unwrap()))
        };
        self.streams.values().filter(wanted).cloned().collect()
    }

    fn create(&mut self, mut stream: Value) -> (StatusCode, String) {
        if let Some(message) = self.inadmissible.take() {
            return (StatusCode::UNPROCESSABLE_ENTITY, failure(422, "Invalid", &message).to_string());
        }
        let id = stream["metadata"]["name"].as_str().unwrap().to_owned();
        if self.streams.contains_key(&id) {
            return (StatusCode::CONFLICT, failure(409, "AlreadyExists", "already exists").to_string());
        }
        self.version += 1;
        stream["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.streams.insert(id, stream.clone());
        (StatusCode::CREATED, stream.to_string())
    }

    fn watch(&mut self, query: &str) -> (StatusCode, String) {
        let Some(id) = self.streams.keys().find(|id| query.contains(&format!("metadata.name%3D{id}"))).cloned() else {
            return (StatusCode::OK, String::new());
        };
        self.version += 1;
        let version = self.version.to_string();
        let stream = self.streams.get_mut(&id).unwrap();
        match self.operator {
            Operator::Places => stream["status"] = placed(&id),
            Operator::Refuses => {
                stream["status"] =
                    json!({ "conditions": [condition("Accepted", "False", "UnknownPool", "there is no StreamPool \"x\"; make one")] })
            }
            Operator::Sleeps => return (StatusCode::OK, String::new()),
        }
        stream["metadata"]["resourceVersion"] = json!(version);
        (StatusCode::OK, format!("{}\n", json!({ "type": "MODIFIED", "object": stream })))
    }
}

pub fn placed(id: &str) -> Value {
    json!({
        "conditions": [condition("Accepted", "True", "Valid", "")],
        "ingest": { "url": "rtmp://ingest.example/live", "secretName": format!("{id}-key"), "keyHash": "00" },
        "playback": { "player": format!("https://watch.example/{id}/"), "hls": format!("https://watch.example/{id}/live.m3u8"),
                      "dash": format!("https://watch.example/{id}/live.mpd"), "prefix": PREFIX },
    })
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message })
}

fn missing(id: &str) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, failure(404, "NotFound", &format!("{id} not found")).to_string())
}

fn ok(body: Value) -> (StatusCode, String) {
    (StatusCode::OK, body.to_string())
}
