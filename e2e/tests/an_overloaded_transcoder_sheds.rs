//! A ladder that is too much for the machine, as students see it who chose its highest rendition.

use anyhow::{Context as _, Result, ensure};
use lectern_e2e::lab::{Lecture, STEP};
use lectern_e2e::{Browser, Lab, Publisher, Share, Shot, condition};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the transcoder says of itself.
const SHED: &str = "1440p shows the picture of 180p";
/// Of the rendition that is shed, and of the one that stands in.
const HEIGHTS: (u32, u32) = (1440, 180);

/// Issue 5: the rendition that is too much goes on with the picture of the next lower one; it is tried again, is too much again, and goes
/// again; nobody who watches it stalls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_transcoder_sheds() -> Result<()> {
    Lab::run("an_overloaded_transcoder_sheds", Share::Whole, async |lab| {
        // x264 takes about two cores for the first, and it has one thread.
        let video = json!([
            {"name": "1440p", "width": 2560, "height": 1440, "frameRate": 30, "codec": "h264", "bitrate": 3_000_000},
            {"name": "180p", "width": 320, "height": 180, "frameRate": 30, "codec": "h264", "bitrate": 250_000},
        ]);
        let ladder = json!({"video": video, "audio": [{"name": "audio", "bitrate": 96_000}]});
        let lecture = lab.apply("optics", json!({"title": "Optics", "ladder": ladder})).await?;
        let publisher = lecture.publish(Shot::small()).await?;
        sheds(&lecture, true).await?;
        let playback = lecture.until("Playable", "True").await?.status.and_then(|status| status.playback).context("status.playback")?;

        let (mut hls, mut shaka) = (lab.browser().await?, lab.browser().await?);
        hls.open(&playback.player, None, STEP).await?;
        chosen(&mut hls).await.context("hls.js")?;
        assert_eq!(shaka.open_shaka(&playback.hls, STEP).await?, "HLS, live");
        chosen(&mut shaka).await.context("shaka-player")?;

        let over = AtomicBool::new(false);
        let (back_and_gone, watched, watched_too) = tokio::join!(
            async {
                let back_and_gone = async {
                    sheds(&lecture, false).await?;
                    sheds(&lecture, true).await
                };
                let done = back_and_gone.await;
                over.store(true, Ordering::Relaxed);
                done
            },
            watch(&mut hls, &publisher, &over),
            watch(&mut shaka, &publisher, &over),
        );
        back_and_gone?;
        watched.context("hls.js")?;
        watched_too.context("shaka-player")?;

        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        drop(publisher);
        hls.close().await?;
        shaka.close().await
    })
    .await
}

/// Waits until the transcoder says that it has shed its first rendition, or that it has not.
async fn sheds(lecture: &Lecture<'_>, wanted: bool) -> Result<()> {
    let what = if wanted { "sheds" } else { "sheds nothing" };
    let says = |running: &str| running.contains(SHED) == wanted;
    lecture
        .wait_for(what, STEP, |stream| condition(stream, "Transcoding").is_some_and(|it| it.status == "True" && says(&it.message)))
        .await
        .map(drop)
}

/// Chooses the highest rendition, which shows the lowest one's picture.
async fn chosen(browser: &mut Browser) -> Result<()> {
    browser.playing(STEP).await?;
    let offered = browser.renditions().await?.video;
    let highest = offered.iter().find(|level| level.height == HEIGHTS.0).with_context(|| format!("the highest of {offered:?}"))?;
    let shown = browser.select(highest.index, STEP).await?;
    ensure!(shown.height == HEIGHTS.1 && shown.ordered && shown.unread == 0, "{shown:?}");
    browser.playing(STEP).await
}

/// Watches until it is `over`, and for as long again as a player is behind the live edge.
async fn watch(browser: &mut Browser, publisher: &Publisher, over: &AtomicBool) -> Result<()> {
    let mut left = 4;
    while left > 0 {
        left -= i32::from(over.load(Ordering::Relaxed));
        let sample = browser.sample(5).await?;
        ensure!(sample.stalls == 0, "{} stalls in {} s, media time advanced at {}", sample.stalls, sample.seconds, sample.rate);
        let complaints = sample.complaints(&publisher.published());
        ensure!(complaints.is_empty(), "{complaints:?}");
        ensure!(browser.media_error().await?.is_none(), "{:?}", browser.media_error().await?);
    }
    Ok(())
}
