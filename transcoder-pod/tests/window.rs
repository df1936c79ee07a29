//! A live window that is longer than what a transcoder holds: what its playlists name, what origins get, and what a successor finds.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::{Bytes, BytesMut};
use common::claim;
use lectern_cloud::Objects;
use lectern_cloud::testing::Backend;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{Ledger, LedgerSegment};
use lectern_contract::push::PushFrame;
use lectern_contract::{AudioRendition, Epoch, SegmentNumber, Ticks};
use lectern_transcoder_pod::engine::{Encoded, Output};
use lectern_transcoder_pod::publish::{Listing, Live, NEWEST, Restored, list, restore};
use lectern_transcoder_pod::status::Status;
use lectern_transcoder_pod::studio::Studio;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// An AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1): AAC-LC, 48 kHz, two channels.
const STEREO: &[u8] = &[0x11, 0x90];
/// Samples in a frame of it.
const FRAME: u32 = 1024;

/// A lecture of sound alone, in segments of 2 s, of which `window_ms` can be gone back.
fn job(window_ms: u64) -> LiveJob {
    let job = claim::job(&serde_json::json!({ "video": [], "audio": [{ "name": "audio", "bitrate": 96_000 }] }));
    LiveJob { dvr_window_ms: Some(window_ms), ..job }
}

/// What an origin that comes now gets at once.
fn burst(live: &Live) -> BTreeMap<String, Bytes> {
    let mut input = BytesMut::from(&live.subscribe(&"r1".into()).0[..]);
    let mut objects = BTreeMap::new();
    while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
        if let PushFrame::Object { name, body } = frame {
            objects.insert(name, body);
        }
    }
    objects
}

/// The numbers that a playlist lists, and those of them that are gaps.
fn listed(playlist: &Bytes) -> (Vec<u64>, Vec<u64>) {
    let (mut all, mut gaps, mut gap) = (Vec::new(), Vec::new(), false);
    for line in std::str::from_utf8(playlist).unwrap().lines() {
        gap |= line == "#EXT-X-GAP";
        if let Some(number) = line.strip_suffix(".m4s") {
            all.push(number.parse().unwrap());
            if std::mem::take(&mut gap) {
                gaps.push(*all.last().unwrap());
            }
        }
    }
    (all, gaps)
}

/// With nobody who uploads: S3 is away, and what does not fit the backlog is given up.
#[test]
fn a_long_window_is_held_only_at_its_end_and_what_is_given_up_is_named_no_more() {
    let live = Live::new("r1".into());
    let (events, _heard) = mpsc::unbounded_channel();
    let mut studio = Studio::new(job(120_000), &Restored::default(), SegmentNumber(0), live.clone(), Status::default(), events);
    studio.holds_for_s3(40_000);
    studio.take(Output::Config { rendition: 0, of: 0, config: Bytes::from_static(STEREO) }).unwrap();
    for frame in 0..48_000 * 100 / FRAME {
        let start = u64::from(frame * FRAME);
        let sample = Encoded { start, duration: FRAME, sync: true, data: Bytes::from_static(b"sound") };
        studio.take(Output::Sample { rendition: 0, sample }).unwrap();
    }
    let objects = burst(&live);
    let (named, gaps) = listed(&objects["audio/live.m3u8"]);
    let (newest, waiting) = (*named.last().unwrap(), waiting(&studio)[0]);
    assert!(newest > 45 && (5..40).contains(&waiting), "{named:?}, and {waiting} wait");
    assert_eq!((named.len(), gaps), (waiting, vec![]), "the oldest are gone, and a playlist begins with no gap");
    let held: Vec<u64> = objects.keys().filter_map(|name| name.strip_prefix("audio/")?.strip_suffix(".m4s")?.parse().ok()).collect();
    assert_eq!(held.len(), NEWEST, "{held:?}");
    assert!(held.iter().all(|number| newest - number < NEWEST as u64), "{held:?}");
}

/// The segments that wait for S3, by rendition.
fn waiting(studio: &Studio) -> Vec<usize> {
    studio.backlogs().map(|(_, backlog)| backlog.waiting()).collect()
}

/// A lecture in two renditions of sound, of which one takes ten times as much, with so much of it as fits `bytes`.
fn two_renditions(bytes: usize) -> (Live, Studio) {
    let mut job = job(120_000);
    let best = AudioRendition { name: "best".into(), ..job.ladder.audio[0].clone() };
    job.ladder.audio.push(best);
    let (events, _) = mpsc::unbounded_channel();
    let live = Live::new("r1".into());
    let mut studio = Studio::new(job, &Restored::default(), SegmentNumber(0), live.clone(), Status::default(), events);
    studio.holds_for_s3(bytes);
    for rendition in [0, 1] {
        studio.take(Output::Config { rendition, of: rendition, config: Bytes::from_static(STEREO) }).unwrap();
    }
    for frame in 0..48_000 * 100 / FRAME {
        for (rendition, data) in [&[7; 40][..], &[7; 400]].into_iter().enumerate() {
            let sample = Encoded { start: u64::from(frame * FRAME), duration: FRAME, sync: true, data: Bytes::from_static(data) };
            studio.take(Output::Sample { rendition, sample }).unwrap();
        }
    }
    (live, studio)
}

/// A recording names no number that a rendition lacks (`manifest-lambda/src/plan.rs`): so one that is given up is of no use in the others.
#[test]
fn what_is_given_up_is_given_up_in_all_renditions() {
    let (_, studio) = two_renditions(1 << 20);
    let left = waiting(&studio);
    assert!(left[0] == left[1] && (15..40).contains(&left[0]), "{left:?}");
    let bytes: usize = studio.backlogs().map(|(_, backlog)| backlog.bytes()).sum();
    assert!(((1 << 20) * 9 / 10..=1 << 20).contains(&bytes), "{bytes}");
}

#[test]
fn what_is_made_just_now_is_never_given_up() {
    let (live, studio) = two_renditions(1);
    assert_eq!(waiting(&studio)[..2], [1, 1]);
    for rendition in ["audio", "best"] {
        assert_eq!(listed(&burst(&live)[&format!("{rendition}/live.m3u8")]), (vec![48], vec![]));
    }
}

/// A minute's ledger, of sound alone.
async fn write_minute(objects: &Objects, job: &LiveJob, minute: u64) {
    let segment = |number| LedgerSegment {
        number: SegmentNumber(number),
        offset: Ticks(0),
        duration: job.segment_duration.ticks(),
        bytes: 1,
        init: 0,
    };
    let segments = BTreeMap::from([("audio".to_owned(), (minute * 30..minute * 30 + 30).map(segment).collect())]);
    let ledger = Ledger { run: "r1".into(), epoch: Epoch(1), minute, segments };
    objects.put(&job.prefix.key(&ObjectName::Ledger(minute)), serde_json::to_vec(&ledger).unwrap().into()).await.unwrap();
}

#[tokio::test]
async fn a_successor_goes_on_with_all_of_a_long_window() {
    let backend = Backend::ministack().await.unwrap();
    let (objects, job) = (backend.objects("lectures").await.unwrap(), job(600_000));
    for minute in 0..20u64 {
        write_minute(&objects, &job, minute).await;
    }
    let restored = restore(&objects, &job, list(&objects, &job).await.unwrap(), SegmentNumber(595)).await.unwrap();
    let window: Vec<u64> = restored.windows["audio"].entries().map(|entry| entry.number().0).collect();
    assert_eq!(window, (295..595).collect::<Vec<_>>(), "ten minutes before what is to be made anew, without a gap");
    assert_eq!(restored.windows["audio"].segments().count(), 300);
    assert_eq!((restored.first, restored.last), (Some(SegmentNumber(0)), Some(SegmentNumber(599))));
    assert_eq!(restored.ledgers.keys().copied().collect::<Vec<_>>(), [17, 18, 19], "and only the newest may grow");
}

/// A successor lists what there is while it reads the head, and its predecessor may write a ledger between the two.
#[tokio::test]
async fn a_ledger_that_is_begun_after_the_list_is_found() {
    let backend = Backend::ministack().await.unwrap();
    let (objects, job) = (backend.objects("lectures").await.unwrap(), job(60_000));
    let write = async |minute| write_minute(&objects, &job, minute).await;
    for minute in 0..4 {
        write(minute).await;
    }
    let listing = list(&objects, &job).await.unwrap();
    write(4).await;
    let restored = restore(&objects, &job, listing, SegmentNumber(140)).await.unwrap();
    assert_eq!(restored.windows["audio"].last(), Some(SegmentNumber(139)));
    assert_eq!(restored.minutes, (0..=4).collect());
    let none = restore(&objects, &job, Listing::default(), SegmentNumber(140)).await.unwrap();
    assert_eq!(none.windows["audio"].last(), Some(SegmentNumber(139)), "not even the first was there yet");
}
