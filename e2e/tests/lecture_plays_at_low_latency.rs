//! A lecture of `latency: Low`, as players that know Low-Latency HLS watch it.

use crate::lecture_plays_in_a_browser::steady;
use anyhow::{Context as _, Result, ensure};
use lectern_e2e::browser::Level;
use lectern_e2e::lab::STEP;
use lectern_e2e::table::spread;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Browser, Lab, Onlooker, Publisher, Share, Shot, Sound, playlist};
use serde_json::{Value, json};

/// Seconds that a player of the MPD of `latency: Standard` is late at the least, were its segments of 2 s, too: four of them.
const WITHOUT_PARTS: f64 = 8.0;

/// Issue 5: hls.js waits for each part and gets it; shaka-player plays the same, dash.js and shaka-player play the segments of the MPD
/// while they are made; each switches through all renditions; parts are their segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lecture_plays_at_low_latency() -> Result<()> {
    Lab::run("lecture_plays_at_low_latency", Share::Whole, async |lab| {
        let lecture = lab.apply("physics", json!({"title": "Physics", "latency": "Low", "dvrWindowSeconds": 3600})).await?;
        let publisher = lecture.publish(Shot { sound: Sound::Beeps, remarks: true, ..Shot::default() }).await?;
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
        eprintln!("hls.js shows pictures {:.2} s after they were due, {} stalls", behind.median, sample.stalls());
        remarks_come("hls.js", &mut browser).await?;
        goes_on_from_part_to_part(&mut browser, &publisher).await?;
        // Parts of a rendition that were loaded before another's are no ground to go on from: their decoder was reset between.
        assert_eq!(browser.hesitate(5, STEP).await?, Vec::<String>::new());
        every_rendition(&mut browser).await?;

        parts_are_their_segment(lab, &playback.hls).await?;
        let mut onlooker = Onlooker::new(lab, &playback.hls)?;
        onlooker.look().await?;

        browser.open_hls(&playback.hls, STEP).await?; // our page allows no script that a test brings
        browser.playing_about(STEP).await?;
        sound_fits_the_picture("hls.js", &mut browser).await?;

        assert_eq!(browser.open_shaka(&playback.hls, STEP).await?, "HLS, live");
        browser.playing(STEP).await?;
        let sample = browser.sample(5).await?;
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        let behind = spread(sample.frames.iter().filter_map(|frame| publisher.behind(frame))).context("pictures")?;
        eprintln!("shaka-player shows pictures {:.2} s after they were due, {} stalls", behind.median, sample.stalls());
        sound_fits_the_picture("shaka-player", &mut browser).await?;
        every_rendition_of_shaka(&mut browser, &playback.hls).await?;
        browser.screenshot("low-latency").await?;

        goes_back_to_the_beginning(&playback.player, &mut browser, &publisher).await?;

        let mpd = playback.dash.context("status.playback.dash")?;
        assert_eq!(browser.open_shaka(&mpd, STEP).await?, "DASH, live");
        browser.playing_about(STEP).await?;
        plays_the_mpd("shaka-player", &mut browser, &publisher, 10).await?;
        sound_fits_the_picture("shaka-player with the MPD", &mut browser).await?;
        remarks_come("shaka-player with the MPD", &mut browser).await?;
        every_rendition(&mut browser).await?;
        assert_eq!(browser.open_dash(&mpd, STEP).await?, "DASH, live, low latency");
        browser.playing_about(STEP).await?; // it is never quite at the latency that it aims at
        plays_the_mpd("dash.js", &mut browser, &publisher, 10).await?;
        sound_fits_the_picture("dash.js", &mut browser).await?;
        remarks_come("dash.js", &mut browser).await?;
        every_rendition(&mut browser).await?;
        browser.screenshot("low-latency-dash").await?;

        onlooker.look().await?;
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        onlooker.look().await?;
        browser.ended(STEP).await?;
        drop(publisher);
        browser.close().await
    })
    .await
}

/// A student who watches for longer than a player keeps what was played is still about as close to the lecture as at the beginning.
async fn goes_on_from_part_to_part(browser: &mut Browser, publisher: &Publisher) -> Result<()> {
    // hls.js tidied up once what is behind the playhead was longer than a minute, and lost its place in the open segment: 6.75 s behind from then on.
    browser.reaches(75.0, 2 * STEP).await?;
    // One that stood still while it began is that much later, and comes closer again by and by.
    let behind = eventually("hls.js is about as close as parts let it be", 2 * STEP, async || {
        let behind = spread(browser.sample(3).await?.frames.iter().filter_map(|frame| publisher.behind(frame))).context("pictures")?;
        Ok(if behind.median < 5.0 { Look::Found(behind) } else { Look::NotYet(format!("{:.2} s behind", behind.median)) })
    })
    .await?;
    eprintln!("hls.js shows pictures {:.2} s after they were due, after more than a minute", behind.median);
    Ok(())
}

/// A student who comes late goes back to where the lecture began, as `dvrWindowSeconds` lets him: what origins hold no more of comes from S3.
async fn goes_back_to_the_beginning(page: &str, browser: &mut Browser, publisher: &Publisher) -> Result<()> {
    browser.open(page, None, STEP).await?;
    browser.playing_about(STEP).await?;
    // Not to the very first second: the publisher came somewhere in the first segment, and a paused player does not jump over what is before.
    let back = browser.seek(3.0, STEP).await?;
    let began = publisher.published().start;
    eprintln!("hls.js goes back by {:.0} s, to picture {} of a lecture that began with {began}", back.end - back.start, back.counter);
    ensure!(back.end - back.start > 30.0, "only so much can be sought: {} to {}", back.start, back.end);
    ensure!((began..began + 100).contains(&back.counter), "picture {} is not of the first three seconds", back.counter);
    Ok(())
}

/// The pictures are right, at about the right speed, and later than they were due by no more than what players of the MPD's segments
/// without parts would be at best.
async fn plays_the_mpd(player: &str, browser: &mut Browser, publisher: &Publisher, seconds: u32) -> Result<()> {
    let sample = steady(browser, seconds).await.context(player.to_owned())?;
    assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
    ensure!(browser.media_error().await?.is_none(), "{player}: {:?}", browser.media_error().await?);
    let behind = spread(sample.frames.iter().filter_map(|frame| publisher.behind(frame))).context("pictures")?;
    eprintln!("{player} shows pictures of the MPD {:.2} s after they were due, {} stalls", behind.median, sample.stalls());
    ensure!(behind.median < WITHOUT_PARTS, "{player} is {:.2} s behind", behind.median);
    Ok(())
}

/// Issue 5: sound and picture are at most 40 ms apart, in most of four seconds: a busy machine shows one picture or other late.
async fn sound_fits_the_picture(player: &str, browser: &mut Browser) -> Result<()> {
    let off = browser.sound_after_picture(4, STEP).await?;
    let median = spread(off.iter().copied()).context("beeps")?.median;
    eprintln!("{player}: sound is {median:+.0} ms after its picture, of {off:?}");
    ensure!(median.abs() <= 40.0, "{player}: sound and picture are {median} ms apart, of {off:?}");
    Ok(())
}

/// What the publisher says in its data messages comes to the page's scripts, at the time of the picture that it was said with.
async fn remarks_come(player: &str, browser: &mut Browser) -> Result<()> {
    let told = browser.told(3, STEP).await?;
    let mut off = Vec::new();
    for message in &told.said {
        let value: Value = serde_json::from_str(&message.value).with_context(|| format!("{message:?}"))?;
        let number: f64 =
            value["text"].as_str().and_then(|text| text.strip_prefix("remark ")?.parse().ok()).with_context(|| format!("{message:?}"))?;
        ensure!(message.name == "onTextData" && value["type"] == "Text", "{message:?}");
        off.push((message.time - told.zero - number) * 1e3);
    }
    let spread = spread(off.iter().copied()).context("remarks")?;
    eprintln!("{player}: {} remarks, {:+.0} to {:+.0} ms after their pictures", off.len(), spread.min, spread.max);
    ensure!(spread.min > -100.0 && spread.max < 100.0, "{player}: remarks are {off:?} ms after their pictures");
    Ok(())
}

/// Switches to each rendition in turn, and back to the first, as somebody does who looks at each.
async fn every_rendition(browser: &mut Browser) -> Result<()> {
    let offered = browser.renditions().await?.video;
    ensure!(offered.len() > 1, "there is nothing to switch: {offered:?}");
    for level in offered.iter().chain(offered.first()) {
        shows(browser, level).await?;
    }
    ensure!(browser.media_error().await?.is_none(), "{:?}", browser.media_error().await?);
    Ok(())
}

/// Switches to a rendition, whose pictures come in its size and in order.
async fn shows(browser: &mut Browser, level: &Level) -> Result<()> {
    let shown = browser.select(level.index, STEP).await?;
    ensure!((shown.width, shown.height) == (level.width, level.height), "{level:?} shows as {shown:?}");
    ensure!(shown.ordered && shown.unread == 0, "pictures of {level:?}: {shown:?}");
    browser.playing_about(STEP).await
}

/// [`every_rendition`] of shaka-player with a low-latency playlist. Switched in the middle of a segment, version 5.2.12 may append parts of the new rendition without its
/// init section: it takes the section for appended when it looks at a part that is not independent, and then begins at the segment's start. The
/// decoder fails, and the player gives up (3014, or 3015 where it notices first that it cannot append any more). It is opened again then, and goes on with what it has not shown yet.
async fn every_rendition_of_shaka(browser: &mut Browser, hls: &str) -> Result<()> {
    const GAVE_UP: [&str; 2] = ["the player gave up: 3014", "the player gave up: 3015"];
    let gave_up = |error: &anyhow::Error| GAVE_UP.iter().any(|words| format!("{error:#}").contains(words));
    let offered = browser.renditions().await?.video;
    let mut left: Vec<_> = offered.iter().chain(offered.first()).collect();
    let mut again = 0;
    while let Some(level) = left.first() {
        match shows(browser, level).await {
            Ok(()) => {
                left.remove(0);
                continue;
            }
            Err(error) => ensure!(again < 30 && gave_up(&error), "{error:#}"),
        }
        loop {
            again += 1;
            browser.open_shaka(hls, STEP).await?;
            match browser.playing_about(STEP).await {
                Ok(()) => break,
                Err(error) => ensure!(again < 30 && gave_up(&error), "{error:#}"),
            }
        }
    }
    ensure!(browser.media_error().await?.is_none(), "{:?}", browser.media_error().await?);
    eprintln!("shaka-player was opened {again} times more");
    Ok(())
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
