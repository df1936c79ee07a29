//! A ladder with a rendition of each codec, each in a size of its own.

use crate::lecture_plays_in_a_browser::recorded;
use anyhow::{Context as _, Result, ensure};
use lectern_contract::keys::ObjectName;
use lectern_e2e::captioner::LASTS;
use lectern_e2e::judge::{self, Expected};
use lectern_e2e::lab::{STEP, prefix_of};
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Browser, Lab, Share, Shot, condition};
use serde_json::json;

/// Issue 5: H.264, HEVC and AV1 of one lecture. Chromium plays the first and the last; HEVC is judged by ffmpeg's decoder, as are all. The source's
/// captions come as text in hls.js, and out of the pictures in shaka-player.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_plays() -> Result<()> {
    Lab::run("every_codec_plays", Share::Whole, async |lab| {
        let ladder = json!({
            "video": [
                {"name": "h264-180p", "width": 320, "height": 180, "codec": "h264", "bitrate": 300_000},
                {"name": "hevc-144p", "width": 256, "height": 144, "codec": "hevc", "bitrate": 200_000},
                {"name": "av1-216p", "width": 384, "height": 216, "codec": "av1", "bitrate": 300_000},
            ],
            "audio": [{"name": "audio", "bitrate": 64_000}],
        });
        let lecture = lab.apply("art", json!({"title": "Art", "latency": "Low", "ladder": ladder})).await?;
        let publisher = lecture.publish(Shot { captions: true, ..Shot::small() }).await?;
        let playable = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&playable)?;
        let playback = playable.status.and_then(|status| status.playback).context("status.playback")?;
        let dash = playback.dash.context("status.playback.dash")?;

        let mut browser = lab.browser().await?;
        browser.open(&playback.player, None, STEP).await?;
        browser.playing(STEP).await?;
        let levels = browser.renditions().await?.video;
        let offered: Vec<&str> = levels.iter().filter_map(|level| level.codecs.split('.').next()).collect();
        ensure!(offered.contains(&"avc1") && offered.contains(&"av01"), "the player offers {levels:?}");
        // Each by itself: players do not change between codecs by themselves.
        let (folder, _) = playback.hls.rsplit_once('/').context("a URL with a path")?;
        for name in ["av1-216p", "h264-180p"] {
            browser.open_hls(&format!("{folder}/{name}/live.m3u8"), STEP).await?;
            browser.playing(STEP).await?;
            let sample = browser.sample(3).await?;
            assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new(), "{name}");
        }
        browser.open_hls(&playback.hls, STEP).await?;
        browser.playing_about(STEP).await?;
        captions_come("hls.js", &mut browser).await?;
        let multivariant = lab.http(&playback.hls).await?;
        ensure!(multivariant.contains("CODECS=\"hvc1.1.6."), "{multivariant}");
        // Players change between the Representations of an AdaptationSet unasked, so a codec has one of its own.
        let mpd = lab.http(&dash).await?;
        ensure!(mpd.matches("<AdaptationSet ").count() == 4, "{mpd}");
        assert_eq!(browser.open_shaka(&dash, STEP).await?, "DASH, live");
        browser.playing_about(STEP).await?;
        captions_come("shaka-player with the MPD", &mut browser).await?;
        browser.close().await?;

        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        recorded(lab, &lecture).await?;
        let expected = Expected { published: vec![publisher.published()], interrupted: false };
        judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
        drop(publisher);
        Ok(())
    })
    .await
}

/// HEVC is encoded after the end, of the original: the recording has it then, picture for picture, and plays as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dear_is_encoded_after_the_end() -> Result<()> {
    Lab::run("what_is_dear_is_encoded_after_the_end", Share::Half, async |lab| {
        let ladder = json!({
            "video": [
                {"name": "180p", "width": 320, "height": 180, "codec": "h264", "bitrate": 300_000},
                {"name": "180p-hevc", "width": 320, "height": 180, "codec": "hevc", "bitrate": 200_000, "when": "Archive"},
            ],
            "audio": [{"name": "audio", "bitrate": 64_000}],
        });
        let spec = json!({"title": "Art", "latency": "Low", "ladder": ladder, "record": {"original": true}});
        let lecture = lab.apply("art", spec).await?;
        let publisher = lecture.publish(Shot::small()).await?;
        let playable = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&playable)?;
        let playback = playable.status.and_then(|status| status.playback).context("status.playback")?;
        ensure!(!lab.http(&playback.hls).await?.contains("hevc"), "it is encoded live");
        lecture.segments_resume(&prefix, lecture.newest_segment(&prefix).await?, 3).await?;
        let published = publisher.leave()?;
        lecture.end().await?;
        let ended = lecture.until("Ended", "True").await?;
        ensure!(condition(&ended, "Archived").is_none_or(|it| it.status == "False"), "{:?}", condition(&ended, "Archived"));
        lecture.until("Archived", "True").await?;
        let vod = eventually("the rendition in the recording", STEP, async || {
            let text = lab.storage.text(&prefix, &ObjectName::Vod).await?;
            Ok(if text.contains("180p-hevc/vod.m3u8") { Look::Found(text) } else { Look::NotYet(text) })
        })
        .await?;
        ensure!(vod.contains("CODECS=\"hvc1."), "{vod}");
        let expected = Expected { published: vec![published], interrupted: false };
        let verdict = judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
        ensure!(verdict.pictures.len() == 3, "the live rendition, the archive's and the original: {:?}", verdict.pictures.keys());
        let mut browser = lab.browser().await?;
        let recording = playback.hls.replace("/live.m3u8", "/vod.m3u8");
        browser.open_hls(&recording, STEP).await?;
        browser.playing_about(STEP).await?;
        browser.close().await
    })
    .await
}

/// Captions begin with the pictures that they were said with: after the dozen of pictures that it takes to say one.
async fn captions_come(player: &str, browser: &mut Browser) -> Result<()> {
    let shown = browser.captions(3, STEP).await?;
    eprintln!("{player}: captions and the pictures that they begin with: {shown:?}");
    for (number, picture) in &shown {
        let said = picture.saturating_sub(number * LASTS);
        ensure!((9..=16).contains(&said), "{player}: caption {number} begins with picture {picture}: {shown:?}");
    }
    ensure!(shown.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{player}: {shown:?}");
    Ok(())
}
