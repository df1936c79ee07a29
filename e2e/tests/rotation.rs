//! The CA changes under a running lecture. A binary of its own that `make rotation` runs: it takes eight minutes, because it waits twice for longer than kubelets take
//! to renew files.
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use lectern_contract::keys::ObjectName;
use lectern_e2e::chaos::transcoder;
use lectern_e2e::judge::{self, Expected};
use lectern_e2e::lab::{Lecture, STEP, prefix_of};
use lectern_e2e::settings::PLATFORM;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Browser, Lab, Publisher, Share, Shot, condition};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CA: &str = "lectern-ca";
const ASKED: &str = "lectern.video/rotate";
/// A step: the operator's pause on the test cluster (`e2e/cluster/values.yaml`), how often it looks, and a move that has just begun.
const PATIENCE: Duration = Duration::from_secs(360);

/// While one CA takes another's place the lecture is moved from transcoder to transcoder: with each move two pods, a shard and an origin shake hands,
/// whatever files each of them has by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_rotated_under_a_playing_lecture() -> Result<()> {
    Lab::run("the_ca_is_rotated_under_a_playing_lecture", Share::Whole, async |lab| {
        let ladder = json!({
            "video": [{"name": "180p", "width": 320, "height": 180, "bitrate": 300_000}],
            "audio": [{"name": "audio", "bitrate": 64_000}],
        });
        let lecture = lab.apply("ethics", json!({"latency": "Standard", "ladder": ladder})).await?;
        let publisher = lecture.publish(Shot::small()).await?;
        let playing = lecture.wait_for("Playable=True with a transcoder", STEP, |stream| {
            condition(stream, "Playable").is_some_and(|playable| playable.status == "True") && transcoder(stream).is_some()
        });
        let playing = playing.await?;
        let prefix = prefix_of(&playing)?;
        let player = playing.status.and_then(|status| status.playback).context("status.playback")?.player;
        let mut browser = lab.browser().await?;
        browser.open(&player, None, STEP).await?;
        browser.playing(STEP).await?;

        ensure!(step(lab).await? == Step::Steady, "a rotation is under way");
        let before = entry(lab, "tls.crt").await?;
        let asked = Patch::Merge(json!({"metadata": {"annotations": {ASKED: "now"}}}));
        lab.secrets(PLATFORM).patch(CA, &PatchParams::default(), &asked).await?;
        let over = AtomicBool::new(false);
        let (turned, watched) = tokio::join!(turned(lab, &lecture, &over), watched(&mut browser, &publisher, &over));
        let moves = turned?;
        let (seconds, stalls) = watched?;
        eprintln!("the_ca_is_rotated_under_a_playing_lecture: {moves} moves in {seconds} s, {stalls} stalls");
        ensure!(entry(lab, "tls.crt").await? != before, "the CA is the one that it was");
        let left = lab.secrets(PLATFORM).get(CA).await?;
        ensure!(!left.annotations().contains_key(ASKED), "the wish is granted, and still there");
        ensure!(stalls == 0, "the player stood still {stalls} times");
        browser.close().await?;

        let published = vec![publisher.leave()?];
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        eventually("the recording's playlist", STEP, async || {
            let found = lab.storage.text(&prefix, &ObjectName::Vod).await;
            Ok(found.map_or_else(|error| Look::NotYet(format!("{error:#}")), |_| Look::Found(())))
        })
        .await?;
        judge::ended_run(&lab.storage, &prefix, &Expected { published, interrupted: false }, &lab.out.join("judge")).await?.sound()?;
        Ok(())
    })
    .await
}

/// Where a rotation is (`operator/src/trust/rotation.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Steady,
    Trusted,
    Left,
}

async fn step(lab: &Lab) -> Result<Step> {
    let data = lab.secrets(PLATFORM).get(CA).await?.data.unwrap_or_default();
    Ok(match (data.contains_key("next.crt"), data.contains_key("previous.crt")) {
        (true, _) => Step::Trusted,
        (false, true) => Step::Left,
        (false, false) => Step::Steady,
    })
}

async fn entry(lab: &Lab, name: &str) -> Result<Vec<u8>> {
    let data = lab.secrets(PLATFORM).get(CA).await?.data.unwrap_or_default();
    Ok(data.get(name).with_context(|| format!("{CA} has no {name}"))?.0.clone())
}

/// Moves the lecture again and again until each step has been taken, and for two minutes after the last; how often.
async fn turned(lab: &Lab, lecture: &Lecture<'_>, over: &AtomicBool) -> Result<u32> {
    let moved = async {
        let mut moves = 0;
        for expected in [Step::Trusted, Step::Left, Step::Steady] {
            let since = Instant::now();
            while step(lab).await? != expected {
                ensure!(since.elapsed() < PATIENCE, "{expected:?} does not come");
                moved(lecture).await?;
                moves += 1;
            }
            eprintln!("the_ca_is_rotated_under_a_playing_lecture: {expected:?} after {:?} and {moves} moves", since.elapsed());
        }
        let since = Instant::now();
        while since.elapsed() < STEP {
            moved(lecture).await?; // the kubelets have not handed the last files out yet
            moves += 1;
        }
        Ok(moves)
    };
    let moved = moved.await;
    over.store(true, Ordering::Relaxed);
    moved
}

async fn moved(lecture: &Lecture<'_>) -> Result<()> {
    let from = transcoder(&lecture.api().get(&lecture.name).await?).context("status.live.transcoder")?;
    lecture.annotate("lectern.video/move", "now").await?;
    lecture.wait_for(&format!("another transcoder than {from}"), STEP, |stream| transcoder(stream).is_some_and(|now| now != from)).await?;
    Ok(())
}

/// Watches until `over`; for how many seconds, and how often the player stood still.
async fn watched(browser: &mut Browser, publisher: &Publisher, over: &AtomicBool) -> Result<(f64, u32)> {
    let (mut seconds, mut stalls) = (0.0, 0);
    while !over.load(Ordering::Relaxed) {
        let sample = browser.sample(20).await?;
        let complaints = sample.complaints(&publisher.published());
        ensure!(complaints.is_empty(), "{complaints:?}");
        (seconds, stalls) = (seconds + sample.seconds, stalls + sample.stalls);
    }
    Ok((seconds, stalls))
}
