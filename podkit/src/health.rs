//! Health and metrics: `/healthz` (the process turns), `/readyz` (it can work), `/metrics` (OpenMetrics text).

use crate::Task;
use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether the pod can work; when it cannot, why. Cheap to clone, all clones are one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<RwLock<Option<String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Some("starting".to_owned()))))
    }
}

impl Readiness {
    /// The pod can work.
    pub fn ready(&self) {
        self.put(None);
    }

    /// The pod cannot work, because of `reason`, which `/readyz` shows.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.put(Some(reason.into()));
    }

    /// `None` when ready, else the reason.
    pub fn obstacle(&self) -> Option<String> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn put(&self, obstacle: Option<String>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = obstacle;
    }
}

/// Why health cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("health and metrics cannot be served on {address}: {source}")]
pub struct HealthError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Serves health and metrics until `stop`.
pub fn serve(address: SocketAddr, readiness: Readiness, registry: Registry, stop: CancellationToken) -> Task<HealthError> {
    Box::pin(async move {
        let wrap = |source| HealthError { address, source };
        let listener = TcpListener::bind(address).await.map_err(wrap)?;
        let router = router(readiness, Arc::new(registry));
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(wrap)
    })
}

fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics).with_state(registry))
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    match readiness.obstacle() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing to a String cannot fail; a metric whose Display fails would, and then nothing half-written goes out.
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}
