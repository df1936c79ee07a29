//! What a stream's status and job become: no client, no clock, no dice.

use super::claims::{self, Facts};
use super::dispatch::{self, Decision};
use super::key::Key;
use super::observe::Seen;
use super::place::Place;
use super::run_id::anchor_millis;
use super::validate::Wanted;
use super::{is_deleting, status_of, stream_ref};
use crate::conditions::{self, Truth, whole_second};
use crate::reports::ShardSaid;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::RunPrefix;
use lectern_contract::report::{Publisher, TranscoderState};
use lectern_contract::{RunId, WallMillis};
use lectern_crds::{
    DispatchStatus, LiveStatus, LiveStream, LiveStreamStatus, PlacementStatus, PlaybackStatus, ReceivedStatus, RecordingStatus,
};

/// What is to be written and sent.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The status.
    pub status: LiveStreamStatus,
    /// The job to send once the status is written.
    pub send: Option<LiveJob>,
}

/// How the stream is got at.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where to publish, and the keys that open it.
    pub key: Key,
    /// The entry of the camera's credentials.
    pub camera: Option<String>,
}

/// The plan.
pub fn plan(stream: &LiveStream, wanted: &Wanted, seen: &Seen, access: &Access, place: &Place) -> Plan {
    let old = status_of(stream);
    let run = old.run_id.clone().map_or_else(|| seen.fresh_run.clone(), RunId);
    let prefix = RunPrefix::of(&stream_ref(stream), &run);
    let placement = placement(&old, seen, place);
    let publishing = matches!(&seen.shard, ShardSaid::Run(run) if matches!(run.publisher, Publisher::Publishing { .. }));
    let decision =
        if placement.is_some() { dispatch::decide(&old, seen, publishing, dispatch::is_to_move(stream)) } else { Decision::Leave };
    let dispatch = match decision {
        Decision::Leave => old.dispatch.clone(),
        Decision::Send(attempt) | Decision::SendAgain(attempt) | Decision::Move(attempt, _) => Some(DispatchStatus { attempt, at: None }),
        Decision::WasSent(attempt) => Some(DispatchStatus { attempt, at: Some(Time(whole_second(seen.now))) }),
    };

    let recording = recording(&old, seen, placement.as_ref(), &prefix);
    let original = stream.spec.record.original;
    let facts = Facts { seen, old: &old, dispatch: dispatch.as_ref(), how: how_to_publish(stream, &access.key) };
    let ended = claims::ended(&facts);
    let claims = [
        claims::accepted(),
        claims::placed(placement.as_ref()),
        claims::receiving(&facts),
        claims::transcoding(&facts),
        claims::playable(&facts),
        claims::recording(&facts, original, recording.as_ref(), ended.truth == Truth::True),
        ended,
    ];
    let phase = if is_deleting(stream) { "Deleting" } else { claims::phase(&claims, dispatch.is_some(), seen.ending) };
    let (ended, playable) = (claims[6].truth == Truth::True, claims[4].truth == Truth::True);
    let queue_trouble = (claims[3].reason == "QueueUnreachable").then(|| claims[3].message.clone());

    let send = placement.as_ref().and_then(|placement| {
        let (attempt, replaces) = match decision {
            Decision::Send(attempt) | Decision::SendAgain(attempt) => (attempt, None),
            Decision::Move(attempt, epoch) => (attempt, Some(epoch)),
            Decision::Leave | Decision::WasSent(_) => return None,
        };
        Some(LiveJob { replaces, ..job(stream, wanted, placement, attempt, &run, &prefix, seen) })
    });
    let status = LiveStreamStatus {
        observed_generation: stream.metadata.generation,
        phase: Some(phase.to_owned()),
        conditions: conditions::dated(&old.conditions, &claims, stream.metadata.generation, seen.now),
        run_id: Some(run.0.clone()),
        ingest: Some(access.key.hashes.told(&access.key.url, &access.key.secret_name, access.camera.clone())),
        playback: Some(playback(&wanted.pool.origin.public_url, &prefix, ended && playable)),
        received: received(&old, seen),
        recording,
        live: live(&old, seen),
        last_error: trouble(seen).or(queue_trouble),
        placement,
        dispatch,
    };
    Plan { status, send }
}

fn placement(old: &LiveStreamStatus, seen: &Seen, place: &Place) -> Option<PlacementStatus> {
    match place {
        Place::Stays(held) => Some(held.clone()),
        Place::Goes { shard, reason } => {
            let before = old.placement.as_ref();
            Some(PlacementStatus {
                shard: shard.0.clone(),
                reason: reason.clone(),
                epoch: before.map_or(1, |before| before.epoch.saturating_add(1)),
                // The timeline goes on over a move: its zero never changes.
                anchor_millis: before.map_or_else(|| anchor_millis(seen.now), |before| before.anchor_millis),
                since: Some(Time(whole_second(seen.now))),
            })
        }
        Place::Full(_) | Place::Nowhere => None,
    }
}

fn how_to_publish(stream: &LiveStream, key: &Key) -> String {
    match &stream.spec.source.rtsp {
        Some(_) => "the camera has not answered yet".to_owned(),
        None => format!("publish to {} with the key in Secret {}", key.url, key.secret_name),
    }
}

fn playback(public_url: &str, prefix: &RunPrefix, recorded: bool) -> PlaybackStatus {
    let base = public_url.trim_end_matches('/');
    PlaybackStatus {
        player: format!("{base}/watch/{prefix}"),
        hls: format!("{base}/{prefix}/live.m3u8"),
        dash: Some(format!("{base}/{prefix}/live.mpd")),
        vod: recorded.then(|| format!("{base}/{prefix}/vod.m3u8")),
        vod_dash: recorded.then(|| format!("{base}/{prefix}/vod.mpd")),
        prefix: prefix.to_string(),
    }
}

fn received(old: &LiveStreamStatus, seen: &Seen) -> Option<ReceivedStatus> {
    match &seen.shard {
        ShardSaid::Run(run) => match &run.publisher {
            Publisher::Publishing { remote, backup, codecs, picture, bitrate, .. } => Some(ReceivedStatus {
                codecs: codecs.clone(),
                picture: picture.map(|(width, height)| format!("{width}x{height}")),
                bitrate: i64::try_from(*bitrate).unwrap_or(i64::MAX),
                from: remote.clone(),
                backup: *backup,
                standby: run.standby.clone(),
            }),
            Publisher::Gone { .. } => None,
        },
        ShardSaid::NoPublisher if seen.arriving => old.received.clone(),
        ShardSaid::NoPublisher => None,
        ShardSaid::Silent => old.received.clone(),
    }
}

/// How far the original is. What was stored stays stored, whoever reports.
fn recording(old: &LiveStreamStatus, seen: &Seen, placement: Option<&PlacementStatus>, prefix: &RunPrefix) -> Option<RecordingStatus> {
    let before = old.recording.clone();
    let ShardSaid::Run(run) = &seen.shard else { return before };
    let (Some(said), Some(placement)) = (&run.recording, placement) else { return before };
    let Some(stored) = said.stored else { return before };
    let millis = placement.anchor_millis.saturating_add(i64::try_from(stored.as_millis()).unwrap_or(i64::MAX));
    let Ok(until) = Timestamp::from_millisecond(millis) else { return before };
    Some(RecordingStatus {
        prefix: format!("{prefix}/original/"),
        stored_until: Time(whole_second(until)),
        gaps: i64::try_from(said.gaps).unwrap_or(i64::MAX),
    })
}

fn live(old: &LiveStreamStatus, seen: &Seen) -> Option<LiveStatus> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let said = seen.transcoder.as_ref().filter(|said| said.fresh);
    match said.map(|said| (&said.pod, &said.run.state)) {
        Some((pod, TranscoderState::Running { confirmed: Some(confirmed), lag, bitrate, .. })) => Some(LiveStatus {
            segment: signed(confirmed.0),
            at: Time(whole_second(seen.now)),
            lag_millis: signed(lag.as_millis()),
            bitrate: signed(*bitrate),
            transcoder: pod.clone(),
        }),
        _ => old.live.clone(),
    }
}

fn trouble(seen: &Seen) -> Option<String> {
    match seen.transcoder.as_ref().filter(|said| said.fresh).map(|said| &said.run.state)? {
        TranscoderState::Running { trouble, .. } => trouble.clone(),
        TranscoderState::Starting { waiting_for } => waiting_for.clone(),
        TranscoderState::Failed { reason } => Some(reason.clone()),
        TranscoderState::Idle | TranscoderState::Ended { .. } | TranscoderState::Lost => None,
    }
}

fn job(
    stream: &LiveStream,
    wanted: &Wanted,
    placement: &PlacementStatus,
    attempt: i32,
    run: &RunId,
    prefix: &RunPrefix,
    seen: &Seen,
) -> LiveJob {
    let service = crate::pool::plan::ingest_name(&wanted.pool_name);
    LiveJob {
        stream: stream_ref(stream),
        title: if stream.spec.title.is_empty() { stream.name_any() } else { stream.spec.title.clone() },
        run: run.clone(),
        attempt: u32::try_from(attempt).unwrap_or(1),
        anchor: WallMillis(u64::try_from(placement.anchor_millis).unwrap_or(0)),
        feed: format!("{}.{service}.{}.svc:7000", placement.shard, seen.namespace),
        any_feed: Some(format!("{service}.{}.svc:7000", seen.namespace)),
        ladder: wanted.ladder.clone(),
        segment_duration: wanted.segment_duration,
        parts: wanted.parts,
        dvr_window_ms: wanted.dvr_window_ms,
        slate: wanted.slate.clone(),
        prefix: prefix.clone(),
        replaces: None,
        passed_on: 0,
        idle_after_ms: wanted.idle_after_ms,
    }
}
