//! The status of a LiveStream: what the operator says of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Accepted, Placed, Receiving, Transcoding, Playable, Recording, Ended.
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
    /// How far the original is recorded, once something of it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingStatus>,
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
    /// When it was placed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Where to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestStatus {
    /// The RTMP address ("Server" in OBS).
    pub url: String,
    /// The Secret with `url` and `key` ("Stream Key" in OBS), `backupKey` where `spec.reconnect.backup` asks for one, and
    /// `previousKey` while that may still be used.
    pub secret_name: String,
    /// The SHA-256 of the key.
    pub key_hash: String,
    /// The `spec.streamKey.rotation` that the key was made for.
    #[serde(default)]
    pub key_rotation: i32,
    /// The SHA-256 of the key before it, while that may still be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key_hash: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key_until: Option<Time>,
    /// The SHA-256 of the backup publisher's key: there is one in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_key_hash: Option<String>,
    /// The camera's user name and password are with its shard: their key in the pool's Secret of cameras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera_credentials: Option<String>,
}

/// Where to watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlaybackStatus {
    /// The player page, for students.
    pub player: String,
    /// The HLS multivariant playlist of the live stream.
    pub hls: String,
    /// The DASH manifest (MPD) of the live stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dash: Option<String>,
    /// The HLS multivariant playlist of the recording, once the stream has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vod: Option<String>,
    /// The DASH manifest (MPD) of the recording, once the stream has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vod_dash: Option<String>,
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
    /// It came with the backup key.
    #[serde(default)]
    pub backup: bool,
    /// The address of the publisher that stands by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
}

/// How far the original is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingStatus {
    /// The prefix of its pieces in the pool's bucket.
    pub prefix: String,
    /// Up to when S3 has confirmed it, as it was seen last.
    pub stored_until: Time,
    /// Gaps in it, where S3 was away for longer than the shard could wait.
    pub gaps: i64,
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
