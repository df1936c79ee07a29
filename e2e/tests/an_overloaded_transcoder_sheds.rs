//! A ladder that is too much for its transcoder, as students see it who chose its highest rendition.

use anyhow::{Context as _, Result, ensure};
use lectern_e2e::lab::{Lecture, STEP};
use lectern_e2e::{Browser, Lab, PortForward, Publisher, Share, Shot, condition};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the transcoder says of itself.
const SHED: &str = "1080p shows the picture of 180p";
/// Of the rendition that is shed, and of the one that stands in.
const HEIGHTS: (u32, u32) = (1080, 180);
/// Four segments: who watches is three behind the live edge.
const BEHIND: u32 = 16;

/// Issue 5: the rendition that is too much goes on with the picture of the next lower one; it is tried again, is too much again, and goes
/// again; nobody who watches it stalls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_transcoder_sheds() -> Result<()> {
    // Two browsers decode the first rendition beside: what else ran would make the third of a core less than that.
    Lab::run("an_overloaded_transcoder_sheds", Share::Whole, async |lab| {
        // A third of any core is too little for the first, which a browser decodes easily, and enough for the second.
        let pool = slow_pool(lab).await?;
        let video = json!([
            {"name": "1080p", "width": 1920, "height": 1080, "frameRate": 30, "codec": "av1", "bitrate": 3_000_000},
            {"name": "180p", "width": 320, "height": 180, "frameRate": 30, "codec": "av1", "bitrate": 250_000},
        ]);
        let ladder = json!({"video": video, "audio": [{"name": "audio", "bitrate": 96_000}]});
        let spec = json!({"title": "Optics", "poolName": pool, "latency": "Standard", "ladder": ladder});
        let lecture = lab.apply("optics", spec).await?;
        let (_, key) = lecture.credentials().await?;
        let shard = PortForward::to(&lab.settings, &format!("lectern-ingest-{pool}-0"), 1935).await?; // the pool's own is not exposed
        let publisher = lab.publish(&shard.rtmp(), &key, Shot::small())?;
        sheds(&lecture, true).await?;
        let playback = lecture.until("Playable", "True").await?.status.and_then(|status| status.playback).context("status.playback")?;

        let (mut hls, mut shaka) = (lab.browser().await?, lab.browser().await?);
        hls.open(&playback.player, None, STEP).await?;
        assert_eq!(shaka.open_shaka(&playback.hls, STEP).await?, "HLS, live");
        for (name, browser) in [("hls.js", &mut hls), ("shaka-player", &mut shaka)] {
            browser.playing_about(STEP).await?; // hls.js takes its time to come to its latency
            highest(browser).await.context(name)?;
            browser.playing_about(STEP).await?; // hls.js takes its time to come to its latency
        }

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
        for (name, browser) in [("hls.js", &mut hls), ("shaka-player", &mut shaka)] {
            ensure!(highest(browser).await? == HEIGHTS.1, "{name} does not show the picture that stands in");
        }

        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        drop(publisher);
        hls.close().await?;
        shaka.close().await
    })
    .await
}

/// A pool whose only transcoder gets a third of a core.
async fn slow_pool(lab: &Lab) -> Result<String> {
    let (name, mut spec) = lab.small_pool("slow").await?;
    spec.transcoder.class.resources = Some(serde_json::from_value(json!({"limits": {"cpu": "330m"}, "requests": {"cpu": "330m"}}))?);
    lab.apply_pool(&name, &spec).await?;
    lab.pool_is_ready(&name, STEP).await?;
    Ok(name)
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

/// Chooses the highest rendition; the height of its pictures.
async fn highest(browser: &mut Browser) -> Result<u32> {
    let offered = browser.renditions().await?.video;
    let highest = offered.iter().find(|level| level.height == HEIGHTS.0).with_context(|| format!("the highest of {offered:?}"))?;
    let shown = browser.select_any_size(highest.index, STEP).await?;
    ensure!(shown.ordered && shown.unread == 0, "{shown:?}");
    Ok(shown.height)
}

/// Watches until it is `over`, and until what happened last was seen: time goes on, and every picture is at its place.
async fn watch(browser: &mut Browser, publisher: &Publisher, over: &AtomicBool) -> Result<()> {
    const LOOK: u32 = 4;
    let mut left = BEHIND / LOOK;
    while left > 0 {
        left -= u32::from(over.load(Ordering::Relaxed));
        let sample = browser.sample(LOOK).await?;
        // On a machine whose cores are all taken a decoder that starts anew may be ten frames late, or time may go slowly with no wait for data. A
        // segment that is not there is a wait of seconds.
        let goes_on = sample.rate > 0.9 || (sample.stalls() == 0 && sample.rate > 0.8);
        ensure!(goes_on, "media time advanced at {} for {} s, and it waited: {:#?}", sample.rate, sample.seconds, sample.waits);
        let complaints = sample.complaints(&publisher.published());
        ensure!(complaints.is_empty(), "{complaints:?}");
        ensure!(browser.media_error().await?.is_none(), "{:?}", browser.media_error().await?);
    }
    Ok(())
}
