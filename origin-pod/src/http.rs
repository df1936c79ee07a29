//! The HTTP side: paths in, objects out.

use crate::directives::Directives;
use crate::growing::{self, Growing};
use crate::metrics::{Kind, Metrics, Outcome};
use crate::pages::{self, Pages};
use crate::public::Public;
use crate::range::{Asked, asked};
use crate::runs::{Found, Runs};
use crate::viewing::{self, OverTls, Shown, Viewing};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, DATE, ORIGIN, RANGE, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use lectern_cloud::StorageError;
use lectern_contract::keys::{self, RunPrefix};
use lectern_podkit::clock::wall_now;
use lectern_podkit::{CancellationToken, Task};
use std::io;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Clone)]
struct Origin {
    runs: Runs,
    viewing: Viewing,
    metrics: Metrics,
}

/// All that the origin serves.
pub fn router(runs: Runs, pages: Pages, viewing: Viewing, metrics: Metrics) -> Router {
    pages::router(pages, viewing.clone(), metrics.clone()).fallback(media).with_state(Origin { runs, viewing, metrics })
}

/// Serves `router` until `stop`, then lets requests under way finish.
pub fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> Task<io::Error> {
    Box::pin(async move {
        // A segment's last bytes must not wait for the acknowledgement of those before.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true); // refused only by a connection that is gone already
        });
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    })
}

/// A run's objects, at the paths that they have in S3.
async fn media(State(origin): State<Origin>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let mut response = match request.method {
        Method::GET | Method::HEAD => object(&origin, &request).await,
        Method::OPTIONS => (
            StatusCode::NO_CONTENT,
            [(ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"), (ACCESS_CONTROL_ALLOW_HEADERS, "range"), (ACCESS_CONTROL_MAX_AGE, "86400")],
        )
            .into_response(),
        _ => (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD, OPTIONS")]).into_response(),
    };
    let headers = response.headers_mut();
    let key = request.uri.path().trim_start_matches('/');
    if RunPrefix::of_key(key).is_some_and(|(prefix, _)| prefix.is_signed()) {
        // Cookies may come along from a school's own pages, and those have to be named for that.
        headers.insert(VARY, HeaderValue::from(ORIGIN));
        if let Some(site) = viewing::site(&request.headers) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, site);
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    } else {
        // Players on a school's own pages may fetch it; who may watch is not decided by the page that asks.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("content-length, content-range, date"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(date) = date() {
        headers.insert(DATE, date);
    }
    response
}

/// The time by which DASH players set their clocks. Hyper would add one, but keeps it until the clock is past the next second: once the clock has stepped back by an
/// hour that is for an hour.
fn date() -> Option<HeaderValue> {
    let now = Timestamp::from_millisecond(i64::try_from(wall_now().0).ok()?).ok()?;
    HeaderValue::try_from(DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()?).ok()
}

/// The object that is asked for, if who asks may have it.
async fn object(origin: &Origin, request: &Parts) -> Response {
    // The path is taken as it came: no name that is served needs an escape, so that nothing can hide behind one.
    let key = request.uri.path().strip_prefix('/').unwrap_or_default();
    let named = RunPrefix::of_key(key).and_then(|(prefix, rest)| Some((prefix, rest, Public::of(rest)?)));
    let Some((prefix, rest, what)) = named else {
        origin.metrics.request(Kind::Refused, Outcome::Missing);
        return refusal(StatusCode::NOT_FOUND, "there is nothing at this path");
    };
    match origin.viewing.admit(&prefix, shown(request), viewing::now()) {
        Ok(admitted) => {
            let mut response = found(origin, request, key, (&prefix, rest, what)).await;
            admitted.dress(response.headers_mut());
            response
        }
        Err(refused) => {
            origin.metrics.refused(refused.why());
            origin.metrics.request(what.kind(), Outcome::Forbidden);
            let mut response = refusal(refused.status(), &refused.to_string());
            refused.dress(response.headers_mut());
            response
        }
    }
}

/// What `request` shows of who sends it.
pub(crate) fn shown(request: &Parts) -> Shown<'_> {
    Shown { uri: &request.uri, headers: &request.headers, over_tls: request.extensions.get::<OverTls>().is_some() }
}

/// The object at `key`, which is below `prefix` at `rest`, and a `what`.
async fn found(origin: &Origin, request: &Parts, key: &str, (prefix, rest, what): (&RunPrefix, &str, Public)) -> Response {
    let (method, headers): (_, &HeaderMap) = (&request.method, &request.headers);
    let bad = |reason| {
        origin.metrics.request(what.kind(), Outcome::Bad);
        refusal(StatusCode::BAD_REQUEST, reason)
    };
    let directives = match Directives::parse(request.uri.query()) {
        Ok(directives) => directives,
        Err(reason) => return bad(reason),
    };
    let (body, outcome) = match origin.runs.get(prefix, rest, what, directives).await {
        Ok(Found::Memory(body)) => (body, Outcome::Memory),
        Ok(Found::Storage(body)) => (body, Outcome::Storage),
        Ok(Found::Growing(grown)) => {
            origin.metrics.request(what.kind(), Outcome::Memory);
            return growing(origin, method, rest, grown);
        }
        Ok(Found::Nowhere(reason)) => {
            origin.metrics.request(what.kind(), Outcome::Missing);
            return refusal(StatusCode::NOT_FOUND, reason);
        }
        Ok(Found::Late(reason)) => {
            origin.metrics.request(what.kind(), Outcome::Late);
            return refusal(StatusCode::SERVICE_UNAVAILABLE, reason);
        }
        Ok(Found::Bad(reason)) => return bad(reason),
        Err(error) => {
            let (outcome, response) = failure(&error);
            origin.metrics.request(what.kind(), outcome);
            return response;
        }
    };
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok()).filter(|_| what.is_immutable());
    let whole = body.len();
    let (status, body, content_range) = match asked(range, whole) {
        Asked::All => (StatusCode::OK, body, None),
        Asked::Part(part) => {
            let shown = format!("bytes {}-{}/{whole}", part.start, part.end.saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, body.slice(part), Some(shown))
        }
        Asked::Outside => {
            origin.metrics.request(what.kind(), Outcome::BadRange);
            return (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, format!("bytes */{whole}"))]).into_response();
        }
    };
    origin.metrics.request(what.kind(), outcome);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(keys::content_type(rest)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keys::cache_control(key)));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if what.is_immutable() {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    if let Some(value) = content_range.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(CONTENT_RANGE, value);
    }
    if method == Method::GET {
        origin.metrics.sent.inc_by(body.len() as u64);
        *response.body_mut() = Body::from(body);
    }
    response
}

/// A segment that is being made: its length is not known, and no cache may keep it. (One that takes what ends early for whole would
/// serve a torso for two weeks; CloudFront does so where there is no length.)
fn growing(origin: &Origin, method: &Method, path: &str, grown: watch::Receiver<Growing>) -> Response {
    let sent = origin.metrics.sent.clone();
    let body = growing::body(grown).inspect_ok(move |part| {
        sent.inc_by(part.len() as u64);
    });
    let body = if method == Method::GET { Body::from_stream(body) } else { Body::empty() };
    ([(CONTENT_TYPE, keys::content_type(path)), (CACHE_CONTROL, "no-store")], body).into_response()
}

fn failure(error: &StorageError) -> (Outcome, Response) {
    if error.is_transient() {
        let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "the storage cannot be reached just now");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        (Outcome::Unavailable, response)
    } else {
        (Outcome::Failed, refusal(StatusCode::BAD_GATEWAY, "the storage refused; the origin's log says why"))
    }
}

/// An answer that no cache may keep, with a reason for people.
fn refusal(status: StatusCode, reason: &str) -> Response {
    let headers: [(HeaderName, &str); 2] = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    let body = Bytes::from(serde_json::json!({ "reason": reason }).to_string());
    (status, headers, body).into_response()
}
