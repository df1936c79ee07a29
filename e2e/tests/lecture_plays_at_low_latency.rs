//! A lecture of `latency: Low`, as players that know Low-Latency HLS watch it.

use anyhow::{Context as _, Result, ensure};
use lectern_e2e::lab::STEP;
use lectern_e2e::table::spread;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Share, Shot, playlist};
use serde_json::json;

/// Issue 5: hls.js waits for each part and gets it; shaka-player plays the same; parts are their segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lecture_plays_at_low_latency() -> Result<()> {
    Lab::run("lecture_plays_at_low_latency", Share::Half, async |lab| {
        let lecture = lab.apply("physics", json!({"title": "Physics", "latency": "Low"})).await?;
        let publisher = lecture.publish(Shot::default()).await?;
        let playback = lecture.until("Playable", "True").await?.status.and_then(|status| status.playback).context("status.playback")?;

        let mut browser = lab.browser().await?;
        browser.open(&playback.player, None, STEP).await?;
        browser.playing(STEP).await?;
        let sample = browser.sample(10).await?;
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        let waited = browser.requests("live\\.m3u8\\?.*_HLS_msn=\\d+&_HLS_part=\\d+").await?;
        let parts = browser.requests("/\\d+\\.\\d+\\.m4s$").await?;
        ensure!(waited.len() > 20 && parts.len() > 20, "hls.js asked for {} playlists to come and {} parts", waited.len(), parts.len());
        let failed: Vec<_> = waited.iter().chain(&parts).filter(|(_, status)| *status != 200).collect();
        ensure!(failed.is_empty(), "not every request was answered: {failed:?}");
        let behind = spread(sample.frames.iter().filter_map(|frame| publisher.behind(frame))).context("pictures")?;
        eprintln!("hls.js shows pictures {:.2} s after they were due, {} stalls", behind.median, sample.stalls);

        parts_are_their_segment(lab, &playback.hls).await?;

        assert_eq!(browser.open_shaka(&playback.hls, STEP).await?, "HLS, live");
        browser.playing(STEP).await?;
        let sample = browser.sample(5).await?;
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        let behind = spread(sample.frames.iter().filter_map(|frame| publisher.behind(frame))).context("pictures")?;
        eprintln!("shaka-player shows pictures {:.2} s after they were due, {} stalls", behind.median, sample.stalls);
        browser.screenshot("low-latency").await?;

        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        browser.ended(STEP).await?;
        drop(publisher);
        browser.close().await
    })
    .await
}

/// Of every rendition: each part that its playlist names can be fetched, at once, and those of a whole segment are its bytes.
async fn parts_are_their_segment(lab: &Lab, hls: &str) -> Result<()> {
    let folder = |url: &str| url.rsplit_once('/').map(|(folder, _)| folder.to_owned()).context("a URL with a path");
    let base = folder(hls)?;
    for name in playlist::variants(&lab.http(hls).await?) {
        let url = format!("{base}/{name}");
        let read = eventually("a playlist with parts of a whole segment", STEP, async || {
            let read = playlist::media(&lab.http(&url).await?);
            let whole = read.segments.last().is_some_and(|segment| !read.parts_of(segment).is_empty());
            Ok(if whole { Look::Found(read) } else { Look::NotYet(format!("{read:?}")) })
        })
        .await?;
        let folder = folder(&url)?;
        let segment = read.segments.last().context("a segment")?;
        let mut joined = Vec::new();
        for part in read.parts_of(segment) {
            joined.extend(lab.http_bytes(&format!("{folder}/{part}")).await?);
        }
        let whole = lab.http_bytes(&format!("{folder}/{}", segment.uri)).await?;
        ensure!(joined == whole, "the parts of {name}'s {} have {} bytes, it has {}", segment.uri, joined.len(), whole.len());
        // What comes next is named, too, and whoever asks for it waits until it is there.
        let hint = read.hint.context("a preload hint")?;
        ensure!(!lab.http_bytes(&format!("{folder}/{hint}")).await?.is_empty(), "{hint} came empty");
    }
    Ok(())
}
