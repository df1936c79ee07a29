//! The RTMP session against what real publishers send, an independent client, and hostile peers.

#![allow(clippy::unwrap_used)]

mod rtmp_client;

use bytes::{Buf, Bytes};
use lectern_ingest_pod::rtmp::session::{Event, Limits, Session, SessionError};
use lectern_media::rtmp::amf::{AmfError, Value};
use lectern_media::rtmp::chunk::ChunkError;
use lectern_media::rtmp::message::{CommandError, UserControl, kind};
use proptest::prelude::*;
use rtmp_client::*;

fn published() -> Session {
    let mut session = Session::new(Limits::default());
    let asked = feed(&mut session, &[connect(), publish("secret")].concat());
    assert_eq!(asked, [Event::Publish { app: "live".into(), key: "secret".into() }]);
    session.output().clear();
    session
}

fn media(kind: u8, timestamp: u32, payload: &'static [u8]) -> Event {
    Event::Media { kind, timestamp, payload: Bytes::from_static(payload) }
}

#[test]
fn connect_is_answered_with_what_is_taken() {
    let mut session = Session::new(Limits::default());
    let object = Value::object([
        ("app", "live".into()),
        ("tcUrl", "rtmps://ingest.example/live".into()),
        ("objectEncoding", Value::Number(3.0)),
        ("fourCcList", Value::Array(vec!["hvc1".into()])),
    ]);
    feed(&mut session, &command(0, "connect", 1.0, &[object]));
    assert_eq!(session.tc_url(), "rtmps://ingest.example/live");
    let replies = replies(&mut session);
    let kinds: Vec<_> = replies.iter().map(|message| message.kind).collect();
    assert_eq!(kinds, [kind::WINDOW_ACKNOWLEDGEMENT_SIZE, kind::SET_PEER_BANDWIDTH, kind::SET_CHUNK_SIZE, kind::COMMAND_AMF0]);
    let result = as_command(&replies[3]);
    assert_eq!((&*result.name, result.transaction), ("_result", 1.0));
    let information = &result.arguments[1];
    assert_eq!(information.get("code"), Some(&"NetConnection.Connect.Success".into()));
    assert_eq!(information.get("objectEncoding"), Some(&Value::Number(3.0)));
    for part in &result.arguments {
        let video = part.get("videoFourCcInfoMap").unwrap();
        assert!(["avc1", "hvc1", "av01", "vp09"].iter().all(|code| video.get(code).is_some()));
        let audio = part.get("audioFourCcInfoMap").unwrap();
        assert!(["mp4a", ".mp3", "Opus", "ac-3", "fLaC"].iter().all(|code| audio.get(code).is_some()));
        assert!(matches!(part.get("fourCcList"), Some(Value::Array(codes)) if codes.len() == 9));
        assert_eq!(part.get("capsEx"), Some(&Value::Number(1.0)), "reconnect, and no multitrack");
    }
}

#[test]
fn commands_around_publishing_get_the_replies_that_publishers_wait_for() {
    let mut session = Session::new(Limits::default());
    feed(&mut session, &connect());
    session.output().clear();
    let key = || [Value::Null, "secret".into()];
    let mut answer = |name: &str, transaction: f64, arguments: &[Value]| {
        feed(&mut session, &command(0, name, transaction, arguments));
        replies(&mut session)
            .iter()
            .map(as_command)
            .map(|reply| (reply.name, reply.transaction, reply.arguments[1].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(answer("releaseStream", 2.0, &key()), [("_result".into(), 2.0, Value::Undefined)]);
    let fc_publish = answer("FCPublish", 3.0, &key());
    assert_eq!(fc_publish[0], ("_result".into(), 3.0, Value::Undefined));
    assert_eq!((&*fc_publish[1].0, fc_publish[1].2.get("code")), ("onFCPublish", Some(&"NetStream.Publish.Start".into())));
    assert_eq!(answer("createStream", 4.0, &[Value::Null]), [("_result".into(), 4.0, Value::Number(1.0))]);
    assert_eq!(answer("getStreamLength", 5.0, &key()), [("_result".into(), 5.0, Value::Number(0.0))]);
    assert_eq!(answer("_checkbw", 6.0, &[Value::Null]), [("_result".into(), 6.0, Value::Undefined)]);
    let play = answer("play", 0.0, &key());
    assert_eq!((&*play[0].0, play[0].2.get("level")), ("onStatus", Some(&"error".into())));
    assert_eq!(answer("somethingElse", 7.0, &[Value::Null])[0].0, "_error");
    assert_eq!(answer("somethingElse", 0.0, &[Value::Null]), []);
    assert_eq!(answer("_error", 9.0, &[Value::Null]), []);
}

#[test]
fn what_comes_after_publish_waits_for_the_answer() {
    let mut session = Session::new(Limits::default());
    let bytes = [connect(), publish("secret?token=1"), tag(kind::AUDIO, 7, b"sound")].concat();
    let mut input = &bytes[..];
    assert_eq!(session.input(&mut input), Ok(Some(Event::Publish { app: "live".into(), key: "secret".into() })));
    let waiting = input.len();
    assert_eq!(session.input(&mut input), Ok(None));
    assert_eq!(input.len(), waiting, "nothing was read");
    session.output().clear();
    session.accept_publish();
    let replies = replies(&mut session);
    assert_eq!(UserControl::read(&replies[0].payload), UserControl::StreamBegin(1));
    assert_eq!((status(&replies[1]), replies[1].stream), (("status".into(), "NetStream.Publish.Start".into()), 1));
    assert_eq!(session.input(&mut input), Ok(Some(media(kind::AUDIO, 7, b"sound"))));
}

#[test]
fn a_refused_publisher_gets_an_on_status_and_is_done() {
    let mut session = Session::new(Limits::default());
    let bytes = [connect(), publish("wrong"), publish("guess")].concat();
    let mut input = &bytes[..];
    assert!(matches!(session.input(&mut input), Ok(Some(Event::Publish { .. }))));
    session.output().clear();
    session.reject_publish("NetStream.Publish.BadName", "no stream has this key");
    assert_eq!(status(&replies(&mut session)[0]), ("error".into(), "NetStream.Publish.BadName".into()));
    assert_eq!(session.input(&mut input), Ok(Some(Event::Closed)));
    assert_eq!(session.input(&mut input), Ok(None));
    assert!(input.is_empty() && session.output().is_empty());
}

#[test]
fn media_is_handed_on_only_while_publishing() {
    let mut session = Session::new(Limits::default());
    assert_eq!(feed(&mut session, &[connect(), tag(kind::VIDEO, 0, b"early")].concat()), []);
    feed(&mut session, &publish("secret"));
    assert_eq!(feed(&mut session, &tag(kind::VIDEO, 1, b"now")), [media(kind::VIDEO, 1, b"now")]);
    let other_stream = command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(9.0)]);
    assert_eq!(feed(&mut session, &other_stream), []);
    let stop = command(0, "FCUnpublish", 6.0, &[Value::Null, "secret".into()]);
    let delete = command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)]);
    assert_eq!(feed(&mut session, &[stop, delete, tag(kind::VIDEO, 2, b"late")].concat()), [Event::Unpublish]);
    assert_eq!(feed(&mut session, &publish("other")), [Event::Publish { app: "live".into(), key: "other".into() }]);
    assert_eq!(feed(&mut session, &command(0, "close", 0.0, &[])), [Event::Closed]);
}

#[test]
fn each_way_to_stop_stops() {
    let ways = [
        command(1, "closeStream", 0.0, &[Value::Null]),
        command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]),
        command(0, "FCUnpublish", 0.0, &[Value::Null, "secret".into()]),
        command(1, "publish", 0.0, &[Value::Null, Value::Boolean(false)]),
    ];
    for way in ways {
        assert_eq!(feed(&mut published(), &way), [Event::Unpublish]);
    }
}

#[test]
fn a_second_publish_on_a_connection_is_refused_and_the_first_goes_on() {
    let mut session = published();
    assert_eq!(feed(&mut session, &publish("other")), []);
    assert_eq!(status(&replies(&mut session)[0]), ("error".into(), "NetStream.Publish.BadName".into()));
    assert_eq!(feed(&mut session, &tag(kind::AUDIO, 3, b"on")), [media(kind::AUDIO, 3, b"on")]);
}

#[test]
fn reconnecting_is_asked_only_of_those_who_understand() {
    assert!(!published().request_reconnect("going away", None));
    let mut session = Session::new(Limits::default());
    let object = Value::object([("app", "live".into()), ("capsEx", Value::Number(5.0))]);
    feed(&mut session, &[command(0, "connect", 1.0, &[object]), publish("secret")].concat());
    session.output().clear();
    assert!(session.request_reconnect("going away", Some("rtmp://other/live")));
    let reply = replies(&mut session).remove(0);
    assert_eq!((status(&reply), reply.stream), (("status".into(), "NetConnection.Connect.ReconnectRequest".into()), 0));
    assert_eq!(as_command(&reply).arguments[1].get("tcUrl"), Some(&"rtmp://other/live".into()));
    assert_eq!(feed(&mut session, &tag(kind::AUDIO, 1, b"still")), [media(kind::AUDIO, 1, b"still")]);
}

#[test]
fn the_tags_of_an_aggregate_come_one_by_one() {
    let one = |time: u8, body: u8| [&[kind::AUDIO, 0, 0, 1, 0, 0, time, 0, 0, 0, 0, body][..], &[0, 0, 0, 12]].concat();
    let events = feed(&mut published(), &tag(kind::AGGREGATE, 100, &[one(5, b'a'), one(9, b'b')].concat()));
    assert_eq!(events, [media(kind::AUDIO, 100, b"a"), media(kind::AUDIO, 104, b"b")]);
}

#[test]
fn flash_clients_publish_with_amf3_commands() {
    let mut session = Session::new(Limits::default());
    feed(&mut session, &connect());
    let body = [&[0][..], &body("publish", 5.0, &[Value::Null, "secret".into()])].concat();
    let asked = feed(&mut session, &message(1, kind::COMMAND_AMF3, 0, &body));
    assert_eq!(asked, [Event::Publish { app: "live".into(), key: "secret".into() }]);
    let data = message(1, kind::DATA_AMF3, 4, b"\0\x02\0\x0aonMetaData");
    assert_eq!(feed(&mut session, &data), [media(kind::DATA_AMF0, 4, b"\x02\0\x0aonMetaData")]);
}

// What made rml_rtmp panic, abort, stall or lie: facts/media.md.

#[test]
fn deep_amf_before_connect_is_an_error() {
    let deep = [&b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0"[..], &b"\x0a\0\0\0\x01".repeat(12_000)].concat();
    let error = Session::new(Limits::default()).input(&mut &message(0, kind::COMMAND_AMF0, 0, &deep)[..]);
    assert_eq!(error, Err(SessionError::Command(CommandError::Amf(AmfError::Depth(8)))));
}

#[test]
fn a_hundred_kilobytes_before_publish_are_an_error() {
    let error = Session::new(Limits::default()).input(&mut &message(0, kind::COMMAND_AMF0, 0, &[0x0a; 100_000])[..]);
    assert_eq!(error, Err(SessionError::Chunk(ChunkError::TooLong { length: 100_000, limit: 64 << 10 })));
}

#[test]
fn short_commands_and_commands_out_of_turn_are_survived() {
    let mut session = Session::new(Limits::default());
    let early = [b"\x02\0\x07publish".to_vec(), b"\x02\0\x0ccreateStream\x05".to_vec()];
    for body in &early {
        assert_eq!(feed(&mut session, &message(0, kind::COMMAND_AMF0, 0, body)), []);
    }
    feed(&mut session, &[connect(), connect()].concat());
    assert_eq!(as_command(replies(&mut session).last().unwrap()).name, "_error");
    assert!(matches!(feed(&mut session, &message(1, kind::COMMAND_AMF0, 0, b"\x02\0\x07publish"))[..], [Event::Publish { .. }]));
}

#[test]
fn dates_long_strings_and_typed_objects_in_metadata_lose_nothing() {
    let metadata = b"\x02\0\x0aonMetaData\x10\0\x01C\0\x01d\x0b\0\0\0\0\0\0\0\0\0\0\0\x01l\x0c\0\0\0\x01x\0\0\x09";
    let events = feed(&mut published(), &[tag(kind::DATA_AMF0, 0, metadata), tag(kind::AUDIO, 1, b"on")].concat());
    assert_eq!(events, [media(kind::DATA_AMF0, 0, metadata), media(kind::AUDIO, 1, b"on")]);
}

#[test]
fn unknown_user_control_and_message_types_are_passed_over() {
    let noise = [message(0, kind::USER_CONTROL, 0, &[0, 99, 1]), message(0, 77, 0, b"?"), message(0, kind::SHARED_OBJECT_AMF0, 0, b"?")];
    let events = feed(&mut published(), &[noise.concat(), tag(kind::AUDIO, 1, b"on")].concat());
    assert_eq!(events, [media(kind::AUDIO, 1, b"on")]);
}

#[test]
fn pings_are_answered() {
    let mut session = published();
    feed(&mut session, &message(0, kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]));
    assert_eq!(UserControl::read(&replies(&mut session)[0].payload), UserControl::PingResponse(0x0102_0304));
}

#[test]
fn what_came_before_an_error_is_handed_on() {
    let mut session = published();
    let bytes = [tag(kind::AUDIO, 1, b"good"), vec![0xff; 20]].concat();
    let mut input = &bytes[..];
    assert_eq!(session.input(&mut input), Ok(Some(media(kind::AUDIO, 1, b"good"))));
    assert!(matches!(session.input(&mut input), Err(SessionError::Chunk(ChunkError::NoPredecessor { .. }))));
}

#[test]
fn acknowledgements_tell_the_running_total() {
    let mut session = published();
    feed(&mut session, &message(0, kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 0, &10_000u32.to_be_bytes()));
    let mut totals = Vec::new();
    for time in 0..4 {
        feed(&mut session, &tag(kind::VIDEO, time, &[7; 10_000]));
        for reply in replies(&mut session).iter().filter(|reply| reply.kind == kind::ACKNOWLEDGEMENT) {
            totals.push((u64::from(reply.payload.clone().get_u32()), session.received()));
        }
    }
    assert_eq!(totals.len(), 4);
    assert!(totals.iter().all(|(said, received)| said == received), "{totals:?}");
}

#[test]
fn a_peer_that_asks_and_never_reads_is_cut() {
    let mut session = published();
    let ping = message(0, kind::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 0]).repeat(100_000);
    let mut input = &ping[..];
    let error = session.input(&mut input);
    assert_eq!(error, Err(SessionError::Output(256 << 10)));
    assert!(session.output().len() < 300 << 10);
}

#[test]
fn huge_claims_before_and_after_publish_hold_little() {
    let claim = |length: u32| [&[6, 0, 0, 0][..], &length.to_be_bytes()[1..], &[kind::VIDEO, 1, 0, 0, 0], &[7; 100]].concat();
    let mut stranger = Session::new(Limits::default());
    assert!(stranger.input(&mut &claim(8 << 20)[..]).is_err());
    let mut session = published();
    feed(&mut session, &claim(8 << 20));
    assert_eq!(session.assembling(), 4096);
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), started in any::<bool>()) {
        let mut session = if started { published() } else { Session::new(Limits::default()) };
        let mut input = &bytes[..];
        while let Ok(Some(event)) = session.input(&mut input) {
            if matches!(event, Event::Publish { .. }) {
                session.accept_publish();
            }
        }
    }

    #[test]
    fn noisy_commands_never_panic(name in "connect|publish|createStream|deleteStream|play", noise in proptest::collection::vec(0u8..0x12, 0..60)) {
        let body = [&[2, 0, name.len() as u8][..], name.as_bytes(), &noise].concat();
        let mut session = Session::new(Limits::default());
        let bytes = [connect(), message(1, kind::COMMAND_AMF0, 0, &body)].concat();
        let mut input = &bytes[..];
        while let Ok(Some(event)) = session.input(&mut input) {
            if matches!(event, Event::Publish { .. }) {
                session.accept_publish();
            }
        }
    }
}
