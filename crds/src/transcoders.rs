//! What a StreamPool says of its transcoder pods: classes of them, how many there are, and what each takes.

use crate::scheduling::{PodResources, Scheduling};
use kube::KubeSchema;
use lectern_contract::cost::{Budget, Class, PixelRate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of the class that `spec.transcoder` itself is.
pub const DEFAULT_CLASS: &str = "default";

/// Transcoder pods: made and replaced by the operator one by one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("self.pods >= 1").message("spec.transcoder.pods: a pool needs one transcoder that stands ready at least; classes beside it may have 0"))]
#[x_kube(validation = kube::core::Rule::new("!has(self.maxPods) || self.maxPods >= self.pods").message("spec.transcoder.maxPods: at least as many as pods; leave it out for a pool that does not grow"))]
pub struct TranscoderSpec {
    /// The first class.
    #[serde(flatten)]
    pub class: TranscoderClass,
    /// Whether a source that is what a rendition is to be (H.264 of its size, rate and bit rate, with a keyframe where each segment begins and no
    /// B-frames) is passed on as that rendition. `Never`: students get nothing that a lecturer's program has coded.
    #[serde(default)]
    pub passthrough: Passthrough,
    /// MiB of each lecture that may wait in its pod's memory while S3 is slow or away. Unless given: 256, or three and a half minutes of the
    /// lecture's ladder where that is more. What is more than that is given up, the oldest first. A pod whose memory is limited needs room for it, once for each slot.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "backlogMiB")]
    #[schemars(range(min = 16, max = 65_536))]
    pub backlog_mib: Option<i32>,
    /// What students see while nothing comes from the lecturer. Unless given: a card with the lecture's title and its `reconnect.slate.text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slate_picture: Option<SlatePicture>,
    /// Classes of pods beside the first, in the order in which they grow: what the ones before may not have pods for, or cannot carry, is for the next. All take
    /// jobs off the one queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub classes: Vec<NamedClass>,
}

/// A class of pods beside the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!has(self.maxPods) || self.maxPods >= self.pods").message("spec.transcoder.classes[].maxPods: at least as many as pods; leave it out for a class that does not grow"))]
pub struct NamedClass {
    /// Its name, which is part of its pods' names.
    #[schemars(regex(pattern = "^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$"))]
    #[x_kube(validation = kube::core::Rule::new("self != 'default'").message("spec.transcoder.classes[].name: default is the class that spec.transcoder itself is"))]
    pub name: String,
    /// What its pods are.
    #[serde(flatten)]
    pub class: TranscoderClass,
}

/// Pods of one kind: how many, and what each has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TranscoderClass {
    /// How many pods stand ready, whatever there is to do.
    #[schemars(range(min = 0, max = 1000))]
    pub pods: i32,
    /// How many there may be when there is more to do. Unless given there are always `pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_pods: Option<i32>,
    /// Slots that are to be free at any time, for lectures that nobody has announced. With `maxPods`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub warm_slots: i32,
    /// Seconds that a pod stays after it was needed last.
    #[serde(default = "idle_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub idle_seconds: i32,
    /// How many jobs a pod takes at once.
    #[schemars(range(min = 1, max = 64))]
    pub slots: i32,
    /// What encodes H.264 and HEVC. AV1 is always encoded in software.
    #[serde(default)]
    pub encoder: Encoder,
    /// What a pod asks Kubernetes for and may take at most, beyond what the operator asks for itself (0.1 processors, 128 MiB, a GPU).
    /// What is limited alone is also asked for. A pod that may not take what its jobs cost sheds renditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<PodResources>,
    /// What a pod has for its jobs together. Each job costs what its ladder does (docs/transcoders.md); a pod takes none that does not fit, and
    /// a stream that fits no pod is refused. Without it only slots are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<TranscoderBudget>,
    /// Where they run.
    #[serde(flatten)]
    pub scheduling: Scheduling,
}

const fn idle_seconds() -> i32 {
    300
}

impl TranscoderSpec {
    /// All classes by their names, the first one first.
    pub fn all(&self) -> impl Iterator<Item = (&str, &TranscoderClass)> {
        let beside = self.classes.iter().map(|named| (named.name.as_str(), &named.class));
        std::iter::once((DEFAULT_CLASS, &self.class)).chain(beside)
    }
}

impl TranscoderClass {
    /// What encodes in a pod.
    pub const fn class(&self) -> Class {
        match self.encoder {
            Encoder::Software => Class::Software,
            Encoder::Nvenc => Class::Nvenc,
        }
    }

    /// What a pod has for its jobs together.
    pub fn budget(&self) -> Budget {
        let Some(budget) = &self.budget else { return Budget::default() };
        let mega = |mega: i64| PixelRate::from_mega(u64::try_from(mega).unwrap_or(0));
        Budget {
            pixels: budget.megapixels_per_second.map(mega),
            gpu_sessions: budget.gpu_sessions.map(|sessions| u32::try_from(sessions).unwrap_or(0)),
            gpu_memory_mib: budget.gpu_memory_mib.map(|mib| u64::try_from(mib).unwrap_or(0)),
        }
    }
}

/// A PNG or JPEG in a ConfigMap of the operator's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlatePicture {
    /// The ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: String,
    /// Its entry in `binaryData`. It is fitted into each rendition in its own shape.
    #[serde(default = "slate_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn slate_key() -> String {
    "slate.png".to_owned()
}

/// What a transcoder pod has for its jobs together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TranscoderBudget {
    /// Millions of pixels a second of H.264, on the processors or on the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub megapixels_per_second: Option<i64>,
    /// Encoding sessions on the pod's GPU: 8 on consumer cards, without a bound on others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub gpu_sessions: Option<i32>,
    /// MiB of the GPU's memory that encoding may take.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "gpuMemoryMiB")]
    #[schemars(range(min = 256, max = 1_048_576))]
    pub gpu_memory_mib: Option<i64>,
}

/// What pictures are encoded with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoder {
    /// The CPU.
    #[default]
    Software,
    /// An NVIDIA GPU: each pod asks for one `nvidia.com/gpu`. Where its encoder is not to be had, or fails, the CPU goes on, and the stream's status
    /// says so.
    Nvenc,
}

/// Whether a source may be passed on as a rendition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Passthrough {
    /// Where it is what the rendition is to be.
    #[default]
    Auto,
    /// Everything is encoded anew.
    Never,
}
