//! LiveStream: one lecture, from its announcement to its recording.

use crate::{AudioSpec, RenditionSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A live lecture: who may publish it, how it is encoded, where it is watched.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lectern.video",
    version = "v1alpha1",
    kind = "LiveStream",
    namespaced,
    status = "LiveStreamStatus",
    shortname = "lvs",
    category = "lectern",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Receiving", type_ = "string", json_path = ".status.conditions[?(@.type==\"Receiving\")].status"),
    printcolumn(name = "Playable", type_ = "string", json_path = ".status.conditions[?(@.type==\"Playable\")].status"),
    printcolumn(name = "Live edge", type_ = "integer", json_path = ".status.live.segment"),
    printcolumn(name = "Shard", type_ = "string", json_path = ".status.placement.shard"),
    printcolumn(name = "Player", type_ = "string", json_path = ".status.playback.player", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 52").message("metadata.name: at most 52 characters, because the names of its Secret and its objects are made of it; choose a shorter name and put the rest into spec.title")
)]
#[serde(rename_all = "camelCase")]
pub struct LiveStreamSpec {
    /// What students read above the picture; at most 200 characters.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub title: String,

    /// The StreamPool that carries the stream.
    #[serde(default = "default_pool")]
    #[x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.poolName cannot change; end this stream and create another in the other pool"))]
    pub pool_name: String,

    /// Where the stream comes from; `rtmp: {}` unless given.
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("has(self.rtmp) != has(self.rtsp)").message("spec.source: give exactly one of rtmp (the lecturer publishes to Lectern) and rtsp (Lectern pulls from a camera)"))]
    pub source: Source,

    /// What is encoded.
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("has(self.name) ? !has(self.video) && !has(self.audio) : has(self.video) && has(self.audio)").message("spec.ladder: give either name (an EncodingLadder) or renditions of your own (video and audio together), not both and not neither"))]
    pub ladder: LadderChoice,

    /// `Low` cuts segments of 2 s, `Standard` of 4 s.
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.latency cannot change while the stream exists, because segment numbers are made of it; create another stream"))]
    pub latency: Latency,

    /// What happens when the publisher is away.
    #[serde(default)]
    pub reconnect: Reconnect,

    /// What is kept.
    #[serde(default)]
    pub record: Record,

    /// Set it to end the stream. An ended stream cannot be resumed.
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("self || !oldSelf").message("spec.ended cannot go back to false; create a new LiveStream for another lecture"))]
    pub ended: bool,
}

fn default_pool() -> String {
    crate::DEFAULT_POOL.to_owned()
}

/// Where a stream comes from: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The lecturer publishes with the key in the stream's Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtmp: Option<RtmpSource>,
    /// The owning shard pulls from a camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtsp: Option<RtspSource>,
}

impl Default for Source {
    fn default() -> Self {
        Self { rtmp: Some(RtmpSource {}), rtsp: None }
    }
}

/// RTMP push; it has no settings yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RtmpSource {}

/// RTSP pull.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RtspSource {
    /// `rtsp://host[:port]/path`, without credentials.
    #[x_kube(validation = kube::core::Rule::new("isURL(self) && url(self).getScheme() == 'rtsp' && url(self).getHostname() != '' && !self.contains('@')").message("spec.source.rtsp.url: write rtsp://host[:port]/path, without user name and password; put these into a Secret and name it in spec.source.rtsp.secretRef"))]
    #[schemars(length(max = 2048))]
    pub url: String,
    /// A Secret of the stream's namespace with the keys `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretName>,
}

/// A Secret in the namespace of the resource that names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A ladder by name, or renditions of the stream's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LadderChoice {
    /// An EncodingLadder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Video renditions, from the costliest down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub video: Option<Vec<RenditionSpec>>,
    /// Audio renditions; the first is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub audio: Option<Vec<AudioSpec>>,
}

impl Default for LadderChoice {
    fn default() -> Self {
        Self { name: Some(crate::DEFAULT_LADDER.to_owned()), video: None, audio: None }
    }
}

/// How the stream trades delay for steadiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Latency {
    /// Segments of 2 s.
    #[default]
    Low,
    /// Segments of 4 s.
    Standard,
}

/// What happens when the publisher is away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reconnect {
    /// Seconds that the transcoder is held for a publisher that left. It may come back later too: a new transcoder
    /// then goes on with the same run.
    #[schemars(range(min = 5, max = 86400))]
    pub grace_seconds: i32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { grace_seconds: 300 }
    }
}

/// What is kept of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// What becomes of the stream's objects in S3 when the LiveStream is deleted.
    pub retention: Retention,
}

/// What becomes of the objects of a deleted LiveStream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted before the LiveStream goes.
    Delete,
}

/// What the operator says of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveStreamStatus {
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people: Pending, Refused, Waiting, Receiving, Live, Interrupted, Ending, Ended, Deleting. Programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Accepted, Placed, Receiving, Transcoding, Playable, Ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The run: changes only with a new LiveStream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Which shard owns the stream, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementStatus>,
    /// Where to publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<IngestStatus>,
    /// Where to watch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback: Option<PlaybackStatus>,
    /// What the shard receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<ReceivedStatus>,
    /// The job in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<DispatchStatus>,
    /// How far the stream is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveStatus>,
    /// The last thing that went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A stream's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStatus {
    /// The ingest shard: a pod of the pool's StatefulSet.
    pub shard: String,
    /// Why this one.
    pub reason: String,
    /// Grows by one each time the stream moves to another shard.
    pub epoch: i64,
    /// Wall-clock time of tick zero of the run's timeline, in milliseconds since 1970.
    pub anchor_millis: i64,
}

/// Where to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestStatus {
    /// The RTMP address ("Server" in OBS).
    pub url: String,
    /// The Secret with `url` and `key` ("Stream Key" in OBS).
    pub secret_name: String,
    /// The SHA-256 of the key.
    pub key_hash: String,
}

/// Where to watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlaybackStatus {
    /// The player page, for students.
    pub player: String,
    /// The HLS multivariant playlist of the live stream.
    pub hls: String,
    /// The HLS multivariant playlist of the recording, once the stream has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vod: Option<String>,
    /// The prefix of the stream's objects in the pool's bucket.
    pub prefix: String,
}

/// What the shard receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedStatus {
    /// RFC 6381 names.
    pub codecs: Vec<String>,
    /// Pixels, `1280x720`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Bits a second.
    pub bitrate: i64,
    /// The publisher's address.
    pub from: String,
}

/// The job in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DispatchStatus {
    /// Which dispatch of the run this is, counted from 1.
    pub attempt: i32,
    /// When it was sent. Not there yet: it is written down before it is sent, so that a message is sent twice rather than
    /// forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// How far the stream is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveStatus {
    /// The newest segment that S3 holds in every rendition.
    pub segment: i64,
    /// When this was seen. The edge moves on from here in real time while `Playable` is true.
    pub at: Time,
    /// Milliseconds that encoding is behind the newest input.
    pub lag_millis: i64,
    /// Bits a second that all renditions together put out.
    pub bitrate: i64,
    /// The transcoder pod.
    pub transcoder: String,
}
