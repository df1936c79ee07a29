//! The objects of a pool, whole. Pure: `tests/golden` holds what comes out.

use super::certificates::{HTTPS_FOLDER, PEER_FOLDER, RTMPS_FOLDER, certificates, host, https_folder, peer_folder, rtmps_folder};
use super::podspec::{Folder, FolderOf, GRACE, Kind, pod_spec};
use crate::trust;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use lectern_contract::job::FAREWELL;
use lectern_crds::{DEFAULT_CLASS, Encoder, Exposure, POOL_LABEL, Passthrough, StreamPool, TranscoderClass, cameras_secret};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// The component label of ingest shards.
pub const INGEST: &str = "ingest";
/// The component label of transcoders.
pub const TRANSCODER: &str = "transcoder";
/// The component label of origins.
pub const ORIGIN: &str = "origin";
/// On a transcoder pod: the name of its class. One without it is from before there were classes, and of the first.
pub const CLASS_LABEL: &str = "lectern.video/class";
/// On a transcoder pod: the hash of the spec that it was made of.
pub const HASH_ANNOTATION: &str = "lectern.video/spec-hash";

/// Where a transcoder finds the pool's slate.
const SLATE_FOLDER: &str = "/slate";

const FEED_PORT: i32 = 7000;
const RELAY_PORT: i32 = 7001;
const RTMP_PORT: i32 = 1935;
const RTMPS_PORT: i32 = 1936;
const HTTP_PORT: i32 = 8080;
const HTTPS_PORT: i32 = 8443;

/// Where pools live.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace of everything.
    pub namespace: String,
    /// Where pods report to.
    pub operator_url: String,
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

/// The pods of a class.
#[derive(Debug, Clone)]
pub struct PlannedClass {
    /// Its name.
    pub name: String,
    /// What the pool says of it.
    pub spec: TranscoderClass,
    /// The hash of its pods' spec.
    pub hash: String,
    pod: Pod,
}

impl PlannedClass {
    /// One of its pods by the end of its name.
    pub fn pod(&self, suffix: &str) -> Pod {
        let mut pod = self.pod.clone();
        pod.metadata.name = Some(format!("{}-{suffix}", pod.name_any()));
        pod
    }

    /// Of one of its pods.
    pub fn slots(&self) -> usize {
        usize::try_from(self.spec.slots).unwrap_or(1) // the schema says that it is positive
    }

    /// For how long a pod stays after it was needed last.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.spec.idle_seconds).unwrap_or(0))
    }
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
    let class = |(name, spec): (&str, &TranscoderClass)| {
        let pod = transcoder(pool, name, spec, place);
        let hash = pod.annotations().get(HASH_ANNOTATION).cloned().unwrap_or_default();
        PlannedClass { name: name.to_owned(), spec: spec.clone(), hash, pod }
    };
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
        classes: pool.spec.transcoder.all().map(class).collect(),
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
        &place.operator_url,
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
        let mut metadata = meta(pool, place, INGEST, format!("{shard}-rtmp"));
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

fn origin(pool: &StreamPool, place: &Place) -> Deployment {
    let mut env = vec![("LECTERN_PEER_TLS_DIR", PEER_FOLDER.to_owned())];
    let mut folders = vec![peer_folder(ORIGIN, &pool.name_any())];
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
        &place.operator_url,
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

/// A transcoder pod of a class, without the end of its name.
fn transcoder(pool: &StreamPool, name: &str, class: &TranscoderClass, place: &Place) -> Pod {
    let queue = &pool.spec.queue;
    let mut env = vec![("LECTERN_QUEUE", queue.name.clone()), ("LECTERN_QUEUE_REGION", queue.region.clone())];
    env.extend(queue.endpoint.clone().map(|endpoint| ("LECTERN_QUEUE_ENDPOINT", endpoint)));
    env.push(("LECTERN_SLOTS", class.slots.to_string()));
    let budget = class.budget.clone().unwrap_or_default();
    env.extend(budget.megapixels_per_second.map(|mega| ("LECTERN_MEGAPIXELS_PER_SECOND", mega.to_string())));
    env.extend(budget.gpu_sessions.map(|sessions| ("LECTERN_GPU_SESSIONS", sessions.to_string())));
    env.extend(budget.gpu_memory_mib.map(|mib| ("LECTERN_GPU_MEMORY_MIB", mib.to_string())));
    if pool.spec.transcoder.passthrough == Passthrough::Never {
        env.push(("LECTERN_PASSTHROUGH", "false".to_owned()));
    }
    env.push(("LECTERN_PEER_TLS_DIR", PEER_FOLDER.to_owned()));
    let mut folders = vec![peer_folder(TRANSCODER, &pool.name_any())];
    if let Some(picture) = &pool.spec.transcoder.slate_picture {
        env.push(("LECTERN_SLATE_PICTURE", format!("{SLATE_FOLDER}/{}", picture.key)));
        // Lectures do not wait for it: while it is missing there is the card.
        let of = FolderOf::ConfigMap(picture.config_map_name.clone());
        folders.push(Folder { volume: "slate", of, path: SLATE_FOLDER, optional: true });
    }
    let gpu = class.encoder == Encoder::Nvenc;
    if gpu {
        env.push(("LECTERN_ENCODER", "nvenc".to_owned()));
        env.push(("NVIDIA_DRIVER_CAPABILITIES", "compute,video,utility".to_owned())); // without `video` the container gets no NVENC
    }
    let spec = pod_spec(
        &pool.name_any(),
        &pool.spec,
        &place.operator_url,
        &Kind {
            name: TRANSCODER,
            image: &pool.spec.images.transcoder,
            args: &["supervise"],
            // A child listens for origins on a port that it is given, and tells it in the head.
            ports: &[],
            env,
            folders,
            service_account: "lectern-transcoder",
            reads_api: false,
            requests: ("100m", "128Mi"),
            memory_limit: None,
            gpus: u32::from(gpu),
            resources: class.resources.as_ref(),
            scheduling: &class.scheduling,
            grace_seconds: FAREWELL.as_secs() as i64,
        },
    );
    let mut base = format!("lectern-transcoder-{}", pool.name_any());
    if name != DEFAULT_CLASS {
        base = format!("{base}-{name}");
    }
    let mut metadata = meta(pool, place, TRANSCODER, base);
    metadata.labels.get_or_insert_default().insert(CLASS_LABEL.to_owned(), name.to_owned());
    metadata.annotations = Some(owned([(HASH_ANNOTATION, hash(&spec))].into_iter().chain(marks(true))));
    Pod { metadata, spec: Some(spec), status: None }
}

/// The annotations by which autoscalers learn whether a pod may be taken off its node: cluster-autoscaler's, and Karpenter's.
pub fn marks(may_go: bool) -> [(&'static str, String); 2] {
    [("cluster-autoscaler.kubernetes.io/safe-to-evict", may_go.to_string()), ("karpenter.sh/do-not-disrupt", (!may_go).to_string())]
}

/// Evictions, of a node that is drained, take one transcoder after the other, each once the one before is replaced. `alive`: how many there are.
/// In numbers, because nothing else is allowed of pods that no controller of Kubernetes' own has made.
pub fn transcoder_budget(pool: &StreamPool, place: &Place, alive: usize) -> PodDisruptionBudget {
    let least = i32::try_from(alive.saturating_sub(1)).unwrap_or(i32::MAX);
    PodDisruptionBudget {
        metadata: meta(pool, place, TRANSCODER, format!("lectern-transcoder-{}", pool.name_any())),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(least)),
            selector: Some(selector(pool, TRANSCODER)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// The hash of a pod's spec as JSON, whose fields have one order.
fn hash(spec: &PodSpec) -> String {
    // A PodSpec is plain data with text keys; writing it as JSON cannot fail. Were it to, all hashes would be alike.
    let text = serde_json::to_vec(spec).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..8])
}

fn meta(pool: &StreamPool, place: &Place, component: &str, name: String) -> ObjectMeta {
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

fn owned<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn selector(pool: &StreamPool, component: &str) -> LabelSelector {
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
