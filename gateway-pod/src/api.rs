//! The calls as HTTP: `gateway-pod/openapi.yaml` describes them for callers.

use crate::keys::Keys;
use crate::metrics::{Call, Metrics};
use crate::refusal::Refusal;
use crate::requests::{End, MAX_BODY, Start};
use crate::streams::Streams;
use crate::view::{Ended, Started, State as Lecture, Watched};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::ResourceExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// No call takes longer: StartStream's patience, and a few answers of the API server.
const LONGEST: Duration = Duration::from_secs(25);

/// What calls need.
#[derive(Clone)]
pub struct Gateway {
    streams: Streams,
    keys: watch::Receiver<Keys>,
    metrics: Metrics,
}

impl Gateway {
    /// A gateway to `streams` for those who hold one of `keys`.
    pub fn new(streams: Streams, keys: watch::Receiver<Keys>, metrics: Metrics) -> Self {
        Self { streams, keys, metrics }
    }
}

/// All paths, behind the bearer keys.
pub fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/streams", post(start))
        .route("/v1/streams/{id}/end", post(end))
        .route("/v1/streams/{id}/watch", get(watch_stream))
        .fallback(|| async { Refusal::NoSuchPath })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(gateway.clone(), guard))
        .with_state(gateway)
}

async fn start(State(gateway): State<Gateway>, body: Result<Bytes, BytesRejection>) -> Result<Response, Refusal> {
    let wanted = Start::parse(&whole(body)?)?;
    let found = gateway.streams.start(&wanted).await?;
    let started = Started::of(&found.stream, found.key, &gateway.streams.pass(&found.stream).await?);
    let status = match (started.is_complete(), found.made) {
        (false, _) => StatusCode::ACCEPTED,
        (true, true) => StatusCode::CREATED,
        (true, false) => StatusCode::OK,
    };
    let location = HeaderValue::try_from(format!("/v1/streams/{}/watch", started.id));
    let mut response = (status, Json(started)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn end(
    State(gateway): State<Gateway>,
    id: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Ended>, Refusal> {
    let id = segment(id)?;
    let who = End::parse(&whole(body)?)?;
    let stream = gateway.streams.end(&id, &who).await?;
    Ok(Json(Ended { id: stream.name_any(), state: Lecture::Ended }))
}

async fn watch_stream(State(gateway): State<Gateway>, id: Result<Path<String>, PathRejection>) -> Result<Json<Watched>, Refusal> {
    let stream = gateway.streams.get(&segment(id)?).await?;
    Ok(Json(Watched::of(&stream, &gateway.streams.pass(&stream).await?)))
}

fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        _ => Refusal::BadRequest(rejection.body_text()),
    })
}

/// A path segment that is no UTF-8 names no stream.
fn segment(id: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    id.map(|Path(id)| id).map_err(|_| Refusal::NoSuchPath)
}

/// Around every call: who calls, how long it may take, what is counted and logged. Bodies and keys are never logged.
async fn guard(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let call = Call::of(request.method(), request.uri().path());
    let client = bearer(request.headers()).and_then(|token| gateway.keys.borrow().client_of(token));
    let mut response = answer(client.as_ref(), request, next).await;
    // Answers hold stream keys, and states that are old a second later.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (took, status) = (began.elapsed(), response.status());
    gateway.metrics.answered(call, status, took);
    tracing::info!(?call, client = client.as_deref().unwrap_or("-"), status = status.as_u16(), ms = took.as_millis(), "answered");
    response
}

async fn answer(client: Option<&Arc<str>>, request: Request, next: Next) -> Response {
    if client.is_none() {
        return Refusal::Unauthorized.into_response();
    }
    match tokio::time::timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::Timeout.into_response(),
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}
