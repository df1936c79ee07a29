//! What S3 gets long after it was made, one rendition later than the other: the head waits for half a minute of it, and ledgers keep what they have.
#![allow(clippy::unwrap_used)]

mod common;

use common::claim;
use lectern_cloud::Objects;
use lectern_cloud::testing::Backend;
use lectern_contract::head::Head;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::{EndedRendition, Ledger, LedgerSegment};
use lectern_contract::{SegmentNumber, Ticks};
use lectern_transcoder_pod::publish::{Event, Keeper, KeeperError, Restored};
use lectern_transcoder_pod::status::Status;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Segments of 2 s: more minutes of them than a keeper holds.
const MADE: u64 = 210;
const SOUND: usize = 1;
const PICTURES: usize = 0;

fn job() -> LiveJob {
    let audio = json!([{ "name": "sound", "bitrate": 96_000 }, { "name": "pictures", "bitrate": 96_000 }]);
    claim::job(&json!({ "video": [], "audio": audio }))
}

async fn read<T: DeserializeOwned>(objects: &Objects, name: ObjectName) -> Option<T> {
    let object = objects.get(&job().prefix.key(&name)).await.unwrap()?;
    Some(serde_json::from_slice(&object.body).unwrap())
}

/// Asks until what is there is as `holds` says.
async fn until<T: DeserializeOwned>(objects: &Objects, name: ObjectName, holds: impl Fn(T) -> bool) {
    let holds = async {
        while !read(objects, name.clone()).await.is_some_and(&holds) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), holds).await.unwrap_or_else(|_| panic!("{name} does not become so"));
}

/// A run of which a keeper keeps the books.
struct Books {
    /// Stops when dropped.
    _backend: Backend,
    objects: Objects,
    events: UnboundedSender<Event>,
    kept: JoinHandle<Result<Keeper, KeeperError>>,
}

impl Books {
    async fn open() -> Self {
        let backend = Backend::ministack().await.unwrap();
        let objects = backend.objects("lectures").await.unwrap();
        let ownership = claim::claim(&objects, &job(), "pod-a/1").await;
        let keeper = Keeper::new(objects.clone(), job(), Status::default(), ownership, Restored::default());
        let (events, heard) = unbounded_channel();
        Self { _backend: backend, objects, events, kept: tokio::spawn(keeper.run(heard)) }
    }
}

fn begin(events: &UnboundedSender<Event>, rendition: usize, name: &str) {
    let named = EndedRendition { name: name.into(), codec: "mp4a.40.2".into(), bitrate: 96_000, picture: None };
    events.send(Event::Rendition { rendition, named }).unwrap();
}

fn confirm(events: &UnboundedSender<Event>, rendition: usize, number: u64) {
    let duration = job().segment_duration.ticks();
    let segment = LedgerSegment { number: SegmentNumber(number), offset: Ticks(0), duration, bytes: 1, init: 0 };
    events.send(Event::Confirmed { rendition, segment }).unwrap();
}

#[tokio::test]
async fn pictures_that_s3_gets_minutes_after_the_sound_are_waited_for_and_take_nothing_from_it() {
    let Books { objects, events, kept, _backend } = Books::open().await;

    for (rendition, name) in [(PICTURES, "pictures"), (SOUND, "sound")] {
        begin(&events, rendition, name);
        for number in (0..MADE).map(SegmentNumber) {
            events.send(Event::Made { rendition, number }).unwrap();
        }
    }
    // S3 is back: the sound goes first, because it is small.
    for number in 0..12 {
        confirm(&events, SOUND, number);
    }
    until(&objects, ObjectName::Ledger(0), |ledger: Ledger| ledger.segments["sound"].len() == 12).await;
    let head: Head = read(&objects, ObjectName::Head).await.unwrap();
    assert_eq!(head.next_segment, SegmentNumber(0), "a successor would not make these pictures");
    for number in 0..4 {
        confirm(&events, PICTURES, number);
    }
    until(&objects, ObjectName::Head, |head: Head| head.next_segment == SegmentNumber(4)).await;
    for number in 12..MADE {
        confirm(&events, SOUND, number);
    }
    // No shard has more for a successor than this, and it would have to go through all of it.
    until(&objects, ObjectName::Head, |head: Head| head.next_segment == SegmentNumber(MADE - 1 - 15)).await;
    for number in 4..MADE {
        confirm(&events, PICTURES, number);
    }
    until(&objects, ObjectName::Head, |head: Head| head.next_segment == SegmentNumber(MADE)).await;
    drop(events);
    kept.await.unwrap().unwrap();
    for minute in 0..MADE / 30 {
        let ledger: Ledger = read(&objects, ObjectName::Ledger(minute)).await.unwrap();
        for (rendition, segments) in &ledger.segments {
            let numbers = segments.iter().map(|segment| segment.number.0);
            assert!(numbers.eq(minute * 30..minute * 30 + 30), "minute {minute} of {rendition}: {segments:?}");
        }
        assert_eq!(ledger.segments.keys().collect::<Vec<_>>(), ["pictures", "sound"]);
    }
}

#[tokio::test]
async fn a_track_that_has_gone_and_of_which_nothing_waits_holds_nobody_up() {
    let Books { objects, events, kept, _backend } = Books::open().await;
    for (rendition, name, made) in [(PICTURES, "pictures", 3), (SOUND, "sound", 20)] {
        begin(&events, rendition, name);
        for number in 0..made {
            events.send(Event::Made { rendition, number: SegmentNumber(number) }).unwrap();
            confirm(&events, rendition, number);
        }
    }
    until(&objects, ObjectName::Head, |head: Head| head.next_segment == SegmentNumber(20)).await;
    drop(events);
    kept.await.unwrap().unwrap();
}
