//! The objects that the operator makes of a pool, whole, as a reader of a change sees them.
//!
//! `UPDATE_GOLDEN=1 cargo test -p lectern-operator --profile lectern --test golden` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "golden/policies.rs"]
mod policies;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lectern_crds::{OriginAutoscale, OriginTlsSpec, RtmpsSpec, SlatePicture, StreamPool};
use lectern_operator::pool::plan::{Place, Planned, plan};
use lectern_operator::pool::scaling::autoscaler;
use lectern_operator::pool::transcoder;
use lectern_operator::trust::Wanted;
use serde::Serialize;
use std::path::Path;
use std::{env, fs};

fn pool() -> StreamPool {
    serde_yaml::from_str(include_str!("golden/pool.yaml")).unwrap()
}

fn place() -> Place {
    Place {
        namespace: "lectern".into(),
        operator_url: "http://lectern-operator.lectern.svc:7100".into(),
        keys: Some("0123456789abcdef".into()),
    }
}

fn planned() -> Planned {
    plan(&pool(), &place())
}

fn matches(name: &str, object: &impl Serialize) {
    let path = Path::new("tests/golden").join(name);
    let now = serde_yaml::to_string(object).unwrap();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, now, "{name} has changed; UPDATE_GOLDEN=1 takes the change over");
}

#[test]
fn shards_are_planned_as_written_down() {
    matches("ingest.yaml", &planned().ingest);
    matches("ingest-budget.yaml", &planned().ingest_budget);
    matches("cameras.yaml", &planned().cameras);
}

#[test]
fn services_are_planned_as_written_down() {
    matches("services.yaml", &planned().services);
}

#[test]
fn shards_may_have_an_address_each() {
    let mut pool = pool();
    (pool.spec.ingest.per_shard, pool.spec.ingest.public_url) = (true, "rtmp://{shard}.ingest.example/live".into());
    (pool.spec.ingest.shards, pool.spec.ingest.exposure.node_port) = (2, Some(31_000));
    let planned = plan(&pool, &place());
    matches("services-per-shard.yaml", &planned.services);
    let certificate = planned.certificates.iter().find(|wanted| wanted.secret == "lectern-rtmps-default-tls").unwrap();
    assert_eq!(certificate.dns_names, ["0.ingest.example", "1.ingest.example"]);
    assert_eq!(pool.spec.ingest.url_of("lectern-ingest-default-1"), "rtmp://1.ingest.example/live");
}

#[test]
fn origins_are_planned_as_written_down() {
    matches("origin.yaml", &planned().origin);
    assert_eq!(autoscaler(&pool(), &place()), None);
}

#[test]
fn origins_may_come_and_go_with_the_load() {
    let mut pool = pool();
    pool.spec.origin.autoscale = Some(OriginAutoscale { max_replicas: 10, cpu_millis: 700 });
    matches("origin-autoscaler.yaml", &autoscaler(&pool, &place()));
}

#[test]
fn transcoders_are_planned_as_written_down() {
    matches("transcoder.yaml", &planned().classes[0].pod("abcde"));
    // Scheduled by the extended resource of NVIDIA's device plugin.
    let mut gpu = pool();
    gpu.spec.transcoder.class.encoder = lectern_crds::Encoder::Nvenc;
    gpu.spec.transcoder.slate_picture = Some(SlatePicture { config_map_name: "slate".into(), key: "slate.png".into() });
    gpu.spec.transcoder.class.resources = Some(serde_yaml::from_str("{requests: {memory: 1Gi}, limits: {cpu: '4'}}").unwrap());
    matches("transcoder-nvenc.yaml", &plan(&gpu, &place()).classes[0].pod("abcde"));
}

#[test]
fn a_class_of_its_own_has_pods_of_its_own() {
    let mut pool = pool();
    let class = "{name: gpu, pods: 0, maxPods: 4, slots: 4, encoder: Nvenc, nodeSelector: {gpu: a10}, tolerations: [{key: nvidia.com/gpu, operator: Exists}]}";
    pool.spec.transcoder.classes = vec![serde_yaml::from_str(class).unwrap()];
    let planned = plan(&pool, &place());
    matches("transcoder-class.yaml", &planned.classes[1].pod("abcde"));
    assert_eq!(planned.classes[0].hash, plan(&self::pool(), &place()).classes[0].hash, "the others stay as they are");
}

#[test]
fn transcoders_are_told_how_much_may_wait_for_s3() {
    let mut pool = pool();
    let told = |pool: &StreamPool| {
        let pod = plan(pool, &place()).classes[0].pod("abcde");
        let env = pod.spec.unwrap().containers.remove(0).env.unwrap();
        env.into_iter().find(|it| it.name == "LECTERN_BACKLOG_MIB").and_then(|it| it.value)
    };
    assert_eq!(told(&pool), None, "they know themselves what is usual");
    pool.spec.transcoder.backlog_mib = Some(64);
    assert_eq!(told(&pool).as_deref(), Some("64"));
}

#[test]
fn evictions_take_one_transcoder_after_the_other() {
    let least = |alive| transcoder::budget(&pool(), &place(), alive).spec.unwrap().min_available;
    assert_eq!([0, 1, 5].map(least), [0, 0, 4].map(|least| Some(IntOrString::Int(least))));
    matches("transcoder-budget.yaml", &transcoder::budget(&pool(), &place(), 5));
}

#[test]
fn certificates_are_issued_as_written_down() {
    let said = |wanted: &Wanted| format!("{}: {:?} for {}", wanted.secret, wanted.usage, wanted.dns_names.join(", "));
    let certificates: Vec<_> = planned().certificates.iter().map(said).collect();
    let expected = [
        "lectern-ingest-default-tls: Peer for ingest.default.lectern.internal",
        "lectern-transcoder-default-tls: Peer for transcoder.default.lectern.internal",
        "lectern-origin-default-tls: Peer for origin.default.lectern.internal",
        "lectern-rtmps-default-tls: Server for ingest.example",
        "lectern-https-default-tls: Server for watch.example, lectern-origin-default, lectern-origin-default.lectern, lectern-origin-default.lectern.svc",
    ];
    assert_eq!(certificates, expected);
}

#[test]
fn a_pool_with_a_certificate_of_its_own_takes_rtmps_alone() {
    let mut pool = pool();
    pool.spec.ingest.plain_rtmp = false;
    pool.spec.ingest.rtmps = Some(RtmpsSpec { secret_name: Some("ours".into()), node_port: None });
    let planned = plan(&pool, &place());
    assert!(planned.certificates.iter().all(|wanted| !wanted.secret.contains("rtmps")), "none is issued for it");
    let pod = planned.ingest.spec.unwrap().template.spec.unwrap();
    let secrets: Vec<_> = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
    assert_eq!(secrets, ["lectern-ingest-default-tls", "ours"]);
    let env = pod.containers[0].env.clone().unwrap();
    assert!(env.iter().any(|var| var.name == "LECTERN_RTMP_LISTEN" && var.value.as_deref() == Some("off")));
    let ports = planned.services[1].spec.clone().unwrap().ports.unwrap();
    assert_eq!(ports.iter().map(|port| (port.port, port.node_port)).collect::<Vec<_>>(), [(1936, None)]);
}

#[test]
fn a_pool_with_a_certificate_of_its_own_serves_https_alone() {
    let mut pool = pool();
    pool.spec.origin.plain_http = false;
    pool.spec.origin.tls = Some(OriginTlsSpec { secret_name: Some("ours".into()), node_port: Some(31443) });
    let planned = plan(&pool, &place());
    assert!(planned.certificates.iter().all(|wanted| !wanted.secret.contains("https")), "none is issued for it");
    let pod = planned.origin.spec.unwrap().template.spec.unwrap();
    let secrets: Vec<_> = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
    assert_eq!(secrets, ["lectern-origin-default-tls", "lectern-viewing-default", "ours"]);
    let env = pod.containers[0].env.clone().unwrap();
    assert!(env.iter().any(|var| var.name == "LECTERN_HTTP_LISTEN" && var.value.as_deref() == Some("off")));
    let ports = planned.services[2].spec.clone().unwrap().ports.unwrap();
    assert_eq!(ports.iter().map(|port| (port.port, port.node_port)).collect::<Vec<_>>(), [(8443, Some(31443))]);
}

#[test]
fn a_change_of_the_image_changes_the_transcoders_hash_and_another_pools_size_does_not() {
    let (pool, place) = (pool(), place());
    let (mut newer, mut larger) = (pool.clone(), pool.clone());
    newer.spec.images.transcoder = "lectern/transcoder:2".into();
    larger.spec.transcoder.class.pods = 9;
    let hash = |pool| plan(pool, &place).classes[0].hash.clone();
    assert_ne!(hash(&newer), hash(&pool));
    assert_eq!(hash(&larger), hash(&pool));
}
