//! The CA's keeper and the certificates, against an API server that holds Secrets in memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use http::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use lectern_operator::pool::certificates::certificates;
use lectern_operator::trust::authority::Authority;
use lectern_operator::trust::turn::{Keeper, ROTATE_ANNOTATION, turn};
use lectern_operator::trust::{self, CA_SECRET, TrustError, Usage, Wanted};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// Secrets by name, and one pool.
#[derive(Clone, Default)]
struct Cluster {
    secrets: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Somebody else writes to each Secret as soon as it has been read.
    crowded: bool,
}

impl Cluster {
    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (status, answer) = cluster.answer(&head.method, head.uri.path(), serde_json::from_slice(&body).unwrap_or_default());
                Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "lectern")
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if path.ends_with("/streampools") {
            return (
                StatusCode::OK,
                json!({ "apiVersion": "lectern.video/v1alpha1", "kind": "StreamPoolList", "metadata": {}, "items": [pool()] }),
            );
        }
        let mut secrets = self.secrets.lock().unwrap();
        let name = path.rsplit('/').next().unwrap().to_owned();
        match (method, secrets.get(&name).cloned()) {
            (&Method::POST, _) => (StatusCode::CREATED, put(&mut secrets, body["metadata"]["name"].as_str().unwrap(), body.clone())),
            (&Method::GET, Some(there)) => {
                if self.crowded {
                    put(&mut secrets, &name, there.clone());
                }
                (StatusCode::OK, there)
            }
            (&Method::PATCH, there) => {
                let expected = &body["metadata"]["resourceVersion"];
                if !expected.is_null() && there.as_ref().is_none_or(|there| there["metadata"]["resourceVersion"] != *expected) {
                    return (StatusCode::CONFLICT, failure(StatusCode::CONFLICT));
                }
                let mut merged = there.unwrap_or_default();
                merge(&mut merged, body);
                (StatusCode::OK, put(&mut secrets, &name, merged))
            }
            _ => (StatusCode::NOT_FOUND, failure(StatusCode::NOT_FOUND)),
        }
    }

    /// The entries of a Secret, in order.
    fn entries(&self, name: &str) -> Vec<String> {
        self.secrets.lock().unwrap()[name]["data"].as_object().unwrap().keys().cloned().collect()
    }

    fn text(&self, name: &str, entry: &str) -> String {
        let bytes: ByteString = serde_json::from_value(self.secrets.lock().unwrap()[name]["data"][entry].clone()).unwrap();
        String::from_utf8(bytes.0).unwrap()
    }

    fn apply(&self, name: &str, with: Value) {
        self.answer(&Method::PATCH, &format!("/{name}"), with);
    }
}

fn failure(status: StatusCode) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status.as_u16(), "reason": status.canonical_reason().unwrap().replace(' ', ""), "message": "" })
}

fn put(secrets: &mut BTreeMap<String, Value>, name: &str, mut secret: Value) -> Value {
    let version =
        secrets.values().filter_map(|there| there["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok()).max().unwrap_or(0) + 1;
    secret["metadata"]["name"] = json!(name);
    secret["metadata"]["resourceVersion"] = json!(version.to_string());
    secrets.insert(name.to_owned(), secret.clone());
    secret
}

/// RFC 7386.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let into = into.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            into.remove(&key);
        } else {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn pool() -> Value {
    serde_yaml::from_str(include_str!("golden/pool.yaml")).unwrap()
}

fn keeper() -> Keeper {
    let gateway = Wanted {
        namespace: "lectern".into(),
        secret: "lectern-gateway-tls".into(),
        dns_names: vec!["gateway.example".into()],
        usage: Usage::Server,
        owner: None,
    };
    Keeper { namespace: "lectern".into(), given: None, pause: SignedDuration::from_secs(300), beside: vec![gateway] }
}

fn wanted() -> Vec<Wanted> {
    let pool = serde_json::from_value(pool()).unwrap();
    keeper().beside.into_iter().chain(certificates(&pool, "lectern")).collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

async fn ensure(client: &Client, wanted: &[Wanted], now: i64) {
    for wanted in wanted {
        trust::ensure(client, wanted, at(now)).await.unwrap();
    }
}

const STEADY: [&str; 2] = ["tls.crt", "tls.key"];
const TRUSTED: [&str; 4] = ["next.crt", "next.key", "tls.crt", "tls.key"];
const LEFT: [&str; 3] = ["previous.crt", "tls.crt", "tls.key"];

#[tokio::test]
async fn a_ca_that_is_to_be_rotated_goes_in_steps_that_every_certificate_has_taken() {
    let (cluster, keeper, wanted) = (Cluster::default(), keeper(), wanted());
    let client = cluster.client(); // all that the operator knows: one that is killed knows as much
    let step = async |now| {
        turn(&client, &keeper, at(now)).await.unwrap();
        cluster.entries(CA_SECRET)
    };
    assert!(matches!(trust::ensure(&client, &wanted[0], at(0)).await, Err(TrustError::NoCa)));
    assert_eq!(step(0).await, STEADY);
    ensure(&client, &wanted, 0).await;
    let (old, of_old) = (cluster.text(CA_SECRET, "tls.crt"), cluster.text("lectern-ingest-default-tls", "tls.crt"));
    assert_eq!(step(900).await, STEADY, "nobody has asked");

    cluster.apply(CA_SECRET, json!({ "metadata": { "annotations": { ROTATE_ANNOTATION: "now" } } }));
    assert_eq!(step(1_000).await, TRUSTED);
    assert!(cluster.secrets.lock().unwrap()[CA_SECRET]["metadata"]["annotations"].get(ROTATE_ANNOTATION).is_none());
    let new = cluster.text(CA_SECRET, "next.crt");
    ensure(&client, &wanted[1..], 1_100).await;
    assert_eq!(step(9_000).await, TRUSTED, "the gateway has not been told");
    ensure(&client, &wanted, 9_000).await;
    for wanted in &wanted {
        let bundle = cluster.text(&wanted.secret, "ca.crt");
        assert!(bundle.contains(old.trim()) && bundle.contains(new.trim()), "{}", wanted.secret);
    }
    assert_eq!(cluster.text("lectern-ingest-default-tls", "tls.crt"), of_old);
    assert_eq!(step(9_299).await, TRUSTED);

    assert_eq!(step(9_300).await, LEFT);
    assert_eq!((cluster.text(CA_SECRET, "tls.crt"), cluster.text(CA_SECRET, "previous.crt").trim()), (new.clone(), old.trim()));
    ensure(&client, &wanted[1..], 9_310).await;
    assert_eq!(step(20_000).await, LEFT, "the gateway's certificate is of the old one");
    ensure(&client, &wanted, 20_000).await;
    assert_ne!(cluster.text("lectern-ingest-default-tls", "tls.crt"), of_old);
    assert_eq!(step(20_299).await, LEFT);

    assert_eq!(step(20_300).await, STEADY);
    ensure(&client, &wanted, 20_310).await;
    assert_eq!(cluster.text("lectern-ingest-default-tls", "ca.crt").trim(), new.trim());
    assert_eq!(step(99_000).await, STEADY);
}

#[tokio::test]
async fn who_has_not_seen_the_newest_ca_does_not_write_it() {
    let (cluster, keeper) = (Cluster { crowded: true, ..Cluster::default() }, keeper());
    turn(&cluster.client(), &keeper, at(0)).await.unwrap();
    cluster.apply(CA_SECRET, json!({ "metadata": { "annotations": { ROTATE_ANNOTATION: "now" } } }));
    let refused = turn(&cluster.client(), &keeper, at(10)).await.unwrap_err();
    assert!(matches!(&refused, TrustError::Kube(kube::Error::Api(status)) if status.code == 409), "{refused}");
    assert_eq!(cluster.entries(CA_SECRET), STEADY);
}

#[tokio::test]
async fn a_ca_that_is_given_takes_the_place_of_the_operators_own_once_it_is_one() {
    let (cluster, own) = (Cluster::default(), keeper());
    let client = cluster.client();
    turn(&client, &own, at(0)).await.unwrap();
    let given = Keeper { given: Some("school-ca".into()), ..own };
    let away = turn(&client, &given, at(10)).await.unwrap_err().to_string();
    assert_eq!(away, "the CA in the Secret school-ca cannot be used: there is none");
    assert_eq!(cluster.entries(CA_SECRET), STEADY, "the one that is there stays");

    let school = Authority::generate(at(0)).unwrap();
    let entry = |text: &str| serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap();
    cluster.apply("school-ca", json!({ "data": { "tls.crt": entry(&school.chain), "tls.key": entry(&school.key) } }));
    turn(&client, &given, at(20)).await.unwrap();
    assert_eq!(
        (cluster.entries(CA_SECRET), cluster.text(CA_SECRET, "next.crt")),
        (TRUSTED.map(str::to_owned).to_vec(), school.chain.clone())
    );

    // Where there is none of the operator's own, the one that is given is the first.
    let fresh = Cluster::default();
    fresh.apply("school-ca", json!({ "data": { "tls.crt": entry(&school.chain), "tls.key": entry(&school.key) } }));
    turn(&fresh.client(), &given, at(20)).await.unwrap();
    assert_eq!((fresh.entries(CA_SECRET), fresh.text(CA_SECRET, "tls.crt")), (STEADY.map(str::to_owned).to_vec(), school.chain));
    let nowhere = Cluster::default();
    assert!(turn(&nowhere.client(), &given, at(20)).await.is_err());
    assert!(nowhere.secrets.lock().unwrap().is_empty(), "none is made in its place");
}
