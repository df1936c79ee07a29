//! What the shard counts. Labels are closed enums: a hostile peer cannot make new series.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// The shard's metrics; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Publishers of streams that this shard owns, cameras included.
    pub publishers: Gauge,
    /// Publishers that this shard hands on to their streams' owners.
    pub relayed: Gauge,
    /// Readers of the feed.
    pub feed_readers: Gauge,
    /// Of those, readers of other shards' runs who do not reach the owner.
    pub feeds_passed_on: Gauge,
    /// Times that a reader was too slow and lost part of a run.
    pub feed_lapses: Counter,
    /// Payload bytes of media taken in for streams that this shard owns.
    pub bytes_in: Counter,
    /// RTP packets of cameras that never came.
    pub camera_packets_lost: Counter,
    /// Connections and publishers turned away, by reason.
    pub refused: Family<Refused, Counter>,
    /// Rounds of the pump, each of which reads every publisher that has sent something.
    pub batches: Counter,
    /// Connection tasks that panicked; each costs one connection only.
    pub panics: Counter,
    /// Recordings of originals.
    pub original: OriginalMetrics,
}

/// What recorders count.
#[derive(Debug, Clone, Default)]
pub struct OriginalMetrics {
    /// Objects that S3 has confirmed.
    pub objects: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Gaps that were declared.
    pub gaps: Counter,
    /// Seconds that pieces waited for S3's confirmation, pauses between attempts included.
    pub waited: Counter<f64, AtomicU64>,
    /// Recordings whose piece S3 has not taken at the first attempt and has not taken yet.
    pub waiting: Gauge,
}

/// The label of [`Metrics::refused`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
}

/// Why a connection or a publisher was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum RefusedReason {
    /// No route has this key.
    UnknownKey,
    /// The stream is ending or has ended.
    Ended,
    /// The stream is pulled from a camera.
    Camera,
    /// The codec is not taken, or its configuration is malformed.
    Media,
    /// The owning shard cannot be reached.
    OwnerUnreachable,
    /// The owning shard refused.
    OwnerRefused,
    /// The peer broke the protocol.
    Protocol,
    /// Another publisher has the key in use, and the first one wins.
    Occupied,
    /// The shard has no memory for another publisher.
    Full,
    /// The connection limit is reached.
    TooManyConnections,
    /// One address holds too many connections, or too many that do not publish.
    TooManyFromAddress,
    /// An address failed too often, with wrong keys or broken protocol.
    TooManyFailures,
    /// The peer was too slow: nothing whole came for too long, or it did not publish in time.
    Slow,
}

impl Metrics {
    /// Metrics, registered under `lectern_ingest_`.
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ours = registry.sub_registry_with_prefix("lectern_ingest");
        ours.register("publishers", "Publishers of streams that this shard owns", metrics.publishers.clone());
        ours.register("relayed", "Publishers handed on to other shards", metrics.relayed.clone());
        ours.register("feed_readers", "Readers of the feed", metrics.feed_readers.clone());
        ours.register("feeds_passed_on", "Readers who do not reach the owner of their run", metrics.feeds_passed_on.clone());
        ours.register("feed_lapses", "Times that a feed reader was too slow", metrics.feed_lapses.clone());
        ours.register("received_bytes", "Payload bytes of media taken in", metrics.bytes_in.clone());
        ours.register("camera_packets_lost", "RTP packets of cameras that never came", metrics.camera_packets_lost.clone());
        ours.register("refused", "Connections and publishers turned away", metrics.refused.clone());
        ours.register("batches", "Rounds in which publishers were read", metrics.batches.clone());
        ours.register("connection_panics", "Connection tasks that panicked", metrics.panics.clone());
        let original = ours.sub_registry_with_prefix("original");
        original.register("objects", "Objects of originals that S3 has confirmed", metrics.original.objects.clone());
        original.register("stored_bytes", "Bytes of originals that S3 has confirmed", metrics.original.bytes.clone());
        original.register("gaps", "Gaps in originals that were declared", metrics.original.gaps.clone());
        original.register("waited_seconds", "Time that pieces waited for S3's confirmation", metrics.original.waited.clone());
        original.register("waiting", "Recordings that S3 keeps waiting", metrics.original.waiting.clone());
        metrics
    }

    /// Counts one that was turned away.
    pub fn refuse(&self, reason: RefusedReason) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one up in `gauge` now.
    pub fn up(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
