//! LiveStream: one lecture, from its announcement to its recording.

use crate::{AudioSpec, LiveStreamStatus, RenditionSpec, RtspTransport, Takeover};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
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
    validation = kube::core::Rule::new("self.metadata.name.size() <= 52").message("metadata.name: at most 52 characters, because the names of its Secret and its objects are made of it; choose a shorter name and put the rest into spec.title"),
    validation = kube::core::Rule::new("!(has(self.spec.source.rtsp) && self.spec.reconnect.backup)").message("spec.reconnect.backup: Lectern pulls from one camera, and nobody can stand by for it; leave it out, or let two encoders publish with spec.source.rtmp"),
    validation = kube::core::Rule::new("!has(self.spec.dvrWindowSeconds) || self.spec.dvrWindowSeconds <= 3600 || self.spec.latency == 'Standard'").message("spec.dvrWindowSeconds: at most 3600 with latency: Low, where playlists are made three times a second and have a line for every 2 s; take less, or latency: Standard, with which it may be up to 7200")
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

    /// Seconds that students can go back while the lecture is on air; unless given, ten segments. At most 3600 with `latency: Low`, and 7200
    /// with `Standard`. A change holds from the next transcoder on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 7200))]
    pub dvr_window_seconds: Option<i32>,

    /// Who may watch: anybody, or those who have a link that the school made (`lectern-operator view-link`, or the gateway's WatchStream).
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("self == oldSelf").message("spec.viewing cannot change while the stream exists, because the addresses of its objects say it; end this stream and create it anew"))]
    pub viewing: Viewing,

    /// What happens when the publisher is away, or a second one comes.
    #[serde(default)]
    pub reconnect: Reconnect,

    /// The key that the lecturer publishes with.
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("self.rotation >= oldSelf.rotation").message("spec.streamKey.rotation can only grow, because every step makes a new key; count up from its last value"))]
    pub stream_key: StreamKey,

    /// What is kept.
    #[serde(default)]
    pub record: Record,

    /// When the lecture is. Without it a stream waits for its publisher until it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,

    /// Set it to end the stream. An ended stream cannot be resumed.
    #[serde(default)]
    #[x_kube(validation = kube::core::Rule::new("self || !oldSelf").message("spec.ended cannot go back to false; create a new LiveStream for another lecture"))]
    pub ended: bool,
}

/// A lecture's times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!has(self.startsAt) || !has(self.endsAt) || self.endsAt > self.startsAt").message("spec.schedule.endsAt: later than startsAt"))]
#[x_kube(validation = kube::core::Rule::new("has(self.startsAt) || has(self.endsAt)").message("spec.schedule: give startsAt, endsAt, or both"))]
pub struct Schedule {
    /// When it begins. A transcoder's slot is ready by then, in a pool that grows (`transcoder.maxPods`). Who publishes earlier or later is taken all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Time>,
    /// When the stream ends by itself, as by `ended: true`. It can be moved as long as it has not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Time>,
    /// Seconds before `startsAt` at which the slot is made ready.
    #[serde(default = "prewarm_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub prewarm_seconds: i32,
}

const fn prewarm_seconds() -> i32 {
    300
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
    /// A Secret of the stream's namespace with the keys `username` and `password`. A change of it is taken up in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretName>,
    /// `Tcp` carries the media in the RTSP connection: through firewalls, without loss. `Udp` is for cameras that offer
    /// nothing else.
    #[serde(default)]
    pub transport: RtspTransport,
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
    #[schemars(length(min = 1, max = 12))]
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
    /// Segments of 2 s, in parts of a third of a second: students are two seconds or so behind.
    #[default]
    Low,
    /// Segments of 4 s, without parts: students are twelve seconds or so behind, over lines that waver.
    Standard,
}

/// Who may watch a lecture, live and recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Viewing {
    /// Whoever knows its address.
    #[default]
    Public,
    /// Who has a link with a token, for as long as the token lasts.
    Signed,
}

/// What happens when the publisher is away, or a second one comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reconnect {
    /// Seconds that the transcoder is held for a publisher that left. It may come back later too: a new transcoder
    /// then goes on with the same run.
    #[schemars(range(min = 5, max = 86400))]
    pub grace_seconds: i32,
    /// Who stays when a second publisher comes with the same key: `NewestWins`, so that a lecturer whose first connection
    /// hangs is not locked out, or `FirstWins`, so that nobody can cut in (a hung connection has to time out first).
    pub takeover: Takeover,
    /// Makes a second key, `backupKey` in the stream's Secret: its publisher stands by, and takes over at its next keyframe
    /// when the lecturer's is gone.
    pub backup: bool,
    /// What students see meanwhile.
    pub slate: Slate,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { grace_seconds: 300, takeover: Takeover::default(), backup: false, slate: Slate::default() }
    }
}

/// A card with the stream's title that is shown, in silence, when nothing has come for a second, until the publisher's next
/// keyframe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Slate {
    /// Without it the stream has a hole, and players stand still until it goes on.
    pub enabled: bool,
    /// What stands below the title, in the students' language. There are no glyphs for Chinese, Japanese and Korean.
    #[schemars(length(max = 100))]
    pub text: String,
}

impl Default for Slate {
    fn default() -> Self {
        Self { enabled: true, text: "Back soon".to_owned() }
    }
}

/// The key that the lecturer publishes with. It lies in the Secret that `status.ingest.secretName` names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamKey {
    /// Count it up to get a new key. A key that is changed by hand in the Secret is such a change, too.
    #[schemars(range(min = 0))]
    pub rotation: i32,
    /// Seconds that the key before a change may still be used; 0 shuts it out at once, also one that has time left.
    #[schemars(range(min = 0, max = 86400))]
    pub overlap_seconds: i32,
}

impl Default for StreamKey {
    fn default() -> Self {
        Self { rotation: 0, overlap_seconds: 600 }
    }
}

/// What is kept of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// What becomes of the stream's objects in S3 when the LiveStream is deleted.
    pub retention: Retention,
    /// Keeps what the publisher sends, as it came, beside the renditions: pieces of fragmented MP4 under `original/`.
    pub original: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn stream(spec: Value) -> LiveStreamSpec {
        serde_json::from_value(spec).unwrap()
    }

    /// The schema of a part of the spec.
    fn schema(path: &str) -> Value {
        use kube::CustomResourceExt;
        let crd = serde_json::to_value(LiveStream::crd()).unwrap();
        crd.pointer(&format!("/spec/versions/0/schema/openAPIV3Schema{path}")).cloned().unwrap()
    }

    #[test]
    fn a_stream_that_says_nothing_has_one_key_that_the_newest_publisher_may_use() {
        let spec = stream(json!({}));
        assert_eq!(
            spec.reconnect,
            Reconnect { grace_seconds: 300, takeover: Takeover::NewestWins, backup: false, slate: Slate::default() }
        );
        assert_eq!(spec.stream_key, StreamKey { rotation: 0, overlap_seconds: 600 });
        assert_eq!(spec.record, Record { retention: Retention::Retain, original: false });
        let camera = stream(json!({ "source": { "rtsp": { "url": "rtsp://camera/1" } } })).source.rtsp.unwrap();
        assert_eq!((camera.transport, camera.secret_ref), (RtspTransport::Tcp, None));
    }

    #[test]
    fn the_api_server_fills_in_the_same_defaults() {
        let of = |part: &str| schema(&format!("/properties/spec/properties/{part}/default"));
        assert_eq!(of("streamKey"), json!({ "rotation": 0, "overlapSeconds": 600 }));
        assert_eq!(
            of("reconnect"),
            json!({ "graceSeconds": 300, "takeover": "NewestWins", "backup": false, "slate": { "enabled": true, "text": "Back soon" } })
        );
        assert_eq!(of("record"), json!({ "retention": "Retain", "original": false }));
        assert_eq!(of("viewing"), json!("Public"));
        assert_eq!(of("source/properties/rtsp/properties/transport"), json!("Tcp"));
    }

    #[test]
    fn rules_say_the_fix() {
        let message = |path: &str, rule: &str| {
            let rules = schema(&format!("{path}/x-kubernetes-validations"));
            let found = rules.as_array().unwrap().iter().find(|found| found["rule"].as_str().unwrap().contains(rule)).cloned().unwrap();
            found["message"].as_str().unwrap().to_owned()
        };
        assert!(message("/properties/spec/properties/streamKey", "oldSelf.rotation").ends_with("count up from its last value"));
        assert!(message("/properties/spec/properties/viewing", "oldSelf").ends_with("end this stream and create it anew"));
        assert!(message("", "reconnect.backup").contains("leave it out, or"));
        assert!(message("", "dvrWindowSeconds").contains("take less, or latency: Standard"));
    }
}
