//! Parts of the platform go away under a running lecture, or are not there yet.

use crate::ingest::begun;
use crate::lecture_plays_in_a_browser::recorded;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use lectern_crds::{POOL_LABEL, StreamPool};
use lectern_e2e::chaos::transcoder;
use lectern_e2e::judge::{self, Expected};
use lectern_e2e::lab::{STEP, prefix_of};
use lectern_e2e::shards::is_ready;
use lectern_e2e::wait::{self, Look, eventually};
use lectern_e2e::{Lab, PortForward, Proxy, Share, Shot, condition};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_restarted_nothing_is_touched() -> Result<()> {
    const OPERATOR: &str = "app.kubernetes.io/component=operator";
    Lab::run("operator_restarted_nothing_is_touched", Share::Whole, async |lab| {
        let lecture = lab.apply("biology", json!({"latency": "Low"})).await?;
        let publisher = lecture.publish(Shot::default()).await?;
        let before = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&before)?;
        let media = format!("{POOL_LABEL}=default");
        let lived = lab.lives(&media).await?;
        ensure!(lived.len() >= 4, "shards, transcoders and an origin are expected under {media}: {lived:?}");

        let old = lab.lives(OPERATOR).await?;
        ensure!(!old.is_empty(), "no operator under {OPERATOR}");
        let at = lecture.newest_segment(&prefix).await?;
        for name in old.keys() {
            lab.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
        }
        eventually("new operators are ready", STEP, async || {
            let found = lab.pods().list(&ListParams::default().labels(OPERATOR)).await?;
            let fresh: Vec<_> = found.iter().filter(|pod| !old.contains_key(&pod.name_any()) && is_ready(pod)).map(Pod::name_any).collect();
            Ok(if fresh.len() == old.len() { Look::Found(()) } else { Look::NotYet(format!("of {} ready: {fresh:?}", old.len())) })
        })
        .await?;
        let next = lecture.segments_go_on(&prefix, at, 5).await?;

        // The new operator leads and knows the stream: an end reaches it.
        lecture.segments_go_on(&prefix, next, 2).await?;
        ensure!(lab.lives(&media).await? == lived, "pods changed: {lived:?} became {:?}", lab.lives(&media).await?);
        let published = publisher.leave()?;
        lecture.end().await?;
        let after = lecture.until("Ended", "True").await?;
        let placement = |stream: &lectern_crds::LiveStream| stream.status.as_ref().and_then(|status| status.placement.clone());
        ensure!(placement(&after) == placement(&before), "the stream moved");
        recorded(lab, &lecture).await?;
        let expected = Expected { published: vec![published], interrupted: false };
        judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcoder_killed_mid_lecture() -> Result<()> {
    Lab::run("transcoder_killed_mid_lecture", Share::Whole, async |lab| {
        let lecture = lab.apply("chemistry", json!({"latency": "Low"})).await?;
        let publisher = lecture.publish(Shot::default()).await?;
        let before = lecture.wait_for("Playable=True with a transcoder", STEP, |stream| {
            condition(stream, "Playable").is_some_and(|playable| playable.status == "True") && transcoder(stream).is_some()
        });
        let before = before.await?;
        let prefix = prefix_of(&before)?;
        let killed = transcoder(&before).context("status.live.transcoder")?;
        let start = lecture.newest_segment(&prefix).await?;
        let at = lecture.segments_go_on(&prefix, start, 2).await?;

        lab.pods().delete(&killed, &DeleteParams::default().grace_period(0)).await.with_context(|| format!("killing {killed}"))?;
        lecture
            .wait_for("another transcoder goes on", STEP, |stream| {
                transcoder(stream).is_some_and(|now| now != killed) && condition(stream, "Transcoding").is_some_and(|t| t.status == "True")
            })
            .await?;
        lecture.segments_resume(&prefix, at, 5).await?;

        let published = publisher.leave()?;
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        recorded(lab, &lecture).await?;
        let expected = Expected { published: vec![published.clone()], interrupted: true };
        let verdict = judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
        ensure!(verdict.missing.is_empty(), "segments {:?} are missing", verdict.missing);
        for (rendition, pictures) in &verdict.pictures {
            let shown: Vec<_> = pictures.iter().flatten().collect();
            let lost = shown.windows(2).map(|pair| pair[1].saturating_sub(*pair[0]).saturating_sub(1)).max();
            eprintln!("transcoder_killed_mid_lecture: {rendition}: longest loss {lost:?} pictures");
        }
        Ok(())
    })
    .await
}

/// A stream is told to move, and its next transcoder's pod is deleted as a drained node does it: nothing is lost, nothing stands still.
/// (With low latency, where whatever else this machine does shows, too, it is `make chaos` that tells: `move` and `drain`.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lecture_moves_to_another_transcoder() -> Result<()> {
    Lab::run("a_lecture_moves_to_another_transcoder", Share::Whole, async |lab| {
        let lecture = lab.apply("geography", json!({"latency": "Standard"})).await?;
        let publisher = lecture.publish(Shot::default()).await?;
        let playable = |stream: &lectern_crds::LiveStream| condition(stream, "Playable").is_some_and(|playable| playable.status == "True");
        let before = lecture.wait_for("Playable=True with a transcoder", STEP, |stream| playable(stream) && transcoder(stream).is_some());
        let before = before.await?;
        let (prefix, first) = (prefix_of(&before)?, transcoder(&before).context("status.live.transcoder")?);
        let playback = before.status.as_ref().and_then(|status| status.playback.clone()).context("status.playback")?;
        let mut browser = lab.browser().await?;
        browser.open(&playback.player, None, STEP).await?;
        browser.playing(STEP).await?;

        let goes_on = async |from: String| {
            let others = |stream: &lectern_crds::LiveStream| transcoder(stream).is_some_and(|now| now != from);
            let after = lecture.wait_for(&format!("another transcoder than {from}"), STEP, others).await?;
            ensure!(condition(&after, "Transcoding").is_some_and(|it| it.status == "True"), "{:?}", condition(&after, "Transcoding"));
            lecture.segments_go_on(&prefix, lecture.newest_segment(&prefix).await?, 3).await?;
            transcoder(&after).context("status.live.transcoder")
        };
        lecture.annotate("lectern.video/move", "now").await?;
        let (second, sample) = tokio::join!(goes_on(first), browser.sample(25));
        let (second, sample) = (second?, sample?);
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        ensure!(sample.stalls() == 0, "the player stood still {} times while the stream moved", sample.stalls());
        let left = lecture.api().get(&lecture.name).await?;
        ensure!(!left.annotations().contains_key("lectern.video/move"), "the wish is granted, and still there");

        lab.pods().delete(&second, &DeleteParams::default()).await.with_context(|| format!("deleting {second}"))?;
        let (third, sample) = tokio::join!(goes_on(second.clone()), browser.sample(25));
        let (third, sample) = (third?, sample?);
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        ensure!(sample.stalls() == 0, "the player stood still {} times while a pod was drained", sample.stalls());
        eprintln!("a_lecture_moves_to_another_transcoder: {second}, then {third}");
        browser.close().await?;

        let published = publisher.leave()?;
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        recorded(lab, &lecture).await?;
        let expected = Expected { published: vec![published], interrupted: false };
        judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?.sound()?;
        Ok(())
    })
    .await
}

/// What runs goes on without the queue, for longer than its messages are hidden; what begins meanwhile gets a transcoder past it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_away_mid_lecture() -> Result<()> {
    Lab::run("queue_away_mid_lecture", Share::Half, async |lab| {
        let way = Proxy::to(lab, lab.settings.s3_port).await?;
        let (pool, mut spec) = lab.small_pool("alone").await?;
        spec.queue.endpoint = Some(format!("http://{}", way.address));
        spec.transcoder.class.slots = 2;
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, 2 * STEP).await?;
        let shard = PortForward::to(&lab.settings, &format!("lectern-ingest-{pool}-0"), 1935).await?;
        let url = shard.rtmp();
        let (running, lecture, publisher) = begun(lab, &pool, &url, "logic").await?;
        way.cut(true);
        let at = lecture.newest_segment(&running).await?;
        let (late, second, its_publisher) = begun(lab, &pool, &url, "rhetoric").await?;
        let status = second.api().get(&second.name).await?.status.context("a status")?;
        ensure!(status.dispatch.is_some_and(|dispatch| dispatch.attempt == 1 && dispatch.at.is_some()), "the job was not dispatched once");
        lecture.segments_go_on(&running, at, 6).await?;
        way.cut(false);
        for (prefix, lecture, publisher) in [(running, lecture, publisher), (late, second, its_publisher)] {
            lecture.segments_go_on(&prefix, lecture.newest_segment(&prefix).await?, 2).await?;
            let published = publisher.leave()?;
            lecture.end().await?;
            lecture.until("Ended", "True").await?;
            recorded(lab, &lecture).await?;
            let expected = Expected { published: vec![published], interrupted: false };
            judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join(&lecture.name)).await?.sound()?;
        }
        Ok(())
    })
    .await
}

/// A pool whose bucket and queue are at an address that nobody answers yet. It is a pool of its own, so nothing else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_and_queue_away_at_start() -> Result<()> {
    Lab::run("storage_and_queue_away_at_start", Share::Nothing, async |lab| {
        let endpoint = format!("http://late-ministack.{}.svc:4566", lab.namespace);
        let (pool, mut spec) = lab.small_pool("late").await?;
        spec.queue.endpoint = Some(endpoint.clone());
        spec.bucket.name = pool.clone();
        spec.bucket.endpoint = Some(endpoint);
        spec.bucket.manifest_function_arn = None;
        lab.apply_pool(&pool, &spec).await?;

        let pools = || Api::<StreamPool>::all(lab.client.clone());
        let tell = |pool: &StreamPool| format!("{:?}", pool.status.as_ref().map(|status| &status.conditions));
        let says = |pool: &StreamPool, kind: &str, status: &str, reason: &str| {
            let mut conditions = pool.status.iter().flat_map(|status| &status.conditions);
            conditions.any(|c| c.type_ == kind && c.status == status && c.reason == reason)
        };
        wait::watch(
            pools(),
            &pool,
            "says that bucket and queue are unreachable",
            STEP,
            |pool| says(pool, "BucketReady", "False", "Unreachable") && says(pool, "QueueReady", "False", "Unreachable"),
            tell,
        )
        .await?;

        // MiniStack arrives at its address.
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "late-ministack"},
            "spec": {"type": "ExternalName", "externalName": "ministack.ministack.svc.cluster.local"},
        }))?;
        Api::<Service>::namespaced(lab.client.clone(), &lab.namespace).create(&PostParams::default(), &service).await?;
        lab.pool_is_ready(&pool, 2 * STEP).await?;
        let lived = lab.lives(&format!("{POOL_LABEL}={pool}")).await?;
        ensure!(lived.values().all(|(_, restarts)| *restarts == 0), "pods did not wait but restarted: {lived:?}");
        Ok(())
    })
    .await
}
