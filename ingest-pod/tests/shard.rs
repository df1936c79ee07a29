//! A shard with real publishers (ffmpeg) and readers, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod common;

use bytes::Bytes;
use common::*;
use lectern_contract::feed::{Codec, FeedFrame, Track};
use lectern_contract::relay::Asked;
use lectern_contract::report::Publisher;
use lectern_contract::{KeyHash, TICKS_PER_SECOND, Ticks, WallMillis};
use lectern_ingest_pod::routes::Route;
use lectern_ingest_pod::shard::Admission;
use lectern_ingest_pod::stream::Limits;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_reader_gets_configs_a_keyframe_first_and_times_that_grow() {
    let shard = TestShard::with_a_stream().await;
    let mut reader = shard.read(None).await;
    shard.publish_two_seconds().await;
    let frames = reader.until_a_stop().await;

    assert!(matches!(frames[0], FeedFrame::Config { track: Track::Video, codec: Codec::H264, .. }));
    assert!(matches!(frames[1], FeedFrame::Config { track: Track::Audio, codec: Codec::Aac, .. }));
    let units = units(&frames);
    assert!(units[0].track == Track::Video && units[0].keyframe);
    assert_eq!(units.iter().filter(|unit| unit.track == Track::Video).count(), 60);
    assert_eq!(units.iter().filter(|unit| unit.track == Track::Video && unit.keyframe).count(), 2);
    assert!(units.iter().any(|unit| unit.track == Track::Audio));
    assert_times_grow(&units);
    assert!(units[0].dts >= Ticks(90_000));
    let Some(FeedFrame::Gap { from, .. }) = frames.last() else { panic!("no gap: {:?}", frames.last()) };
    assert!(units.iter().all(|unit| unit.dts < *from));
}

#[tokio::test]
async fn a_late_reader_starts_where_it_asks_to() {
    let shard = TestShard::with_a_stream().await;
    shard.publish_two_seconds().await;
    let all = shard.read(Some(Ticks(0))).await.until_a_stop().await;
    let newest = shard.read(None).await.until_a_stop().await;
    let keyframes: Vec<_> = units(&all).into_iter().filter(|unit| unit.track == Track::Video && unit.keyframe).collect();
    assert_eq!(units(&newest)[0], keyframes[1]);
    let before_the_second = Ticks(keyframes[1].dts.0 - 1);
    assert_eq!(shard.read(Some(before_the_second)).await.until_a_stop().await, all);
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_disturbs_nobody() {
    let shard = TestShard::with_a_stream().await;
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    let mut reader = shard.read(None).await;
    let before = reader.next_unit().await;

    let status = exit_of(publisher(shard.rtmp, "guessed", &["-t", "2"])).await;
    assert!(!status.success(), "{status}");

    let reports = shard.shard.reports();
    let Publisher::Publishing { codecs, picture, .. } = &reports[0].publisher else { panic!("{reports:?}") };
    assert_eq!(codecs.len(), 2, "{codecs:?}");
    assert!(codecs[0].starts_with("avc1.") && codecs[1] == "mp4a.40.2", "{codecs:?}");
    assert_eq!(*picture, Some((320, 180)));
    let mut newest = before.dts;
    for _ in 0..60 {
        match reader.next().await {
            FeedFrame::AccessUnit(unit) => newest = newest.max(unit.dts),
            other => panic!("the lecturer was disturbed: {other:?}"),
        }
    }
    assert!(newest > before.dts);
}

#[tokio::test]
async fn a_reconnect_continues_the_timeline_after_a_gap() {
    let shard = TestShard::with_a_stream().await;
    let mut reader = shard.read(None).await;
    shard.publish_two_seconds().await;
    let mut frames = reader.until_a_stop().await;
    assert!(matches!(&shard.shard.reports()[0].publisher, Publisher::Gone { .. }));
    shard.publish_two_seconds().await;
    let again = reader.until_a_stop().await;

    let Some(FeedFrame::Gap { from, .. }) = frames.last().cloned() else { panic!("no gap") };
    assert!(!again.iter().any(|frame| matches!(frame, FeedFrame::Config { .. })), "nothing about the codecs is new");
    let pictures: Vec<_> = units(&again).into_iter().filter(|unit| unit.track == Track::Video).collect();
    assert!(pictures[0].keyframe && pictures[0].dts >= from, "{:?} after {from:?}", pictures[0].dts);
    frames.extend(again);
    assert_times_grow(&units(&frames));
}

/// A shard's machine may have the wrong time; what it sends to those who know the run from another must still be new to them.
#[tokio::test]
async fn a_shard_whose_clock_is_an_hour_behind_goes_on_where_its_readers_are() {
    let shard = TestShard::start(Limits::default()).await;
    let route = shard.own_route();
    shard.route([Route { anchor: WallMillis(route.anchor.0 + 3_600_000), ..route }]);
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    let mut first = shard.read(Some(Ticks(0))).await;
    let before = first.next_unit().await;

    let reached = Ticks(before.dts.0 + 3600 * TICKS_PER_SECOND);
    let mut known = shard.read(Some(reached)).await;
    let mut seen = vec![before];
    guarded("the run's time to be set forward", async {
        while seen.last().is_none_or(|unit| unit.dts <= reached) {
            seen.push(first.next_unit().await);
        }
    })
    .await;
    assert_times_grow(&seen.iter().collect::<Vec<_>>());
    let again = seen.last().unwrap();
    assert!(again.dts < Ticks(reached.0 + 10 * TICKS_PER_SECOND), "it went on at {}, not at {reached}", again.dts);
    assert!(again.track == Track::Audio || again.keyframe, "nobody can begin there");
    while known.next_unit().await.dts <= reached {}

    // Who was there when the clock was set is not ahead of it, and whoever comes back moves nothing.
    let newest = first.next_unit().await.dts;
    shard.read(Some(newest)).await.next_unit().await;
    let next = first.next_unit().await.dts;
    assert!(next < Ticks(newest.0 + TICKS_PER_SECOND), "{newest} was followed by {next}");
}

/// A reader that knows the run from another owner tells what time it is, before anybody has had what was placed an hour too late.
#[tokio::test]
async fn a_shard_whose_clock_is_an_hour_ahead_goes_on_where_its_readers_are() {
    let shard = TestShard::start(Limits::default()).await;
    let route = shard.own_route();
    shard.route([Route { anchor: WallMillis(route.anchor.0 - 3_600_000), ..route }]);
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    guarded("pictures that are an hour late", async {
        let newest = || match &shard.shard.reports().first()?.publisher {
            Publisher::Publishing { newest, .. } => Some(*newest),
            _ => None,
        };
        while newest().is_none_or(|newest| newest < Ticks(3600 * TICKS_PER_SECOND)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let known = Ticks(100 * TICKS_PER_SECOND);
    let mut reader = shard.read_as_of(Some(known), known.plus(Ticks(3 * TICKS_PER_SECOND))).await;
    let first = reader.next_unit().await;
    assert!(first.dts > known && first.dts < Ticks(130 * TICKS_PER_SECOND), "it went on at {}", first.dts);
    // Whoever comes later, and whatever it says, finds the run where it is.
    let mut late = shard.read_as_of(None, Ticks(10)).await;
    let mut seen = vec![first];
    for _ in 0..60 {
        seen.push(reader.next_unit().await);
    }
    assert_times_grow(&seen.iter().collect::<Vec<_>>());
    assert!(late.next_unit().await.dts > known);
    // A publisher that returns is placed by the clock that was set.
    assert!(seen.last().unwrap().dts < Ticks(150 * TICKS_PER_SECOND));
}

/// As one that a lecture moves to: it asks from the segment on that the owner has not begun.
#[tokio::test]
async fn a_reader_that_asks_a_segment_ahead_of_the_media_does_not_move_the_time() {
    let shard = TestShard::with_a_stream().await;
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    let mut reader = shard.read(Some(Ticks(0))).await;
    let newest = reader.next_unit().await.dts;
    let _successor = shard.read(Some(Ticks(newest.0 + 4 * TICKS_PER_SECOND))).await;
    for _ in 0..60 {
        let next = reader.next_unit().await.dts;
        assert!(next < Ticks(newest.0 + 4 * TICKS_PER_SECOND), "{newest} was followed by {next}");
    }
}

#[tokio::test]
async fn the_newest_publisher_wins() {
    let shard = TestShard::with_a_stream().await;
    let first = publisher(shard.rtmp, "secret", &[]);
    let mut reader = shard.read(None).await;
    reader.next_unit().await;
    let _second = publisher(shard.rtmp, "secret", &[]);
    assert!(!exit_of(first).await.success());
    let frames = reader.until_a_stop().await;
    assert!(matches!(frames.last(), Some(FeedFrame::Gap { reason, .. }) if reason.contains("took over")));
    reader.next_unit().await;
    assert!(matches!(shard.shard.reports()[0].publisher, Publisher::Publishing { .. }));
}

#[tokio::test]
async fn an_ended_route_closes_the_publisher_and_ends_readers() {
    let shard = TestShard::with_a_stream().await;
    let lecturer = publisher(shard.rtmp, "secret", &[]);
    let mut reader = shard.read(None).await;
    reader.next_unit().await;
    shard.route([Route { ended: true, ..shard.own_route() }]);
    assert!(!exit_of(lecturer).await.success());
    assert_eq!(reader.until_a_stop().await.last(), Some(&FeedFrame::End));
    assert!(!exit_of(publisher(shard.rtmp, "secret", &["-t", "2"])).await.success());
}

#[tokio::test]
async fn another_codec_is_refused_by_name() {
    let shard = TestShard::with_a_stream().await;
    let status = exit_of(publisher_with(shard.rtmp, "secret", &["-t", "20"], &["-c:v", "flv1", "-c:a", "aac"])).await;
    assert!(!status.success(), "{status}");
    let reports = shard.shard.reports();
    assert!(matches!(&reports[0].publisher, Publisher::Gone { reason } if reason.contains("H.263")), "{reports:?}");
}

#[tokio::test]
async fn a_shard_that_does_not_own_the_stream_hands_the_publisher_on() {
    let (door, owner) = (TestShard::start(Limits::default()).await, TestShard::start(Limits::default()).await);
    door.route([route_to(&owner.name)]);
    owner.route([route_to(&owner.name)]);
    let mut reader = owner.read(None).await;
    door.publish_two_seconds().await;
    let frames = reader.until_a_stop().await;
    assert_eq!(units(&frames).iter().filter(|unit| unit.track == Track::Video).count(), 60);
    assert_times_grow(&units(&frames));

    assert_eq!(door.read(None).await.next().await, FeedFrame::Moved { feed: format!("feed-of-{}", owner.name) });
    owner.route([]); // the owner knows no such key any more
    assert!(!exit_of(publisher(door.rtmp, "secret", &["-t", "2"])).await.success());
}

#[tokio::test]
async fn a_publisher_of_an_owner_that_is_away_is_refused() {
    let shard = TestShard::start(Limits::default()).await;
    shard.route([route_to(&"127.0.0.1:1".into())]);
    assert!(!exit_of(publisher(shard.rtmp, "secret", &["-t", "2"])).await.success());
}

#[tokio::test]
async fn a_reader_that_is_too_slow_goes_on_at_a_keyframe_after_a_gap() {
    const GROUP: usize = 10;
    let shard = TestShard::start(Limits { bytes: 1 << 20, ..Limits::default() }).await;
    shard.route([shard.own_route()]);
    let Ok(Admission::Here(mut publication)) = shard.shard.admit(&KeyHash::of("secret"), "a test", Asked::NOW) else { panic!("refused") };
    publication.configure(Codec::H264, record().into()).unwrap();
    let mut at = 0;
    let mut publish = |frames: usize| {
        for _ in 0..frames {
            let keyframe = (at as usize).is_multiple_of(GROUP);
            publication.picture(at * 33, 0, keyframe, picture(keyframe)).unwrap();
            at += 1;
        }
    };
    publish(1);
    let mut reader = FeedClient::open(shard.feed, None, Some(4096)).await;
    reader.next_unit().await;
    publish(4000); // 64 MiB: more than the ring and any socket buffers

    loop {
        let frames = reader.until_a_stop().await;
        if matches!(frames.last(), Some(FeedFrame::Gap { reason, .. }) if reason.contains("too slow")) {
            break;
        }
    }
    assert!(reader.next_unit().await.keyframe);
    assert!(shard.metrics.feed_lapses.get() >= 1);
}

#[tokio::test]
async fn broken_chunks_cost_one_connection() {
    let shard = TestShard::with_a_stream().await;
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    let mut reader = shard.read(None).await;
    reader.next_unit().await;

    let mut hostile = TcpStream::connect(shard.rtmp).await.unwrap();
    shake_hands(&mut hostile).await;
    // A chunk without a predecessor (a type 3 header on a chunk stream that was never opened).
    hostile.write_all(&[0xc7, 0, 0, 0]).await.unwrap();
    guarded("the hostile connection to be closed", async { while hostile.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} })
        .await;

    for _ in 0..30 {
        assert!(matches!(reader.next().await, FeedFrame::AccessUnit(_)));
    }
}

async fn shake_hands(socket: &mut TcpStream) {
    let mut handshake = Handshake::new(PeerType::Client);
    socket.write_all(&handshake.generate_outbound_p0_and_p1().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).await.unwrap();
        match handshake.process_bytes(&buffer[..count]).unwrap() {
            HandshakeProcessResult::InProgress { response_bytes } => socket.write_all(&response_bytes).await.unwrap(),
            HandshakeProcessResult::Completed { response_bytes, .. } => return socket.write_all(&response_bytes).await.unwrap(),
        }
    }
}

/// A NAL unit of 16 KiB: an IDR picture or another.
fn picture(keyframe: bool) -> Bytes {
    let mut unit = vec![0; 16 * 1024];
    unit[..4].copy_from_slice(&(16 * 1024 - 4u32).to_be_bytes());
    unit[4] = if keyframe { 0x65 } else { 0x41 };
    unit.into()
}

#[tokio::test]
async fn what_a_publisher_says_stands_where_it_was_said() {
    let shard = TestShard::with_a_stream().await;
    let remarks = std::env::temp_dir().join(format!("lectern-remarks-{}.srt", std::process::id()));
    std::fs::write(&remarks, "1\n00:00:00,500 --> 00:00:01,000\nSlide 1\n\n2\n00:00:01,000 --> 00:00:01,500\nSlide 2\n\n").unwrap();
    let file = ["-i", remarks.to_str().unwrap()];
    let codecs =
        ["-map", "0:v", "-map", "1:a", "-map", "2:s", "-t", "2", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-c:s", "text"];
    assert!(exit_of(publisher_with(shard.rtmp, "secret", &file, &codecs)).await.success());
    std::fs::remove_file(&remarks).unwrap();

    let frames = shard.read(Some(Ticks(0))).await.until_a_stop().await;
    let mut said = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        let FeedFrame::Metadata(metadata) = frame else { continue };
        let newest = units(&frames[..at]).iter().map(|unit| unit.dts).max();
        assert_eq!(Some(metadata.at), newest, "the time of what came before it");
        said.push((metadata.name.as_str(), metadata.value.as_str()));
    }
    let slide = |number| format!(r#"{{"text":"Slide {number}","type":"Text"}}"#);
    assert_eq!(said, [("onTextData", slide(1).as_str()), ("onTextData", slide(2).as_str())]);
}
