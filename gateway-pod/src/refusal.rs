//! Every answer that is not the one that was asked for: `{"error": {"code": …, "message": …}}`.

use crate::error::StreamError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a call is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No bearer key, or one that nobody has.
    #[error("send Authorization: Bearer KEY, with a key from the gateway's Secret")]
    Unauthorized,
    /// The body, or a field of it.
    #[error("{0}")]
    BadRequest(String),
    /// More than [`crate::requests::MAX_BODY`].
    #[error("the body is larger than {} bytes", crate::requests::MAX_BODY)]
    TooLarge,
    /// No such path.
    #[error("there is no such path; see POST /v1/streams, POST /v1/streams/{{id}}/end, GET /v1/streams/{{id}}/watch")]
    NoSuchPath,
    /// The path is there, the method is not.
    #[error("this path does not take this method; the header Allow names the one that it takes")]
    Method,
    /// What the streams say.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The call took longer than the gateway waits for anything.
    #[error("the call took too long; try again")]
    Timeout,
}

impl Refusal {
    /// The HTTP status, and the word for programs.
    pub fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Stream(StreamError::Unknown(_)) => (StatusCode::NOT_FOUND, "unknown_stream"),
            Self::Stream(StreamError::NotYours(_)) => (StatusCode::FORBIDDEN, "not_your_stream"),
            Self::Stream(StreamError::Inadmissible(_)) => (StatusCode::UNPROCESSABLE_ENTITY, "inadmissible"),
            Self::Stream(StreamError::Refused { .. }) => (StatusCode::CONFLICT, "refused"),
            Self::Stream(StreamError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Stream(StreamError::Kubernetes { .. } | StreamError::NoViewingKey | StreamError::Slow { .. }) | Self::Timeout => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        if status.is_server_error() {
            tracing::warn!(error = error_chain(&self), code, "a call was not answered");
        }
        let message = self.to_string();
        let mut response = (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response();
        match status {
            StatusCode::UNAUTHORIZED => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lectern\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
