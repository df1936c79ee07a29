//! The player page and what it loads. Nothing on it comes from elsewhere.

use crate::http::shown;
use crate::metrics::Metrics;
use crate::viewing::{self, Admitted, Viewing};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use lectern_contract::keys::RunPrefix;
use std::path::{self, PathBuf};

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
/// hls.js runs its demuxer in a worker made of a blob, and feeds the video through one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self' blob:; \
                      worker-src 'self' blob:; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors *";

/// The files of the player.
#[derive(Debug, Clone)]
pub struct Pages {
    /// `None` where the folder has none; then only browsers that play HLS themselves can watch.
    library: Option<Bytes>,
}

impl Pages {
    /// Reads `hls.min.js` from `folder`. Without it the origin works all the same, and says so.
    pub fn load(folder: &path::Path) -> Self {
        let file: PathBuf = folder.join("hls.min.js");
        let library = std::fs::read(&file).map(Bytes::from);
        if let Err(error) = &library {
            tracing::warn!(file = %file.display(), %error, "there is no hls.js: the player page works only where the browser plays HLS");
        }
        Self { library: library.ok() }
    }
}

/// The pages, for a router with any state.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(pages: Pages, viewing: Viewing, metrics: Metrics) -> Router<S> {
    Router::new()
        .route("/", get(|| async { page(include_str!("../player/index.html")) }))
        .route("/watch/{h}/{namespace}/{name}/{run}", get(watch).with_state((viewing, metrics)))
        .route("/player/player.js", get(|| async { asset(JS, Bytes::from_static(include_bytes!("../player/player.js"))) }))
        .route("/player/player.css", get(|| async { asset(CSS, Bytes::from_static(include_bytes!("../player/player.css"))) }))
        .route("/player/hls.min.js", get(library).with_state(pages))
}

async fn watch(
    State((viewing, metrics)): State<(Viewing, Metrics)>,
    Path((h, namespace, name, run)): Path<(String, String, String, String)>,
    request: Request,
) -> Response {
    // The same shape that the media's paths must have, so that the page never asks for what cannot be there.
    let key = format!("{h}/{namespace}/{name}/{run}/live.m3u8");
    let Some((prefix, "live.m3u8")) = RunPrefix::of_key(&key) else {
        return (StatusCode::NOT_FOUND, "no lecture can be here\n").into_response();
    };
    let (request, _) = request.into_parts();
    match viewing.admit(&prefix, shown(&request), viewing::now()) {
        Ok(admitted) => {
            let mut response = page(include_str!("../player/player.html"));
            if admitted != Admitted::Anybody {
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
            }
            admitted.dress(response.headers_mut());
            response
        }
        Err(refused) => {
            metrics.refused(refused.why());
            let mut response = (refused.status(), [(CACHE_CONTROL, "no-store")], format!("{refused}\n")).into_response();
            refused.dress(response.headers_mut());
            response
        }
    }
}

async fn library(State(pages): State<Pages>) -> Response {
    match pages.library {
        Some(script) => asset(JS, script),
        None => (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-store")], "hls.js is missing from this origin\n").into_response(),
    }
}

fn page(html: &'static str) -> Response {
    let mut response = asset(HTML, Bytes::from_static(html.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Kept for a minute: long enough for a rush of viewers, short enough for a new release.
fn asset(content_type: &'static str, body: Bytes) -> Response {
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "public, max-age=60"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, body).into_response()
}
