//! A lecture from its announcement to its recording, as lecturer and students see it.

use crate::ingest::small;
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use lectern_contract::keys::ObjectName;
use lectern_crds::{LiveStream, Retention, RouteSlice};
use lectern_e2e::judge::{self, Expected, Verdict};
use lectern_e2e::lab::{Lecture, STEP, prefix_of};
use lectern_e2e::publisher::TONE;
use lectern_e2e::settings::PLATFORM;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Browser, Coding, Gateway, Lab, Onlooker, Publisher, Sample, Share, Shot, Sound, condition, playlist};
use serde_json::json;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lecture_plays_in_a_browser() -> Result<()> {
    Lab::run("lecture_plays_in_a_browser", Share::Most, async |lab| {
        // As `light`, but that the first is what the publisher sends.
        let video = json!([
            {"name": "360p", "width": 640, "height": 360, "bitrate": 1_200_000},
            {"name": "270p", "width": 480, "height": 270, "bitrate": 450_000},
            {"name": "180p", "width": 320, "height": 180, "bitrate": 250_000},
        ]);
        let ladder = json!({"video": video, "audio": [{"name": "audio", "bitrate": 96_000}]});
        let lecture = lab.apply("algebra", json!({"title": "Algebra I", "latency": "Standard", "ladder": ladder})).await?;
        let publisher = lecture.publish(Shot { sound: Sound::Steady, ..Shot::default() }).await?;
        let player = lecture.until("Playable", "True").await?.status.and_then(|s| s.playback).context("status.playback")?.player;
        let passed = |stream: &LiveStream| {
            condition(stream, "Transcoding")
                .is_some_and(|it| it.status == "True" && it.message.contains("360p is the source's own picture"))
        };
        lecture.wait_for("the source is passed on", STEP, passed).await?;
        it_plays(lab, &lecture, &player, publisher, async || lecture.end().await).await.map(drop)
    })
    .await
}

/// The same through StartStream, WatchStream and EndStream, and with B-frames as OBS sends them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lecture_plays_through_the_three_calls() -> Result<()> {
    Lab::run("lecture_plays_through_the_three_calls", Share::Most, async |lab| {
        let gateway = Gateway::of(lab).await?;
        let title = format!("Geometry {}", lab.namespace); // a name of its own, whatever earlier tests left
        let (status, answer) =
            gateway.with_key("wrong").request("POST", "/v1/streams", Some(json!({"userId": "euclid", "name": title}))).await?;
        assert_eq!(status, 401, "a wrong key is answered with {answer}");

        let started = gateway.start("euclid", &title).await?;
        let lecture = lab.adopt(&started.hls_url)?;
        let publisher = lab.publish(
            &started.ingest_url,
            &started.stream_key,
            Shot { coding: Coding::BFrames, sound: Sound::Steady, ..Shot::default() },
        )?;
        let watched = eventually("WatchStream says live", STEP, async || {
            let watched = gateway.watch(&started.id).await?;
            Ok(if watched.state == "live" { Look::Found(watched) } else { Look::NotYet(format!("{watched:?}")) })
        });
        let player = watched.await?.player_url.context("playerUrl")?;
        assert_eq!(player, started.player_url);

        it_plays(lab, &lecture, &player, publisher, async || gateway.end("euclid", &title, &started.id).await.map(drop)).await?;
        let watched = eventually("WatchStream names the recording", STEP, async || {
            let watched = gateway.watch(&started.id).await?;
            Ok(if watched.vod_url.is_some() { Look::Found(watched) } else { Look::NotYet(format!("{watched:?}")) })
        });
        assert_eq!(watched.await?.state, "ended");
        Ok(())
    })
    .await
}

/// Issue 3, item 7: a running publisher is watched, everything selected and heard, then ended, judged and watched again.
async fn it_plays(
    lab: &Lab,
    lecture: &Lecture<'_>,
    player: &str,
    publisher: Publisher,
    end: impl AsyncFnOnce() -> Result<()>,
) -> Result<Verdict> {
    lecture.until("Receiving", "True").await?;
    let placed = lecture.until("Playable", "True").await?;
    let prefix = prefix_of(&placed)?;
    let hls = placed.status.and_then(|status| status.playback).context("status.playback")?.hls;

    let mut browser = lab.browser().await?;
    browser.open(player, None, STEP).await?;
    browser.playing(STEP).await?;
    let mut onlooker = Onlooker::new(lab, &hls)?;
    onlooker.look().await?;
    let sample = steady(&mut browser, 20).await?;
    assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
    onlooker.look().await?;
    every_rendition_plays(&mut browser).await?;
    onlooker.look().await?;
    browser.screenshot("player").await?;
    judge::live_playlists(&lab.storage, &prefix).await?;

    end().await?;
    let asked = Instant::now();
    lecture.until("Ended", "True").await?;
    let to_ended = asked.elapsed();
    live_playlists_are_closed(lab, &hls).await?;
    onlooker.look().await?;
    eventually("the recording's playlist", STEP, async || match lab.storage.text(&prefix, &ObjectName::Vod).await {
        Ok(text) => Ok(Look::Found(text)),
        Err(error) => Ok(Look::NotYet(format!("{error:#}"))),
    })
    .await?;
    eprintln!("{}: Ended {to_ended:?} and vod.m3u8 {:?} after the end was asked for", lab.test, asked.elapsed());

    let published = publisher.published();
    let expected = Expected { published: vec![published.clone()], interrupted: false };
    let verdict = judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
    drop(publisher); // until here it tried to publish on: the judge would have noticed

    recording_plays(&mut browser, player, &verdict, &published).await?;
    browser.screenshot("recording").await?;
    browser.close().await?;
    Ok(verdict)
}

/// Watches until media time has advanced at 1.0 ±0.05 for `seconds`: on a machine whose cores are somebody else's for a while, at the second or
/// third time.
pub async fn steady(browser: &mut Browser, seconds: u32) -> Result<Sample> {
    for _ in 0..3 {
        let sample = browser.sample(seconds).await?;
        if (0.95..=1.05).contains(&sample.rate) {
            return Ok(sample);
        }
        eprintln!("media time advanced at {} over {} s, with {} stalls", sample.rate, sample.seconds, sample.stalls());
    }
    bail!("media time did not advance steadily in three times {seconds} s")
}

/// Every rendition can be selected and decodes, and its sound is there.
async fn every_rendition_plays(browser: &mut Browser) -> Result<()> {
    let offered = browser.renditions().await?;
    ensure!(offered.video.len() == 3 && !offered.audio.is_empty(), "three pictures and a sound are wanted: {offered:?}");
    for level in &offered.video {
        let shown = browser.select(level.index, STEP).await?;
        assert_eq!((shown.width, shown.height), (level.width, level.height), "{level:?} shows {shown:?}");
        assert!(shown.ordered && shown.last > shown.first && shown.unread == 0, "{level:?} shows {shown:?}");
        let heard = browser.sound(STEP).await?;
        assert!((heard.hertz - TONE).abs() < 30.0, "beside {level:?} the browser hears {heard:?}");
    }
    browser.automatic().await?;
    for track in &offered.audio {
        let heard = browser.listen(&track.url, STEP).await?;
        assert!((heard.hertz - TONE).abs() < 30.0, "alone, {track:?} sounds like {heard:?}");
    }
    Ok(())
}

/// All live playlists, as the origin serves them, are closed.
async fn live_playlists_are_closed(lab: &Lab, hls: &str) -> Result<()> {
    let base = reqwest::Url::parse(hls)?;
    let named = playlist::variants(&lab.http(hls).await?);
    ensure!(named.len() == 4, "{hls} names {named:?}");
    for name in named {
        let url = base.join(&name)?;
        eventually(&format!("{url} is closed"), STEP, async || {
            let text = lab.http(url.as_str()).await?;
            Ok(if playlist::media(&text).ended { Look::Found(()) } else { Look::NotYet(text) })
        })
        .await?;
    }
    Ok(())
}

/// A student who comes late opens the same page: it has the recording, from the first picture on.
async fn recording_plays(browser: &mut Browser, player: &str, verdict: &Verdict, published: &std::ops::Range<u32>) -> Result<()> {
    browser.open(player, None, STEP).await?;
    let loaded = browser.playlist().await?;
    assert!(loaded.ends_with("/vod.m3u8"), "the page plays {loaded:?}");
    browser.press("#cover-action", STEP).await?;
    let start = browser.seek(0.0, STEP).await?;
    let firsts: Vec<_> = verdict.pictures.values().map(|pictures| pictures.iter().flatten().next().copied()).collect();
    assert!(firsts.contains(&Some(start.counter)), "the recording starts with picture {}, the bucket with {firsts:?}", start.counter);
    browser.playing(STEP).await?;
    let sample = browser.sample(5).await?;
    assert_eq!(sample.complaints(published), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_leaves_and_returns() -> Result<()> {
    Lab::run("publisher_leaves_and_returns", Share::Quarter, async |lab| {
        let lecture = lab.apply("history", small(json!({"title": "History"}))).await?;
        let first = lecture.publish(Shot::small()).await?;
        let before = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&before)?;
        let start = lecture.newest_segment(&prefix).await?;
        lecture.segments_go_on(&prefix, start, 4).await?;

        let drawn = first.die()?;
        let gone = lecture.until("Receiving", "False").await?;
        let told = condition(&gone, "Receiving").context("Receiving")?;
        assert!(!told.reason.is_empty() && !told.message.is_empty(), "{told:?}");
        assert_ne!(told.reason, "NoPublisherYet", "{told:?}");
        // Nobody publishes, and the slate goes on.
        let left_at = lecture.newest_segment(&prefix).await?;
        let left_at = lecture.segments_go_on(&prefix, left_at, 3).await?;

        let again = 1_000_000; // far from the first publisher's counters
        let second = lecture.publish(Shot { first: again, ..Shot::small() }).await?;
        let back = lecture.until("Receiving", "True").await?;
        assert_eq!(run_of(&back), run_of(&before), "the run changed");
        lecture.segments_resume(&prefix, left_at, 5).await?;

        let published = second.leave()?;
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        recorded(lab, &lecture).await?;
        let expected = Expected { published: vec![drawn, published.clone()], interrupted: true };
        let verdict = judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
        for (rendition, pictures) in &verdict.pictures {
            let from = |range: &std::ops::Range<u32>| pictures.iter().flatten().filter(|counter| range.contains(counter)).count();
            assert!(from(&expected.published[0]) > 60 && from(&published) > 60, "{rendition} lacks pictures of one of the publishers");
        }
        // In between there was the slate: no number is missing, and its pictures carry no code.
        assert_eq!(verdict.missing, Vec::<u64>::new());
        for (rendition, pictures) in &verdict.pictures {
            let slate = pictures.iter().filter(|picture| picture.is_none()).count();
            assert!(slate > 30, "{rendition} shows {slate} pictures of the slate");
        }
        Ok(())
    })
    .await
}

fn run_of(stream: &LiveStream) -> Option<&str> {
    stream.status.as_ref()?.run_id.as_deref()
}

/// Waits for the recording's playlist.
pub async fn recorded(lab: &Lab, lecture: &Lecture<'_>) -> Result<()> {
    lab.storage.has_recording(&lecture.prefix().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_removes_what_it_made() -> Result<()> {
    Lab::run("deleting_removes_what_it_made", Share::Half, async |lab| {
        // One that is still on the air, one that has ended.
        let on_air = deleted(lab, "thrown-away", Retention::Delete, false);
        let ended = deleted(lab, "kept", Retention::Retain, true);
        futures::try_join!(on_air, ended).map(drop)
    })
    .await
}

async fn deleted(lab: &Lab, name: &str, retention: Retention, ended_before: bool) -> Result<()> {
    let lecture = lab.apply(name, small(json!({"title": name, "record": {"retention": retention}}))).await?;
    let mut publisher = lecture.publish(Shot::small()).await?;
    let playable = lecture.until("Playable", "True").await?;
    let prefix = prefix_of(&playable)?;
    let secret = playable.status.and_then(|status| status.ingest).context("status.ingest")?.secret_name;
    if ended_before {
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        recorded(lab, &lecture).await?;
    }

    // The API tells a watch of every write, so the last words are seen although the object goes right after them.
    let words = lecture.wait_for("status says what becomes of the objects", STEP, |stream| {
        stream.metadata.deletion_timestamp.is_some()
            && condition(stream, "Ended").is_some_and(|ended| ended.status == "True" && ended.message.contains(prefix.as_str()))
    });
    let delete = async { Ok(lecture.api().delete(name, &DeleteParams::default()).await.map(drop)?) };
    let (told, ()) = futures::try_join!(words, delete)?;
    eprintln!("{name}: {:?}", condition(&told, "Ended").map(|ended| &ended.message));
    eventually("the LiveStream goes", STEP, async || match lecture.api().get_opt(name).await? {
        None => Ok(Look::Found(())),
        Some(left) => Ok(Look::NotYet(format!("{:?}", left.status))),
    })
    .await?;

    eventually("Secret, route and publisher go", STEP, async || {
        let secret = Api::<Secret>::namespaced(lab.client.clone(), &lab.namespace).get_metadata_opt(&secret).await?;
        let slices = Api::<RouteSlice>::namespaced(lab.client.clone(), PLATFORM).list(&ListParams::default()).await?;
        let routed = slices.iter().flat_map(|slice| &slice.spec.routes).any(|route| route.namespace == lab.namespace && route.name == name);
        let (secret, publishing) = (secret.is_some(), publisher.is_running());
        let seen = format!("Secret there: {secret}, routed: {routed}, publishing: {publishing}");
        Ok(if secret || routed || publishing { Look::NotYet(seen) } else { Look::Found(()) })
    })
    .await?;

    match retention {
        Retention::Delete => {
            eventually("the objects go and stay away", STEP, async || {
                let left = lab.storage.list(&format!("{prefix}/")).await?;
                Ok(if left.is_empty() { Look::Found(()) } else { Look::NotYet(format!("{:?}", left.keys())) })
            })
            .await
        }
        Retention::Retain => {
            judge::live_playlists(&lab.storage, &prefix).await?;
            let left = lab.storage.list(&format!("{prefix}/")).await?;
            ensure!(left.keys().any(|key| key.ends_with(".m4s")), "nothing was retained: {left:?}");
            Ok(())
        }
    }
}
