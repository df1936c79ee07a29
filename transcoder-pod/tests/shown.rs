//! What was shown once does not change: a real origin beside a pod whose child is killed.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stage.rs"]
mod stage;

use bytes::Bytes;
use common::way::Way;
use common::{folder, lecture, shard, tool};
use lectern_cloud::testing::Backend;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::message::Message as _;
use lectern_contract::{Epoch, SegmentDuration, SegmentNumber, Ticks};
use lectern_media::fragments;
use lectern_origin_pod::directives::Directives;
use lectern_origin_pod::metrics::Metrics;
use lectern_origin_pod::public::Public;
use lectern_origin_pod::runs::{Found, Runs};
use lectern_origin_pod::store::Store;
use lectern_podkit::tls::PeerTls;
use stage::{Pod, Stage, until_said};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

const RENDITIONS: [&str; 3] = ["360p", "180p", "audio"];

/// Who watches: all that playlists name is asked for at once, as a CDN would, and kept.
struct Student<'a> {
    stage: &'a Stage,
    runs: Runs,
    /// By path, as it was at first.
    shown: BTreeMap<String, Bytes>,
}

impl<'a> Student<'a> {
    fn of(stage: &'a Stage) -> Self {
        let metrics = Metrics::default();
        let store = Store::new(stage.objects.clone(), 1 << 20, metrics.clone());
        Self { stage, runs: Runs::new(store, 1 << 26, PeerTls::plain(), metrics), shown: BTreeMap::new() }
    }

    async fn get(&self, path: &str) -> Option<Bytes> {
        let what = Public::of(path).unwrap();
        match self.runs.get(&self.stage.job.prefix, path, what, Directives::default()).await.ok()? {
            Found::Memory(body) | Found::Storage(body) => Some(body),
            _ => None,
        }
    }

    /// Looks at all playlists once.
    async fn look(&mut self) {
        for rendition in RENDITIONS {
            let Some(playlist) = self.get(&format!("{rendition}/live.m3u8")).await else { continue };
            let playlist = String::from_utf8(playlist.to_vec()).unwrap();
            for line in playlist.lines() {
                let part = line.strip_prefix("#EXT-X-PART:").and_then(|part| part.split("URI=\"").nth(1)?.split('"').next());
                let Some(file) = part.or(Some(line).filter(|line| !line.starts_with('#'))) else { continue };
                let path = format!("{rendition}/{file}");
                if !self.shown.contains_key(&path)
                    && let Some(body) = self.get(&path).await
                {
                    self.shown.insert(path, body);
                }
            }
        }
    }

    /// Looks again and again until something is shown.
    async fn until(&mut self, what: &str, is_shown: impl Fn(&BTreeMap<String, Bytes>) -> bool) {
        let since = Instant::now();
        while !is_shown(&self.shown) {
            assert!(since.elapsed() < Duration::from_secs(60), "{what} is not shown: {:?}", self.shown.keys());
            self.look().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Looks until half of a segment of 360p is shown; which one.
    async fn sees_half_a_segment(&mut self) -> u64 {
        let half = |shown: &BTreeMap<String, Bytes>| open(shown, "360p").filter(|(number, parts)| *number > 2 && *parts == 3);
        self.until("half a segment", |shown| half(shown).is_some()).await;
        half(&self.shown).unwrap().0
    }

    /// Looks until the run has ended, and then whether S3 has what was shown.
    async fn watches_to_the_end(self) -> BTreeMap<String, Bytes> {
        self.watches_for(Duration::from_secs(60)).await
    }

    /// The same of a lecture that ends within that time.
    async fn watches_for(mut self, within: Duration) -> BTreeMap<String, Bytes> {
        let since = Instant::now();
        while !self.stage.head().await.is_some_and(|head| head.ended) {
            assert!(since.elapsed() < within, "the lecture does not end");
            self.look().await;
        }
        for (path, shown) in &self.shown {
            let (rendition, file) = path.split_once('/').unwrap();
            let mut numbers = file.strip_suffix(".m4s").unwrap().split('.').map(|number| number.parse::<u64>().unwrap());
            let (number, part) = (numbers.next().unwrap(), numbers.next());
            let stored = self.stage.get(&ObjectName::segment(rendition, SegmentNumber(number))).await.unwrap();
            let stored = part.map_or(Some(stored.clone()), |part| fragments::part(&stored, part));
            assert!(stored.as_ref() == Some(shown), "{path} is another in S3");
        }
        self.shown
    }
}

/// The newest segment of which parts are shown and which is not whole, and how many parts.
fn open(shown: &BTreeMap<String, Bytes>, rendition: &str) -> Option<(u64, u64)> {
    let file = |path: &str| path.strip_prefix(rendition)?.strip_prefix('/')?.strip_suffix(".m4s").map(str::to_owned);
    let files: Vec<String> = shown.keys().filter_map(|path| file(path)).collect();
    let whole = files.iter().filter_map(|file| file.parse::<u64>().ok()).max()?;
    let parts = files.iter().filter_map(|file| file.split_once('.')?.0.parse::<u64>().ok()).filter(|number| *number == whole + 1).count();
    (parts > 0).then_some((whole + 1, parts as u64))
}

#[tokio::test]
async fn a_segment_that_a_dead_child_had_begun_is_gone_on_with() {
    let stage = Stage::set(lecture("begun", 14, Ticks(90_000), &[])).await;
    let pod = Pod::start("pod-a", &stage.backend);
    let mut student = Student::of(&stage);
    let number = student.sees_half_a_segment().await;
    pod.kill_child();
    let shown = student.watches_to_the_end().await;
    assert_eq!(stage.head().await.unwrap().epoch, Epoch(2));
    assert!((0..6).all(|part| shown.contains_key(&format!("360p/{number}.{part}.m4s"))), "{:?}", shown.keys());
    stage.has_all(0..8).await;
    // A decoder takes the parts of the two for one segment: the successor's begin with a keyframe.
    stage.play("begun-play").await;
}

/// A run begins where its first owner came to the feed, anywhere in a segment, and students have that one before S3 has it and the head has passed it.
#[tokio::test]
async fn who_follows_one_that_died_in_a_run_s_first_segment_begins_where_that_began() {
    let backend = Backend::ministack().await.unwrap();
    let objects = backend.objects("lectures").await.unwrap();
    let frames = lecture("first", 20, Ticks(90_000), &[]);
    let mut stage = Stage::prepared(Vec::new(), backend, objects).await;
    // Its newest keyframe is at 2.5 s, and it begins at 1 s, which nobody is shown.
    let began = tokio::time::Instant::now() - Duration::from_millis(1_700);
    stage.job.feed = shard::serve_begun(frames, began).await.to_string();
    stage.queue.send(&stage.job.to_message()).await.unwrap();
    let way = Way::to(stage.backend.port(), "ChangeMessageVisibility").await;
    let pod = Pod::start_at("pod-a", &way.endpoint, &stage.backend, &[], Stdio::inherit());
    stage.until("where it begins", Duration::from_secs(10), |head| head.begins.is_some()).await;
    let mut student = Student::of(&stage);
    tokio::join!(way.is_away(Duration::from_millis(4_500)), async {
        student.until("a segment", |shown| shown.keys().any(|path| path.starts_with("360p/") && path.matches('.').count() == 1)).await;
        pod.kill_child();
    });
    let first = |shown: &BTreeMap<String, Bytes>| shown.keys().filter_map(|path| path.split(['/', '.']).nth(1)?.parse::<u64>().ok()).min();
    let (begun, shown) = (first(&student.shown).unwrap(), student.watches_to_the_end().await);
    assert!(begun > 0 && first(&shown) == Some(begun), "{:?}", shown.keys());
    assert_eq!(stage.head().await.unwrap().epoch, Epoch(2));
    stage.has_all(begun..11).await;
    stage.play("first-play").await;
}

/// Of a pod that dies the supervisor may be dead first: its child sees that, and lets go at once, in the middle of a segment.
#[tokio::test]
async fn a_segment_that_was_begun_when_its_maker_let_go_is_gone_on_with() {
    let stage = Stage::set(lecture("begun-left", 14, Ticks(90_000), &[])).await;
    let pod = Pod::start("pod-a", &stage.backend);
    let mut student = Student::of(&stage);
    let number = student.sees_half_a_segment().await;
    drop(pod);
    let let_go = stage.until("who lets go", Duration::from_secs(10), |head| head.address.is_none()).await;
    assert_eq!((let_go.epoch, let_go.next_segment), (Epoch(1), SegmentNumber(number)), "in the middle of a segment");
    assert!(let_go.unstored, "its successor asks origins first: {let_go:?}");
    let _second = Pod::start("pod-b", &stage.backend);
    let shown = student.watches_to_the_end().await;
    assert!((0..6).all(|part| shown.contains_key(&format!("360p/{number}.{part}.m4s"))), "{:?}", shown.keys());
    stage.has_all(0..8).await;
    stage.play("begun-left-play").await;
}

#[tokio::test]
async fn segments_that_s3_did_not_have_when_their_maker_died_are_stored_as_they_were_shown() {
    let stage = Stage::set(lecture("unstored", 18, Ticks(90_000), &[])).await;
    let way = Way::to(stage.backend.port(), "ChangeMessageVisibility").await;
    let pod = Pod::start_at("pod-a", &way.endpoint, &stage.backend, &[], Stdio::inherit());
    let mut student = Student::of(&stage);
    student.until("a segment", |shown| shown.contains_key("360p/1.m4s")).await;
    let since = stage.head().await.unwrap().next_segment;
    let (_, next) = tokio::join!(way.is_away(Duration::from_millis(4_500)), async {
        student.until("what S3 does not get", |shown| shown.contains_key(&format!("360p/{}.m4s", since.0 + 1))).await;
        pod.kill_child();
        stage.head().await.unwrap().next_segment
    });
    let (lost, shown) = (format!("360p/{}.m4s", since.0 + 1), student.watches_to_the_end().await);
    assert!(next.0 <= since.0 + 1 && shown.contains_key(&lost), "S3 had got {lost}: its head says {next}");
    assert!(stage.head().await.unwrap().epoch >= Epoch(2));
    stage.play("unstored-play").await;
}

/// S3 goes away in the middle of a hand-over: the pod does not wait for it, and it is back before the pod lets go of the run.
#[tokio::test]
async fn segments_that_s3_did_not_have_when_their_maker_let_go_are_stored_as_they_were_shown() {
    let stage = Stage::set(lecture("left", 24, Ticks(90_000), &[])).await;
    let (way, log, pod) = by_a_way_of_its_own(&stage, "left").await;
    let mut student = Student::of(&stage);
    student.until("a segment", |shown| shown.contains_key("360p/1.m4s")).await;
    let _second = Pod::start("pod-b", &stage.backend);
    pod.terminate();
    until_said(&log, "a successor goes on").await;
    way.is_gone();
    let since = stage.head().await.unwrap().next_segment;
    let left = format!("360p/{since}.m4s");
    student.until("what S3 does not get", |shown| shown.contains_key(&left)).await;
    until_said(&log, "segments are left to the successor").await;
    way.is_back();
    let head = stage.until("its successor", Duration::from_secs(60), |head| head.epoch > Epoch(1)).await;
    assert!(head.owner.0.starts_with("pod-b/") && head.next_segment <= since, "S3 had got {left}: {head:?}");
    let shown = student.watches_to_the_end().await;
    assert!(shown.contains_key(&left), "{:?}", shown.keys());
    stage.play("left-play").await;
}

/// A successor that cannot reach the owner takes it for dead. But it lives, and origins stay with it until it moves the head next and is refused: what students
/// have of it by then is the successor's, too, although that had made it and could have stored its own.
#[tokio::test]
async fn what_an_owner_shows_that_only_its_successor_cannot_reach_is_stored_as_it_was_shown() {
    let frames = lecture("unreached", 30, Ticks(90_000), &[]);
    let backend = Backend::ministack().await.unwrap();
    let objects = backend.objects("lectures").await.unwrap();
    let ahead = tokio::time::Instant::now() - Duration::from_secs(3);
    let ahead = shard::serve_begun(frames.clone(), ahead).await; // the successor has each segment before the owner
    let mut stage = Stage::prepared(frames, backend, objects).await;
    (stage.job.segment_duration, stage.job.parts) = (SegmentDuration::try_from(6_000).unwrap(), None);
    let _owner = Pod::start("pod-a", &stage.backend);
    stage.queue.send(&stage.job.to_message()).await.unwrap();
    let mut student = Student::of(&stage);
    student.until("a segment", |shown| shown.contains_key("360p/0.m4s")).await;

    let way = Way::to(stage.backend.port(), "PUT").await;
    let address = stage.head().await.unwrap().address.unwrap();
    way.says(&address.replace("127.0.0.1", "224.0.0.1"), &address); // nobody can connect to a group (RFC 5771)
    let mut successor = Pod::command("pod-b", [&way.endpoint, &stage.backend.endpoint()], &stage.backend);
    successor.env("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required"); // it is told another thing than S3 says
    let job = LiveJob { feed: ahead.to_string(), replaces: Some(Epoch(1)), ..stage.job.clone() };
    stage.until("a segment in S3", Duration::from_secs(10), |head| head.next_segment.0 == 1).await;
    let _successor = Pod::spawn(successor);
    stage.queue.send(&job.to_message()).await.unwrap();
    let head = stage.until("the successor", Duration::from_secs(20), |head| head.epoch == Epoch(2)).await;
    assert!(head.owner.0.starts_with("pod-b/") && !head.ended, "{head:?}");
    let shown = student.watches_to_the_end().await;
    assert!(shown.contains_key(&format!("360p/{}.m4s", head.next_segment)), "{:?}", shown.keys());
    stage.has_all(0..6).await;
    stage.play("unreached-play").await;
}

/// Students see parts long before there is a segment: a run that has only begun does not stop for a pod that does, either.
#[tokio::test]
async fn a_run_whose_pod_stops_in_its_first_segment_is_handed_over() {
    let stage = Stage::set(lecture("first", 14, Ticks(90_000), &[])).await;
    let first = Pod::start("pod-a", &stage.backend);
    let mut student = Student::of(&stage);
    student.until("two parts", |shown| shown.contains_key("360p/0.1.m4s")).await;
    let (log, _second) = a_second(&stage, "first");
    first.terminate();
    until_said(&log, "the owner hands over").await;
    let head = stage.until("its successor", Duration::from_secs(30), |head| head.epoch > Epoch(1)).await;
    assert!(head.owner.0.starts_with("pod-b/") && !head.ended, "{head:?}");
    student.watches_to_the_end().await;
    stage.has_all(0..8).await;
    stage.play("first-play").await;
}

/// A successor has a dozen things to ask of S3 while students wait: it is not let in before these are answered.
#[tokio::test]
async fn a_run_does_not_move_while_s3_gives_trouble() {
    let stage = Stage::set(lecture("calm", 40, Ticks(90_000), &[])).await;
    let (way, _, _first) = by_a_way_of_its_own(&stage, "calm").await;
    let trouble = trouble(&way);
    stage.until("a segment", Duration::from_secs(30), |head| head.next_segment.0 >= 1).await;
    let (log, _second) = a_second(&stage, "calm");
    stage.queue.send(&LiveJob { replaces: Some(Epoch(1)), ..stage.job.clone() }.to_message()).await.unwrap();
    until_said(&log, "the owner hands over once S3 is well").await;
    let asked = stage.head().await.unwrap().next_segment;
    let head = stage.until("its owner go on", Duration::from_secs(30), |head| head.next_segment.0 > asked.0 + 3).await;
    assert_eq!(head.epoch, Epoch(1), "it moved while S3 gave trouble");
    trouble.abort();
    let head = stage.until("its successor", Duration::from_secs(30), |head| head.epoch > Epoch(1)).await;
    assert!(head.owner.0.starts_with("pod-b/") && !head.ended, "{head:?}");
    stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    stage.has_all(0..21).await;
    stage.play("calm-play").await;
}

/// It has 35 s for that. Its successor stands ready all the while, and goes on with what it lets go of.
#[tokio::test]
async fn a_run_whose_pod_stops_while_s3_gives_trouble_goes_to_the_successor_that_waits() {
    let stage = Stage::set(lecture("stops", 70, Ticks(90_000), &[])).await;
    let (way, _, first) = by_a_way_of_its_own(&stage, "stops").await;
    let _trouble = trouble(&way);
    stage.until("a segment", Duration::from_secs(30), |head| head.next_segment.0 >= 1).await;
    let (log, _second) = a_second(&stage, "stops");
    let moves = async {
        first.terminate();
        until_said(&log, "the owner hands over once S3 is well").await;
        let head = stage.until("its successor", Duration::from_secs(60), |head| head.epoch > Epoch(1)).await;
        assert!(head.owner.0.starts_with("pod-b/") && !head.ended, "{head:?}");
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("the run stays where it is"), "it waited, and was sent away: {said}");
    };
    let (shown, ()) = tokio::join!(Student::of(&stage).watches_for(Duration::from_secs(180)), moves);
    assert!(shown.keys().any(|path| path.contains(".5.")), "{:?}", shown.keys());
    stage.has_all(0..36).await;
    stage.play("stops-play").await;
    // Where the first let go in the middle of a segment, what its successor adds to that begins with a keyframe; a decoder says nothing of one that is missing.
    let (keyframes, segments) = keyframes(&stage, "stops-keys").await;
    let within = std::fs::read_to_string(&log).unwrap().contains("an origin has some of a predecessor's");
    assert_eq!(keyframes > segments, within, "{keyframes} keyframes in {segments} segments");
}

/// How many keyframes the pictures of 360p have in how many segments, all of one run.
async fn keyframes(stage: &Stage, name: &str) -> (usize, usize) {
    let folder = PathBuf::from(stage.copy(name).await).with_file_name("360p");
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    let numbered = files.iter().filter_map(|file| Some((file.file_stem()?.to_str()?.parse::<u64>().ok()?, file)));
    let segments: BTreeMap<u64, &PathBuf> = numbered.collect();
    let inits: Vec<&PathBuf> = files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "mp4")).collect();
    assert_eq!(inits.len(), 1, "{files:?}");
    let whole: Vec<u8> = inits.into_iter().chain(segments.values().copied()).flat_map(|file| std::fs::read(file).unwrap()).collect();
    let path = folder.join("whole");
    std::fs::write(&path, whole).unwrap();
    let flags = tool("ffprobe", &["-v", "error", "-show_entries", "packet=flags", "-of", "csv=p=0", path.to_str().unwrap()]);
    (flags.lines().filter(|flags| flags.starts_with('K')).count(), segments.len())
}

/// A pod that reaches S3, and nothing else, by a way that can be cut; and its log.
async fn by_a_way_of_its_own(stage: &Stage, name: &str) -> (Arc<Way>, PathBuf, Pod) {
    let (way, log) = (Way::to(stage.backend.port(), "PUT").await, folder(&format!("{name}-log")).join("pod-a"));
    let mut command = Pod::command("pod-a", [&way.endpoint, &stage.backend.endpoint()], &stage.backend);
    command.stderr(std::fs::File::create(&log).unwrap());
    (Arc::new(way), log, Pod::spawn(command))
}

/// Another pod, and its log.
fn a_second(stage: &Stage, name: &str) -> (PathBuf, Pod) {
    let log = folder(&format!("{name}-second")).join("log");
    let pod = Pod::start_with("pod-b", &stage.backend, &[], std::fs::File::create(&log).unwrap().into());
    (log, pod)
}

/// An answer is lost twice a second, until this is aborted or dropped.
fn trouble(way: &Arc<Way>) -> AbortOnDropHandle<()> {
    let way = way.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            way.loses_answers(1);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }))
}
