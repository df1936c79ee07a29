//! The chart's NetworkPolicies and the pods' ports: each port that a pod names has a rule, and no rule is for a port that none names.

use serde::Deserialize;
use serde_json::{Value, from_value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A port, or the first of several.
type Port = u64;

/// What transcoders' children listen on: Linux gives it, and no pod can name it.
const GIVEN: Port = 32768;

fn documents(text: &str) -> Vec<Value> {
    let all = serde_yaml::Deserializer::from_str(text).map(|document| Value::deserialize(document).unwrap());
    all.filter(Value::is_object).collect()
}

fn component(labels: &Value) -> String {
    labels["app.kubernetes.io/component"].as_str().unwrap_or_default().to_owned()
}

/// Of each kind of pod the ports that the policies open, and to whom: nobody named is everybody.
fn rules(rendered: &[Value]) -> BTreeMap<String, BTreeMap<Port, Vec<Value>>> {
    let mut rules: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for policy in rendered.iter().filter(|document| document["kind"] == "NetworkPolicy") {
        let spec = &policy["spec"];
        assert_eq!(spec["policyTypes"], json!(["Ingress"]));
        assert_eq!(spec["podSelector"]["matchLabels"]["app.kubernetes.io/name"], "lectern");
        let open = rules.entry(component(&spec["podSelector"]["matchLabels"])).or_default();
        for rule in spec["ingress"].as_array().unwrap() {
            for port in rule["ports"].as_array().unwrap() {
                let from: Vec<Value> = from_value(rule["from"].clone()).unwrap_or_default();
                let known = open.entry(port["port"].as_u64().unwrap()).or_insert_with(Vec::new);
                assert!(known.is_empty() || !from.is_empty(), "{port} is for some by one rule and for everybody by another");
                known.extend(from);
            }
        }
    }
    rules
}

/// Of each kind of pod the ports that it names.
fn ports<'a>(pods: impl Iterator<Item = &'a Value>) -> BTreeMap<String, BTreeSet<Port>> {
    let mut ports: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for object in pods {
        let pod = if object["kind"] == "Pod" { object } else { &object["spec"]["template"] };
        let containers = pod["spec"]["containers"].as_array().unwrap().iter();
        let named = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        ports.entry(component(&pod["metadata"]["labels"])).or_default().extend(named.map(|port| port["containerPort"].as_u64().unwrap()));
    }
    ports
}

fn rendered() -> Vec<Value> {
    documents(include_str!("../../../charts/tests/golden/policies.yaml"))
}

#[test]
fn each_port_of_a_pod_has_a_rule_and_no_other_port_has() {
    let rendered = rendered();
    let planned = [include_str!("ingest.yaml"), include_str!("transcoder.yaml"), include_str!("origin.yaml")].map(documents).concat();
    let deployed = rendered.iter().filter(|document| document["kind"] == "Deployment");
    let mut wanted = ports(deployed.chain(&planned));
    assert_eq!(wanted.len(), 5, "operator, gateway, and the three of a pool: {wanted:?}");
    wanted.get_mut("transcoder").unwrap().insert(GIVEN);
    let open: BTreeMap<_, BTreeSet<_>> = rules(&rendered).into_iter().map(|(of, ports)| (of, ports.into_keys().collect())).collect();
    assert_eq!(open, wanted);
}

#[test]
fn only_peers_get_at_what_is_for_peers() {
    let rules = rules(&rendered());
    let from = |of: &str, port| {
        let peers = rules[of][&port].iter().map(|peer| &peer["podSelector"]["matchExpressions"][0]["values"]);
        peers.filter_map(Value::as_array).flatten().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // ARCHITECTURE.md, "What crosses a border".
    assert_eq!(from("operator", 7100), ["ingest", "transcoder", "origin"]);
    assert_eq!(from("ingest", 7000), ["transcoder", "ingest"]);
    assert_eq!(from("ingest", 7001), ["ingest"]);
    assert_eq!(from("transcoder", GIVEN), ["origin", "transcoder"]);
    for (of, port) in [("ingest", 1935), ("ingest", 1936), ("origin", 8080), ("origin", 8443), ("gateway", 8443)] {
        assert!(rules[of][&port].is_empty(), "{of} {port} is for everybody");
    }
    let monitoring = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } });
    for (of, ports) in &rules {
        assert_eq!(ports[&9090].first(), Some(&monitoring), "{of}");
        let (asked, others) = (from(of, 9090), ports[&9090].len() - 1);
        let by_operator = ["ingest", "origin"].contains(&of.as_str());
        assert_eq!((asked, others), if by_operator { (vec!["operator".to_owned()], 1) } else { (vec![], 0) }, "{of}");
    }
}
