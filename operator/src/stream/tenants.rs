//! Who may use a pool, and how much of it.

use super::claims::{ACCEPTED, ENDED};
use super::status_of;
use super::validate::{Refusal, RefusalReason};
use crate::conditions;
use crate::context::{Context, Error};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Api, ResourceExt};
use lectern_crds::{LiveStream, Tenant};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a namespace's labels are believed.
const REMEMBERED: Duration = Duration::from_secs(10);

/// A stream's namespace as a pool's tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tenancy {
    /// The namespace's labels.
    pub labels: BTreeMap<String, String>,
    /// How many streams it has in the pool that come before this one.
    pub before: usize,
}

type Labels = BTreeMap<String, String>;

/// The labels of namespaces, as they were read last.
#[derive(Debug, Default)]
pub struct Namespaces(Mutex<HashMap<String, (Instant, Labels)>>);

impl Namespaces {
    async fn labels(&self, name: &str, ctx: &Context) -> Result<Labels, Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((_, labels)) = known.filter(|(at, _)| at.elapsed() < REMEMBERED) {
            return Ok(labels);
        }
        let found = Api::<Namespace>::all(ctx.client()).get_metadata_opt(name).await?;
        let labels = found.map(|found| found.labels().clone()).unwrap_or_default();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        known.insert(name.to_owned(), (Instant::now(), labels.clone()));
        Ok(labels)
    }
}

/// Looks; nothing where the pool has no tenants, or the stream its place already.
pub async fn look(stream: &LiveStream, tenants: &[Tenant], ctx: &Context) -> Result<Tenancy, Error> {
    if tenants.is_empty() || status_of(stream).placement.is_some() {
        return Ok(Tenancy::default());
    }
    let labels = ctx.namespaces.labels(&stream.namespace().unwrap_or_default(), ctx).await?;
    let others = ctx.streams.state();
    Ok(Tenancy {
        labels,
        before: others.iter().filter_map(|other| other.0.as_ref().ok()).filter(|other| comes_before(other, stream)).count(),
    })
}

/// Whether `other` takes of what the namespace of `stream` may have in its pool: it has its place there, or waits for longer.
fn comes_before(other: &LiveStream, stream: &LiveStream) -> bool {
    let status = status_of(other);
    let same = other.namespace() == stream.namespace() && other.spec.pool_name == stream.spec.pool_name && other.uid() != stream.uid();
    if !same || conditions::holds(&status.conditions, ENDED) {
        return false;
    }
    let age = |of: &LiveStream| (of.creation_timestamp().map(|at| at.0), of.uid());
    let is_refused = conditions::find(&status.conditions, ACCEPTED)
        .is_some_and(|told| told.status == "False" && told.reason != RefusalReason::QuotaExceeded.as_str());
    status.placement.is_some() || (!is_refused && age(other) < age(stream))
}

/// Whether a namespace may have one more stream in the pool.
pub fn admits(tenants: &[Tenant], tenancy: &Tenancy, namespace: &str, pool: &str) -> Result<(), Refusal> {
    if tenants.is_empty() {
        return Ok(());
    }
    let fits = |tenant: &&Tenant| tenant.namespace_selector.as_ref().is_none_or(|selector| selects(selector, &tenancy.labels));
    let Some(tenant) = tenants.iter().find(fits) else {
        let message = format!(
            "StreamPool {pool:?} is for other namespaces than {namespace:?}: label it as spec.tenants of the pool says, or create the stream in another pool"
        );
        return Err(Refusal { reason: RefusalReason::NotATenant, message });
    };
    match tenant.max_streams.map(|most| usize::try_from(most).unwrap_or(0)) {
        Some(most) if tenancy.before >= most => {
            let before = tenancy.before;
            let message = format!(
                "namespace {namespace:?} has {before} LiveStreams in StreamPool {pool:?} already and may have {most} (spec.tenants of the pool): this one waits until another has ended"
            );
            Err(Refusal { reason: RefusalReason::QuotaExceeded, message })
        }
        _ => Ok(()),
    }
}

/// As Kubernetes reads a selector; an operator that it does not know selects nothing.
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let alike = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    alike
        && selector.match_expressions.iter().flatten().all(|wanted| {
            let (value, values) = (labels.get(&wanted.key), wanted.values.as_deref().unwrap_or_default());
            match wanted.operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => value.is_none_or(|value| !values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenants(of: serde_json::Value) -> Vec<Tenant> {
        serde_json::from_value(of).unwrap()
    }

    fn reason(tenants: &[Tenant], label: &str, before: usize) -> Option<&'static str> {
        let tenancy = Tenancy { labels: [("school".to_owned(), label.to_owned())].into(), before };
        admits(tenants, &tenancy, "algebra", "default").err().map(|refusal| refusal.reason.as_str())
    }

    #[test]
    fn a_pool_without_tenants_is_everybodys() {
        assert_eq!(reason(&[], "north", 1_000), None);
    }

    #[test]
    fn the_first_entry_that_a_namespace_fits_counts_for_it() {
        let tenants = tenants(json!([
            {"namespaceSelector": {"matchLabels": {"school": "north"}}, "maxStreams": 3},
            {"namespaceSelector": {"matchExpressions": [{"key": "school", "operator": "In", "values": ["north", "south"]}]}},
        ]));
        assert_eq!([2, 3].map(|before| reason(&tenants, "north", before)), [None, Some("QuotaExceeded")]);
        assert_eq!(reason(&tenants, "south", 1_000), None);
        assert_eq!(reason(&tenants, "west", 0), Some("NotATenant"));
    }

    #[test]
    fn a_refusal_tells_the_number_and_the_limit() {
        let tenancy = Tenancy { before: 3, ..Tenancy::default() };
        let refusal = admits(&tenants(json!([{"maxStreams": 3}])), &tenancy, "algebra", "default").unwrap_err();
        assert!(refusal.message.contains("has 3 LiveStreams") && refusal.message.contains("may have 3"), "{}", refusal.message);
    }

    #[test]
    fn expressions_are_read_as_kubernetes_reads_them() {
        let selects = |operator: &str, values: &[&str], labels: &[(&str, &str)]| {
            let selector = json!({"matchExpressions": [{"key": "school", "operator": operator, "values": values}]});
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            super::selects(&serde_json::from_value(selector).unwrap(), &labels)
        };
        let north = [("school", "north")];
        assert!(selects("In", &["north"], &north) && !selects("In", &["south"], &north) && !selects("In", &["north"], &[]));
        assert!(!selects("NotIn", &["north"], &north) && selects("NotIn", &["south"], &north) && selects("NotIn", &["north"], &[]));
        assert!(selects("Exists", &[], &north) && !selects("Exists", &[], &[]));
        assert!(!selects("DoesNotExist", &[], &north) && selects("DoesNotExist", &[], &[]));
        assert!(!selects("Resembles", &["north"], &north));
    }

    fn stream(name: &str, second: i64, status: serde_json::Value) -> LiveStream {
        let created = jiff::Timestamp::from_second(1_800_000_000 + second).unwrap().to_string();
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "algebra", "uid": name, "creationTimestamp": created}, "spec": {}, "status": status,
        }))
        .unwrap()
    }

    fn told(kind: &str, status: &str, reason: &str) -> serde_json::Value {
        json!({"conditions": [{"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    #[test]
    fn who_has_a_place_counts_and_who_waits_for_longer() {
        let this = stream("this", 5, json!({}));
        let placed = json!({"placement": {"shard": "s-0", "reason": "", "epoch": 1, "anchorMillis": 0}});
        assert!(comes_before(&stream("younger-with-a-place", 9, placed.clone()), &this));
        assert!(comes_before(&stream("older", 1, json!({})), &this));
        assert!(comes_before(&stream("older-and-over-the-quota", 1, told("Accepted", "False", "QuotaExceeded")), &this));
        assert!(!comes_before(&stream("younger", 9, json!({})), &this));
        assert!(!comes_before(&stream("older-and-refused", 1, told("Accepted", "False", "BadLadder")), &this));
        assert!(!comes_before(&stream("ended", 1, told("Ended", "True", "Complete")), &this));
        assert!(!comes_before(&this, &this));
        let mut elsewhere = stream("elsewhere", 1, placed);
        elsewhere.metadata.namespace = Some("botany".into());
        assert!(!comes_before(&elsewhere, &this));
    }
}
