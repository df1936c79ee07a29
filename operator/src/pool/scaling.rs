//! Origins by load: the HorizontalPodAutoscaler of a pool that wants one, and who says then how many there are.

use super::plan::{ORIGIN, Place, meta, origin_name};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use lectern_crds::{OriginSpec, StreamPool};

/// What scales the pool's origins; `None` where there are as many as the spec says.
///
/// By what a pod uses and not by a share of what it requests: that is small, so that origins fit anywhere.
pub fn autoscaler(pool: &StreamPool, place: &Place) -> Option<HorizontalPodAutoscaler> {
    let (origin, name) = (&pool.spec.origin, origin_name(&pool.name_any()));
    let scale = origin.autoscale.as_ref()?;
    let target = MetricTarget {
        type_: "AverageValue".into(),
        average_value: Some(Quantity(format!("{}m", scale.cpu_millis))),
        ..MetricTarget::default()
    };
    Some(HorizontalPodAutoscaler {
        metadata: meta(pool, place, ORIGIN, name.clone()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference { api_version: Some("apps/v1".into()), kind: "Deployment".into(), name },
            min_replicas: Some(origin.replicas),
            max_replicas: scale.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource { name: "cpu".into(), target }),
                ..MetricSpec::default()
            }]),
            ..HorizontalPodAutoscalerSpec::default()
        }),
        status: None,
    })
}

/// How many origins to apply where `now` are asked for, by whomever.
///
/// An apply that left the field out would give it up, and the API server put its default of one in its place for a moment; so what the
/// autoscaler says is said again, within the pool's bounds.
pub fn replicas(origin: &OriginSpec, now: Option<&Deployment>) -> i32 {
    let Some(scale) = &origin.autoscale else { return origin.replicas };
    let now = now.and_then(|now| now.spec.as_ref()?.replicas).unwrap_or(origin.replicas);
    now.clamp(origin.replicas, scale.max_replicas.max(origin.replicas))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DeploymentSpec;
    use serde_json::json;

    #[test]
    fn the_autoscaler_says_how_many_origins_there_are_within_the_pools_bounds() {
        let of = |more: serde_json::Value, now: Option<i32>| {
            let mut spec = json!({ "replicas": 2, "publicUrl": "https://watch.example" });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let now = now.map(|count| Deployment {
                spec: Some(DeploymentSpec { replicas: Some(count), ..DeploymentSpec::default() }),
                ..Deployment::default()
            });
            replicas(&serde_json::from_value(spec).unwrap(), now.as_ref())
        };
        assert_eq!([None, Some(7)].map(|now| of(json!({}), now)), [2, 2], "nobody else says so");
        let scaled = || json!({ "autoscale": { "maxReplicas": 5 } });
        assert_eq!([None, Some(1), Some(4), Some(7)].map(|now| of(scaled(), now)), [2, 2, 4, 5]);
    }
}
