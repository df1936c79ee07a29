//! The whole pod: supervisor, children, S3 and SQS (MiniStack), a feed; judged by what is in the bucket at the end.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stage.rs"]
mod stage;

use bytes::{Bytes, BytesMut};
use common::captions::{captioned, pop_on};
use common::way::Way;
use common::{folder, lecture, shard, tool};
use lectern_cloud::testing::Backend;
use lectern_cloud::{Delivery, Objects, Queue};
use lectern_contract::document::Mark;
use lectern_contract::feed::{FeedFrame, TimedMetadata};
use lectern_contract::head::Head;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::message::Message as _;
use lectern_contract::push::{PushFrame, PushRequest};
use lectern_contract::{Epoch, Owner, SegmentNumber, StreamRef, Ticks, VideoCodec};
use mp4_atom::{Any, Decode as _, EmsgTimestamp};
use stage::{Pod, Stage, until_said};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_lecture_is_taken_published_and_closed() {
    let stage = Stage::set(lecture("pod", 6, Ticks(90_000), &[])).await;
    let pod = Pod::start("pod-a", &stage.backend);
    let head = stage.until("an address", Duration::from_secs(20), |head| head.address.is_some()).await;
    let measured = pod.until_measured(&["lectern_transcoder_job_age_seconds_count 1", "lectern_transcoder_busy_slots 1"]);
    let ((pushed, held), ()) = tokio::join!(pushed(head.address.as_deref().unwrap()), measured);
    assert!(pushed.ends_with(&["Ended".to_owned()]), "{pushed:?}");
    let at = |name: &str| pushed.iter().position(|pushed| pushed == name).unwrap_or_else(|| panic!("{name} was not pushed: {pushed:?}"));
    for name in ["360p", "180p", "audio"] {
        let order = ["init-0.mp4", "0.m4s", "live.m3u8"].map(|file| at(&format!("{name}/{file}")));
        assert!(order.is_sorted() && order[2] < at("live.m3u8") && order[2] < at("live.mpd"), "{pushed:?}");
        assert!(at(&format!("{name}/1.m4s")) > order[2], "pushed as it is made");
    }
    stage.until("the end", Duration::from_secs(20), |head| head.ended).await;
    for (rendition, numbers) in stage.numbers().await {
        assert_eq!(numbers, [0, 1, 2, 3], "{rendition}");
        // An origin joins parts to the same segments that S3 has; the first and the last are shorter.
        for number in 0..4 {
            let stored = stage.get(&ObjectName::Segment(rendition.clone(), SegmentNumber(number))).await.unwrap();
            assert_eq!(held[&format!("{rendition}/{number}.m4s")], stored, "{rendition}/{number}");
        }
        let parts = (0..8).filter(|part| pushed.contains(&format!("{rendition}/1.{part}.m4s")));
        assert_eq!(parts.count(), 6, "{pushed:?}");
    }
    let stored = stage.get(&ObjectName::MediaPlaylist("360p".into())).await.unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("PART"), "parts are not in S3");
    stage.play("pod-play").await;
    pod.until_measured(&["lectern_transcoder_job_age_seconds_count 1", "lectern_transcoder_busy_slots 0"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.queue.receive_within(Duration::from_secs(6), Duration::from_secs(7)).await.unwrap(), None, "the message is gone");
}

/// A message that is delivered ten times in vain is taken for one that kills whoever takes it.
#[tokio::test]
async fn a_job_that_fits_no_pod_is_not_lost_and_goes_to_the_first_that_it_fits() {
    let stage = Stage::set(lecture("budget", 4, Ticks(90_000), &[])).await;
    let log = folder("budget-log").join("small");
    let writer = std::fs::File::create(&log).unwrap();
    // The ladder costs 10.4 megapixels a second: each of these passes it on, and looks again when it has had the time to.
    let start = |n| {
        let budget = ["--megapixels-per-second", "10"];
        Pod::start_with(&format!("small-{n}"), &stage.backend, &budget, writer.try_clone().unwrap().into())
    };
    let _small: Vec<Pod> = (0..6).map(start).collect();
    let since = Instant::now();
    loop {
        let said = std::fs::read_to_string(&log).unwrap();
        if said.matches("a job does not fit here now").count() > 10 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(90), "it is not looked at eleven times:\n{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(stage.head().await, None, "nobody takes what does not fit");
    let _large = Pod::start_with("large", &stage.backend, &["--megapixels-per-second", "11"], Stdio::inherit());
    let head = stage.until("the end", Duration::from_secs(40), |head| head.ended).await;
    assert!(head.owner.0.starts_with("large/"), "{head:?}");
}

/// A connection over which a packager pushes `run`.
async fn subscribed(address: &str, run: &str) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut bytes = BytesMut::new();
    PushRequest::Objects(run.into()).encode(&mut bytes);
    socket.write_all(&bytes).await.unwrap();
    socket
}

/// All that a packager pushes, by path in the order pushed, as an origin holds it at the end. What a playlist names was
/// pushed before it.
async fn pushed(address: &str) -> (Vec<String>, BTreeMap<String, Bytes>) {
    let mut socket = subscribed(address, "r1").await;
    let (mut input, mut names, mut held) = (BytesMut::new(), Vec::new(), BTreeMap::new());
    while socket.read_buf(&mut input).await.unwrap() > 0 {
        while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
            let name = match frame {
                PushFrame::Object { name, body } => {
                    if let Some((folder, "live.m3u8")) = name.split_once('/') {
                        for uri in named(std::str::from_utf8(&body).unwrap()) {
                            assert!(held.contains_key(&format!("{folder}/{uri}")), "{name} names {uri} before it was pushed");
                        }
                    }
                    held.insert(name.clone(), body);
                    name
                }
                PushFrame::Joined { name, parts } => {
                    let stem = name.strip_suffix(".m4s").unwrap();
                    let whole: Vec<u8> = (0..parts).flat_map(|part| held[&format!("{stem}.{part}.m4s")].to_vec()).collect();
                    held.insert(name.clone(), whole.into());
                    name
                }
                PushFrame::Serving { .. } => continue,
                other => format!("{other:?}"),
            };
            names.push(name);
        }
    }
    (names, held)
}

/// The lecture with something said after every twentieth access unit; and when.
fn remarked(frames: Vec<FeedFrame>) -> (Vec<FeedFrame>, Vec<u64>) {
    let (mut remarked, mut times) = (Vec::new(), Vec::new());
    for (count, frame) in frames.into_iter().enumerate() {
        let at = if let FeedFrame::AccessUnit(unit) = &frame { Some(unit.dts) } else { None };
        remarked.push(frame);
        if let Some(at) = at.filter(|at| count % 20 == 19 && times.last().is_none_or(|last| last < &at.0)) {
            times.push(at.0);
            remarked.push(FeedFrame::Metadata(TimedMetadata { at, name: "onTextData".into(), value: times.len().to_string() }));
        }
    }
    (remarked, times)
}

/// The times of a segment's event messages.
fn events(mut segment: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || Any::decode(&mut segment).ok()).filter_map(|atom| match atom {
        Any::Emsg(emsg) => match emsg.presentation_time {
            EmsgTimestamp::Absolute(at) => Some(at),
            EmsgTimestamp::Relative(_) => None,
        },
        _ => None,
    })
}

/// The files that a media playlist says are there.
fn named(playlist: &str) -> impl Iterator<Item = &str> {
    playlist.lines().filter_map(|line| match line.split_once(':') {
        Some(("#EXT-X-PART" | "#EXT-X-MAP", attributes)) => attributes.split("URI=\"").nth(1)?.split('"').next(),
        _ => (!line.starts_with('#')).then_some(line),
    })
}

#[tokio::test]
async fn captions_of_the_pictures_become_text_from_when_there_is_something_to_read() {
    let lecture = lecture("captions", 8, Ticks(90_000), &[]);
    // The first picture is shown at 1.07 s, so this one is seen from 3 s to 5 s.
    let frames = captioned(lecture, VideoCodec::H264, 30, pop_on("Good morning", 58, 118));
    let stage = Stage::set(frames).await;
    let _pod = Pod::start("pod-a", &stage.backend);
    let head = stage.until("an address", Duration::from_secs(20), |head| head.address.is_some()).await;
    let (pushed, held) = pushed(head.address.as_deref().unwrap()).await;
    let at = |name: &str| pushed.iter().position(|pushed| pushed == name).unwrap_or_else(|| panic!("{name} was not pushed: {pushed:?}"));
    assert!(at("captions/1.vtt") < at("captions/live.m3u8"), "{pushed:?}");
    stage.until("the end", Duration::from_secs(20), |head| head.ended).await;

    let segment = |number| ObjectName::segment("captions", SegmentNumber(number));
    assert_eq!(stage.get(&segment(0)).await, None, "there was nothing to read");
    let said = [stage.text(segment(1)).await, stage.text(segment(2)).await, stage.text(segment(3)).await];
    let shape = |from: &str, to: &str| format!("\n{from} --> {to} line:84.67% position:10.00% align:start\nGood morning\n");
    assert!(said[0].ends_with(&shape("00:00:03.000", "00:00:04.000")), "{said:?}");
    assert!(said[1].ends_with(&shape("00:00:04.000", "00:00:05.000")), "{said:?}");
    assert_eq!(said[2], "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.001,MPEGTS:90\n");
    assert!(said.iter().zip(1..).all(|(text, number)| held[&format!("captions/{number}.vtt")] == *text), "origins have the same");
    assert_eq!(stage.numbers().await["captions"], [1, 2, 3, 4]);

    let (top, media) = (stage.text(ObjectName::Multivariant).await, stage.text(ObjectName::MediaPlaylist("captions".into())).await);
    assert!(top.contains("INSTREAM-ID=\"CC1\"") && top.contains("URI=\"captions/live.m3u8\""), "{top}");
    assert!(media.contains("\n1.vtt\n") && media.ends_with("#EXT-X-ENDLIST\n") && !media.contains("EXT-X-MAP"), "{media}");
    let mpd = stage.text(ObjectName::Mpd).await;
    assert!(mpd.contains("urn:scte:dash:cc:cea-608:2015") && !mpd.contains("captions"), "{mpd}");
    // Another reader finds the same text at the same time.
    let copied = stage.copy("captions-play").await;
    let second = Path::new(&copied).with_file_name("captions").join("2.vtt");
    let read =
        tool("ffprobe", &["-v", "error", "-show_entries", "packet=pts_time,duration_time", "-of", "csv=p=0", second.to_str().unwrap()]);
    assert_eq!(read.trim().trim_end_matches(','), "4.000000,1.000000");
}

#[tokio::test]
async fn a_killed_child_is_replaced_and_no_segment_is_lost() {
    let said = pop_on("A caption that stays", 20, 400);
    let (frames, remarks) = remarked(captioned(lecture("killed", 14, Ticks(90_000), &[]), VideoCodec::H264, 30, said));
    let stage = Stage::set(frames).await;
    let pod = Pod::start("pod-a", &stage.backend);
    stage.until("two segments", Duration::from_secs(30), |head| head.next_segment.0 >= 2).await;
    let _idle = Pod::start("pod-b", &stage.backend); // it has a free slot, and waits at the queue
    pod.kill_child();
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert!(head.owner.0.starts_with("pod-a/") && head.epoch == Epoch(2), "in the same pod, {head:?}");
    stage.has_all(0..8).await;
    assert!(stage.numbers().await.contains_key("captions"));
    let mut told = Vec::new();
    for number in 0..8 {
        let body = stage.get(&ObjectName::segment("audio", SegmentNumber(number))).await.unwrap();
        told.extend(events(&body).map(|at| (number, at)));
    }
    let wanted: Vec<_> = remarks.iter().map(|at| (at / 180_000, *at)).collect();
    assert_eq!(told, wanted, "what was said stands once, in the segment of its time");
    stage.play("killed-play").await;
}

/// A run's time begins before its media: whoever follows an owner that has stored nothing puts no slate there.
#[tokio::test]
async fn a_child_that_is_killed_before_it_has_made_anything_leaves_no_slate_before_the_lecture() {
    let stage = Stage::set(lecture("early", 10, Ticks(900_000), &[])).await;
    let pod = Pod::start("pod-a", &stage.backend);
    let head = stage.until("an owner", Duration::from_secs(30), |head| head.epoch == Epoch(1)).await;
    pod.kill_child();
    assert_eq!(head.next_segment, SegmentNumber(0));
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert_eq!(head.epoch, Epoch(2));
    stage.has_all(5..11).await;
}

/// It has the run, and its process is there: nobody but its supervisor can know.
#[tokio::test]
async fn a_child_that_hangs_is_replaced_and_no_segment_is_lost() {
    let stage = Stage::set(lecture("hung", 14, Ticks(90_000), &[])).await;
    let pod = Pod::start("pod-a", &stage.backend);
    stage.until("two segments", Duration::from_secs(30), |head| head.next_segment.0 >= 2).await;
    Pod::signal(&pod.children()[0], "-STOP");
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert_eq!(head.epoch, Epoch(2));
    stage.has_all(0..8).await;
    stage.play("hung-play").await;
}

/// From shortly before the next heartbeat on, so that when S3 and SQS are back the last one is 4.6 s old: more than a job may go on for unasked.
#[tokio::test]
async fn a_pod_that_reaches_nothing_for_three_seconds_keeps_its_lecture() {
    let stage = Stage::set(lecture("away", 14, Ticks(90_000), &[])).await;
    let mut way = Way::to(stage.backend.port(), "ChangeMessageVisibility").await;
    let _pod = Pod::start_at("pod-a", &way.endpoint, &stage.backend, &[], Stdio::inherit());
    stage.until("a segment", Duration::from_secs(30), |head| head.next_segment.0 >= 1).await;
    way.until_the_next().await;
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    way.is_away(Duration::from_secs(3)).await;
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert_eq!(head.epoch, Epoch(1), "the run changed hands");
    stage.has_all(0..8).await;
}

/// An owner that answers at its address keeps its run, and it is reached there all along: another can have the run only because this one has
/// stopped its child by itself, before its message came again.
#[tokio::test]
async fn a_pod_that_reaches_nothing_stops_and_another_goes_on() {
    let stage = Stage::set(lecture("fenced", 18, Ticks(90_000), &[])).await;
    let way = Way::to(stage.backend.port(), "ChangeMessageVisibility").await;
    let log = folder("fenced-log").join("pod-a");
    let writer = std::fs::File::create(&log).unwrap();
    let first = Pod::start_at("pod-a", &way.endpoint, &stage.backend, &[], writer.into());
    let head = stage.until("a segment", Duration::from_secs(30), |head| head.next_segment.0 >= 1).await;
    assert!(head.owner.0.starts_with("pod-a/") && head.epoch == Epoch(1), "{head:?}");
    let _second = Pod::start("pod-b", &stage.backend);
    way.is_gone();
    until_said(&log, "no heartbeat reached the queue; the child was stopped").await;
    assert!(first.children().is_empty(), "a child that was stopped");
    // As operators do when nobody speaks of a run: on a busy machine the message may have come again a moment too early, and found the child alive.
    stage.queue.send(&stage.job.to_message()).await.unwrap();
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert!(head.owner.0.starts_with("pod-b/") && head.epoch == Epoch(2), "{head:?}");
    stage.has_all(0..10).await;
    stage.play("fenced-play").await;
}

/// SQS delivers more than once, and operators send again what nobody answers for: a message of a run that has an owner, or has ended, is deleted, and
/// that is all.
#[tokio::test]
async fn what_comes_twice_or_too_late_changes_nothing() {
    let stage = Stage::set(lecture("twice", 18, Ticks(90_000), &[])).await;
    let again = stage.job.to_message();
    let _pods = ["pod-a", "pod-b"].map(|name| Pod::start(name, &stage.backend));
    let owner = stage.until("a segment", Duration::from_secs(30), |head| head.next_segment.0 >= 1).await.owner;
    // Who has the run has no slot left: the other pod takes it.
    stage.queue.send(&again).await.unwrap();
    stage.until_left(1).await;
    let head = stage.head().await.unwrap();
    assert!(head.owner == owner && head.epoch == Epoch(1), "{head:?}");
    assert!(!head.ended, "the run was over before a message could come in between, and shows nothing");
    // What was sent before that, and a call for a successor of an owner that nobody is any more: in whichever order they come.
    let older = LiveJob { attempt: 0, ..stage.job.clone() };
    let outdated = LiveJob { replaces: Some(Epoch(0)), ..stage.job.clone() };
    for late in [outdated, older] {
        stage.queue.send(&late.to_message()).await.unwrap();
        stage.until_left(1).await;
        let head = stage.head().await.unwrap();
        assert!(head.owner == owner && head.epoch == Epoch(1), "{head:?}");
    }

    stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    stage.until_left(0).await;
    let before = stage.stored().await;
    stage.queue.send(&again).await.unwrap();
    stage.until_left(0).await;
    assert_eq!(stage.stored().await, before, "somebody has written after the end");
    let head = stage.head().await.unwrap();
    assert!(head.owner == owner && head.epoch == Epoch(1) && head.ended, "{head:?}");
    assert_eq!(stage.queue.dead().depth().await.unwrap().all(), 0, "they are deleted, not given up");
    stage.has_all(0..10).await;
}

/// It goes on in the middle of whatever it did, with all that it has made meanwhile, and another has the run.
#[tokio::test]
async fn a_frozen_owner_that_goes_on_takes_nothing_back() {
    let stage = Stage::set(lecture("frozen", 18, Ticks(90_000), &[])).await;
    let first = Pod::start("pod-a", &stage.backend);
    stage.until("two segments", Duration::from_secs(30), |head| head.next_segment.0 >= 2).await;
    first.freeze(true);
    let seen = tokio::spawn(lists(stage.objects.clone(), stage.job.clone()));
    let _second = Pod::start("pod-b", &stage.backend);
    let head = stage.until("a new owner", Duration::from_secs(30), |head| head.owner.0.starts_with("pod-b")).await;
    stage.until("its second segment", Duration::from_secs(30), |now| now.next_segment.0 >= head.next_segment.0 + 2).await;
    first.freeze(false);
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert!(head.owner.0.starts_with("pod-b") && head.epoch == Epoch(2), "{head:?}");
    stage.has_all(0..10).await;
    let seen = seen.await.unwrap();
    assert!(seen.len() > 4 && seen.is_sorted(), "the playlist went back: {seen:?}");
    stage.play("frozen-play").await;
}

/// The marks of a rendition's playlist, each as it was read, until the run has ended.
async fn lists(objects: Objects, job: LiveJob) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    loop {
        let ended = objects.get(&job.prefix.key(&ObjectName::Ended)).await.unwrap().is_some();
        let list = objects.get(&job.prefix.key(&ObjectName::MediaPlaylist("360p".into()))).await.unwrap().unwrap();
        let text = String::from_utf8(list.body.to_vec()).unwrap();
        let mark = Mark::find(&text);
        let last = text.lines().rev().find_map(|line| line.strip_suffix(".m4s")?.parse::<u64>().ok());
        assert_eq!(mark.to.map(|to| to.0), last, "{text}");
        let now = (mark.epoch.0, last.unwrap());
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if ended {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Its successor encodes already when it stops: neither a segment is missing, nor is one made twice.
#[tokio::test]
async fn a_stopping_pod_moves_its_lecture_to_another() {
    let stage = Stage::set(lecture("moved", 18, Ticks(90_000), &[])).await;
    let first = Pod::start("pod-a", &stage.backend);
    let head = stage.until("two segments", Duration::from_secs(30), |head| head.next_segment.0 >= 2).await;
    let before = tokio::spawn(pushed_by(head.address.unwrap()));
    let _second = Pod::start("pod-b", &stage.backend);
    first.terminate();
    let moved = |head: &Head| head.owner.0.starts_with("pod-b") && head.address.is_some();
    let head = stage.until("a new owner", Duration::from_secs(30), moved).await;
    assert_eq!(head.epoch, Epoch(2));
    let address = head.address.unwrap();
    let told = tokio::spawn({
        let address = address.clone();
        async move { first_pushed(&address, "r1", "360p/live.m3u8").await }
    });
    let after = tokio::spawn(pushed_by(address));
    stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    stage.has_all(0..10).await;
    let (before, after) = (before.await.unwrap(), after.await.unwrap());
    let at = head.next_segment.0;
    assert!(before.iter().all(|number| *number < at) && before.contains(&(at - 1)), "{before:?} before {at}");
    assert!(after.iter().all(|number| *number >= at) && after.contains(&at), "{after:?} from {at} on");
    // Players that were at the predecessor's last part go on with parts.
    let told = String::from_utf8(told.await.unwrap().to_vec()).unwrap();
    assert!((0..6).all(|part| told.contains(&format!("URI=\"{}.{part}.m4s\"", at - 1))) && told.contains(&format!("{at}.0.m4s")), "{told}");
    stage.play("moved-play").await;
}

/// SQS hides a message for 12 hours in all: before they are over the run goes to another pod, with a message of its own.
#[tokio::test]
async fn a_lecture_whose_message_gets_old_moves_to_another_pod() {
    let stage = Stage::set(lecture("renewed", 18, Ticks(90_000), &[])).await;
    let soon = |name| Pod::start_with(name, &stage.backend, &["--renew-after-seconds", "5"], Stdio::inherit());
    let (_first, _second) = (soon("pod-a"), soon("pod-b"));
    let owner = stage.until("an owner", Duration::from_secs(30), |head| head.next_segment.0 >= 1).await.owner;
    let pod = |owner: &Owner| owner.0.split('/').next().unwrap_or_default().to_owned();
    let there = stage.until("another", Duration::from_secs(60), |head| head.owner != owner && head.address.is_some()).await.owner;
    assert_ne!(pod(&there), pod(&owner));
    // And so on: what the second has is a message of its own, and gets old in its time.
    let back = stage
        .until("a third", Duration::from_secs(60), |head| head.owner != owner && head.owner != there && head.address.is_some())
        .await
        .owner;
    assert_eq!(pod(&back), pod(&owner));
    stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    stage.has_all(0..10).await;
    stage.play("renewed-play").await;
}

/// The numbers of the whole segments of pictures that a packager pushes.
async fn pushed_by(address: String) -> Vec<u64> {
    let names = names_pushed_by(&address, "r1").await;
    names.iter().filter_map(|name| name.strip_prefix("360p/")?.strip_suffix(".m4s")?.parse().ok()).collect()
}

/// The first object of `run` that a packager pushes whose path begins so.
async fn first_pushed(address: &str, run: &str, start: &str) -> Bytes {
    let (mut socket, mut input) = (subscribed(address, run).await, BytesMut::new());
    while socket.read_buf(&mut input).await.unwrap() > 0 {
        while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
            if let PushFrame::Object { name, body } = frame
                && name.starts_with(start)
            {
                return body;
            }
        }
    }
    panic!("{start} was not pushed");
}

/// The paths of all that a packager pushes of `run`, until it is gone.
async fn names_pushed_by(address: &str, run: &str) -> Vec<String> {
    let (mut names, mut input) = (Vec::new(), BytesMut::new());
    let mut socket = subscribed(address, run).await;
    while socket.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
        while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
            if let PushFrame::Object { name, .. } | PushFrame::Joined { name, .. } = frame {
                names.push(name);
            }
        }
    }
    names
}

/// Nobody is there to go on: it lets go in time, and who comes later loses nothing.
#[tokio::test]
async fn a_stopping_pod_without_a_successor_lets_go() {
    let stage = Stage::set(lecture("handed", 14, Ticks(90_000), &[])).await;
    let first = Pod::start("pod-a", &stage.backend);
    stage.until("two segments", Duration::from_secs(30), |head| head.next_segment.0 >= 2).await;
    first.terminate();
    let ended = |head: &Head| head.ended || head.address.is_none();
    stage.until("its farewell", Duration::from_secs(60), ended).await;
    let _second = Pod::start("pod-b", &stage.backend);
    stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    stage.has_all(0..8).await;
    stage.play("handed-play").await;
}

/// Each child gets less to do than the one that died before it; when nothing helps, the job is given up, and its pod takes others. Nothing of that is
/// noticed by the lecture that the pod has beside it.
#[tokio::test]
async fn a_job_whose_children_die_is_done_with_ever_more_caution_and_then_parked() {
    let frames = lecture("poison", 40, Ticks(90_000), &[]);
    let mut stage = Stage::set(frames.clone()).await;
    let log = folder("poison").join("log");
    let pod = Pod::start_with("pod-a", &stage.backend, &["--slots", "2"], std::fs::File::create(&log).unwrap().into());
    stage.until("the neighbour's child", Duration::from_secs(30), |head| head.epoch == Epoch(1)).await;
    let (neighbour, spared) = (stage.job.clone(), pod.children());
    assert_eq!(spared.len(), 1, "{spared:?}");
    let (stream, run) = (StreamRef { name: "geometry".into(), ..neighbour.stream.clone() }, "r2".into());
    let (prefix, feed) = (RunPrefix::of(&stream, &run), shard::serve(frames).await.to_string());
    stage.job = LiveJob { stream, run, prefix, feed, ..neighbour.clone() };
    stage.queue.send(&stage.job.to_message()).await.unwrap();
    for epoch in 1..=5 {
        stage.until(&format!("child {epoch}"), Duration::from_secs(60), |head| head.epoch == Epoch(epoch)).await;
        pod.kill_child_beside(&spared);
    }
    let head = stage.until("the last child", Duration::from_secs(60), |head| head.epoch == Epoch(6)).await;
    let (address, next) = (head.address.unwrap(), head.next_segment.0);
    let slate_address = address.clone();
    let heard = tokio::spawn(async move { names_pushed_by(&address, "r2").await });
    stage.until("two segments of it", Duration::from_secs(60), |now| now.next_segment.0 >= next + 2).await;
    // The sound is quicker: its first segments may be counted before the slate has begun.
    first_pushed(&slate_address, "r2", "180p/init-").await;
    pod.kill_child_beside(&spared);
    // Of the lecture only the sound is encoded, and the slate in the lowest rendition.
    let mut inits: Vec<_> = heard.await.unwrap().into_iter().filter(|name| name.contains("init-")).collect();
    inits.sort();
    assert!(inits.len() == 2 && inits[0].starts_with("180p/") && inits[1].starts_with("audio/"), "{inits:?}");
    until_said(&log, "a job is given up").await;
    assert!(pod.children().iter().all(|child| spared.contains(child)), "a child of a job that was given up");
    assert!(
        stage.queue.receive_within(Duration::from_secs(1), Duration::from_secs(1)).await.unwrap().is_none(),
        "the job is in the queue again"
    );
    let letter = dead_letter(&stage.queue, Duration::from_secs(30)).await;
    assert_eq!(LiveJob::of_message(&letter.body).unwrap().run, stage.job.run);
    assert!(letter.reason.as_deref().is_some_and(|why| why.starts_with("the transcoder process crashed 6 times; last: ")), "{letter:?}");
    stage.job = neighbour;
    let head = stage.until("the neighbour's end", Duration::from_secs(60), |head| head.ended).await;
    assert_eq!(head.epoch, Epoch(1), "the neighbour's child died, too");
    stage.has_all(0..21).await;
}

/// Longer than a test.
const LONG: Duration = Duration::from_secs(600);

/// What is given up of `queue`'s messages.
async fn dead_letter(queue: &Queue, within: Duration) -> Delivery {
    let since = Instant::now();
    loop {
        if let Some(letter) = queue.dead().receive_within(LONG, Duration::from_secs(5)).await.unwrap() {
            return letter;
        }
        assert!(since.elapsed() < within, "nobody gives it up at {}", queue.at());
    }
}

/// A pod of a newer build may take it: only the last that gets it gives it up, be it a lecture's or the archive's.
#[tokio::test]
async fn a_message_that_is_no_job_goes_to_the_dead_letters_with_the_reason() {
    const NEWER: &str = r#"{"version":9,"kind":"live","run":"r2"}"#;
    let backend = Backend::ministack().await.unwrap();
    let _bucket = backend.objects("lectures").await.unwrap();
    let queues = [backend.queue("jobs").await.unwrap(), backend.queue("jobs-archive").await.unwrap()];
    for queue in &queues {
        queue.send(NEWER).await.unwrap();
        for _ in 0..9 {
            let delivery = queue.receive_within(LONG, Duration::from_secs(5)).await.unwrap().unwrap();
            assert!(!delivery.is_last());
            queue.extend(&delivery.receipt, Duration::ZERO).await.unwrap();
        }
    }
    let _pod = Pod::start("pod-a", &backend);
    for queue in &queues {
        let letter = dead_letter(queue, Duration::from_secs(60)).await;
        assert_eq!(letter.body, NEWER);
        assert_eq!(letter.reason.as_deref(), Some("its schema is version 9, and this build knows 1: it is for a newer one"));
        let since = Instant::now(); // it is deleted after it was sent
        while queue.depth().await.unwrap().all() > 0 {
            assert!(since.elapsed() < Duration::from_secs(5), "it is there and elsewhere");
        }
    }
}
