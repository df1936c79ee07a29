//! StreamPool: where streams run: shards, transcoders, origins, a queue and a bucket.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use lectern_contract::cost::{Budget, Class, PixelRate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pool that LiveStreams are placed in, like a StorageClass for volumes.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lectern.video",
    version = "v1alpha1",
    kind = "StreamPool",
    status = "PoolStatus",
    shortname = "spool",
    category = "lectern",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Shards", type_ = "integer", json_path = ".status.readyShards"),
    printcolumn(name = "Transcoders", type_ = "integer", json_path = ".status.readyTranscoders"),
    printcolumn(name = "Streams", type_ = "integer", json_path = ".status.streams"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 32").message("metadata.name: at most 32 characters, because the names and labels of the pool's pods are made of it; choose a shorter name")
)]
#[serde(rename_all = "camelCase")]
pub struct StreamPoolSpec {
    /// The pods' images.
    pub images: PoolImages,
    /// Ingest shards.
    pub ingest: IngestSpec,
    /// Transcoder pods.
    pub transcoder: TranscoderSpec,
    /// Origin pods.
    pub origin: OriginSpec,
    /// The queue of jobs.
    pub queue: QueueSpec,
    /// The bucket of objects.
    pub bucket: BucketSpec,
    /// A Secret in the operator's namespace whose keys become the environment of the pool's pods (AWS_ACCESS_KEY_ID, …).
    /// Leave it out where pods get their identity from the platform (IRSA, Pod Identity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// Container images, whole references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolImages {
    /// Of ingest shards.
    pub ingest: String,
    /// Of transcoders.
    pub transcoder: String,
    /// Of origins.
    pub origin: String,
    /// Always, IfNotPresent or Never.
    #[serde(default = "if_not_present")]
    pub pull_policy: String,
}

fn if_not_present() -> String {
    "IfNotPresent".to_owned()
}

/// How a service of the pool is reached from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// The port on every node, for NodePort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
}

/// Ingest shards: a StatefulSet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("self.plainRtmp || has(self.rtmps)").message("spec.ingest: with plainRtmp false nobody can publish; set rtmps: {} to take publishers over TLS"))]
pub struct IngestSpec {
    /// How many.
    #[schemars(range(min = 1, max = 1000))]
    pub shards: i32,
    /// Where lecturers publish, as it stands in `status.ingest.url`: `rtmp://ingest.school.example/live`.
    #[x_kube(validation = kube::core::Rule::new("isURL(self) && url(self).getScheme() in ['rtmp', 'rtmps'] && url(self).getHostname() != ''").message("spec.ingest.publicUrl: write rtmp://host[:port]/live, as a lecturer types it into OBS"))]
    pub public_url: String,
    /// Take publishers over RTMP in the clear, on port 1935.
    #[serde(default = "yes")]
    pub plain_rtmp: bool,
    /// Take publishers over RTMPS, on port 1936. Off unless given; `{}` is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmps: Option<RtmpsSpec>,
    /// How shards are reached from outside.
    #[serde(default)]
    pub exposure: Exposure,
    /// Seconds that a shard which is to go (an update, an eviction, a smaller pool) waits for its publishers to leave. Its
    /// streams belong to other shards at once; it only relays to them meanwhile.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 30, max = 86_400))]
    pub drain_seconds: i32,
    /// MiB that a shard may keep media in: some 60 s of each of its streams, 15 MiB at 2 Mbit/s. Over it new publishers are
    /// refused. The pod requests and is limited to an eighth and 128 MiB more, for everything else.
    #[serde(default = "default_memory_mib", rename = "memoryMiB")]
    #[schemars(range(min = 64, max = 1_048_576))]
    pub memory_mib: i32,
}

fn default_drain_seconds() -> i32 {
    3600
}

fn default_memory_mib() -> i32 {
    1024
}

/// Transcoder pods: made and replaced by the operator one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TranscoderSpec {
    /// How many pods stand ready.
    #[schemars(range(min = 1, max = 1000))]
    pub pods: i32,
    /// How many jobs a pod takes at once.
    #[schemars(range(min = 1, max = 64))]
    pub slots: i32,
    /// What encodes H.264 and HEVC. AV1 is always encoded in software.
    #[serde(default)]
    pub encoder: Encoder,
    /// Whether a source that is what a rendition is to be (H.264 of its size, rate and bit rate, with a keyframe where each segment begins and no
    /// B-frames) is passed on as that rendition. `Never`: students get nothing that a lecturer's program has coded.
    #[serde(default)]
    pub passthrough: Passthrough,
    /// What students see while nothing comes from the lecturer. Unless given: a card with the lecture's title and its `reconnect.slate.text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slate_picture: Option<SlatePicture>,
    /// What a pod asks Kubernetes for and may take at most, beyond what the operator asks for itself (0.1 processors, 128 MiB, a GPU).
    /// What is limited alone is also asked for. A pod that may not take what its jobs cost sheds renditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<PodResources>,
    /// What a pod has for its jobs together. Each job costs what its ladder does (docs/transcoders.md); a pod takes none that does not fit, and
    /// a stream that fits no pod is refused. Without it only slots are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<TranscoderBudget>,
}

/// What a pod asks Kubernetes for, and may take at most, by the resource's name: `cpu`, `memory`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodResources {
    /// What it asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Amount>,
    /// What it may take.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Amount>,
}

/// A quantity as Kubernetes writes them, as a text: `"2"`, `500m`, `1Gi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Amount(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"))] pub String);

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

impl TranscoderSpec {
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

/// RTMP over TLS. It shares the service type of `exposure`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RtmpsSpec {
    /// A Secret of type kubernetes.io/tls in the operator's namespace (cert-manager's, say) with a certificate for the
    /// host of `publicUrl`. Unless given the operator issues one from its own CA, which publishers have to be told to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// The port on every node, for NodePort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
}

/// Origins: a Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginSpec {
    /// How many.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// Where students watch, as it stands in `status.playback`: the CDN's address, or the origins' own.
    #[x_kube(validation = kube::core::Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("spec.origin.publicUrl: write https://host[:port], as a student's browser reaches it"))]
    pub public_url: String,
    /// How origins are reached from outside.
    #[serde(default)]
    pub exposure: Exposure,
}

/// The SQS queue of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// The queue's name.
    #[schemars(length(min = 1, max = 80), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// AWS region.
    pub region: String,
    /// An endpoint instead of AWS's, for MiniStack and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The queue is the operator's own: it is made if it is not there, with a second one, `{name}-dead`, for jobs that were delivered ten
    /// times in vain, and both are repaired when somebody changes them. With `false`, a queue that is there is used and left as it is.
    #[serde(default = "yes")]
    pub create: bool,
}

/// The S3 bucket of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!has(self.retentionDays) || self.create").message("spec.bucket.retentionDays: the operator leaves the lifecycle of a bucket with create: false alone; set the rule in the bucket, or create: true"))]
pub struct BucketSpec {
    /// The bucket's name.
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9][a-z0-9.-]+[a-z0-9]$"))]
    pub name: String,
    /// AWS region.
    pub region: String,
    /// An endpoint instead of AWS's, for MiniStack, SeaweedFS and their like (path-style addressing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket is the operator's own: it is made if it is not there, and its encryption, its public access block, a CORS rule and lifecycle
    /// rules are set, and set again within five minutes when somebody changes them; rules of others are kept. With `false`, nothing in a
    /// bucket that is there is changed but the events of `manifestFunctionArn`.
    #[serde(default = "yes")]
    pub create: bool,
    /// Days after which S3 deletes an object, whatever it is, counted from when it was written, also while its LiveStream is there or goes on.
    /// Needs a bucket that nothing else is kept in, and more days than the longest stream. Unless given, objects stay until a LiveStream with
    /// `record.retention: Delete` goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub retention_days: Option<i32>,
    /// The ARN of the Lambda that makes VOD manifests; the operator wires the bucket's events to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_function_arn: Option<String>,
}

fn yes() -> bool {
    true
}

/// What the operator says of a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// QueueReady, BucketReady, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Ingest shards that are ready.
    #[serde(default)]
    pub ready_shards: i32,
    /// Transcoder pods that are ready.
    #[serde(default)]
    pub ready_transcoders: i32,
    /// LiveStreams placed in the pool.
    #[serde(default)]
    pub streams: i32,
    /// The queue's URL, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_url: Option<String>,
}
