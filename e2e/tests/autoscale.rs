//! Origins by load. A binary of its own that `make autoscale` runs: it needs metrics-server in the cluster, and takes eight minutes, because an autoscaler waits five
//! before it takes a pod away.
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use lectern_crds::{Exposure, OriginAutoscale};
use lectern_e2e::crowd::{Crowd, Habits};
use lectern_e2e::judge::{self, Expected};
use lectern_e2e::lab::{STEP, prefix_of, small};
use lectern_e2e::origins::Counted;
use lectern_e2e::rotation::watched_while;
use lectern_e2e::{Lab, Share, Shot};
use reqwest::Url;
use serde_json::json;
use std::time::{Duration, Instant};

/// Origins at most.
const MOST: i32 = 3;
/// The least that a pool takes.
const CPU_MILLIS: i32 = 50;
/// Viewers at most who make the load: as many more at a time, until there is another origin.
const VIEWERS: usize = 96;
const AT_A_TIME: u32 = 32;
/// The kubelet, metrics-server and the autoscaler look every fifteen seconds each.
const NOTICED: Duration = Duration::from_secs(60);
/// The autoscaler goes by the most that it has wanted in five minutes.
const LET_GO: Duration = Duration::from_secs(600);

/// One origin, then as many as the load needs, then one again. A browser plays all the time, over the origins that come and that go; nobody who asks for anything is
/// turned away; how many there are to be goes up and then down, and nobody takes the autoscaler's word back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_come_and_go_with_their_viewers() -> Result<()> {
    Lab::run("origins_come_and_go_with_their_viewers", Share::Whole, async |lab| {
        let (pool, mut spec) = lab.small_pool("crowd").await?;
        let (node, port) = (lab.node_address().await?, rand::random_range(32_100..32_700));
        let at = |port| Exposure { service_type: Some("NodePort".into()), node_port: Some(port) };
        (spec.ingest.exposure, spec.origin.exposure) = (at(port), at(port + 1));
        spec.ingest.public_url = format!("rtmp://{node}:{port}/live");
        spec.origin.public_url = format!("http://{node}:{}", port + 1);
        spec.origin.autoscale = Some(OriginAutoscale { max_replicas: MOST, cpu_millis: CPU_MILLIS });
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, 2 * STEP).await?;
        let lecture = lab.apply("ethics", small(json!({"poolName": pool, "latency": "Standard"}))).await?;
        let publisher = lecture.publish(Shot::small()).await?;
        let playable = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&playable)?;
        let playback = playable.status.and_then(|status| status.playback).context("status.playback")?;
        let hls = Url::parse(&playback.hls)?;
        let pictures = hls.join("180p/live.m3u8")?;
        lecture.segments_go_on(&prefix, lecture.newest_segment(&prefix).await?, 2).await?;

        let before = lab.origins_are(&pool, STEP, |count| count == 1).await?;
        let counted = Counted::of(lab, &pool);
        // A connection for each look: each may meet an origin that is about to go.
        let mut always = Crowd::of(pictures.clone(), Habits { every: Duration::from_millis(250), stays: 1 });
        always.grows(8);
        let mut load = Crowd::of(pictures, Habits { every: Duration::from_millis(50), stays: 100 });
        let mut browser = lab.browser().await?;
        browser.open(&playback.player, None, STEP).await?;
        browser.playing(STEP).await?;

        let since = Instant::now();
        let come = async {
            loop {
                load.grows(AT_A_TIME);
                match lab.origins_wanted(&pool, NOTICED, |wanted| wanted > 1).await {
                    Ok(_) => break,
                    Err(error) => ensure!(load.size() < VIEWERS, "{} viewers, and: {error:#}", load.size()),
                }
            }
            eprintln!("{}: {} viewers want more origins after {:?}", lab.test, load.size(), since.elapsed());
            let origins = lab.origins_are(&pool, STEP, |count| count > 1).await?;
            let compared = lab.origins_serve_the_same(&origins, &hls).await?;
            eprintln!("{}: {} origins serve the same {compared} segments after {:?}", lab.test, origins.len(), since.elapsed());
            ensure!(before.iter().all(|origin| origins.contains(origin)), "{before:?} became {origins:?}");
            anyhow::Ok(())
        };
        watched_while(lab, (&mut browser, 10), &publisher, come).await?;

        // Anew, so that its connections lead to those that have come.
        browser.open(&playback.player, None, STEP).await?;
        browser.playing(STEP).await?;
        let since = Instant::now();
        let go = async {
            let (size, answers) = (load.size(), load.leaves().await?);
            eprintln!("{}: {size} viewers leave: {answers:?}", lab.test);
            let left = lab.origins_are(&pool, LET_GO, |count| count == 1).await?;
            eprintln!("{}: {left:?} is left after {:?}", lab.test, since.elapsed());
            lecture.segments_go_on(&prefix, lecture.newest_segment(&prefix).await?, 5).await?;
            anyhow::Ok(())
        };
        watched_while(lab, (&mut browser, 10), &publisher, go).await?;
        browser.close().await?;

        eprintln!("{}: those who came all the time: {:?}", lab.test, always.leaves().await?);
        let numbers = counted.numbers();
        eprintln!("{}: origins wanted: {numbers:?}", lab.test);
        let most = numbers.iter().position(|count| Some(count) == numbers.iter().max()).context("no origin was wanted")?;
        ensure!(numbers[..=most].is_sorted() && numbers[most..].is_sorted_by(|one, next| one > next), "{numbers:?}");
        ensure!(numbers.first() == Some(&1) && numbers.last() == Some(&1) && numbers[most] > 1, "{numbers:?}");

        let published = vec![publisher.leave()?];
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        lab.storage.has_recording(&prefix).await?;
        judge::ended_run(&lab.storage, &prefix, &Expected { published, interrupted: false }, &lab.out.join("judge")).await?.sound()?;
        Ok(())
    })
    .await
}
