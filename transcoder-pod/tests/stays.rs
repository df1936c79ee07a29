//! What S3 has already where a successor stores the same segments: it stays, and is named for what it is.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::claim;
use lectern_cloud::Objects;
use lectern_cloud::testing::Backend;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::LedgerSegment;
use lectern_contract::{Epoch, SegmentDuration, SegmentNumber, Ticks};
use lectern_transcoder_pod::packager::Segment;
use lectern_transcoder_pod::publish::{Backlog, Event, Item, Live, Uploader, Written, empty_window, marked};
use lectern_transcoder_pod::status::Status;
use tokio::sync::mpsc;

lectern_cloud::on_every_server! {
    a_predecessor_s_segment_is_entered_as_it_is_there,
}

const FOUR_SECONDS: Ticks = Ticks(360_000);

fn job() -> LiveJob {
    let job = claim::job(&serde_json::json!({ "video": [], "audio": [] }));
    LiveJob { segment_duration: SegmentDuration::STANDARD, ..job }
}

fn made(number: u64, init: u32, duration: Ticks, text: &'static str) -> Item {
    let body = Bytes::from_static(text.as_bytes()).into();
    Item::Segment(Segment { number: SegmentNumber(number), offset: Ticks(0), duration, init, body, parts: 0 })
}

/// Uploads it all as the owner of `epoch`; what the ledger is told.
async fn stores(objects: &Objects, epoch: u64, items: Vec<Item>) -> Vec<LedgerSegment> {
    let (job, backlog, name) = (job(), Backlog::default(), "180p".to_owned());
    items.into_iter().chain([Item::Last(false)]).for_each(|item| backlog.push(item));
    let (keeper, mut told) = mpsc::unbounded_channel();
    let playlist = job.prefix.key(&ObjectName::MediaPlaylist(name.clone()));
    let uploader = Uploader {
        at: 0,
        window: empty_window(&job),
        playlist: Written::new(objects.clone(), playlist, Epoch(epoch), marked),
        name,
        objects: objects.clone(),
        job,
        backlog,
        live: Live::new("r1".into()),
        after_death: false,
        keeper,
        status: Status::default(),
    };
    uploader.run().await;
    let mut entered = Vec::new();
    while let Some(event) = told.recv().await {
        if let Event::Confirmed { segment, .. } = event {
            entered.push(segment);
        }
    }
    entered
}

/// A pod that was cut off from the queue had stored segment 29 and not moved the head past it. Its successor could reach no shard, made a slate in its place, with an
/// encoder that knew nothing of the source and so had an init section of its own, and entered the predecessor's pictures as if they were for that: a recording with
/// four seconds that nobody can decode.
async fn a_predecessor_s_segment_is_entered_as_it_is_there(backend: Backend) {
    let objects = backend.objects("lectures").await.unwrap();
    let short = Ticks(350_000);
    stores(&objects, 1, vec![Item::Init(0, Bytes::from_static(b"sets 0, 31")), made(29, 0, short, "pictures")]).await;
    let after = vec![
        Item::Init(1, Bytes::from_static(b"set 0")),
        made(29, 1, FOUR_SECONDS, "the slate, which is longer"),
        made(30, 1, FOUR_SECONDS, "pictures again"),
    ];
    let entered = stores(&objects, 2, after).await;
    let said: Vec<_> = entered.iter().map(|segment| (segment.number.0, segment.init, segment.duration, segment.bytes)).collect();
    assert_eq!(said, [(29, 0, short, 8), (30, 1, FOUR_SECONDS, 14)]);
    let key = |name| job().prefix.key(&name);
    let playlist = objects.get(&key(ObjectName::MediaPlaylist("180p".to_owned()))).await.unwrap().unwrap().body;
    let lines: Vec<&str> = std::str::from_utf8(&playlist).unwrap().lines().collect();
    let at = |what: &str| lines.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in {lines:#?}"));
    let in_order = ["init-0.mp4", "29.m4s", "init-1.mp4", "30.m4s"].map(at);
    assert!(in_order.is_sorted(), "{lines:#?}");
}
