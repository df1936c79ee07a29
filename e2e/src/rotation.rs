//! One CA takes another's place (`operator/src/trust/rotation.rs`), and a lecture plays through it.

use crate::chaos::transcoder;
use crate::judge::{self, Expected};
use crate::lab::{Lecture, STEP, condition, prefix_of};
use crate::settings::PLATFORM;
use crate::{Browser, Lab, Publisher, Shot};
use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CA: &str = "lectern-ca";
const ASKED: &str = "lectern.video/rotate";
/// A step: the operator's pause on the test cluster (`e2e/cluster/values.yaml`), how often it looks, and a move that has just begun.
pub const PATIENCE: Duration = Duration::from_secs(360);

/// Where a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is one CA.
    Steady,
    /// The next one is trusted already.
    Trusted,
    /// The next one issues, and the one before is trusted still.
    Left,
}

/// Where it is now.
pub async fn step(lab: &Lab) -> Result<Step> {
    let data = lab.secrets(PLATFORM).get(CA).await?.data.unwrap_or_default();
    Ok(match (data.contains_key("next.crt"), data.contains_key("previous.crt")) {
        (true, _) => Step::Trusted,
        (false, true) => Step::Left,
        (false, false) => Step::Steady,
    })
}

/// The certificate of the CA that issues now, PEM.
pub async fn issuing(lab: &Lab) -> Result<String> {
    lab.entry(PLATFORM, CA, "tls.crt").await
}

/// `kubectl annotate`: the operator shall put another CA into this one's place.
pub async fn ask(lab: &Lab) -> Result<()> {
    let asked = Patch::Merge(json!({"metadata": {"annotations": {ASKED: "now"}}}));
    lab.secrets(PLATFORM).patch(CA, &PatchParams::default(), &asked).await?;
    Ok(())
}

/// Whether that has been asked for, and not begun yet.
pub async fn is_asked(lab: &Lab) -> Result<bool> {
    Ok(lab.secrets(PLATFORM).get(CA).await?.annotations().contains_key(ASKED))
}

/// Waits for each step; before it is taken does `meanwhile` again and again. How often.
pub async fn turned(lab: &Lab, mut meanwhile: impl AsyncFnMut() -> Result<()>) -> Result<u32> {
    let mut times = 0;
    for expected in [Step::Trusted, Step::Left, Step::Steady] {
        let since = Instant::now();
        while step(lab).await? != expected {
            ensure!(since.elapsed() < PATIENCE, "{expected:?} does not come");
            meanwhile().await?;
            times += 1;
        }
        eprintln!("{}: {expected:?} after {:?}", lab.test, since.elapsed());
    }
    Ok(times)
}

/// Moves a lecture to another transcoder: two pods, a shard and an origin shake hands, whatever files each of them has by then.
pub async fn moved(lecture: &Lecture<'_>) -> Result<()> {
    let from = transcoder(&lecture.api().get(&lecture.name).await?).context("status.live.transcoder")?;
    lecture.annotate("lectern.video/move", "now").await?;
    lecture.wait_for(&format!("another transcoder than {from}"), STEP, |stream| transcoder(stream).is_some_and(|now| now != from)).await?;
    Ok(())
}

/// Moves it again and again for two minutes: after a rotation's last step the kubelets have not handed the last files out yet. How often.
pub async fn moved_on(lecture: &Lecture<'_>) -> Result<u32> {
    let (since, mut moves) = (Instant::now(), 0);
    while since.elapsed() < STEP {
        moved(lecture).await?;
        moves += 1;
    }
    Ok(moves)
}

/// Watches a small lecture while `body` runs: the player may not stand still, and the recording may lack nothing.
pub async fn plays_through(lab: &Lab, body: impl AsyncFnOnce(&Lecture<'_>) -> Result<()>) -> Result<()> {
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

    watched_while(lab, (&mut browser, 20), &publisher, body(&lecture)).await?;
    browser.close().await?;

    let published = vec![publisher.leave()?];
    lecture.end().await?;
    lecture.until("Ended", "True").await?;
    lab.storage.has_recording(&prefix).await?;
    judge::ended_run(&lab.storage, &prefix, &Expected { published, interrupted: false }, &lab.out.join("judge")).await?.sound()?;
    Ok(())
}

/// Watches while `body` runs, by samples of `each` so many seconds: the player may not stand still, and shows what was published.
pub async fn watched_while(
    lab: &Lab,
    (browser, each): (&mut Browser, u32),
    publisher: &Publisher,
    body: impl Future<Output = Result<()>>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let body = async {
        let done = Box::pin(body).await; // boxed: the compiler does not go into the depths of a long test
        over.store(true, Ordering::Relaxed);
        done
    };
    let watched = async {
        let (mut seconds, mut stalls) = (0.0, 0);
        while !over.load(Ordering::Relaxed) {
            let sample = browser.sample(each).await?;
            let complaints = sample.complaints(&publisher.published());
            ensure!(complaints.is_empty(), "{complaints:?}");
            (seconds, stalls) = (seconds + sample.seconds, stalls + sample.stalls());
        }
        eprintln!("{}: watched for {seconds:.0} s, {stalls} stalls", lab.test);
        ensure!(stalls == 0, "the player stood still {stalls} times");
        anyhow::Ok(())
    };
    tokio::try_join!(body, watched).map(drop)
}
