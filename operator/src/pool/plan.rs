//! The objects of a pool, whole. Pure: `tests/golden` holds what comes out.

use super::certificates::{HTTPS_FOLDER, PEER_FOLDER, RTMPS_FOLDER, certificates, host, https_folder, peer_folder, rtmps_folder};
use super::podspec::{Folder, FolderOf, GRACE, Kind, pod_spec};
use super::transcoder::{self, PlannedClass};
use crate::trust;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use lectern_crds::{Exposure, POOL_LABEL, StreamPool, cameras_secret, viewing_secret};
use std::collections::BTreeMap;

/// The component label of ingest shards.
pub const INGEST: &str = "ingest";
/// The component label of transcoders.
pub const TRANSCODER: &str = "transcoder";
/// The component label of origins.
pub const ORIGIN: &str = "origin";

const FEED_PORT: i32 = 7000;
const RELAY_PORT: i32 = 7001;
const RTMP_PORT: i32 = 1935;
const RTMPS_PORT: i32 = 1936;
const HTTP_PORT: i32 = 8080;
const HTTPS_PORT: i32 = 8443;

/// How long players are still sent to an origin that goes: every node, and a load balancer in front of them, has heard of it by then.
const LINGERS: i64 = 5;
/// The folder that an origin finds the keys of signed links in.
const VIEWING_FOLDER: &str = "/viewing";

/// Where pools live.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace of everything.
    pub namespace: String,
    /// Where pods report to.
    pub operator_url: String,
    /// Which version of the AWS keys pods are to have ([`super::keys`]); `None` where there are none.
    pub keys: Option<String>,
}

/// All objects of a pool.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What pods show to each other and to publishers; issued before the pods are made.
    pub certificates: Vec<trust::Wanted>,
    /// The shards' addresses inside, the shards' address outside, the origins' address.
    pub services: Vec<Service>,
    /// Where cameras' passwords go, each put in by its stream: the one Secret that shards may read.
    pub cameras: Secret,
    /// The shards.
    pub ingest: StatefulSet,
    /// At most one shard is evicted at a time.
    pub ingest_budget: PodDisruptionBudget,
    /// The origins.
    pub origin: Deployment,
    /// The transcoders' classes, in the order in which they grow.
    pub classes: Vec<PlannedClass>,
}

/// The name of a pool's StatefulSet of shards, and of the headless Service that gives them addresses.
pub fn ingest_name(pool: &str) -> String {
    format!("lectern-ingest-{pool}")
}

/// The name of a pool's origins and their Service.
pub fn origin_name(pool: &str) -> String {
    format!("lectern-origin-{pool}")
}

/// The plan.
pub fn plan(pool: &StreamPool, place: &Place) -> Planned {
    Planned {
        certificates: certificates(pool, &place.namespace),
        services: [ingest_service(pool, place)]
            .into_iter()
            .chain(rtmp_services(pool, place))
            .chain([origin_service(pool, place)])
            .collect(),
        cameras: cameras(pool, place),
        ingest: ingest(pool, place),
        ingest_budget: ingest_budget(pool, place),
        origin: origin(pool, place),
        classes: transcoder::classes(pool, place),
    }
}

/// Without `data`: that is the streams' own (see `stream::camera`).
fn cameras(pool: &StreamPool, place: &Place) -> Secret {
    Secret { metadata: meta(pool, place, INGEST, cameras_secret(&pool.name_any())), ..Secret::default() }
}

/// What a shard takes beside the media that it keeps, in MiB: connections, TLS, the allocator's slack.
fn overhead_mib(memory_mib: i32) -> i32 {
    128 + memory_mib / 8
}

/// The shards. They are updated one after the other, the highest number first, each once the one before is ready again: with
/// publishers that stay that takes up to `drainSeconds` a shard. Several at a time (`maxUnavailable`) would be no gain: the
/// streams of one that drains are on the others already.
fn ingest(pool: &StreamPool, place: &Place) -> StatefulSet {
    let (name, limits) = (ingest_name(&pool.name_any()), &pool.spec.ingest);
    let memory = format!("{}Mi", limits.memory_mib.saturating_add(overhead_mib(limits.memory_mib)));
    let mut env = vec![
        ("LECTERN_INGEST_SERVICE", name.clone()),
        ("LECTERN_DRAIN_SECONDS", limits.drain_seconds.to_string()),
        ("LECTERN_MEMORY_MIB", limits.memory_mib.to_string()),
        ("LECTERN_PEER_TLS_DIR", PEER_FOLDER.to_owned()),
    ];
    let mut folders = vec![peer_folder(INGEST, &pool.name_any())];
    if !limits.plain_rtmp {
        env.push(("LECTERN_RTMP_LISTEN", "off".to_owned()));
    }
    if let Some(rtmps) = &limits.rtmps {
        env.push(("LECTERN_RTMPS_LISTEN", format!("0.0.0.0:{RTMPS_PORT}")));
        env.push(("LECTERN_RTMPS_TLS_DIR", RTMPS_FOLDER.to_owned()));
        folders.push(rtmps_folder(rtmps, &pool.name_any()));
    }
    let ports: Vec<_> = ways_in(pool).map(|(name, port, _)| (name, port)).chain([("feed", FEED_PORT), ("relay", RELAY_PORT)]).collect();
    let spec = pod_spec(
        &pool.name_any(),
        &pool.spec,
        place,
        &Kind {
            name: INGEST,
            image: &pool.spec.images.ingest,
            args: &[],
            ports: &ports,
            env,
            folders,
            service_account: "lectern-ingest",
            reads_api: true,
            // All of it is requested: a shard that is killed for memory takes all its publishers with it.
            requests: ("50m", &memory),
            memory_limit: Some(&memory),
            gpus: 0,
            resources: None,
            scheduling: &limits.scheduling,
            // The shard ends its waiting itself, and has as long as any other pod to end after it.
            grace_seconds: i64::from(limits.drain_seconds) + GRACE,
            lingers_seconds: 0,
        },
    );
    StatefulSet {
        metadata: meta(pool, place, INGEST, name.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(pool.spec.ingest.shards),
            service_name: Some(name),
            pod_management_policy: Some("Parallel".into()),
            selector: selector(pool, INGEST),
            template: template(pool, INGEST, spec),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

/// The ports that publishers come in by: name, number, and port on every node.
fn ways_in(pool: &StreamPool) -> impl Iterator<Item = (&'static str, i32, Option<i32>)> {
    let spec = &pool.spec.ingest;
    let plain = spec.plain_rtmp.then_some(("rtmp", RTMP_PORT, spec.exposure.node_port));
    let tls = spec.rtmps.as_ref().map(|rtmps| ("rtmps", RTMPS_PORT, rtmps.node_port));
    plain.into_iter().chain(tls)
}

fn ingest_budget(pool: &StreamPool, place: &Place) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(pool, place, INGEST, ingest_name(&pool.name_any())),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(pool, INGEST)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn ingest_service(pool: &StreamPool, place: &Place) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".into()),
        // A shard must find itself and the others before it is ready, and a transcoder the shard that is going.
        publish_not_ready_addresses: Some(true),
        ports: Some(vec![port("feed", FEED_PORT, None), port("relay", RELAY_PORT, None)]),
        selector: Some(select(pool, INGEST)),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(pool, place, INGEST, ingest_name(&pool.name_any())), spec: Some(spec), status: None }
}

/// What a shard's own Service has in its name after the shard's.
const OF_SHARD: &str = "-rtmp";

/// The shard whose own Service this is, if it is one.
pub fn shard_of(service: &str) -> Option<&str> {
    service.strip_suffix(OF_SHARD)
}

/// One Service for all shards, or one for each.
fn rtmp_services(pool: &StreamPool, place: &Place) -> Vec<Service> {
    let (exposure, base) = (&pool.spec.ingest.exposure, ingest_name(&pool.name_any()));
    let ports = |nth: i32| ways_in(pool).map(|(name, number, node)| port(name, number, node.map(|node| node + nth))).collect();
    if !pool.spec.ingest.per_shard {
        let metadata = meta(pool, place, INGEST, format!("{base}-rtmp"));
        return vec![Service { metadata, spec: Some(exposed(pool, INGEST, ports(0), exposure)), status: None }];
    }
    let of_shard = |nth: i32| {
        let shard = format!("{base}-{nth}");
        let mut metadata = meta(pool, place, INGEST, format!("{shard}{OF_SHARD}"));
        let host = host(&pool.spec.ingest.url_of(&shard));
        metadata.annotations = host.map(|host| owned([("external-dns.alpha.kubernetes.io/hostname", host)]));
        let mut spec = exposed(pool, INGEST, ports(nth), exposure);
        spec.selector.get_or_insert_default().insert("statefulset.kubernetes.io/pod-name".into(), shard);
        // A lecturer who comes back to a shard that is going is relayed, and not turned away.
        spec.publish_not_ready_addresses = Some(true);
        Service { metadata, spec: Some(spec), status: None }
    };
    (0..pool.spec.ingest.shards).map(of_shard).collect()
}

fn origin_service(pool: &StreamPool, place: &Place) -> Service {
    let exposure = &pool.spec.origin.exposure;
    Service {
        metadata: meta(pool, place, ORIGIN, origin_name(&pool.name_any())),
        spec: Some(exposed(pool, ORIGIN, ways_out(pool).map(|(name, number, node)| port(name, number, node)).collect(), exposure)),
        status: None,
    }
}

/// The ports that players and CDNs come to: name, number, and port on every node.
fn ways_out(pool: &StreamPool) -> impl Iterator<Item = (&'static str, i32, Option<i32>)> {
    let spec = &pool.spec.origin;
    let plain = spec.plain_http.then_some(("http", HTTP_PORT, spec.exposure.node_port));
    let tls = spec.tls.as_ref().map(|tls| ("https", HTTPS_PORT, tls.node_port));
    plain.into_iter().chain(tls)
}

/// Where origins find the keys of signed links: made before they are.
fn viewing_folder(pool: &str) -> Folder {
    Folder { volume: "viewing-keys", of: FolderOf::Secret(viewing_secret(pool)), path: VIEWING_FOLDER, optional: false }
}

fn origin(pool: &StreamPool, place: &Place) -> Deployment {
    let mut env = vec![("LECTERN_PEER_TLS_DIR", PEER_FOLDER.to_owned()), ("LECTERN_VIEWING_KEYS_DIR", VIEWING_FOLDER.to_owned())];
    let mut folders = vec![peer_folder(ORIGIN, &pool.name_any()), viewing_folder(&pool.name_any())];
    if !pool.spec.origin.plain_http {
        env.push(("LECTERN_HTTP_LISTEN", "off".to_owned()));
    }
    if let Some(tls) = &pool.spec.origin.tls {
        env.push(("LECTERN_HTTPS_LISTEN", format!("0.0.0.0:{HTTPS_PORT}")));
        env.push(("LECTERN_HTTPS_TLS_DIR", HTTPS_FOLDER.to_owned()));
        folders.push(https_folder(tls, &pool.name_any()));
    }
    let ports: Vec<_> = ways_out(pool).map(|(name, port, _)| (name, port)).collect();
    let spec = pod_spec(
        &pool.name_any(),
        &pool.spec,
        place,
        &Kind {
            name: ORIGIN,
            image: &pool.spec.images.origin,
            args: &[],
            ports: &ports,
            env,
            folders,
            service_account: "lectern-origin",
            reads_api: false,
            requests: ("50m", "64Mi"),
            memory_limit: None,
            gpus: 0,
            resources: None,
            scheduling: &pool.spec.origin.scheduling,
            grace_seconds: GRACE,
            lingers_seconds: LINGERS,
        },
    );
    Deployment {
        metadata: meta(pool, place, ORIGIN, origin_name(&pool.name_any())),
        spec: Some(DeploymentSpec {
            replicas: Some(pool.spec.origin.replicas),
            selector: selector(pool, ORIGIN),
            template: template(pool, ORIGIN, spec),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

pub(super) fn meta(pool: &StreamPool, place: &Place, component: &str, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(place.namespace.clone()),
        labels: Some(labels(pool, component)),
        owner_references: pool.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn labels(pool: &StreamPool, component: &str) -> BTreeMap<String, String> {
    let mut labels = select(pool, component);
    labels.insert("app.kubernetes.io/part-of".into(), "lectern".into());
    labels.insert("app.kubernetes.io/managed-by".into(), crate::MANAGER.into());
    labels
}

fn select(pool: &StreamPool, component: &str) -> BTreeMap<String, String> {
    owned([
        ("app.kubernetes.io/name", "lectern".to_owned()),
        ("app.kubernetes.io/component", component.to_owned()),
        (POOL_LABEL, pool.name_any()),
    ])
}

pub(super) fn owned<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

pub(super) fn selector(pool: &StreamPool, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(select(pool, component)), match_expressions: None }
}

fn template(pool: &StreamPool, component: &str, spec: PodSpec) -> PodTemplateSpec {
    PodTemplateSpec { metadata: Some(ObjectMeta { labels: Some(labels(pool, component)), ..ObjectMeta::default() }), spec: Some(spec) }
}

fn exposed(pool: &StreamPool, component: &str, ports: Vec<ServicePort>, exposure: &Exposure) -> ServiceSpec {
    ServiceSpec {
        type_: Some(exposure.service_type.clone().unwrap_or_else(|| "ClusterIP".into())),
        ports: Some(ports),
        selector: Some(select(pool, component)),
        ..ServiceSpec::default()
    }
}

fn port(name: &str, number: i32, node_port: Option<i32>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        // Said outright, because an apply merges ports by number and protocol.
        protocol: Some("TCP".into()),
        node_port,
        ..ServicePort::default()
    }
}
