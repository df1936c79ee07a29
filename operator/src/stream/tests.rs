//! What a LiveStream's status becomes, from what is seen: given, when, then.

use super::claims::{ENDED, PLAYABLE, RECEIVING, TRANSCODING};
use super::dispatch::{Decision, MOVE_ANNOTATION, decide};
use super::key::Key;
use super::observe::{HeadSeen, Seen};
use super::place::{Fleet, Place};
use super::plan::{Access, Plan, plan};
use super::rotation::Hashes;
use super::status::{news, refused, settle};
use super::validate::{RefusalReason, Wanted, validate};
use crate::conditions;
use crate::placement::shards_of;
use crate::reports::{ShardSaid, Standing, TranscoderSaid};
use crate::routes;
use jiff::Timestamp;
use lectern_contract::report::{IngestRun, Publisher, TranscoderRun, TranscoderState};
use lectern_contract::{Epoch, KeyHash, SegmentNumber, StreamRef, Ticks};
use lectern_crds::{LiveStream, LiveStreamStatus, StreamPool};
use serde_json::json;

mod full;
mod moves;
mod original;
mod states;

pub fn stream(spec: serde_json::Value) -> LiveStream {
    let object = json!({
        "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream",
        "metadata": { "name": "algebra", "namespace": "school", "uid": "u1", "generation": 1 },
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

pub fn pool() -> StreamPool {
    let text = include_str!("../../tests/golden/pool.yaml");
    serde_yaml::from_str(text).unwrap()
}

pub fn seen(second: i64) -> Seen {
    let ladder = json!({
        "video": [{ "name": "360p", "width": 640, "height": 360, "bitrate": 600_000 }],
        "audio": [{ "name": "audio", "bitrate": 96_000 }],
    });
    Seen {
        now: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        settled: true,
        ending: false,
        pool: Some(pool().spec),
        tenancy: Default::default(),
        pools: vec![],
        ladder: serde_json::from_value(ladder).unwrap(),
        ladders: vec![],
        shard: ShardSaid::NoPublisher,
        arriving: false,
        fleet: fleet([Standing::Well, Standing::Well]),
        transcoder: None,
        has_room: true,
        head: HeadSeen::NotAsked,
        sent: None,
        namespace: "lectern".into(),
        fresh_run: "run-1".into(),
    }
}

fn fleet(standing: [Standing; 2]) -> Fleet {
    Fleet { shards: shards_of("default", 2).into_iter().zip(standing).collect(), ..Fleet::default() }
}

fn access() -> Access {
    let hashes = Hashes { key: KeyHash::of("k"), rotation: 0, previous: None, backup: None };
    Access { key: Key { url: "rtmp://in/live".into(), secret_name: "algebra-stream-key".into(), hashes }, camera: None }
}

fn wanted() -> Wanted {
    validate(&stream(json!({})), &seen(0)).unwrap()
}

pub fn run_with(publisher: Publisher) -> IngestRun {
    let stream = StreamRef { namespace: "school".into(), name: "algebra".into() };
    IngestRun { stream, run: "run-1".into(), publisher, standby: None, recording: None }
}

fn publishing_run() -> IngestRun {
    run_with(Publisher::Publishing {
        remote: "192.0.2.1:9".into(),
        backup: false,
        codecs: vec!["avc1.64001f".into(), "mp4a.40.2".into()],
        picture: Some((1280, 720)),
        bitrate: 2_000_000,
        newest: Ticks(0),
    })
}

fn publishing() -> ShardSaid {
    ShardSaid::Run(Box::new(publishing_run()))
}

fn gone() -> ShardSaid {
    ShardSaid::Run(Box::new(run_with(Publisher::Gone { reason: "the publisher closed the connection".into() })))
}

fn said(attempt: u32, state: TranscoderState) -> Option<TranscoderSaid> {
    let stream = StreamRef { namespace: "school".into(), name: "algebra".into() };
    let run = TranscoderRun { stream, run: "run-1".into(), attempt, epoch: Epoch(1), state };
    Some(TranscoderSaid { pod: "t-0".into(), run, fresh: true })
}

/// The owner of attempt 1, of which three reports are missing.
fn unheard() -> Option<TranscoderSaid> {
    said(1, running(Some(9))).map(|said| TranscoderSaid { fresh: false, ..said })
}

fn running(confirmed: Option<u64>) -> TranscoderState {
    let confirmed = confirmed.map(SegmentNumber);
    TranscoderState::Running { confirmed, live_edge: SegmentNumber(9), lag: Ticks(0), bitrate: 700_000, trouble: None, remark: None }
}

/// The stream through one look after another, each status being written as it is planned.
struct Lecture {
    stream: LiveStream,
    plan: Option<Plan>,
}

impl Lecture {
    fn new() -> Self {
        Self::of(json!({}))
    }

    fn of(spec: serde_json::Value) -> Self {
        let mut lecture = Self { stream: stream(spec), plan: None };
        lecture.look(seen(0));
        lecture
    }

    fn look(&mut self, seen: Seen) -> &LiveStreamStatus {
        let held = self.stream.status.as_ref().and_then(|status| status.placement.clone());
        let place = held.map_or_else(
            || Place::Goes { shard: "lectern-ingest-default-0".into(), reason: "first choice of 2 by hash".into() },
            Place::Stays,
        );
        self.go(seen, &place)
    }

    /// Looks, the stream being placed so.
    fn go(&mut self, seen: Seen, place: &Place) -> &LiveStreamStatus {
        let planned = plan(&self.stream, &wanted(), &seen, &access(), place);
        let old = self.stream.status.clone().unwrap_or_default();
        let mut status = settle(&old, &planned.status);
        if planned.send.is_some() {
            // The queue took it.
            let dispatch = status.dispatch.as_mut().unwrap();
            dispatch.at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(seen.now));
        }
        self.plan = Some(planned);
        self.stream.status.insert(status)
    }

    fn live() -> Self {
        let mut lecture = Self::new();
        lecture.look(Seen { shard: publishing(), ..seen(1) });
        lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(5))), ..seen(10) });
        lecture
    }

    fn sent(&self) -> Option<u32> {
        self.plan.as_ref().unwrap().send.as_ref().map(|job| job.attempt)
    }

    fn status(&self) -> &LiveStreamStatus {
        self.stream.status.as_ref().unwrap()
    }

    fn reason(&self, kind: &str) -> &str {
        conditions::reason(&self.status().conditions, kind).unwrap()
    }

    fn phase(&self) -> &str {
        self.status().phase.as_deref().unwrap()
    }
}

#[test]
fn an_unknown_pool_is_refused_with_the_pools_there_are() {
    let none = Seen { pool: None, pools: vec!["default".into(), "gpu".into()], ..seen(0) };
    let refusal = validate(&stream(json!({ "poolName": "gpus" })), &none).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::UnknownPool);
    assert_eq!(
        refusal.message,
        r#"there is no StreamPool "gpus"; there are "default", "gpu"; create it, or create the stream anew with another spec.poolName"#
    );
}

#[test]
fn an_unknown_ladder_and_one_that_cannot_be_are_refused() {
    let refusal = validate(&stream(json!({ "ladder": { "name": "x" } })), &Seen { ladder: None, ..seen(0) }).unwrap_err();
    assert_eq!((refusal.reason, refusal.message.contains("none exists")), (RefusalReason::UnknownLadder, true));
    let own = json!({ "ladder": { "audio": [{ "name": "a", "bitrate": 96_000 }] } });
    assert_eq!(validate(&stream(own), &seen(0)).unwrap_err().reason, RefusalReason::BadLadder);
}

#[test]
fn what_is_encoded_after_the_end_needs_the_original() {
    let ladder = json!({
        "video": [
            { "name": "a", "width": 320, "height": 180, "bitrate": 200_000 },
            { "name": "b", "width": 320, "height": 180, "bitrate": 100_000, "codec": "hevc", "when": "Archive" },
        ],
        "audio": [{ "name": "c", "bitrate": 96_000 }],
    });
    let refusal = validate(&stream(json!({ "ladder": ladder })), &seen(0)).unwrap_err();
    let message = "spec.ladder: \"b\" is `when: Archive` and would be encoded from the original: set spec.record.original to true";
    assert_eq!((refusal.reason, &refusal.message[..]), (RefusalReason::BadLadder, message));
    let wanted = validate(&stream(json!({ "ladder": ladder, "record": { "original": true } })), &seen(0)).unwrap();
    assert_eq!(wanted.ladder.names().collect::<Vec<_>>(), ["a", "c"], "and is no part of the lecture's job");
}

#[test]
fn a_ladder_that_fits_no_transcoder_is_refused_with_the_numbers() {
    let mut seen = seen(0);
    let pool = seen.pool.as_mut().unwrap();
    pool.transcoder.class.budget = Some(lectern_crds::TranscoderBudget { megapixels_per_second: Some(1), ..Default::default() });
    let refusal = validate(&stream(json!({})), &seen).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::LadderTooCostly);
    assert!(refusal.message.contains("megapixels a second are needed, and the budget is 1;"), "{}", refusal.message);
    assert!(validate(&Lecture::live().stream, &seen).is_ok(), "a run that has a job keeps it");
}

#[test]
fn a_refusal_of_a_stream_that_runs_leaves_its_route() {
    let mut lecture = Lecture::live();
    let refusal = validate(&lecture.stream, &Seen { pool: None, ..seen(20) }).unwrap_err();
    lecture.stream.status = Some(refused(&lecture.stream, &refusal, seen(20).now));
    assert_eq!((lecture.phase(), lecture.reason("Accepted")), ("Refused", "UnknownPool"));
    assert!(routes::route(&lecture.stream).is_some());
}

#[test]
fn a_new_stream_is_told_where_to_publish_and_where_to_watch() {
    let lecture = Lecture::new();
    let status = lecture.status();
    assert_eq!((lecture.phase(), lecture.reason(RECEIVING)), ("Waiting", "NoPublisherYet"));
    let playback = status.playback.as_ref().unwrap();
    assert_eq!(playback.hls, format!("https://watch.example/{}/live.m3u8", playback.prefix));
    assert_eq!(playback.dash, Some(format!("https://watch.example/{}/live.mpd", playback.prefix)));
    assert_eq!(playback.vod, None);
    let placement = status.placement.as_ref().unwrap();
    assert_eq!((placement.epoch, placement.anchor_millis), (1, 1_799_999_990_000), "zero lies ten seconds back");
    assert_eq!(lecture.sent(), None);
}

#[test]
fn the_first_publisher_calls_a_transcoder_once() {
    let mut lecture = Lecture::new();
    lecture.look(Seen { shard: publishing(), ..seen(1) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (Some(1), "WaitingForTranscoder"));
    let job = lecture.plan.as_ref().unwrap().send.clone().unwrap();
    assert_eq!(job.feed, "lectern-ingest-default-0.lectern-ingest-default.lectern.svc:7000");
    assert_eq!(job.any_feed.as_deref(), Some("lectern-ingest-default.lectern.svc:7000"));
    lecture.look(Seen { shard: publishing(), ..seen(2) });
    assert_eq!(lecture.sent(), None);
}

#[test]
fn a_transcoder_is_told_how_far_back_students_may_go() {
    for (spec, wanted) in [(json!({}), None), (json!({ "dvrWindowSeconds": 1800 }), Some(1_800_000))] {
        let (stream, seen) = (stream(spec), Seen { shard: publishing(), ..seen(1) });
        let place = Place::Goes { shard: "lectern-ingest-default-0".into(), reason: "first choice of 2 by hash".into() };
        let planned = plan(&stream, &validate(&stream, &seen).unwrap(), &seen, &access(), &place);
        assert_eq!(planned.send.unwrap().dvr_window_ms, wanted);
    }
}

#[test]
fn a_stream_is_live_when_its_first_segment_is_confirmed() {
    let mut lecture = Lecture::new();
    lecture.look(Seen { shard: publishing(), ..seen(1) });
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(None)), ..seen(3) });
    assert_eq!((lecture.phase(), lecture.reason(PLAYABLE)), ("Receiving", "NoSegmentYet"));
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(5))), ..seen(5) });
    assert_eq!((lecture.phase(), lecture.reason(PLAYABLE)), ("Live", "SegmentsConfirmed"));
    assert_eq!(lecture.status().live.as_ref().unwrap().segment, 5);
}

#[test]
fn a_restarted_operator_says_nothing_new_until_reports_had_time_to_come() {
    let mut lecture = Lecture::live();
    let before = lecture.status().clone();
    lecture.look(Seen { settled: false, shard: ShardSaid::Silent, ..seen(11) });
    assert_eq!(*lecture.status(), before);
    lecture.look(Seen { shard: ShardSaid::Silent, ..seen(16) });
    assert_eq!((lecture.reason(RECEIVING), lecture.reason(TRANSCODING)), ("ShardSilent", "TranscoderSilent"));
    assert_eq!(lecture.reason(PLAYABLE), "SegmentsConfirmed", "the window is still there");
    assert_eq!(lecture.sent(), None, "the queue hands the job on by itself");
}

#[test]
fn a_live_stream_is_written_once_in_half_a_minute() {
    let mut lecture = Lecture::live();
    let before = lecture.status().clone();
    for second in 11..39 {
        lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(second / 2))), ..seen(i64::try_from(second).unwrap()) });
        assert_eq!(*lecture.status(), before, "second {second}");
    }
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(20))), ..seen(40) });
    assert_eq!(lecture.status().live.as_ref().unwrap().segment, 20);
}

#[test]
fn a_publisher_that_returns_after_its_transcoder_let_go_gets_another() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { shard: gone(), transcoder: said(1, running(Some(9))), ..seen(20) });
    assert_eq!((lecture.phase(), lecture.reason(RECEIVING)), ("Interrupted", "PublisherGone"));
    lecture.look(Seen { shard: gone(), transcoder: said(1, TranscoderState::Idle), ..seen(320) });
    assert_eq!((lecture.reason(TRANSCODING), lecture.sent()), ("Idle", None));
    lecture.look(Seen { shard: gone(), ..seen(900) });
    assert_eq!(lecture.reason(TRANSCODING), "Idle", "remembered when the report is long gone");
    lecture.look(Seen { shard: publishing(), ..seen(901) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (Some(2), "WaitingForTranscoder"));
    lecture.look(Seen { shard: publishing(), transcoder: said(1, TranscoderState::Idle), ..seen(902) });
    assert_eq!(lecture.sent(), None, "the last words of attempt 1 are not about attempt 2");
}

#[test]
fn a_transcoder_that_lost_the_run_does_not_call_for_another() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { shard: publishing(), transcoder: said(1, TranscoderState::Lost), ..seen(20) });
    assert_eq!(lecture.sent(), None);
}

#[test]
fn a_transcoder_that_misses_three_reports_is_replaced_once() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), settled: false, ..seen(20) });
    assert_eq!(lecture.sent(), None, "an operator that has just started has heard nobody");
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), ..seen(21) });
    assert_eq!(lecture.sent(), Some(2));
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), ..seen(22) });
    assert_eq!(lecture.sent(), None, "its silence is old news");
}

#[test]
fn a_transcoder_that_is_lost_together_with_its_shard_is_replaced_before_the_publisher_is_back() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { shard: ShardSaid::Silent, transcoder: unheard(), settled: false, ..seen(20) });
    assert_eq!(lecture.sent(), None, "an operator that has just started has heard nobody");
    lecture.look(Seen { shard: ShardSaid::Silent, transcoder: unheard(), ..seen(21) });
    assert_eq!(lecture.sent(), Some(2));
    let mut lecture = Lecture::live();
    lecture.look(Seen { shard: ShardSaid::NoPublisher, transcoder: said(1, running(Some(9))), ..seen(20) });
    lecture.look(Seen { shard: ShardSaid::Silent, transcoder: unheard(), ..seen(21) });
    assert_eq!(lecture.sent(), None, "nobody published");
}

#[test]
fn what_a_transcoder_leaves_out_is_said_while_it_does() {
    let mut lecture = Lecture::live();
    let careful = |left_out: Option<&str>| {
        let mut state = running(Some(9));
        if let TranscoderState::Running { trouble, .. } = &mut state {
            *trouble = left_out.map(str::to_owned);
        }
        said(1, state)
    };
    let told = |status: &LiveStreamStatus| {
        let transcoding = conditions::find(&status.conditions, TRANSCODING).unwrap();
        (transcoding.status.clone(), transcoding.message.clone())
    };
    const LEFT_OUT: &str = "its process crashed several times: only the lowest picture is encoded";
    let status = lecture.look(Seen { shard: publishing(), transcoder: careful(Some(LEFT_OUT)), ..seen(20) });
    let (truth, message) = told(status);
    assert!(truth == "True" && message.contains(LEFT_OUT), "{truth}: {message}");
    assert_eq!(status.last_error.as_deref(), Some(LEFT_OUT));
    let (_, message) = told(lecture.look(Seen { shard: publishing(), transcoder: careful(None), ..seen(21) }));
    assert!(!message.contains(LEFT_OUT), "{message}");
}

#[test]
fn a_run_that_no_transcoder_knows_of_any_more_is_sent_again() {
    let mut lecture = Lecture::live();
    for second in [20, 29] {
        lecture.look(Seen { shard: publishing(), ..seen(second) });
        assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (None, "TranscoderSilent"), "the queue may give it to another");
    }
    lecture.look(Seen { shard: publishing(), ..seen(30) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (Some(2), "WaitingForTranscoder"));
}

#[test]
fn a_job_that_nobody_takes_although_there_is_room_is_sent_again() {
    let mut lecture = Lecture::new();
    lecture.look(Seen { shard: publishing(), ..seen(1) });
    lecture.look(Seen { shard: publishing(), has_room: false, ..seen(50) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (None, "WaitingForTranscoder"), "all are busy");
    lecture.look(Seen { shard: publishing(), ..seen(51) });
    assert_eq!(lecture.sent(), Some(2));
    lecture.look(Seen { shard: publishing(), ..seen(52) });
    assert_eq!(lecture.sent(), None, "it has time to be taken");
}

#[test]
fn a_stream_that_is_to_move_gets_a_successor_and_is_running_meanwhile() {
    let mut lecture = Lecture::live();
    lecture.stream.metadata.annotations = Some([(MOVE_ANNOTATION.to_owned(), "now".to_owned())].into());
    lecture.look(Seen { shard: publishing(), transcoder: said(1, TranscoderState::Starting { waiting_for: None }), ..seen(20) });
    assert_eq!(lecture.sent(), None, "there is nobody to take it over from");
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(9))), ..seen(21) });
    let job = lecture.plan.as_ref().unwrap().send.clone().unwrap();
    assert_eq!((job.attempt, job.replaces, lecture.reason(TRANSCODING)), (2, Some(Epoch(1)), "Running"));
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(10))), ..seen(22) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (None, "Running"), "it is called once");
}

#[test]
fn after_a_move_that_came_to_nothing_its_owner_is_looked_after_and_moved_as_before() {
    let annotations = || Some([(MOVE_ANNOTATION.to_owned(), "now".to_owned())].into());
    let kept = || {
        let mut lecture = Lecture::live();
        lecture.stream.metadata.annotations = annotations();
        lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(9))), ..seen(20) });
        assert_eq!(lecture.sent(), Some(2));
        lecture.stream.metadata.annotations = None;
        lecture
    };
    let mut lecture = kept();
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), ..seen(40) });
    assert_eq!(lecture.sent(), None, "its successor is on the way");
    let mut lecture = kept();
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(59))), ..seen(80) });
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), has_room: false, ..seen(81) });
    assert_eq!(lecture.sent(), None, "nobody could take it, and the successor's job may still be in the queue");
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), ..seen(82) });
    assert_eq!(lecture.sent(), Some(3));
    lecture.look(Seen { shard: publishing(), transcoder: unheard(), ..seen(83) });
    assert_eq!(lecture.sent(), None, "its silence is old news");

    let mut lecture = kept();
    lecture.stream.metadata.annotations = annotations();
    lecture.look(Seen { shard: publishing(), transcoder: said(1, running(Some(60))), ..seen(81) });
    let job = lecture.plan.as_ref().unwrap().send.clone().unwrap();
    assert_eq!((job.attempt, job.replaces), (3, Some(Epoch(1))));
}

#[test]
fn a_job_that_was_given_up_is_tried_again_when_somebody_says_so() {
    let mut lecture = Lecture::live();
    let failed = || said(1, TranscoderState::Failed { reason: "it crashed".into() });
    lecture.look(Seen { shard: publishing(), transcoder: failed(), ..seen(20) });
    lecture.look(Seen { shard: publishing(), ..seen(200) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (None, "Failed"), "it is parked");
    lecture.stream.metadata.annotations = Some([(MOVE_ANNOTATION.to_owned(), "now".to_owned())].into());
    lecture.look(Seen { shard: publishing(), ..seen(300) });
    assert_eq!((lecture.sent(), lecture.reason(TRANSCODING)), (Some(2), "WaitingForTranscoder"));
}

#[test]
fn an_attempt_that_is_written_down_and_not_known_to_be_sent_is_sent_again() {
    let status = |dispatch: serde_json::Value| -> LiveStreamStatus { serde_json::from_value(json!({ "dispatch": dispatch })).unwrap() };
    let open = status(json!({ "attempt": 2 }));
    assert_eq!(decide(&open, &seen(0), false, false), Decision::SendAgain(2), "even if the publisher left meanwhile");
    assert_eq!(decide(&open, &Seen { sent: Some(2), ..seen(0) }, true, false), Decision::WasSent(2));
    let answered = Seen { transcoder: said(2, running(None)), ..seen(0) };
    assert_eq!(decide(&open, &answered, true, false), Decision::WasSent(2));
    let done = status(json!({ "attempt": 2, "at": "2026-01-01T00:00:00Z" }));
    assert_eq!(decide(&done, &seen(0), true, false), Decision::Leave);
}

#[test]
fn a_stream_that_nobody_published_ends_at_once() {
    let mut lecture = Lecture::new();
    lecture.stream.spec.ended = true;
    lecture.look(Seen { ending: true, ..seen(5) });
    assert_eq!((lecture.phase(), lecture.reason(ENDED)), ("Ended", "NeverStarted"));
    assert_eq!(routes::route(&lecture.stream), None);
}

#[test]
fn an_ending_stream_keeps_its_route_until_its_transcoder_is_done() {
    let mut lecture = Lecture::live();
    lecture.stream.spec.ended = true;
    lecture.look(Seen { ending: true, shard: publishing(), transcoder: said(1, running(Some(9))), head: HeadSeen::Open, ..seen(20) });
    assert_eq!((lecture.phase(), lecture.reason(ENDED)), ("Ending", "Finishing"));
    assert!(routes::route(&lecture.stream).unwrap().ended);
    let (first, last) = (Some(SegmentNumber(3)), Some(SegmentNumber(9)));
    lecture.look(Seen { ending: true, transcoder: said(1, TranscoderState::Ended { first, last }), ..seen(22) });
    assert_eq!((lecture.phase(), lecture.reason(ENDED)), ("Ended", "Completed"));
    let playback = lecture.status().playback.clone().unwrap();
    assert!(playback.vod.unwrap().ends_with("/vod.m3u8") && playback.vod_dash.unwrap().ends_with("/vod.mpd"));
    assert_eq!(routes::route(&lecture.stream), None);
}

#[test]
fn a_run_whose_head_says_ended_is_complete_although_nobody_reports_it() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { ending: true, head: HeadSeen::Ended, ..seen(20) });
    assert_eq!(lecture.reason(ENDED), "Completed");
}

#[test]
fn an_idle_run_that_is_to_end_gets_a_transcoder_to_close_it() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { transcoder: said(1, TranscoderState::Idle), ..seen(300) });
    lecture.look(Seen { ending: true, head: HeadSeen::Open, ..seen(900) });
    assert_eq!((lecture.sent(), lecture.reason(ENDED)), (Some(2), "Finishing"));
}

#[test]
fn a_run_that_cannot_be_encoded_ends_incomplete_instead_of_never() {
    let mut lecture = Lecture::live();
    lecture.look(Seen { transcoder: said(1, TranscoderState::Failed { reason: "no decoder".into() }), ..seen(20) });
    assert_eq!((lecture.reason(TRANSCODING), lecture.status().last_error.as_deref()), ("Failed", Some("no decoder")));
    lecture.look(Seen { ending: true, ..seen(200) });
    assert_eq!(lecture.reason(ENDED), "Incomplete");
}

#[test]
fn a_stream_that_moves_keeps_its_timeline_and_says_so() {
    let mut lecture = Lecture::live();
    let old = lecture.status().clone();
    let place = Place::Goes { shard: "lectern-ingest-default-1".into(), reason: "why".into() };
    let moved = plan(&lecture.stream, &wanted(), &seen(30), &access(), &place).status;
    let (before, after) = (old.placement.as_ref().unwrap(), moved.placement.as_ref().unwrap());
    assert_eq!((after.epoch, after.anchor_millis), (2, before.anchor_millis));
    assert!(news(&old, &moved).iter().any(|note| note.reason == "Placed" && note.warning));
    lecture.stream.status = Some(moved);
    assert_eq!(routes::route(&lecture.stream).unwrap().epoch, 2);
}

#[test]
fn every_turn_of_a_lecture_is_told_once() {
    let mut lecture = Lecture::new();
    let mut told = Vec::new();
    for look in [
        Seen { shard: publishing(), ..seen(1) },
        Seen { shard: publishing(), transcoder: said(1, running(Some(1))), ..seen(2) },
        Seen { shard: publishing(), transcoder: said(1, running(Some(2))), ..seen(3) },
        Seen { shard: gone(), transcoder: said(1, running(Some(2))), ..seen(4) },
        Seen { ending: true, head: HeadSeen::Ended, ..seen(5) },
    ] {
        let old = lecture.status().clone();
        lecture.look(look);
        told.extend(news(&old, lecture.status()).iter().map(|note| note.reason));
    }
    assert_eq!(told, ["PublisherArrived", "Playable", "PublisherLeft", "Ended"]);
}
