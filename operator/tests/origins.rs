//! A pool's origins, and an autoscaler that says meanwhile how many there are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::apps::v1::Deployment;
use kube::client::Body;
use kube::{Api, Client};
use lectern_crds::{OriginAutoscale, StreamPool};
use lectern_operator::apply::{Applied, is_conflict};
use lectern_operator::pool::apply_origins;
use lectern_operator::pool::plan::{Place, plan};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// An API server that has one Deployment.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    deployment: Option<Value>,
    /// How often somebody has written to it.
    version: u32,
    /// So many replicas are asked for as soon as somebody has read how many there are.
    crowded_by: Option<i32>,
}

impl Cluster {
    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (status, answer) = cluster.0.lock().unwrap().answer(&head.method, serde_json::from_slice(&body).unwrap_or_default());
                Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "lectern")
    }

    fn replicas(&self) -> i64 {
        self.0.lock().unwrap().deployment.as_ref().unwrap()["spec"]["replicas"].as_i64().unwrap()
    }

    fn is_scaled_to(&self, replicas: i32) {
        self.0.lock().unwrap().scale(replicas);
    }

    fn will_be_scaled_meanwhile_to(&self, replicas: i32) {
        self.0.lock().unwrap().crowded_by = Some(replicas);
    }

    fn version(&self) -> u32 {
        self.0.lock().unwrap().version
    }
}

impl Held {
    fn answer(&mut self, method: &Method, body: Value) -> (StatusCode, Value) {
        let there = self.deployment.clone();
        match (method, there) {
            (&Method::GET, Some(there)) => {
                if let Some(replicas) = self.crowded_by.take() {
                    self.scale(replicas);
                }
                (StatusCode::OK, there)
            }
            (&Method::PATCH, there) => {
                let expected = &body["metadata"]["resourceVersion"];
                if !expected.is_null() && there.is_none_or(|there| there["metadata"]["resourceVersion"] != *expected) {
                    return refusal(StatusCode::CONFLICT);
                }
                (StatusCode::OK, self.put(body))
            }
            _ => refusal(StatusCode::NOT_FOUND),
        }
    }

    fn scale(&mut self, replicas: i32) {
        let mut scaled = self.deployment.clone().unwrap();
        scaled["spec"]["replicas"] = json!(replicas);
        self.put(scaled);
    }

    fn put(&mut self, mut deployment: Value) -> Value {
        self.version += 1;
        deployment["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.deployment = Some(deployment.clone());
        deployment
    }
}

fn refusal(status: StatusCode) -> (StatusCode, Value) {
    let reason = status.canonical_reason().unwrap().replace(' ', "");
    let words = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status.as_u16(), "reason": reason, "message": "" });
    (status, words)
}

/// Of two origins, and with an autoscaler up to `most`.
fn pool(most: Option<i32>) -> StreamPool {
    let mut pool: StreamPool = serde_yaml::from_str(include_str!("golden/pool.yaml")).unwrap();
    assert_eq!(pool.spec.origin.replicas, 2);
    pool.spec.origin.autoscale = most.map(|max_replicas| OriginAutoscale { max_replicas, cpu_millis: 700 });
    pool
}

async fn apply(cluster: &Cluster, pool: &StreamPool, applied: &Applied) -> Result<(), kube::Error> {
    let planned = plan(pool, &Place { namespace: "lectern".into(), operator_url: "http://operator".into(), keys: None }).origin;
    apply_origins(pool, &planned, &Api::<Deployment>::namespaced(cluster.client(), "lectern"), applied).await
}

#[tokio::test]
async fn what_the_autoscaler_says_while_the_pool_is_looked_at_is_not_undone() {
    let (cluster, pool, applied) = (Cluster::default(), pool(Some(5)), Applied::default());
    apply(&cluster, &pool, &applied).await.unwrap();
    assert_eq!(cluster.replicas(), 2);

    cluster.will_be_scaled_meanwhile_to(4);
    cluster.is_scaled_to(3);
    let refused = apply(&cluster, &pool, &applied).await.unwrap_err();
    assert!(is_conflict(&refused), "{refused}");
    assert_eq!(cluster.replicas(), 4, "the origins that had just come were sent away");

    apply(&cluster, &pool, &applied).await.unwrap();
    assert_eq!(cluster.replicas(), 4);
    let version = cluster.version();
    apply(&cluster, &pool, &applied).await.unwrap();
    assert_eq!(cluster.version(), version, "what is so already is not written again");
}

#[tokio::test]
async fn without_an_autoscaler_there_are_as_many_as_the_pool_says() {
    let (cluster, pool, applied) = (Cluster::default(), pool(None), Applied::default());
    apply(&cluster, &pool, &applied).await.unwrap();
    cluster.is_scaled_to(4);
    apply(&cluster, &pool, &applied).await.unwrap();
    assert_eq!(cluster.replicas(), 2);
}
