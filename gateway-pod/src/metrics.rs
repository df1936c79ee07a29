//! Metrics: calls by what they were and how they ended. Labels are closed enums: no caller can make a time series.

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Call {
    /// StartStream.
    Start,
    /// EndStream.
    End,
    /// WatchStream.
    Watch,
    /// Anything else.
    Other,
}

impl Call {
    /// The call that `method` and `path` make.
    pub fn of(method: &Method, path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').skip(1).take(5).collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["v1", "streams"]) => Self::Start,
            ("POST", ["v1", "streams", _, "end"]) => Self::End,
            ("GET" | "HEAD", ["v1", "streams", _, "watch"]) => Self::Watch,
            _ => Self::Other,
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// As asked.
    Ok,
    /// A stream was made, but is not placed yet.
    Pending,
    /// No valid key.
    Unauthorized,
    /// The caller's mistake.
    Refused,
    /// The cluster's trouble, or ours.
    Failed,
}

impl From<StatusCode> for Outcome {
    fn from(status: StatusCode) -> Self {
        match status {
            StatusCode::ACCEPTED => Self::Pending,
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            status if status.is_client_error() => Self::Refused,
            status if status.is_server_error() => Self::Failed,
            _ => Self::Ok,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    call: Call,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: Call,
}

/// The gateway's metrics; all clones are one.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<Labels, Counter>,
    seconds: Family<CallLabel, Histogram>,
}

impl Metrics {
    /// Metrics, and the registry that shows them.
    pub fn registered() -> (Self, Registry) {
        // 1 ms to 16 s: StartStream waits up to ten seconds for a place.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let metrics = Self { calls: Family::default(), seconds: Family::new_with_constructor(seconds) };
        let mut registry = Registry::with_prefix("lectern_gateway");
        registry.register("calls", "Calls answered", metrics.calls.clone());
        registry.register("call_seconds", "Time from a call's head to its answer's head", metrics.seconds.clone());
        (metrics, registry)
    }

    /// Counts one answered call.
    pub fn answered(&self, call: Call, status: StatusCode, took: Duration) {
        self.calls.get_or_create(&Labels { call, outcome: status.into() }).inc();
        self.seconds.get_or_create(&CallLabel { call }).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_makes_a_label_of_its_own() {
        assert_eq!(Call::of(&Method::POST, "/v1/streams"), Call::Start);
        assert_eq!(Call::of(&Method::POST, "/v1/streams/algebra-1/end"), Call::End);
        assert_eq!(Call::of(&Method::GET, "/v1/streams/algebra-1/watch"), Call::Watch);
        for (method, path) in
            [(Method::GET, "/v1/streams"), (Method::POST, "/"), (Method::GET, "/v1/streams/a/watch/b"), (Method::PUT, "x")]
        {
            assert_eq!(Call::of(&method, path), Call::Other, "{method} {path}");
        }
    }
}
