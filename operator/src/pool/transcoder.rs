//! The transcoders of a pool: their classes, and their pods, whole. Pure, as all of the plan.

use super::certificates::{PEER_FOLDER, peer_folder};
use super::plan::{Place, TRANSCODER, meta, owned, selector};
use super::podspec::{Folder, FolderOf, Kind, pod_spec};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use lectern_contract::job::FAREWELL;
use lectern_crds::{DEFAULT_CLASS, Encoder, Passthrough, StreamPool, TranscoderClass};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// On a transcoder pod: the name of its class. One without it is from before there were classes, and of the first.
pub const CLASS_LABEL: &str = "lectern.video/class";
/// On a transcoder pod: the hash of the spec that it was made of.
pub const HASH_ANNOTATION: &str = "lectern.video/spec-hash";

/// Where a transcoder finds the pool's slate.
const SLATE_FOLDER: &str = "/slate";

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

/// The classes of a pool, in the order in which they grow.
pub fn classes(pool: &StreamPool, place: &Place) -> Vec<PlannedClass> {
    let class = |(name, spec): (&str, &TranscoderClass)| {
        let pod = transcoder(pool, name, spec, place);
        let hash = pod.annotations().get(HASH_ANNOTATION).cloned().unwrap_or_default();
        PlannedClass { name: name.to_owned(), spec: spec.clone(), hash, pod }
    };
    pool.spec.transcoder.all().map(class).collect()
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
    env.extend(pool.spec.transcoder.backlog_mib.map(|mib| ("LECTERN_BACKLOG_MIB", mib.to_string())));
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
        place,
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
            lingers_seconds: 0,
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
pub fn budget(pool: &StreamPool, place: &Place, alive: usize) -> PodDisruptionBudget {
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
