//! What is told of the original's recording, and what routes say of keys, cameras and it.

use super::*;
use crate::stream::claims::RECORDING;
use lectern_contract::report::Recording;
use lectern_crds::{RtspTransport, Takeover};

fn recorded(stored: Option<u64>, gaps: u64, trouble: Option<&str>) -> ShardSaid {
    let stored = stored.map(|second| Ticks(second * 90_000));
    ShardSaid::Run(Box::new(IngestRun {
        recording: Some(Recording { stored, gaps, trouble: trouble.map(Into::into) }),
        ..publishing_run()
    }))
}

fn kept() -> Lecture {
    Lecture::of(json!({ "record": { "original": true } }))
}

#[test]
fn an_original_that_nobody_asked_for_is_not_recorded() {
    let lecture = Lecture::live();
    assert_eq!((lecture.reason(RECORDING), lecture.status().recording.is_none()), ("NotWanted", true));
    assert_eq!(routes::route(&lecture.stream).unwrap().original_prefix, None);
}

#[test]
fn the_original_is_recorded_from_its_first_piece_and_its_gaps_are_counted() {
    let mut lecture = kept();
    assert_eq!(lecture.reason(RECORDING), "NoPublisher");
    lecture.look(Seen { shard: recorded(None, 0, None), ..seen(1) });
    assert_eq!(lecture.reason(RECORDING), "NothingStored");
    lecture.look(Seen { shard: recorded(Some(20), 0, None), ..seen(20) });
    assert_eq!(lecture.reason(RECORDING), "Recording");
    let told = lecture.status().recording.clone().unwrap();
    assert_eq!(told.stored_until.0.as_second(), 1_800_000_000 - 10 + 20, "tick zero lies ten seconds back");
    assert!(told.prefix.ends_with("/school/algebra/run-1/original/"), "{}", told.prefix);
    lecture.look(Seen { shard: recorded(Some(20), 0, Some("S3 is away for 12 s")), ..seen(40) });
    assert_eq!(lecture.reason(RECORDING), "StorageTrouble");
    lecture.look(Seen { shard: recorded(Some(20), 0, Some("S3 is away for 13 s")), ..seen(41) });
    let said = |lecture: &Lecture| conditions::find(&lecture.status().conditions, RECORDING).unwrap().message.clone();
    assert_eq!(said(&lecture), "S3 is away for 12 s", "the same trouble is no news");
    lecture.look(Seen { shard: recorded(Some(90), 1, None), ..seen(100) });
    assert_eq!((lecture.reason(RECORDING), lecture.status().recording.as_ref().unwrap().gaps), ("RecordingWithGaps", 1));
    lecture.look(Seen { ending: true, head: HeadSeen::Ended, shard: recorded(Some(95), 1, None), ..seen(110) });
    assert_eq!(lecture.reason(RECORDING), "StreamEnded");
    assert_eq!(said(&lecture), "one gap, because S3 was away for too long");
}

#[test]
fn a_recording_that_moves_on_is_written_with_the_live_edge_only() {
    let mut lecture = kept();
    lecture.look(Seen { shard: recorded(Some(10), 0, None), ..seen(1) });
    lecture.look(Seen { shard: recorded(Some(20), 0, None), transcoder: said(1, running(Some(5))), ..seen(10) });
    let before = lecture.status().clone();
    for second in 11..39 {
        lecture.look(Seen {
            shard: recorded(Some(second + 9), 0, None),
            transcoder: said(1, running(Some(second / 2))),
            ..seen(second as i64)
        });
        assert_eq!(*lecture.status(), before, "second {second}");
    }
    lecture.look(Seen { shard: recorded(Some(49), 0, None), transcoder: said(1, running(Some(20))), ..seen(40) });
    assert!(lecture.status().recording.as_ref().unwrap().stored_until.0 > before.recording.as_ref().unwrap().stored_until.0);
    lecture.look(Seen { ending: true, head: HeadSeen::Ended, ..seen(50) });
    assert_eq!((lecture.reason(ENDED), lecture.reason(RECORDING)), ("Completed", "StreamEnded"));
}

#[test]
fn a_silent_shard_leaves_what_was_stored() {
    let mut lecture = kept();
    lecture.look(Seen { shard: recorded(Some(20), 0, None), ..seen(20) });
    lecture.look(Seen { shard: ShardSaid::Silent, settled: false, ..seen(21) });
    assert_eq!(lecture.reason(RECORDING), "Recording", "the operator has just started");
    lecture.look(Seen { shard: ShardSaid::Silent, ..seen(30) });
    assert_eq!((lecture.reason(RECORDING), lecture.status().recording.is_some()), ("ShardSilent", true));
}

#[test]
fn a_route_carries_what_the_spec_says_of_publishers_and_the_original() {
    let spec = json!({ "record": { "original": true }, "reconnect": { "takeover": "FirstWins", "backup": true } });
    let mut lecture = Lecture::of(spec);
    let ingest = lecture.stream.status.as_mut().unwrap().ingest.as_mut().unwrap();
    ingest.previous_key_hash = Some("before".into());
    ingest.backup_key_hash = Some("backup".into());
    let route = routes::route(&lecture.stream).unwrap();
    assert_eq!((route.takeover, route.previous_key_hash.as_deref()), (Takeover::FirstWins, Some("before")));
    assert_eq!(route.backup_key_hash.as_deref(), Some("backup"));
    assert_eq!(route.original_prefix, Some(lecture.status().playback.as_ref().unwrap().prefix.clone()));
}

#[test]
fn the_route_of_a_camera_with_a_password_waits_until_the_shard_can_read_it() {
    let camera = json!({ "source": { "rtsp": { "url": "rtsp://camera/1", "transport": "Udp", "secretRef": { "name": "c" } } } });
    let mut lecture = Lecture::of(camera);
    assert_eq!(routes::route(&lecture.stream), None);
    lecture.stream.status.as_mut().unwrap().ingest.as_mut().unwrap().camera_credentials = Some("run-1".into());
    let route = routes::route(&lecture.stream).unwrap();
    assert_eq!((route.rtsp_transport, route.rtsp_credentials.as_deref()), (RtspTransport::Udp, Some("run-1")));
    lecture.stream.spec.source.rtsp.as_mut().unwrap().secret_ref = None;
    assert_eq!(routes::route(&lecture.stream).unwrap().rtsp_credentials, None);
}

#[test]
fn a_new_key_is_told_with_the_end_of_the_one_before() {
    let lecture = Lecture::live();
    let old = lecture.status().clone();
    let mut new = old.clone();
    let ingest = new.ingest.as_mut().unwrap();
    ingest.key_hash = KeyHash::of("another").0;
    ingest.previous_key_until = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(seen(600).now));
    let notes = news(&old, &new);
    assert_eq!(notes.iter().map(|note| note.reason).collect::<Vec<_>>(), ["KeyChanged"]);
    assert!(notes[0].text.contains("may be used until 2027-01-15T08:10:00Z"), "{}", notes[0].text);
}
