//! RouteSlice: which shard owns which stream, in slices of at most 100 (as EndpointSlice does).

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A slice of a pool's routes. Made by the operator, watched by ingest shards, which can read nothing else: publishing
/// works while the operator is down.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lectern.video",
    version = "v1alpha1",
    kind = "RouteSlice",
    namespaced,
    category = "lectern",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RouteSliceSpec {
    /// The pool.
    pub pool_name: String,
    /// At most 100, in the order of their run ids.
    #[schemars(length(max = 100))]
    pub routes: Vec<Route>,
}

/// One stream's way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// SHA-256 of the stream key, hexadecimal.
    pub key_hash: String,
    /// SHA-256 of the key before a rotation, for as long as it may still be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key_hash: Option<String>,
    /// SHA-256 of the key of a second publisher, which stands by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_key_hash: Option<String>,
    /// Who stays when a second publisher comes with the same key.
    #[serde(default)]
    pub takeover: Takeover,
    /// The LiveStream's namespace.
    pub namespace: String,
    /// The LiveStream's name.
    pub name: String,
    /// The run.
    pub run_id: String,
    /// The owning shard's pod name.
    pub shard: String,
    /// Grows by one each time the stream moves to another shard.
    pub epoch: i64,
    /// Wall-clock time of tick zero of the run's timeline, in milliseconds since 1970.
    pub anchor_millis: i64,
    /// The stream is ending: nobody may publish, readers of the feed are told that it is over.
    #[serde(default)]
    pub ended: bool,
    /// The camera to pull from instead of waiting for a publisher: its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtsp_url: Option<String>,
    /// How the camera sends its media.
    #[serde(default)]
    pub rtsp_transport: RtspTransport,
    /// Where the camera's user name and password are: a key of the Secret [`cameras_secret`] of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtsp_credentials: Option<String>,
    /// Keep what the publisher sends, as it came, under this prefix of the pool's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_prefix: Option<String>,
}

/// Who stays when a second publisher comes with the same key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Takeover {
    /// The one that came last: a lecturer whose first connection hangs is not locked out.
    #[default]
    NewestWins,
    /// The one that is there: nobody else can cut in, and a hung connection has to time out first.
    FirstWins,
}

/// How a camera sends its media.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RtspTransport {
    /// In the RTSP connection: through firewalls, without loss.
    #[default]
    Tcp,
    /// RTP over UDP: for cameras that offer nothing else.
    Udp,
}

/// The Secret in the operator's namespace that holds the credentials of all cameras of a pool: by run id,
/// `{"username": …, "password": …}`. Shards may read this one Secret and no other.
pub fn cameras_secret(pool: &str) -> String {
    format!("lectern-cameras-{pool}")
}
