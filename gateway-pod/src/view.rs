//! What callers read: a LiveStream's state in their words.

use crate::viewing::Pass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lectern_crds::LiveStream;
use serde::Serialize;

/// Where a lecture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to see yet.
    Waiting,
    /// On air.
    Live,
    /// It was on air, and the publisher or the transcoder is away; players hold the last picture.
    Interrupted,
    /// Over, or ending; it cannot start again.
    Ended,
}

/// The answer to StartStream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// What EndStream and WatchStream take: the LiveStream's name.
    pub id: String,
    /// "Server" in OBS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_url: Option<String>,
    /// "Stream Key" in OBS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_key: Option<String>,
    /// The page for students.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub player_url: Option<String>,
    /// The live HLS playlist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hls_url: Option<String>,
    /// Where the lecture is.
    pub state: State,
}

/// The answer to EndStream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ended {
    /// The LiveStream's name.
    pub id: String,
    /// `ended`.
    pub state: State,
}

/// The answer to WatchStream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    /// The LiveStream's name.
    pub id: String,
    /// Where the lecture is.
    pub state: State,
    /// The page for students; absent until the stream is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub player_url: Option<String>,
    /// The live HLS playlist; absent until the stream is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hls_url: Option<String>,
    /// The live DASH manifest; absent until the stream is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dash_url: Option<String>,
    /// The recording's HLS playlist, once it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vod_url: Option<String>,
    /// The recording's DASH manifest, once it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vod_dash_url: Option<String>,
    /// How far the lecture is, while it is on air or interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_edge: Option<LiveEdge>,
}

/// How far a lecture is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveEdge {
    /// The newest segment that S3 held when the operator looked.
    pub segment: i64,
    /// When it looked. The edge moves on from here in real time while the state is `live`.
    pub seen_at: Time,
    /// Milliseconds that encoding was behind the publisher.
    pub lag_millis: i64,
}

/// Where `stream` is, by its conditions.
pub fn state_of(stream: &LiveStream) -> State {
    if is_over(stream) {
        return State::Ended;
    }
    let on_air_before = stream.status.as_ref().is_some_and(|status| status.live.is_some());
    match (holds(stream, "Receiving") && holds(stream, "Playable"), on_air_before) {
        (true, _) => State::Live,
        (false, true) => State::Interrupted,
        (false, false) => State::Waiting,
    }
}

/// Whether `stream` has ended or is on its way there.
pub fn is_over(stream: &LiveStream) -> bool {
    stream.spec.ended || stream.metadata.deletion_timestamp.is_some() || holds(stream, "Ended")
}

/// Why the operator refused `stream`: the condition's reason and message.
pub fn refusal_of(stream: &LiveStream) -> Option<(String, String)> {
    let status = stream.status.as_ref()?;
    let accepted = status.conditions.iter().find(|condition| condition.type_ == "Accepted" && condition.status == "False")?;
    // A lecture that has a place goes on in it, whatever became of its pool or its ladder since.
    status.ingest.is_none().then(|| (accepted.reason.clone(), accepted.message.clone()))
}

/// Whether `stream` has an ingest URL and playback URLs.
pub fn is_placed(stream: &LiveStream) -> bool {
    stream.status.as_ref().is_some_and(|status| status.ingest.is_some() && status.playback.is_some())
}

fn holds(stream: &LiveStream, condition: &str) -> bool {
    let conditions = stream.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|found| found.type_ == condition && found.status == "True")
}

impl Started {
    /// The answer for `stream`, whose key is `key`, with addresses that `pass` opens.
    pub fn of(stream: &LiveStream, key: Option<String>, pass: &Pass) -> Self {
        let status = stream.status.as_ref();
        let playback = status.and_then(|status| status.playback.as_ref());
        Self {
            id: stream.name_any(),
            ingest_url: status.and_then(|status| status.ingest.as_ref()).map(|ingest| ingest.url.clone()),
            stream_key: key,
            player_url: playback.map(|playback| pass.to(&playback.player)),
            hls_url: playback.map(|playback| pass.to(&playback.hls)),
            state: state_of(stream),
        }
    }

    /// Whether a lecturer can publish with it.
    pub fn is_complete(&self) -> bool {
        self.ingest_url.is_some() && self.stream_key.is_some() && self.player_url.is_some()
    }
}

impl Watched {
    /// The answer for `stream`, with addresses that `pass` opens.
    pub fn of(stream: &LiveStream, pass: &Pass) -> Self {
        let state = state_of(stream);
        let status = stream.status.as_ref();
        let playback = status.and_then(|status| status.playback.as_ref());
        let edge = status.and_then(|status| status.live.as_ref()).filter(|_| matches!(state, State::Live | State::Interrupted));
        Self {
            id: stream.name_any(),
            state,
            player_url: playback.map(|playback| pass.to(&playback.player)),
            hls_url: playback.map(|playback| pass.to(&playback.hls)),
            dash_url: playback.and_then(|playback| playback.dash.as_deref()).map(|url| pass.to(url)),
            vod_url: playback.and_then(|playback| playback.vod.as_deref()).map(|url| pass.to(url)),
            vod_dash_url: playback.and_then(|playback| playback.vod_dash.as_deref()).map(|url| pass.to(url)),
            live_edge: edge.map(|live| LiveEdge { segment: live.segment, seen_at: live.at.clone(), lag_millis: live.lag_millis }),
        }
    }
}
