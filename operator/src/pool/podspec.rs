//! The pods of a pool: what is alike in all of them, under Pod Security *restricted*.

use super::keys;
use super::plan::Place;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource, EnvVar, EnvVarSource,
    HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretEnvSource, SecretVolumeSource, SecurityContext, SleepAction, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use lectern_crds::{Amount, POOL_LABEL, PodResources, Scheduling, StreamPoolSpec};
use std::collections::BTreeMap;

/// The user that every container runs as.
const USER: i64 = 65_532;
/// Where every pod of a pool serves its health.
pub const HEALTH_PORT: u16 = 9090;

/// Seconds that a pod has to end which has nobody to wait for.
pub const GRACE: i64 = 30;

/// What differs between the kinds of pods.
#[derive(Debug)]
pub struct Kind<'a> {
    /// The container's name.
    pub name: &'a str,
    /// Its image.
    pub image: &'a str,
    /// Its arguments.
    pub args: &'a [&'a str],
    /// Its ports by name.
    pub ports: &'a [(&'a str, i32)],
    /// Environment beyond what all have.
    pub env: Vec<(&'a str, String)>,
    /// What it reads as files.
    pub folders: Vec<Folder>,
    /// The ServiceAccount, made by the chart.
    pub service_account: &'a str,
    /// The pod talks to the API server.
    pub reads_api: bool,
    /// Requested CPU and memory.
    pub requests: (&'a str, &'a str),
    /// The most memory that it may take; as much as there is unless given.
    pub memory_limit: Option<&'a str>,
    /// NVIDIA GPUs that it needs to itself.
    pub gpus: u32,
    /// What the pool says of all this.
    pub resources: Option<&'a PodResources>,
    /// And of where they run.
    pub scheduling: &'a Scheduling,
    /// Seconds that it has to end.
    pub grace_seconds: i64,
    /// How many of them it goes on as before: until nobody is sent to it any more.
    pub lingers_seconds: i64,
}

/// The extended resource of NVIDIA's device plugin.
const GPU: &str = "nvidia.com/gpu";

/// A folder of files, which the kubelet renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The volume's name.
    pub volume: &'static str,
    /// What is in it.
    pub of: FolderOf,
    /// Where its files are.
    pub path: &'static str,
    /// Pods start without it.
    pub optional: bool,
}

/// The object whose entries are a folder's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderOf {
    /// A Secret of this name.
    Secret(String),
    /// A ConfigMap of this name.
    ConfigMap(String),
}

impl Folder {
    fn volume(&self) -> Volume {
        let (name, optional) = (self.volume.to_owned(), self.optional.then_some(true));
        match &self.of {
            FolderOf::Secret(secret) => {
                // Its user and group alone.
                let (secret_name, default_mode) = (Some(secret.clone()), Some(0o440));
                let source = SecretVolumeSource { secret_name, optional, default_mode, ..SecretVolumeSource::default() };
                Volume { name, secret: Some(source), ..Volume::default() }
            }
            FolderOf::ConfigMap(map) => {
                let source = ConfigMapVolumeSource { name: map.clone(), optional, ..ConfigMapVolumeSource::default() };
                Volume { name, config_map: Some(source), ..Volume::default() }
            }
        }
    }

    fn mount(&self) -> VolumeMount {
        VolumeMount { name: self.volume.into(), mount_path: self.path.into(), read_only: Some(true), ..VolumeMount::default() }
    }
}

/// The spec of a pod of `kind` in `pool`.
pub fn pod_spec(pool: &str, spec: &StreamPoolSpec, place: &Place, kind: &Kind<'_>) -> PodSpec {
    let mut env = vec![field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP"), field("POD_NAMESPACE", "metadata.namespace")];
    env.push(value("LECTERN_POOL", pool));
    env.push(value("LECTERN_OPERATOR_URL", &place.operator_url));
    env.push(value("LECTERN_BUCKET", &spec.bucket.name));
    env.push(value("LECTERN_BUCKET_REGION", &spec.bucket.region));
    env.extend(spec.bucket.endpoint.as_ref().map(|endpoint| value("LECTERN_BUCKET_ENDPOINT", endpoint)));
    env.extend(place.keys.as_ref().map(|version| value(keys::VARIABLE, version)));
    env.extend(kind.env.iter().map(|(name, text)| value(name, text)));
    let tmp = Volume { name: "tmp".into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() };
    PodSpec {
        automount_service_account_token: Some(kind.reads_api),
        service_account_name: Some(kind.service_account.to_owned()),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(kind.grace_seconds),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        node_selector: (!kind.scheduling.node_selector.is_empty()).then(|| kind.scheduling.node_selector.clone()),
        tolerations: (!kind.scheduling.tolerations.is_empty()).then(|| kind.scheduling.tolerations.clone()),
        priority_class_name: kind.scheduling.priority_class_name.clone(),
        topology_spread_constraints: Some(
            ["topology.kubernetes.io/zone", "kubernetes.io/hostname"].map(|key| spread(pool, kind, key)).into(),
        ),
        containers: vec![container(spec, kind, env)],
        volumes: Some(std::iter::once(tmp).chain(kind.folders.iter().map(Folder::volume)).collect()),
        ..PodSpec::default()
    }
}

/// A node or a zone that is lost should take as few of a kind as possible. A wish only: that there is room counts for more.
fn spread(pool: &str, kind: &Kind<'_>, key: &str) -> TopologySpreadConstraint {
    let labels = [("app.kubernetes.io/component", kind.name), (POOL_LABEL, pool)];
    let match_labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector { match_labels, match_expressions: None }),
        ..TopologySpreadConstraint::default()
    }
}

fn container(spec: &StreamPoolSpec, kind: &Kind<'_>, env: Vec<EnvVar>) -> Container {
    let ports = kind.ports.iter().copied().chain([("health", i32::from(HEALTH_PORT))]);
    let credentials = spec.credentials_secret.as_ref().map(|name| {
        // Optional, so that the pods start, and say what is wrong, where the Secret is still missing.
        let secret_ref = Some(SecretEnvSource { name: name.clone(), optional: Some(true) });
        vec![EnvFromSource { secret_ref, ..EnvFromSource::default() }]
    });
    let tmp = VolumeMount { name: "tmp".into(), mount_path: "/tmp".into(), ..VolumeMount::default() };
    Container {
        name: kind.name.to_owned(),
        image: Some(kind.image.to_owned()),
        image_pull_policy: Some(spec.images.pull_policy.clone()),
        args: (!kind.args.is_empty()).then(|| kind.args.iter().map(|arg| (*arg).to_owned()).collect()),
        env: Some(env),
        env_from: credentials,
        ports: Some(
            ports
                .map(|(name, port)| ContainerPort { name: Some(name.to_owned()), container_port: port, ..ContainerPort::default() })
                .collect(),
        ),
        lifecycle: (kind.lingers_seconds > 0).then(|| lingers(kind.lingers_seconds)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        liveness_probe: Some(Probe { initial_delay_seconds: Some(5), ..probe("/healthz", 10, 6) }),
        resources: Some(resources(kind)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(std::iter::once(tmp).chain(kind.folders.iter().map(Folder::mount)).collect()),
        ..Container::default()
    }
}

/// What the kind needs, and over it what the pool says. Extended resources are asked for by their limit.
fn resources(kind: &Kind<'_>) -> ResourceRequirements {
    let amounts = |of: &[(&str, String)]| of.iter().map(|(name, amount)| ((*name).to_owned(), Quantity(amount.clone()))).collect();
    let (cpu, memory) = kind.requests;
    let mut requests: BTreeMap<_, _> = amounts(&[("cpu", cpu.to_owned()), ("memory", memory.to_owned())]);
    let mut limits: BTreeMap<_, _> = kind.memory_limit.map(|limit| amounts(&[("memory", limit.to_owned())])).unwrap_or_default();
    if kind.gpus > 0 {
        limits.extend::<BTreeMap<_, _>>(amounts(&[(GPU, kind.gpus.to_string())]));
    }
    if let Some(own) = kind.resources {
        let own_of = |of: &BTreeMap<String, Amount>| {
            of.iter().map(|(name, Amount(text))| (name.clone(), Quantity(text.clone()))).collect::<Vec<_>>()
        };
        // In this order: Kubernetes, too, takes a limit for a request where there is no other.
        requests.extend(own_of(&own.limits));
        requests.extend(own_of(&own.requests));
        limits.extend(own_of(&own.limits));
    }
    ResourceRequirements { limits: (!limits.is_empty()).then_some(limits), requests: Some(requests), ..ResourceRequirements::default() }
}

/// The kubelet tells the container only then that it has to end.
fn lingers(seconds: i64) -> Lifecycle {
    let sleep = LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("health".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn value(name: &str, text: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(text.to_owned()), value_from: None }
}

fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None });
    EnvVar { name: name.to_owned(), value: None, value_from: Some(EnvVarSource { field_ref, ..EnvVarSource::default() }) }
}
