//! Originals, recorded by a shard in this process to real S3 servers, which die, come back, and are asked with wrong keys.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod common;

use bytes::Bytes;
use common::*;
use lectern_cloud::testing::{Backend, REGION};
use lectern_cloud::{BucketAt, Objects};
use lectern_contract::feed::{AccessUnit, Codec, Track};
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::relay::Asked;
use lectern_contract::report::{IngestRun, Publisher, Recording};
use lectern_contract::{KeyHash, StreamRef, TICKS_PER_SECOND, Ticks, WallMillis};
use lectern_ingest_pod::routes::Route;
use lectern_ingest_pod::shard::Admission;
use lectern_ingest_pod::stream::{Limits, Publication};
use mp4_atom::{Any, Decode};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

/// Pictures a second of [`Lecturer`].
const RATE: u32 = 10;

fn prefix() -> RunPrefix {
    RunPrefix::of(&StreamRef { namespace: "school".into(), name: "algebra".into() }, &"r1".into())
}

fn recorded_route(shard: &TestShard) -> Route {
    Route { original: Some(prefix()), ..shard.own_route() }
}

async fn shard_with(limits: Limits) -> TestShard {
    let shard = TestShard::start(limits).await;
    shard.route([recorded_route(&shard)]);
    shard
}

/// A publisher inside the process, whose pictures are numbered and come as fast as they are asked for.
struct Lecturer {
    publication: Publication,
    at: u32,
}

impl Lecturer {
    fn come(shard: &TestShard) -> Self {
        let Ok(Admission::Here(mut publication)) = shard.shard.admit(&KeyHash::of("secret"), "a test", Asked::NOW) else {
            panic!("refused")
        };
        publication.configure(Codec::H264, record().into()).unwrap();
        Self { publication, at: 0 }
    }

    /// Publishes so many seconds, with a keyframe in each; what a reader should get.
    fn seconds(&mut self, count: u32) -> Vec<Bytes> {
        let pictures = self.at..self.at + count * RATE;
        self.at = pictures.end;
        let publish = |at: u32| {
            // A NAL unit of 1001 bytes, of an IDR picture or another, with a text in it.
            let keyframe = at.is_multiple_of(RATE);
            let head = [0, 0, 0x03, 0xe9, if keyframe { 0x65 } else { 0x41 }];
            let payload = Bytes::from([&head[..], format!("{:1000}", format!("picture {at}")).as_bytes()].concat());
            self.publication.picture(at * 1000 / RATE, 0, keyframe, payload.clone()).unwrap();
            payload
        };
        pictures.map(publish).collect()
    }
}

fn recording(shard: &TestShard) -> Option<Recording> {
    shard.shard.reports().pop()?.recording
}

/// Looks again and again until it is so.
async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(10));
    guarded(what, async {
        while !so() {
            again.tick().await;
        }
    })
    .await;
}

/// Waits until S3 has confirmed everything that was published, then ends the run.
async fn stored_whole(shard: &TestShard) {
    let reports = shard.shard.reports();
    let newest = match &reports[0].publisher {
        Publisher::Publishing { newest, .. } => *newest,
        Publisher::Gone { .. } => {
            *units(&shard.read(Some(Ticks(0))).await.until_a_stop().await).iter().map(|unit| &unit.dts).max().unwrap()
        }
    };
    shard.route([Route { ended: true, ..recorded_route(shard) }]);
    eventually("the original to be stored", || recording(shard).is_some_and(|it| it.stored > Some(newest))).await;
}

async fn objects(at: &Objects) -> Vec<(String, Bytes)> {
    let mut keys = at.list(&format!("{}/original/", prefix())).await.unwrap();
    keys.sort();
    let mut objects = Vec::new();
    for key in keys {
        let body = at.get(&key).await.unwrap().unwrap().body;
        objects.push((key, body));
    }
    objects
}

/// The access units of a file, in the order in which they lie there.
fn recorded_units(file: &Bytes) -> Vec<AccessUnit> {
    let (mut rest, mut units) = (&file[..], Vec::new());
    while !rest.is_empty() {
        let here = file.len() - rest.len();
        let Any::Moof(moof) = Any::decode(&mut rest).unwrap() else { continue };
        for traf in moof.traf {
            let track = if traf.tfhd.track_id == 1 { Track::Video } else { Track::Audio };
            let mut dts = traf.tfdt.unwrap().base_media_decode_time;
            let mut at = here + traf.trun[0].data_offset.unwrap() as usize;
            for sample in traf.trun[0].samples.iter() {
                let end = at + sample.size.unwrap() as usize;
                let pts = Ticks((dts as i64 + sample.cts.unwrap()) as u64);
                let keyframe = sample.flags.unwrap() & 0x0001_0000 == 0;
                units.push(AccessUnit { track, dts: Ticks(dts), pts, keyframe, payload: file.slice(at..end) });
                (at, dts) = (end, dts + u64::from(sample.duration.unwrap()));
            }
        }
    }
    units
}

/// The payloads of all objects, as the run was published.
async fn payloads(at: &Objects) -> Vec<Bytes> {
    objects(at).await.iter().flat_map(|(_, file)| recorded_units(file)).map(|unit| unit.payload).collect()
}

fn is_in_order_and_none_twice(recorded: &[Bytes], published: &[Bytes]) -> bool {
    let mut rest = published.iter();
    recorded.iter().all(|picture| rest.any(|other| other == picture))
}

async fn ran(program: &str, args: &[&str], input: Bytes) -> String {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-v", "error"]).args(args).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move { drop(stdin.write_all(&input).await) }; // it may have seen enough
    let ((), output) = guarded(program, async { tokio::join!(feed, child.wait_with_output()) }).await;
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

async fn a_published_run_is_recorded_whole(backend: Backend) {
    let at = backend.objects("originals").await.unwrap();
    let shard = shard_with(Limits::default()).await;
    let _recorders = shard.record(at.clone());
    let ffmpeg = publisher(shard.rtmp, "secret", &["-t", "25"]);
    assert!(exit_of(ffmpeg).await.success());
    let frames = shard.read(Some(Ticks(0))).await.until_a_stop().await;
    let published = units(&frames);
    stored_whole(&shard).await;

    let objects = objects(&at).await;
    assert!(objects.len() >= 2, "{} objects", objects.len());
    let mut recorded = Vec::new();
    for (key, file) in &objects {
        let units = recorded_units(file);
        assert!(units[0].keyframe && units[0].track == Track::Video);
        assert_eq!(*key, prefix().key(&ObjectName::Original(units[0].dts)));
        ran("ffmpeg", &["-xerror", "-i", "-", "-f", "null", "-"], file.clone()).await;
        recorded.extend(units);
    }
    for track in [Track::Video, Track::Audio] {
        let published: Vec<_> = published.iter().copied().filter(|unit| unit.track == track).collect();
        let recorded: Vec<_> = recorded.iter().filter(|unit| unit.track == track).collect();
        assert!(published == recorded, "{track:?}: {} published, {} recorded", published.len(), recorded.len());
    }
    let joined = Bytes::from(objects.iter().flat_map(|(_, file)| file.to_vec()).collect::<Vec<_>>());
    let count = ["-count_packets", "-show_entries", "stream=codec_name,nb_read_packets", "-of", "csv=p=0", "-"];
    let of = |track| published.iter().filter(|unit| unit.track == track).count();
    assert_eq!(ran("ffprobe", &count, joined).await, format!("h264,{}\naac,{}\n", of(Track::Video), of(Track::Audio)));
    assert_eq!(recording(&shard).unwrap(), Recording { gaps: 0, trouble: None, ..recording(&shard).unwrap() });
    assert_eq!(shard.metrics.original.objects.get(), objects.len() as u64);
    assert_eq!(shard.metrics.original.bytes.get(), objects.iter().map(|(_, file)| file.len() as u64).sum::<u64>());
}

/// On the server that keeps a bucket which was made a moment before it is killed.
#[tokio::test]
async fn what_waited_for_s3_is_stored_when_it_is_back() {
    let mut backend = Backend::seaweedfs().await.unwrap();
    let at = backend.objects("originals").await.unwrap();
    backend.kill();
    let shard = shard_with(Limits::default()).await;
    let _recorders = shard.record(at.clone());
    let mut lecturer = Lecturer::come(&shard);
    let mut published = lecturer.seconds(15);
    eventually("the trouble to be told", || recording(&shard).is_some_and(|it| it.trouble.is_some())).await;
    assert_eq!(shard.metrics.original.waiting.get(), 1);
    published.extend(lecturer.seconds(40));
    backend.restart().await.unwrap();
    stored_whole(&shard).await;
    assert!(payloads(&at).await == published);
    assert_eq!(recording(&shard).map(|it| (it.gaps, it.trouble)), Some((0, None)));
    assert_eq!(shard.metrics.original.waiting.get(), 0);
    assert!(shard.metrics.original.waited.get() > 0.0);
}

async fn a_shard_that_is_started_anew_goes_on_in_a_new_object(backend: Backend) {
    let at = backend.objects("originals").await.unwrap();
    let first = shard_with(Limits::default()).await;
    let recorders = first.record(at.clone());
    let mut published = Lecturer::come(&first).seconds(12);
    drop(first); // what is open is stored before the recorders end
    guarded("the recorders to end", recorders).await.unwrap();
    assert!(payloads(&at).await == published);

    let second = TestShard::start(Limits::default()).await;
    let route = recorded_route(&second);
    second.route([Route { anchor: WallMillis(route.anchor.0 - 60_000), ..route }]); // a minute has gone by
    let _recorders = second.record(at.clone());
    let mut lecturer = Lecturer::come(&second);
    published.extend(lecturer.seconds(12));
    stored_whole(&second).await;
    assert!(payloads(&at).await == published);
    assert!(objects(&at).await.len() >= 3);
}

/// As where a publisher finds the run's next owner before the transcoder does: only who shows the lecture knows what time it is.
#[tokio::test]
async fn a_recorder_does_not_keep_a_shard_whose_clock_is_ahead_from_being_set_right() {
    let backend = Backend::seaweedfs().await.unwrap();
    let at = backend.objects("originals").await.unwrap();
    let shard = TestShard::start(Limits::default()).await;
    let route = recorded_route(&shard);
    shard.route([Route { anchor: WallMillis(route.anchor.0 - 3_600_000), ..route }]);
    let _recorders = shard.record(at.clone());
    let mut lecturer = Lecturer::come(&shard);
    lecturer.seconds(5);
    eventually("the recorder", || recording(&shard).is_some()).await;

    let known = Ticks(100 * TICKS_PER_SECOND);
    let mut reader = shard.read_as_of(Some(known), known.plus(Ticks(3 * TICKS_PER_SECOND))).await;
    let is_set_back = |run: &IngestRun| matches!(&run.publisher, Publisher::Publishing { newest, .. } if *newest == Ticks(0));
    eventually("the run's time to be set back", || is_set_back(&shard.shard.reports()[0])).await;
    let published = lecturer.seconds(12);
    let first = reader.next_unit().await;
    assert!(first.dts > known && first.dts < Ticks(130 * TICKS_PER_SECOND), "it went on at {}", first.dts);

    stored_whole(&shard).await;
    assert!(payloads(&at).await == published);
    let recorded = recorded_units(&objects(&at).await[0].1);
    assert_eq!(recorded[0].dts, first.dts);
}

lectern_cloud::on_every_server! {
    a_published_run_is_recorded_whole,
    a_shard_that_is_started_anew_goes_on_in_a_new_object,
}

#[tokio::test]
async fn s3_away_for_longer_than_the_history_lasts_is_a_declared_gap() {
    let mut backend = Backend::seaweedfs().await.unwrap();
    let at = backend.objects("originals").await.unwrap();
    backend.kill();
    let shard = shard_with(Limits { span: Ticks::from_millis(5_000), ..Limits::default() }).await;
    let _recorders = shard.record(at.clone());
    let mut lecturer = Lecturer::come(&shard);
    let mut published = Vec::new();
    eventually("the recorder", || recording(&shard).is_some()).await;
    // A second at a time, so that the recorder is not too slow before S3 is.
    for _ in 0..12 {
        published.extend(lecturer.seconds(1));
        tokio::task::yield_now().await;
    }
    eventually("the trouble to be told", || recording(&shard).is_some_and(|it| it.trouble.is_some())).await;
    published.extend(lecturer.seconds(60));
    backend.restart().await.unwrap();
    eventually("the gap to be told", || recording(&shard).is_some_and(|it| it.gaps > 0)).await;
    published.extend(lecturer.seconds(3));
    stored_whole(&shard).await;

    let recorded = payloads(&at).await;
    assert!(is_in_order_and_none_twice(&recorded, &published));
    assert!(recorded.len() < published.len());
    assert_eq!(recorded[0], published[0]);
    // The last five seconds were still there, and the recording has gone on with them.
    assert!(recorded.ends_with(&published[published.len() - 5 * RATE as usize..]));
    let told = recording(&shard).unwrap();
    assert_eq!((told.gaps, told.trouble), (1, None));
    assert_eq!(shard.metrics.original.gaps.get(), 1);
}

#[tokio::test]
async fn wrong_keys_are_told_and_do_not_disturb_the_publisher() {
    let backend = Backend::seaweedfs().await.unwrap();
    let at = backend.objects("originals").await.unwrap();
    let keys = lectern_cloud::Keys { secret: "wrong".into(), ..backend.keys() };
    let shard = shard_with(Limits::default()).await;
    let recorders = shard.record(Objects::connect_with(&backend.bucket_at("originals"), &keys).await);
    let mut lecturer = Lecturer::come(&shard);
    let mut reader = shard.read(None).await;
    let mut published = lecturer.seconds(15);
    eventually("the trouble to be told", || recording(&shard).is_some_and(|it| it.trouble.is_some())).await;
    let trouble = recording(&shard).unwrap().trouble.unwrap();
    assert!(trouble.contains("cannot be stored") && trouble.contains("SignatureDoesNotMatch"), "{trouble}");
    published.extend(lecturer.seconds(15));
    assert!(matches!(shard.shard.reports()[0].publisher, Publisher::Publishing { .. }));
    let mut read = Vec::new();
    while read.last() != published.last() {
        read.push(reader.next_unit().await.payload);
    }
    assert!(is_in_order_and_none_twice(&read, &published));

    let metrics = shard.metrics.clone();
    drop(shard); // nobody waits for ever for keys that are wrong
    guarded("the recorders to end", recorders).await.unwrap();
    assert_eq!((objects(&at).await.len(), metrics.original.objects.get()), (0, 0));
    assert!(metrics.original.gaps.get() > 0);
}

#[tokio::test]
async fn a_write_whose_answers_were_lost_is_not_repeated_elsewhere() {
    let backend = Backend::ministack().await.unwrap();
    let at = backend.objects("originals").await.unwrap();
    let lost = Arc::new(AtomicUsize::new(3)); // as many as one operation makes attempts
    let line = lossy_line(backend.endpoint().trim_start_matches("http://").to_owned(), lost.clone()).await;
    let shard = shard_with(Limits::default()).await;
    let through = BucketAt::new("originals", REGION, Some(format!("http://{line}")));
    let _recorders = shard.record(Objects::connect_with(&through, &backend.keys()).await);
    let mut lecturer = Lecturer::come(&shard);
    let published = lecturer.seconds(15);
    stored_whole(&shard).await;
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    assert!(payloads(&at).await == published);
    assert_eq!(objects(&at).await.len() as u64, shard.metrics.original.objects.get());
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_overwritten() {
    let backend = Backend::ministack().await.unwrap();
    let at = backend.objects("originals").await.unwrap();
    let shard = shard_with(Limits::default()).await;
    let mut lecturer = Lecturer::come(&shard);
    let published = lecturer.seconds(5);
    let first = shard.read(Some(Ticks(0))).await.next_unit().await.dts;
    let taken = prefix().key(&ObjectName::Original(first));
    at.put(&taken, Bytes::from_static(b"of another shard")).await.unwrap();
    let _recorders = shard.record(at.clone());
    stored_whole(&shard).await;
    let objects = objects(&at).await;
    assert_eq!(
        objects.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        [taken, prefix().key(&ObjectName::Original(first.plus(Ticks(1))))]
    );
    assert_eq!(objects[0].1, "of another shard");
    assert!(recorded_units(&objects[1].1).into_iter().map(|unit| unit.payload).collect::<Vec<_>>() == published);
}

/// A way to `server` on which the first `lost` answers are lost with their connections.
async fn lossy_line(server: String, lost: Arc<AtomicUsize>) -> std::net::SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = door.accept().await {
            tokio::spawn(carry(client, server.clone(), lost.clone()));
        }
    });
    address
}

async fn carry(client: TcpStream, server: String, lost: Arc<AtomicUsize>) {
    let server = TcpStream::connect(server).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from_server.read(&mut answer).await {
        let is_lost = lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_lost || to_client.write_all(&answer[..count]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
