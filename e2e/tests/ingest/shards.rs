//! A lecture whose shard goes, in order or not.

use super::{is_received_as, judged, received, small};
use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use lectern_contract::RunId;
use lectern_crds::PlacementStatus;
use lectern_e2e::judge::Expected;
use lectern_e2e::lab::{Lecture, STEP, prefix_of};
use lectern_e2e::shards::{is_ready, placement};
use lectern_e2e::{Lab, PortForward, Publisher, Share, Shot, condition, wait};
use serde_json::json;

const PUBLISHERS: &str = "lectern_ingest_publishers";
const RELAYED: &str = "lectern_ingest_relayed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_at_the_wrong_shard_is_relayed_and_outlives_the_owner() -> Result<()> {
    Lab::run("a_publisher_at_the_wrong_shard_is_relayed_and_outlives_the_owner", Share::Whole, async |lab| {
        outlives(lab, async |owner| lab.dies(owner).await, async |owner| lab.comes_back(owner).await).await
    })
    .await
}

/// As above, and nobody is told that the owner is gone: its connections stay open, and it believes that it is the owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_cut_off_does_not_take_its_stream_back() -> Result<()> {
    Lab::run("an_owner_that_is_cut_off_does_not_take_its_stream_back", Share::Whole, async |lab| {
        outlives(lab, async |owner| lab.is_cut_off(owner).await, async |owner| lab.is_reached(owner).await).await
    })
    .await
}

/// The owner of a stream goes and comes back while another shard relays the publisher.
async fn outlives(lab: &Lab, goes: impl AsyncFnOnce(&str) -> Result<()>, comes: impl AsyncFnOnce(&str) -> Result<()>) -> Result<()> {
    let lecture = lab.apply("physics", small(json!({}))).await?;
    let placed = placement(&lecture.until("Placed", "True").await?)?;
    let owner = placed.shard.clone();
    let door = lab.shards().await?.into_iter().find(|shard| *shard != owner).context("a second shard")?;
    let (_way, mut publisher) = publish_at(lab, &lecture, &door).await?;
    let playable = lecture.until("Playable", "True").await?;
    let prefix = prefix_of(&playable)?;
    lab.counts(&door, RELAYED, 1.0).await?;
    lab.counts(&door, PUBLISHERS, 0.0).await?;
    lab.counts(&owner, PUBLISHERS, 1.0).await?;

    let at = lecture.newest_segment(&prefix).await?;
    goes(&owner).await?;
    let moved = moves(&lecture, &placed).await?;
    ensure!(moved.shard == door && moved.reason.starts_with("adopted"), "{moved:?}");
    let at = lecture.segments_resume(&prefix, at, 4).await?;

    comes(&owner).await?;
    let at = lecture.segments_resume(&prefix, at, 3).await?;
    lecture.segments_go_on(&prefix, at, 1).await?;
    is_owned_by_one(lab, &lecture, &moved, &owner).await?;

    // One process, one connection.
    ensure!(publisher.is_running(), "{}", publisher.words());
    is_received_as(&lecture, &playable).await?;
    let published = vec![publisher.leave()?];
    judged(lab, &lecture, &prefix, Expected { published, interrupted: true }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_drained_mid_lecture() -> Result<()> {
    Lab::run("a_shard_is_drained_mid_lecture", Share::Whole, async |lab| {
        let lecture = lab.apply("music", small(json!({}))).await?;
        let placed = placement(&lecture.until("Placed", "True").await?)?;
        let owner = placed.shard.clone();
        let (_way, mut publisher) = publish_at(lab, &lecture, &owner).await?;
        let playable = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&playable)?;

        let at = lecture.newest_segment(&prefix).await?;
        let going = lab.pods().get(&owner).await?.uid();
        lab.pods().delete(&owner, &DeleteParams::default()).await?;
        let moved = moves(&lecture, &placed).await?;
        ensure!(moved.reason.contains("is draining"), "{moved:?}");
        let tell = |pod: &k8s_openapi::api::core::v1::Pod| format!("{:?}", pod.status);
        wait::watch(lab.pods(), &owner, "goes and is not ready", STEP, |pod| pod.uid() == going && !is_ready(pod), tell).await?;
        lab.counts(&owner, RELAYED, 1.0).await?;
        lab.counts(&moved.shard, PUBLISHERS, 1.0).await?;
        lecture.segments_resume(&prefix, at, 4).await?;

        // The publisher noticed nothing, and the shard waits for it.
        ensure!(publisher.is_running(), "{}", publisher.words());
        is_received_as(&lecture, &playable).await?;
        ensure!(lab.pods().get(&owner).await?.uid() == going, "{owner} did not wait");
        let published = vec![publisher.leave()?];
        lab.is_replaced(&owner, going.as_deref()).await?;
        judged(lab, &lecture, &prefix, Expected { published, interrupted: false }).await.map(drop)
    })
    .await
}

/// Publishes at a shard, whoever owns the stream. The way there has to be kept.
async fn publish_at(lab: &Lab, lecture: &Lecture<'_>, shard: &str) -> Result<(PortForward, Publisher)> {
    let (_, key) = lecture.credentials().await?;
    let way = PortForward::to(&lab.settings, shard, 1935).await?;
    let publisher = lab.publish(&way.rtmp(), &key, Shot::small())?;
    Ok((way, publisher))
}

/// Waits until the stream is on another shard than `before` and received there.
async fn moves(lecture: &Lecture<'_>, before: &PlacementStatus) -> Result<PlacementStatus> {
    let moved = lecture.wait_for("another shard receives", STEP, |stream| {
        placement(stream).is_ok_and(|now| now.shard != before.shard)
            && condition(stream, "Receiving").is_some_and(|receiving| receiving.status == "True")
            && received(stream).is_some()
    });
    let moved = placement(&moved.await?)?;
    ensure!(moved.epoch == before.epoch + 1 && moved.anchor_millis == before.anchor_millis, "{before:?} became {moved:?}");
    Ok(moved)
}

/// Status, route and both shards say that the stream is where it moved to, and nowhere else.
async fn is_owned_by_one(lab: &Lab, lecture: &Lecture<'_>, moved: &PlacementStatus, other: &str) -> Result<()> {
    let stream = lecture.api().get(&lecture.name).await?;
    ensure!(placement(&stream)? == *moved, "{moved:?} became {:?}", placement(&stream)?);
    let run = RunId(stream.status.and_then(|status| status.run_id).context("status.runId")?);
    let routes = lab.routes(&run).await?;
    ensure!(routes.len() == 1 && routes[0].shard == moved.shard && routes[0].epoch == moved.epoch, "{routes:?}");
    lab.counts(&moved.shard, PUBLISHERS, 1.0).await?;
    lab.counts(&moved.shard, RELAYED, 0.0).await?;
    lab.counts(other, PUBLISHERS, 0.0).await?;
    lab.counts(other, RELAYED, 0.0).await
}
