//! What the operator counts. Labels come from closed sets only.

use lectern_cloud::Depth;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

/// The operator's metrics. Cheap to clone, all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    reconciles: Family<Reconcile, Counter>,
    streams: Family<Phase, Gauge>,
    reports: Family<Taken, Counter>,
    stood_in: Counter,
    taken_out: Counter,
    jobs: Family<Jobs, Gauge>,
    in_sync: Gauge,
}

/// Messages of a pool's queue. Pools are few, and made by administrators.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Jobs {
    pool: String,
    kind: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Taken {
    taken: &'static str,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("lectern_operator_reconciles", "Reconciles by kind and outcome", metrics.reconciles.clone());
        registry.register("lectern_operator_streams", "LiveStreams by phase", metrics.streams.clone());
        registry.register("lectern_operator_reports", "Reports of pods, taken or refused", metrics.reports.clone());
        registry.register(
            "lectern_operator_stood_in",
            "Jobs of silent transcoders that this process showed to others while it stood by and nobody led",
            metrics.stood_in.clone(),
        );
        registry.register(
            "lectern_operator_taken_out",
            "Shards and origins that were taken out of their Services because nothing of their node was heard any more",
            metrics.taken_out.clone(),
        );
        registry.register(
            "lectern_operator_jobs",
            "Messages in the pools' queues, live and archive, as of the last look: waiting, in flight, delayed, dead",
            metrics.jobs.clone(),
        );
        registry.register(
            "lectern_operator_in_sync",
            "1 once this process leads and has looked at every LiveStream that was there when it began to",
            metrics.in_sync.clone(),
        );
        metrics
    }

    /// Every LiveStream was looked at.
    pub fn in_sync(&self) {
        self.in_sync.set(1);
    }

    /// Says what is in a pool's queue of that kind (live, archive) and in its dead-letter queue.
    pub fn jobs(&self, pool: &str, kind: &'static str, depth: Depth, dead: Depth) {
        let states = [("waiting", depth.waiting), ("in_flight", depth.in_flight), ("delayed", depth.delayed), ("dead", dead.all())];
        for (state, count) in states {
            self.jobs.get_or_create(&Jobs { pool: pool.to_owned(), kind, state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a reconcile of `kind`, which went `outcome`: ok, conflict, timeout or error.
    pub fn reconcile(&self, kind: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
    }

    /// Counts a report.
    pub fn report(&self, taken: bool) {
        self.reports.get_or_create(&Taken { taken: if taken { "yes" } else { "no" } }).inc();
    }

    /// Counts a job that was shown in the place of a leader that is gone.
    pub fn stood_in(&self) {
        self.stood_in.inc();
    }

    /// Counts a pod of a silent node.
    pub fn taken_out(&self) {
        self.taken_out.inc();
    }

    /// Says how many streams are in which phase.
    pub fn streams(&self, phases: &BTreeMap<&'static str, i64>) {
        for (phase, count) in phases {
            self.streams.get_or_create(&Phase { phase }).set(*count);
        }
    }
}
