//! What the charts would install, as far as the operator needs it.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, CustomResourceExt as _};
use lectern_crds::{DEFAULT_LADDER, DEFAULT_POOL, EncodingLadder, LiveStream, RouteSlice, StreamPool};
use lectern_e2e::wait::watch;
use serde_json::{Value, json};
use std::time::Duration;

/// Where the operator is.
pub const NAMESPACE: &str = "lectern";
/// How many namespaces the LiveStreams are in.
pub const SCHOOLS: usize = 5;

/// A school's namespace.
pub fn school(number: usize) -> String {
    format!("school-{}", number % SCHOOLS)
}

/// Makes everything but LiveStreams: types, namespaces, rights, a ladder and a pool.
pub async fn install(client: &Client, shards: usize, cloud: &str) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in [LiveStream::crd(), RouteSlice::crd(), StreamPool::crd(), EncodingLadder::crd()] {
        let made = definitions.create(&PostParams::default(), &definition).await?;
        let name = made.metadata.name.unwrap_or_default();
        let established = |crd: &CustomResourceDefinition| {
            let conditions = crd.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
        };
        watch(definitions.clone(), &name, "Established", Duration::from_secs(20), established, |crd| format!("{:?}", crd.status)).await?;
    }
    let schools = (0..SCHOOLS).map(school);
    for namespace in schools.chain([NAMESPACE.to_owned()]) {
        create(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
    }
    create(client, rights()).await?;
    // The pods that lead label themselves.
    for pod in ["lectern-operator-0", "lectern-operator-1", "lectern-operator-2"] {
        let containers = [json!({"name": "operator", "image": "lectern/operator"})];
        let labels = json!({"app.kubernetes.io/name": "lectern", "app.kubernetes.io/component": "operator"});
        let metadata = json!({"name": pod, "namespace": NAMESPACE, "labels": labels});
        create(client, json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}})).await?;
    }
    create(client, ladder()).await?;
    create(client, pool(shards, cloud)).await
}

async fn create(client: &Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().unwrap_or_default();
    let of = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
    let api = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &of),
        None => Api::all_with(client.clone(), &of),
    };
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// All rights: which it needs, e2e tests find out.
fn rights() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "lectern-operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "lectern-operator", "namespace": NAMESPACE}],
    })
}

fn ladder() -> Value {
    json!({
        "apiVersion": "lectern.video/v1alpha1", "kind": "EncodingLadder", "metadata": {"name": DEFAULT_LADDER},
        "spec": {
            "video": [{"name": "360p", "width": 640, "height": 360, "frameRate": 30, "codec": "h264", "bitrate": 800_000}],
            "audio": [{"name": "audio", "bitrate": 96_000}],
        },
    })
}

fn pool(shards: usize, cloud: &str) -> Value {
    json!({
        "apiVersion": "lectern.video/v1alpha1", "kind": "StreamPool", "metadata": {"name": DEFAULT_POOL},
        "spec": {
            "images": {"ingest": "lectern/ingest", "transcoder": "lectern/transcoder", "origin": "lectern/origin"},
            "ingest": {"shards": shards, "publicUrl": "rtmp://ingest.school.example/live"},
            "transcoder": {"pods": 1, "slots": 1},
            "origin": {"replicas": 1, "publicUrl": "https://watch.school.example"},
            "queue": {"name": "lectern-jobs", "region": "us-east-1", "endpoint": cloud},
            "bucket": {"name": "lectern", "region": "us-east-1", "endpoint": cloud},
        },
    })
}
