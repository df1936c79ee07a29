//! What the operator counts. Labels come from closed sets only.

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
        metrics
    }

    /// Counts a reconcile of `kind`, which went `outcome`: ok, conflict, timeout or error.
    pub fn reconcile(&self, kind: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
    }

    /// Counts a report.
    pub fn report(&self, taken: bool) {
        self.reports.get_or_create(&Taken { taken: if taken { "yes" } else { "no" } }).inc();
    }

    /// Says how many streams are in which phase.
    pub fn streams(&self, phases: &BTreeMap<&'static str, i64>) {
        for (phase, count) in phases {
            self.streams.get_or_create(&Phase { phase }).set(*count);
        }
    }
}
