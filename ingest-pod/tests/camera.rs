//! A shard that pulls a camera (`camera.py`, gst-rtsp-server) over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod common;

use common::*;
use lectern_contract::feed::{FeedFrame, Track};
use lectern_crds::RtspTransport;
use lectern_ingest_pod::routes::{Camera, Route};
use lectern_ingest_pod::stream::Limits;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

#[tokio::test]
async fn a_camera_is_pulled_and_its_death_is_a_gap() {
    let (mut camera, port) = camera().await;
    let shard = TestShard::start(Limits::default()).await;
    let url = format!("rtsp://127.0.0.1:{port}/cam").parse().unwrap();
    let camera_at = Camera { url, transport: RtspTransport::Tcp, credentials: None };
    shard.route([Route { camera: Some(camera_at), ..shard.own_route() }]);
    let mut reader = shard.read(None).await;

    let first = reader.next_unit().await;
    assert!(first.keyframe && first.track == Track::Video, "{first:?}");
    let mut seen = vec![first];
    while !(seen.iter().any(|unit| unit.track == Track::Audio) && seen.len() > 60) {
        seen.push(reader.next_unit().await);
    }
    assert_times_grow(&seen.iter().collect::<Vec<_>>());
    assert!(!exit_of(publisher(shard.rtmp, "secret", &["-t", "2"])).await.success(), "nobody publishes a camera's stream");

    camera.kill().await.unwrap();
    assert!(matches!(reader.until_a_stop().await.last(), Some(FeedFrame::Gap { .. })));
}

async fn camera() -> (Child, u16) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/camera.py");
    let mut camera = Command::new("/usr/bin/python3").arg(script).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut port = String::new();
    guarded("the camera's port", BufReader::new(camera.stdout.take().unwrap()).read_line(&mut port)).await.unwrap();
    (camera, port.trim().parse().expect("a port: is gst-rtsp-server installed?"))
}
