//! What the origin counts. Every label is one of a closed set: no stream, no path, nothing a visitor can make up.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// All counters. Cheap to clone, all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Requests, by what was asked for and how it went.
    pub requests: Family<RequestLabels, Counter>,
    /// Bytes of bodies sent to players and the CDN.
    pub sent: Counter,
    /// Requests to S3, by what came of them.
    pub fetches: Family<FetchLabels, Counter>,
    /// Connections to packagers, now.
    pub subscriptions: Gauge,
    /// Connections to packagers that were opened.
    pub subscribed: Counter,
    /// Objects that packagers pushed.
    pub pushed: Counter,
    /// Runs that somebody asked for lately.
    pub runs: Gauge,
    /// Requests that wait for what will be pushed next.
    pub waiting: Gauge,
    /// Requests for signed lectures by who may not watch them.
    pub refusals: Family<RefusalLabels, Counter>,
}

/// Labels of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// What was asked for.
    pub kind: Kind,
    /// How it went.
    pub outcome: Outcome,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// A playlist, live or VOD.
    Playlist,
    /// An initialisation section.
    Init,
    /// A media segment.
    Segment,
    /// A part of one.
    Part,
    /// Something that players must not see, or that is nothing.
    Refused,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Served from what a packager pushed.
    Memory,
    /// Served from S3, or from what was lately read from it.
    Storage,
    /// There is no such object.
    Missing,
    /// What it waited for did not come.
    Late,
    /// The request makes no sense: directives that are none, or that ask for what is far off.
    Bad,
    /// S3 could not be reached.
    Unavailable,
    /// S3 refused.
    Failed,
    /// The range asked for lies outside the object.
    BadRange,
    /// The lecture is signed, and who asks may not watch it.
    Forbidden,
}

/// Labels of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// Why.
    pub reason: Why,
}

/// Why somebody may not watch a signed lecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Why {
    /// No token came.
    NoToken,
    /// What came is no token.
    Malformed,
    /// The token is for another lecture, or of a key that does not count any more.
    Foreign,
    /// The token has run out.
    Expired,
    /// The origin has no keys.
    NoKeys,
}

/// Labels of a request to S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    /// What came of it.
    pub result: FetchResult,
}

/// What came of a request to S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum FetchResult {
    /// The object.
    Found,
    /// There is none.
    Missing,
    /// An error.
    Failed,
}

impl Metrics {
    /// Counters that `registry` shows.
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("lectern_origin");
        registry.register("requests", "Requests by kind and outcome", metrics.requests.clone());
        registry.register_with_unit("sent", "Body bytes sent", Unit::Bytes, metrics.sent.clone());
        registry.register("upstream_fetches", "Requests to S3 by result", metrics.fetches.clone());
        registry.register("subscriptions", "Connections to packagers now", metrics.subscriptions.clone());
        registry.register("subscribed", "Connections to packagers opened", metrics.subscribed.clone());
        registry.register("pushed_objects", "Objects that packagers pushed", metrics.pushed.clone());
        registry.register("runs", "Runs asked for lately", metrics.runs.clone());
        registry.register("waiting_requests", "Requests that wait for what is pushed next", metrics.waiting.clone());
        registry.register("viewing_refusals", "Requests for signed lectures that were refused, by reason", metrics.refusals.clone());
        metrics
    }

    /// Counts a request.
    pub fn request(&self, kind: Kind, outcome: Outcome) {
        self.requests.get_or_create(&RequestLabels { kind, outcome }).inc();
    }

    /// Counts somebody who may not watch.
    pub fn refused(&self, reason: Why) {
        self.refusals.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Counts a request to S3.
    pub fn fetch(&self, result: FetchResult) {
        self.fetches.get_or_create(&FetchLabels { result }).inc();
    }

    /// Requests to S3 so far, whatever came of them.
    pub fn all_fetches(&self) -> u64 {
        [FetchResult::Found, FetchResult::Missing, FetchResult::Failed]
            .into_iter()
            .map(|result| self.fetches.get_or_create(&FetchLabels { result }).get())
            .sum()
    }
}

/// Counts something in a gauge for as long as it lives, however it ends.
#[derive(Debug)]
pub struct During<'a>(&'a Gauge);

impl<'a> During<'a> {
    /// One more, until this is dropped.
    pub fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
