//! A lecture over DASH, in a player and on a page that are not ours.

use crate::lecture_plays_in_a_browser::steady;
use anyhow::{Context as _, Result, ensure};
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks};
use lectern_e2e::lab::STEP;
use lectern_e2e::publisher::TONE;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Share, Shot, Sound};
use serde_json::json;
use std::time::SystemTime;

/// Issue 5: live, over a hole, and to the end; then the recording, in which the hole is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lecture_plays_over_dash() -> Result<()> {
    Lab::run("lecture_plays_over_dash", Share::Most, async |lab| {
        let lecture =
            lab.apply("chemistry", json!({"title": "Chemistry", "latency": "Low", "reconnect": {"slate": {"enabled": false}}})).await?;
        let publisher = lecture.publish(Shot { sound: Sound::Steady, ..Shot::default() }).await?;
        let playable = lecture.until("Playable", "True").await?;
        let mpd = playable.status.and_then(|status| status.playback).and_then(|playback| playback.dash).context("status.playback.dash")?;

        let mut browser = lab.browser().await?;
        eventually("the MPD", STEP, async || Ok(lab.http(&mpd).await.map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Found)))
            .await?;
        assert_eq!(browser.open_shaka(&mpd, STEP).await?, "DASH, live");
        browser.playing_about(STEP).await?;
        browser.first_frame(STEP).await?; // the lecture is so young that the player may have to wait for its second segment
        let sample = steady(&mut browser, 10).await?;
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        let heard = browser.sound(STEP).await?;
        assert!((heard.hertz - TONE).abs() < 30.0, "the browser hears {heard:?}");

        // Longer away than a segment lasts: numbers are missing, and the player stands until there is something to jump to.
        let prefix = lecture.prefix().await?;
        publisher.die()?;
        let left = lecture.until("Receiving", "False").await?;
        let left_at = lecture.newest_segment(&prefix).await?;
        let zero = left.status.and_then(|status| status.placement).context("status.placement")?.anchor_millis;
        let missing = SegmentNumber(left_at + 4).start(SegmentDuration::LOW_LATENCY); // the next may have been begun
        eventually("a segment's time passes without media", STEP, async || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
            let at = Ticks::from_millis(u64::try_from(now)?.saturating_sub(u64::try_from(zero)?));
            Ok(if at > missing { Look::Found(()) } else { Look::NotYet(at.to_string()) })
        })
        .await?;
        let again = 1_000_000; // far from the first publisher's counters
        let publisher = lecture.publish(Shot { first: again, ..Shot::default() }).await?;
        lecture.segments_resume(&prefix, left_at, 6).await?;
        eventually("pictures of after the hole", STEP, async || {
            let frame = browser.first_frame(STEP).await?;
            Ok(if frame.counter.is_some_and(|counter| counter >= again) { Look::Found(()) } else { Look::NotYet(format!("{frame:?}")) })
        })
        .await?;
        browser.playing_about(STEP).await?;
        assert_eq!(browser.sample(5).await?.complaints(&publisher.published()), Vec::<String>::new());
        browser.screenshot("dash").await?;

        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        let text = eventually("the MPD is static", STEP, async || {
            let text = lab.http(&mpd).await?;
            Ok(if text.contains(" type=\"static\"") { Look::Found(text) } else { Look::NotYet(text) })
        })
        .await?;
        // Into the last segment, which may be short and is listed with its whole duration. Not the event `ended`: shaka-player plays so
        // close to the edge that it runs dry before it hears of the end, and then stands at the last picture without one (docs/playback.md).
        let duration = seconds_of(&text, "mediaPresentationDuration")?;
        browser.reaches(duration - SegmentDuration::LOW_LATENCY.ticks().as_secs_f64(), STEP).await?;
        drop(publisher);

        let vod =
            lecture.until("Ended", "True").await?.status.and_then(|status| status.playback?.vod_dash).context("status.playback.vodDash")?;
        let text = eventually("the recording's MPD", STEP, async || {
            Ok(lab.http(&vod).await.map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Found))
        })
        .await?;
        let periods: Vec<f64> = text.split("<Period ").skip(1).map(|period| seconds_of(period, "duration")).collect::<Result<_>>()?;
        ensure!(periods.len() == 2, "the recording has {} periods: {text}", periods.len());
        assert_eq!(browser.open_shaka(&vod, STEP).await?, "DASH");
        let first = browser.seek(0.0, STEP).await?;
        ensure!(first.counter < again && (first.end - first.start - periods.iter().sum::<f64>()).abs() < 0.1, "{first:?}, {periods:?}");
        let before = browser.seek(periods[0] - 3.0, STEP).await?;
        ensure!((first.counter..again).contains(&before.counter), "{before:?}");
        browser.playing(STEP).await?;
        eventually("pictures of after the hole", STEP, async || {
            let frame = browser.first_frame(STEP).await?;
            Ok(if frame.counter.is_some_and(|counter| counter >= again) { Look::Found(()) } else { Look::NotYet(format!("{frame:?}")) })
        })
        .await?;
        browser.seek(first.end - first.start - 3.0, STEP).await?;
        browser.first_frame(STEP).await?; // it plays again
        browser.ended(STEP).await?;
        browser.close().await
    })
    .await
}

/// The first attribute of this name: a duration in seconds.
fn seconds_of(xml: &str, attribute: &str) -> Result<f64> {
    let (_, rest) = xml.split_once(&format!("{attribute}=\"PT")).with_context(|| format!("no {attribute} in {xml}"))?;
    let (seconds, _) = rest.split_once('S').context("a duration in seconds")?;
    Ok(seconds.parse()?)
}
