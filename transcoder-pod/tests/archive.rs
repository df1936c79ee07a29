//! What is encoded after the end, of the original: by a child alone, and by a pod that has lectures to do, too. On MiniStack.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stage.rs"]
mod stage;

use common::{folder, lecture, tool};
use lectern_cloud::testing::Backend;
use lectern_cloud::{Objects, QueueAt};
use lectern_contract::feed::FeedFrame;
use lectern_contract::job::{ArchiveJob, LiveJob};
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{Archive, ArchiveState, Ended, EndedRendition, Ledger, LedgerSegment, Picture};
use lectern_contract::message::Message as _;
use lectern_contract::{Epoch, SegmentDuration, SegmentNumber, StreamRef, Ticks, VideoCodec, VideoRendition, WallMillis};
use lectern_media::original::{Cutter, Limits};
use lectern_transcoder_pod::archive::{self, ArchiveChild, Outcome};
use stage::{Pod, Stage};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const HEVC: &str = "180p-hevc";
/// The source's pictures are shown two frames later than they are sent, for its B-frames, and nothing is shown before the first.
const DELAYED: u64 = 2;

fn hevc(width: u32, height: u32) -> VideoRendition {
    VideoRendition { name: HEVC.into(), width, height, frame_rate: 30, codec: VideoCodec::Hevc, bitrate: 200_000 }
}

/// A run that has ended, as a live transcoder and a shard leave it, but for the media of its live rendition.
struct Run {
    objects: Objects,
    job: ArchiveJob,
}

impl Run {
    /// Of `frames`, with live segments of two seconds up to `last`, the last one of a second.
    async fn ended(backend: &Backend, name: &str, frames: Vec<FeedFrame>, last: u64, video: VideoRendition) -> Self {
        let objects = backend.objects("lectures").await.unwrap();
        let stream = StreamRef { namespace: "school".into(), name: name.into() };
        let prefix = RunPrefix::of(&stream, &"r1".into());
        store_original(&objects, &prefix, frames).await;
        let run = Self {
            objects,
            job: ArchiveJob {
                run: "r1".into(),
                title: "Algebra".into(),
                slate: Some("Back soon".into()),
                prefix,
                video: vec![video],
                stream,
            },
        };
        let segment = |number| {
            let duration = Ticks::from_millis(if number == last { 1_000 } else { 2_000 });
            LedgerSegment { number: SegmentNumber(number), offset: Ticks(0), duration, bytes: 1, init: 0 }
        };
        let mut minutes = Vec::new();
        for (minute, numbers) in (0..=last).collect::<Vec<_>>().chunks(30).enumerate() {
            let segments = BTreeMap::from([("180p".to_owned(), numbers.iter().copied().map(segment).collect())]);
            let ledger = Ledger { run: "r1".into(), epoch: Epoch(1), minute: minute as u64, segments };
            run.put(&ObjectName::Ledger(minute as u64), &ledger).await;
            minutes.push(minute as u64);
        }
        let picture = Some(Picture { width: 320, height: 180, frame_rate: 30 });
        let renditions = vec![
            EndedRendition { name: "180p".into(), codec: "avc1.64000d".into(), bitrate: 200_000, picture },
            EndedRendition { name: "audio".into(), codec: "mp4a.40.2".into(), bitrate: 96_000, picture: None },
        ];
        let ended = Ended { run: "r1".into(), anchor: WallMillis(0), segment_duration: SegmentDuration::LOW_LATENCY, minutes, renditions };
        run.put(&ObjectName::Ended, &ended).await;
        run
    }

    async fn put(&self, name: &ObjectName, value: &impl serde::Serialize) {
        self.objects.put(&self.job.prefix.key(name), serde_json::to_vec(value).unwrap().into()).await.unwrap();
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, name: &ObjectName) -> Option<T> {
        let object = self.objects.get(&self.job.prefix.key(name)).await.unwrap()?;
        Some(serde_json::from_slice(&object.body).unwrap())
    }

    /// Does the job here.
    async fn encode(&self) -> Outcome {
        let given = ArchiveChild {
            job: self.job.clone(),
            slate_picture: None,
            bucket: String::new(),
            bucket_region: String::new(),
            bucket_endpoint: None,
        };
        archive::run(&given, &self.objects).await.unwrap()
    }

    /// The rendition's segments in S3, by number.
    async fn stored(&self) -> BTreeMap<u64, bytes::Bytes> {
        let folder = format!("{}/{HEVC}/", self.job.prefix);
        let mut stored = BTreeMap::new();
        for key in self.objects.list(&folder).await.unwrap() {
            let number = key.strip_prefix(&folder).unwrap().strip_suffix(".m4s").and_then(|number| number.parse().ok());
            if let Some(number) = number {
                stored.insert(number, self.objects.get(&key).await.unwrap().unwrap().body);
            }
        }
        stored
    }

    async fn until_stored(&self, count: usize) {
        let since = Instant::now();
        while self.stored().await.len() < count {
            assert!(since.elapsed() < Duration::from_secs(60), "no {count} segments are stored");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_done(&self) {
        let since = Instant::now();
        loop {
            match self.read::<Archive>(&ObjectName::Archive).await.map(|archive| archive.state) {
                Some(ArchiveState::Done) => return,
                state => assert!(since.elapsed() < Duration::from_secs(120), "it is not done: {state:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All of it is there, once, is named, and decodes to so many pictures.
    async fn is_whole(&self, last: u64, pictures: u64) {
        let stored = self.stored().await;
        assert_eq!(stored.keys().copied().collect::<Vec<_>>(), (0..=last).collect::<Vec<_>>());
        let ended: Ended = self.read(&ObjectName::Ended).await.unwrap();
        let named: Vec<_> = ended.renditions.iter().map(|it| (&it.name[..], &it.codec[..4])).collect();
        assert_eq!(named, [("180p", "avc1"), (HEVC, "hvc1"), ("audio", "mp4a")], "pictures first");
        let mut entered = Vec::new();
        for minute in ended.minutes {
            let ledger: Ledger = self.read(&ObjectName::Ledger(minute)).await.unwrap();
            entered.extend(ledger.segments[HEVC].iter().map(|segment| (segment.number.0, segment.bytes)));
        }
        assert_eq!(entered, stored.iter().map(|(number, body)| (*number, body.len() as u64)).collect::<Vec<_>>());
        let mut file = self.objects.get(&self.job.prefix.key(&ObjectName::Init(HEVC.into(), 0))).await.unwrap().unwrap().body.to_vec();
        stored.values().for_each(|segment| file.extend_from_slice(segment));
        let path = folder(&self.job.stream.name).join("whole.mp4");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(tool("ffmpeg", &["-v", "warning", "-xerror", "-i", path, "-f", "null", "-"]).trim(), "");
        let counted = tool("ffprobe", &["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", path]);
        assert_eq!(counted.trim().trim_end_matches(',').parse(), Ok(pictures));
    }
}

async fn store_original(objects: &Objects, prefix: &RunPrefix, frames: Vec<FeedFrame>) {
    let mut cutter = Cutter::new(Limits { span: Ticks::from_millis(3_000), ..Limits::default() });
    let mut pieces: Vec<_> = frames.into_iter().filter_map(|frame| cutter.push(frame)).collect();
    pieces.extend(cutter.finish());
    assert!(pieces.len() > 1);
    for piece in pieces {
        objects.put(&prefix.key(&ObjectName::Original(piece.name())), piece.write().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn the_original_becomes_a_rendition_of_the_recording() {
    let backend = Backend::ministack().await.unwrap();
    // From second 1 to 8, and the recording goes on to 9: what is missing is the slate, as it was live.
    let run = Run::ended(&backend, "whole", lecture("archive", 7, Ticks(90_000), &[]), 4, hevc(320, 180)).await;
    assert_eq!(run.encode().await, Outcome::Done);
    run.is_whole(4, 8 * 30 - DELAYED).await;
    assert_eq!(run.encode().await, Outcome::Done, "a second delivery finds nothing to do");
    run.is_whole(4, 8 * 30 - DELAYED).await;
}

#[tokio::test]
async fn a_child_that_dies_is_gone_on_with_at_what_is_missing() {
    let backend = Backend::ministack().await.unwrap();
    // More than a minute, so that a ledger is whole before the end.
    let run = Run::ended(&backend, "killed", lecture("archive-killed", 71, Ticks(90_000), &[]), 35, hevc(160, 90)).await;
    {
        let encoding = run.encode();
        tokio::pin!(encoding);
        tokio::select! {
            outcome = &mut encoding => panic!("it was too quick to be interrupted: {outcome:?}"),
            () = run.until_stored(32) => {}
        }
    }
    let before = run.stored().await;
    assert_eq!(run.encode().await, Outcome::Done);
    run.is_whole(35, 71 * 30 - DELAYED).await;
    let after = run.stored().await;
    assert!((0..30).all(|number| before[&number] == after[&number]), "what stands in a ledger stays as it is");
}

#[tokio::test]
async fn of_a_run_that_is_deleted_meanwhile_nothing_stays() {
    let backend = Backend::ministack().await.unwrap();
    let run = Run::ended(&backend, "deleted", lecture("archive-deleted", 20, Ticks(90_000), &[]), 10, hevc(320, 180)).await;
    let (outcome, ()) = tokio::join!(run.encode(), async {
        run.until_stored(1).await;
        // As the operator does it.
        run.objects.delete_prefix(&run.job.prefix.key(&ObjectName::Ended)).await.unwrap();
        run.objects.delete_prefix(&format!("{}/", run.job.prefix)).await.unwrap();
    });
    assert_eq!(outcome, Outcome::Gone);
    assert_eq!(run.objects.list(&format!("{}/", run.job.prefix)).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_original_that_lacks_a_part_or_is_not_there_is_told_and_the_recording_stays_as_it_is() {
    let backend = Backend::ministack().await.unwrap();
    let mut run = Run::ended(&backend, "lacking", lecture("archive-lacking", 13, Ticks(90_000), &[]), 6, hevc(320, 180)).await;
    run.job.slate = None; // so that nothing stands in for what is missing
    let pieces = run.objects.list(&format!("{}/original/", run.job.prefix)).await.unwrap();
    run.objects.delete_prefix(&pieces[1]).await.unwrap();
    run.objects.delete_prefix(&pieces[2]).await.unwrap();
    let Outcome::Failed(why) = run.encode().await else { panic!("a recording would have lost segments") };
    assert!(why.contains("cannot be made of the original"), "{why}");
    let ended: Ended = run.read(&ObjectName::Ended).await.unwrap();
    assert_eq!(ended.renditions.len(), 2, "a recording lists what all of its renditions have");
    assert!(matches!(run.read::<Archive>(&ObjectName::Archive).await.unwrap().state, ArchiveState::Failed { .. }));
    run.objects.delete_prefix(&format!("{}/original/", run.job.prefix)).await.unwrap();
    assert_eq!(run.encode().await, Outcome::Failed("nothing of the original is stored".to_owned()));
}

/// A pod of one slot: what is in the archive's queue waits for lectures, whenever they come. Messages that nobody understands are in nobody's way.
#[tokio::test]
async fn a_lecture_has_its_slot_at_once_and_the_archive_goes_on_after_it() {
    let stage = Stage::set(lecture("archive-live", 6, Ticks(90_000), &[])).await;
    let at = stage.backend.queue_at("jobs");
    assert_eq!(at.archive(), QueueAt::new("jobs-archive", at.region.clone(), at.endpoint.clone()));
    let queue = stage.backend.queue("jobs-archive").await.unwrap();
    let run = Run::ended(&stage.backend, "later", lecture("archive-later", 61, Ticks(90_000), &[]), 30, hevc(1280, 720)).await;
    for strange in [r#"{"version":9,"kind":"archive"}"#, "]", r#"{"version":1,"kind":"live"}"#] {
        queue.send(strange).await.unwrap();
        stage.queue.send(strange).await.unwrap();
    }
    queue.send(&run.job.to_message()).await.unwrap();
    let pod = Pod::start("pod-a", &stage.backend);

    // Both wait as the pod comes: the lecture is first.
    stage.until("the first lecture's owner", Duration::from_secs(30), |head| head.address.is_some()).await;
    stage.until("the first lecture's end", Duration::from_secs(30), |head| head.ended).await;
    run.until_stored(1).await;
    let threads = tool("ps", &["-L", "-o", "ni=,comm=", "-p", &pod.children()[0]]);
    assert!(threads.lines().any(|thread| thread.trim().starts_with("19 decode")), "lectures come first on the processors, too: {threads}");
    // The archive is under way when the next lecture comes.
    let second = LiveJob {
        run: "r2".into(),
        prefix: RunPrefix::of(&stage.job.stream, &"r2".into()),
        feed: common::shard::serve(lecture("archive-second", 6, Ticks(90_000), &[])).await.to_string(),
        ..stage.job.clone()
    };
    stage.queue.send(&second.to_message()).await.unwrap();
    let second = Stage { job: second, ..stage };
    let head = second.until("the second lecture's owner", Duration::from_secs(60), |head| head.address.is_some()).await;
    assert!(run.stored().await.len() < 31, "the archive was done before the lecture came, and shows nothing");
    let stopped = run.stored().await.len();
    assert!(!head.ended);
    second.until("the second lecture's end", Duration::from_secs(40), |head| head.ended).await;
    assert!(run.stored().await.len() <= stopped + 1, "the archive goes on beside a lecture that has the only slot");
    run.until_done().await;
    run.is_whole(30, 61 * 30 - DELAYED).await;
}
