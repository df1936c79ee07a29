//! A shard that pulls cameras (`camera.py`, gst-rtsp-server) over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod common;

use bytes::Bytes;
use common::*;
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, Track, pcm_config};
use lectern_contract::report::Publisher;
use lectern_crds::RtspTransport;
use lectern_ingest_pod::routes::{Camera, Route};
use lectern_ingest_pod::rtsp::{Credentials, Known};
use lectern_ingest_pod::stream::Limits;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

#[tokio::test]
async fn a_camera_is_pulled_and_its_death_is_a_gap() {
    let mut camera = TestCamera::start(&[]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    let mut reader = shard.read(None).await;

    let seen = both_tracks(&mut reader, 60).await;
    assert!(seen[0].keyframe && seen[0].track == Track::Video, "{:?}", seen[0]);
    assert_times_grow(&seen.iter().collect::<Vec<_>>());
    assert!(!exit_of(publisher(shard.rtmp, "secret", &["-t", "2"])).await.success(), "nobody publishes a camera's stream");

    camera.process.kill().await.unwrap();
    assert!(matches!(reader.until_a_stop().await.last(), Some(FeedFrame::Gap { .. })));
    gone(&shard, "Connection refused").await;
}

#[tokio::test]
async fn b_frames_get_decode_times() {
    let camera = TestCamera::start(&["--video", "h264-bframes", "--audio", "none"]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    let mut reader = shard.read(None).await;

    let mut pictures = Vec::new();
    while pictures.len() < 90 {
        pictures.push(reader.next_unit().await);
    }
    assert_times_grow(&pictures.iter().collect::<Vec<_>>());
    assert!(pictures.iter().all(|picture| picture.dts <= picture.pts), "{pictures:?}");
    let mut shown: Vec<_> = pictures.iter().map(|picture| picture.pts).collect();
    assert!(!shown.is_sorted(), "the camera sent no B-frames: {shown:?}");
    shown.sort();
    // The newest few may still miss B-frames between them.
    let steps: Vec<_> = shown[..80].windows(2).map(|two| two[1].since(two[0]).0).collect();
    assert!(steps.iter().all(|step| (2_910..=3_090).contains(step)), "the cadence is broken: {steps:?}");
}

#[tokio::test]
async fn h265_and_g711_are_pulled() {
    let camera = TestCamera::start(&["--video", "h265", "--audio", "alaw"]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    let mut reader = shard.read(None).await;

    let FeedFrame::Config { codec: Codec::Hevc, config, .. } = reader.next().await else { panic!("no H.265") };
    assert_eq!(config[0], 1, "not an HEVCDecoderConfigurationRecord: {config:?}");
    let first = reader.next_unit().await;
    assert!(first.keyframe && first.track == Track::Video);
    let (codec, config) = next_config(&mut reader, Track::Audio).await;
    assert_eq!((codec, config), (Codec::PcmAlaw, Bytes::copy_from_slice(&pcm_config(8_000, 1))));
    let seen = both_tracks(&mut reader, 60).await;
    assert_times_grow(&seen.iter().collect::<Vec<_>>());
    let sound: Vec<_> = seen.iter().filter(|unit| unit.track == Track::Audio).collect();
    let off = |two: &[&AccessUnit]| {
        let samples = two[0].payload.len() as u64; // of a byte each
        two[1].dts.since(two[0].dts).0.abs_diff(samples * 90_000 / 8_000) > 180
    };
    // Once, when the camera has reported both clocks, the sound may be moved to the picture.
    assert!(sound.windows(2).filter(|two| off(two)).count() <= 1, "the sound's cadence is broken");
}

#[tokio::test]
async fn a_camera_that_sends_udp_only_is_pulled_over_udp() {
    let camera = TestCamera::start(&["--audio", "mulaw", "--only-udp"]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    gone(&shard, "transport").await;

    shard.route([Route { camera: Some(camera.at(RtspTransport::Udp, None)), ..shard.own_route() }]);
    let mut reader = shard.read(None).await;
    let seen = both_tracks(&mut reader, 60).await;
    assert!(seen[0].keyframe && seen[0].track == Track::Video, "{:?}", seen[0]);
    assert_times_grow(&seen.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_camera_with_a_password_is_pulled_as_soon_as_the_right_one_is_known() {
    let camera = TestCamera::start(&["--user", "viewer:s3cret"]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    gone(&shard, "asks for user name and password").await;

    shard.route([Route { camera: Some(camera.at(RtspTransport::Tcp, Some("r1"))), ..shard.own_route() }]);
    gone(&shard, "are not here").await;
    shard.cameras.send_replace(known("guessed"));
    gone(&shard, "refuses user name and password").await;
    shard.cameras.send_replace(known("s3cret"));
    assert!(shard.read(None).await.next_unit().await.keyframe);
    assert!(matches!(shard.shard.reports()[0].publisher, Publisher::Publishing { .. }));
}

#[tokio::test]
async fn a_camera_that_freezes_is_a_gap_and_goes_on_when_it_is_back() {
    let camera = TestCamera::start(&[]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    let mut reader = shard.read(None).await;
    let mut before = both_tracks(&mut reader, 30).await;

    camera.signal("STOP").await;
    let frames = reader.until_a_stop().await;
    let Some(FeedFrame::Gap { from, reason }) = frames.last() else { panic!("{frames:?}") };
    assert!(reason.contains("neither picture nor sound"), "{reason}");
    gone(&shard, "did not answer").await;
    before.extend(units(&frames).into_iter().cloned());

    camera.signal("CONT").await;
    let after = both_tracks(&mut reader, 30).await;
    assert!(after[0].keyframe && after.iter().all(|unit| unit.dts >= *from), "{:?} after {from:?}", after[0]);
    assert_times_grow(&before.iter().chain(&after).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_camera_that_changes_its_picture_is_configured_anew_without_a_gap() {
    let camera = TestCamera::start(&["--video", "h264-bframes"]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    let mut reader = shard.read(None).await;
    let (_, first) = next_config(&mut reader, Track::Video).await;
    both_tracks(&mut reader, 30).await;

    camera.signal("USR1").await;
    let (codec, second) = next_config(&mut reader, Track::Video).await;
    assert!(codec == Codec::H264 && first != second);
    let Publisher::Publishing { picture, .. } = &shard.shard.reports()[0].publisher else { panic!("it left") };
    assert_eq!(*picture, Some((160, 90)));
    let after = both_tracks(&mut reader, 30).await;
    assert!(after.iter().find(|unit| unit.track == Track::Video).unwrap().keyframe);
    assert_times_grow(&after.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_camera_that_comes_back_with_another_codec_is_described_anew() {
    let mut camera = TestCamera::start(&[]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    let mut reader = shard.read(None).await;
    let before = both_tracks(&mut reader, 30).await;
    camera.process.kill().await.unwrap();
    let frames = reader.until_a_stop().await;
    let Some(FeedFrame::Gap { from, .. }) = frames.last() else { panic!("{frames:?}") };

    let port = camera.port.to_string();
    let _again = TestCamera::start(&["--port", &port, "--video", "h265", "--size", "192x108"]).await;
    let (codec, _) = next_config(&mut reader, Track::Video).await;
    assert_eq!(codec, Codec::Hevc);
    let after = both_tracks(&mut reader, 30).await;
    // The sound belongs to the picture, and may begin a frame before it.
    let picture = after.iter().find(|unit| unit.track == Track::Video).unwrap();
    assert!(picture.dts >= *from && before.iter().all(|unit| unit.dts < *from), "{picture:?} after {from:?}");
    assert_times_grow(&before.iter().chain(units(&frames)).chain(&after).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_camera_with_nothing_to_pull_is_told_by_what_it_offers() {
    let camera = TestCamera::start(&["--video", "vp8", "--audio", "none"]).await;
    let shard = pulling(&camera, RtspTransport::Tcp, None).await;
    gone(&shard, "offers video vp8").await;
}

struct TestCamera {
    process: Child,
    port: u16,
}

impl TestCamera {
    async fn start(options: &[&str]) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("tests/camera.py").args(options).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut port = String::new();
        guarded("the camera's port", BufReader::new(process.stdout.take().unwrap()).read_line(&mut port)).await.unwrap();
        Self { process, port: port.trim().parse().expect("a port: is gst-rtsp-server installed?") }
    }

    fn at(&self, transport: RtspTransport, credentials: Option<&str>) -> Camera {
        let url = format!("rtsp://127.0.0.1:{}/cam", self.port).parse().unwrap();
        Camera { url, transport, credentials: credentials.map(str::to_owned) }
    }

    async fn signal(&self, signal: &str) {
        let process = self.process.id().unwrap().to_string();
        let status = Command::new("kill").args(["-s", signal, &process]).status().await.unwrap();
        assert!(status.success(), "kill: {status}");
    }
}

/// A shard that pulls this camera for its stream.
async fn pulling(camera: &TestCamera, transport: RtspTransport, credentials: Option<&str>) -> TestShard {
    let shard = TestShard::start(Limits::default()).await;
    shard.route([Route { camera: Some(camera.at(transport, credentials)), ..shard.own_route() }]);
    shard
}

fn known(password: &str) -> Known {
    Known::from_iter([("r1".to_owned(), Credentials { username: "viewer".into(), password: password.into() })])
}

/// Waits until the run's report says that nobody publishes, for a reason with these words.
async fn gone(shard: &TestShard, words: &str) {
    let changed = shard.shard.changed();
    guarded(&format!("the reason {words:?}"), async {
        loop {
            let reports = shard.shard.reports();
            if reports.iter().any(|run| matches!(&run.publisher, Publisher::Gone { reason } if reason.contains(words))) {
                return;
            }
            changed.notified().await;
        }
    })
    .await;
}

/// The next access units, until there are `count` and some of each track.
async fn both_tracks(reader: &mut FeedClient, count: usize) -> Vec<AccessUnit> {
    let mut seen = Vec::<AccessUnit>::new();
    while seen.len() < count || [Track::Video, Track::Audio].iter().any(|track| !seen.iter().any(|unit| unit.track == *track)) {
        match reader.next().await {
            FeedFrame::AccessUnit(unit) => seen.push(unit),
            FeedFrame::Gap { from, reason } => panic!("a gap from {from:?}: {reason}"),
            _ => {}
        }
    }
    seen
}

/// The track's next parameters.
async fn next_config(reader: &mut FeedClient, wanted: Track) -> (Codec, Bytes) {
    loop {
        match reader.next().await {
            FeedFrame::Config { track, codec, config } if track == wanted => return (codec, config),
            FeedFrame::Gap { from, reason } if from > Ticks(0) => panic!("a gap from {from:?}: {reason}"),
            _ => {}
        }
    }
}
