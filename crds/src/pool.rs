//! StreamPool: where streams run: shards, transcoders, origins, a queue and a bucket.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scheduling::Scheduling;
use crate::transcoders::TranscoderSpec;

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
    /// Who may use the pool, and how much of it. The first entry that a LiveStream's namespace fits counts; who fits none is refused. Unless given, everybody may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub tenants: Vec<Tenant>,
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
#[x_kube(validation = kube::core::Rule::new("self.perShard == self.publicUrl.contains('{shard}')").message("spec.ingest.publicUrl: with perShard it has {shard} where the shard's number goes, as in rtmp://{shard}.ingest.school.example/live, and without it has not"))]
#[x_kube(validation = kube::core::Rule::new("self.plainRtmp || has(self.rtmps)").message("spec.ingest: with plainRtmp false nobody can publish; set rtmps: {} to take publishers over TLS"))]
pub struct IngestSpec {
    /// How many.
    #[schemars(range(min = 1, max = 1000))]
    pub shards: i32,
    /// Where lecturers publish, as it stands in `status.ingest.url`: `rtmp://ingest.school.example/live`. With `perShard`, `{shard}` in it is the number of the shard.
    #[x_kube(validation = kube::core::Rule::new("isURL(self.replace('{shard}', '0')) && url(self.replace('{shard}', '0')).getScheme() in ['rtmp', 'rtmps'] && url(self.replace('{shard}', '0')).getHostname() != ''").message("spec.ingest.publicUrl: write rtmp://host[:port]/live, as a lecturer types it into OBS"))]
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
    /// Each shard has a Service of its own, and a lecturer is told the address of the one that the stream is on: nothing is relayed. With `NodePort` they have
    /// the ports from `exposure.nodePort` on. Otherwise there is one Service, and any shard takes any lecturer.
    #[serde(default)]
    pub per_shard: bool,
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
    /// How much a shard takes. A new stream that no shard has room for waits until there is some. Without bounds unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<ShardCapacity>,
    /// Where shards run.
    #[serde(flatten)]
    pub scheduling: Scheduling,
}

/// How much one shard takes, by count, by bitrate or by both. It is for streams that come: one whose shard leaves is placed although there is no room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("has(self.streams) || has(self.megabits)").message("spec.ingest.capacity: give streams, megabits or both; leave capacity out for shards without bounds"))]
#[x_kube(validation = kube::core::Rule::new("!has(self.megabits) || self.assumedMegabits <= self.megabits").message("spec.ingest.capacity.assumedMegabits: more than megabits, so that no stream would ever fit; lower it or raise megabits"))]
pub struct ShardCapacity {
    /// So many LiveStreams, whether or not somebody publishes to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub streams: Option<i32>,
    /// So many Mbit/s of what publishers send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub megabits: Option<i32>,
    /// Mbit/s that a stream counts with while nobody publishes to it.
    #[serde(default = "default_assumed_megabits")]
    #[schemars(range(min = 1, max = 1000))]
    pub assumed_megabits: i32,
}

fn default_assumed_megabits() -> i32 {
    6
}

impl IngestSpec {
    /// Where the lecturer of a stream publishes that is on this shard: `rtmp://3.ingest.school.example/live` of `lectern-ingest-default-3`.
    pub fn url_of(&self, shard: &str) -> String {
        match shard.rsplit_once('-') {
            Some((_, number)) if self.per_shard => self.public_url.replace("{shard}", number),
            _ => self.public_url.clone(),
        }
    }
}

fn default_drain_seconds() -> i32 {
    3600
}

fn default_memory_mib() -> i32 {
    1024
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

/// HTTP over TLS. It shares the service type of `exposure`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginTlsSpec {
    /// A Secret of type kubernetes.io/tls in the operator's namespace (cert-manager's, say) with a certificate for the name that the CDN or
    /// students ask for. Unless given the operator issues one from its own CA, for the host of `publicUrl` and the names of the origins' Service.
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
#[x_kube(validation = kube::core::Rule::new("self.plainHttp || has(self.tls)").message("spec.origin: with plainHttp false nobody can watch; set tls: {} to serve over HTTPS"))]
#[x_kube(validation = kube::core::Rule::new("!has(self.autoscale) || self.autoscale.maxReplicas >= self.replicas").message("spec.origin.autoscale.maxReplicas: fewer than replicas, of which there are always so many; raise it or lower replicas"))]
pub struct OriginSpec {
    /// How many, or how many at least with `autoscale`.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// More of them while there is more to serve, by a HorizontalPodAutoscaler, which needs the cluster's metrics-server. Unless given there are `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<OriginAutoscale>,
    /// Where students watch, as it stands in `status.playback`: the CDN's address, or the origins' own.
    #[x_kube(validation = kube::core::Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("spec.origin.publicUrl: write https://host[:port], as a student's browser reaches it"))]
    pub public_url: String,
    /// Serve over HTTP in the clear, on port 8080.
    #[serde(default = "yes")]
    pub plain_http: bool,
    /// Serve over HTTPS, on port 8443, HTTP/2 and 1.1. Off unless given; `{}` is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<OriginTlsSpec>,
    /// How origins are reached from outside.
    #[serde(default)]
    pub exposure: Exposure,
    /// Where origins run.
    #[serde(flatten)]
    pub scheduling: Scheduling,
}

/// When there are more origins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginAutoscale {
    /// So many at most.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Thousandths of a core that each may use on average before there are more of them.
    #[serde(default = "default_cpu_millis")]
    #[schemars(range(min = 50, max = 64_000))]
    pub cpu_millis: i32,
}

fn default_cpu_millis() -> i32 {
    700
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

/// Namespaces that may use a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Which, by their labels; all unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// How many LiveStreams each of them may have in the pool at a time, ended ones not counted; any number unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_streams: Option<i32>,
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

/// The annotation of a StreamPool that makes a new viewing key, whenever its value becomes another.
pub const ROTATE_VIEWING_KEY: &str = "lectern.video/rotate-viewing-key";

/// The Secret in the operator's namespace with the keys that sign a pool's viewing links: `current` and, after a change, `previous`, 32 bytes each.
pub fn viewing_secret(pool: &str) -> String {
    format!("lectern-viewing-{pool}")
}
