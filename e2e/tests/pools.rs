//! A pool grows with what there is to do, and ahead of the timetable.

use crate::ingest::{begun, small};
use crate::lecture_plays_in_a_browser::recorded;
use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use lectern_crds::{POOL_LABEL, StreamPool};
use lectern_e2e::judge::{self, Expected};
use lectern_e2e::lab::STEP;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, PortForward, Share};
use serde_json::{Value, json};

const MAY_GO: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// One pod of one slot stands ready. The second lecture gets a pod, a third that has only announced itself another; all are replaced when the pool's template changes,
/// and the lectures lose nothing; when two have ended, one by its timetable, idle pods go, and no other. The nodes' autoscaler is told which pods may go. The last lecture
/// moves to a class beside, and back when that is taken away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcoders_come_and_go_with_the_lectures() -> Result<()> {
    Lab::run("transcoders_come_and_go_with_the_lectures", Share::Half, async |lab| {
        let (pool, mut spec) = lab.small_pool("grows").await?;
        (spec.transcoder.class.max_pods, spec.transcoder.class.idle_seconds) = (Some(4), 10);
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, 2 * STEP).await?;
        let shard = PortForward::to(&lab.settings, &format!("lectern-ingest-{pool}-0"), 1935).await?;
        let url = shard.rtmp();
        let (prefix, first, publisher) = begun(lab, &pool, &url, "logic").await?;
        let (_, second, its_publisher) = begun(lab, &pool, &url, "rhetoric").await?;
        let soon = (Timestamp::now() + SignedDuration::from_secs(60)).to_string();
        let later = (Timestamp::now() + SignedDuration::from_secs(3600)).to_string();
        let third = lab.apply("grammar", small(json!({"poolName": pool, "schedule": {"startsAt": soon, "endsAt": later}}))).await?;
        let old = pods_are(lab, &pool, 2, 1).await?;

        // Another template: each pod is replaced, idle ones first, and the lectures move to the new ones.
        let patch = async |transcoder: Value| {
            let patch = Patch::Merge(json!({"spec": {"transcoder": transcoder}}));
            Api::<StreamPool>::all(lab.client.clone()).patch(&pool, &PatchParams::default(), &patch).await
        };
        patch(json!({"passthrough": "Never"})).await?;
        let busy = eventually("other pods work", 2 * STEP, async || {
            let now = pods_are(lab, &pool, 2, 1).await?;
            Ok(if now.iter().any(|name| old.contains(name)) { Look::NotYet(format!("{now:?}")) } else { Look::Found(now) })
        })
        .await?;

        // Its time is over before anybody has published: it ends, and so does the second lecture.
        let over = (Timestamp::now() + SignedDuration::from_secs(1)).to_string();
        third.apply(small(json!({"poolName": pool, "schedule": {"endsAt": over}}))).await?;
        third.until("Ended", "True").await?;
        its_publisher.leave()?;
        second.end().await?;
        second.until("Ended", "True").await?;
        let left = pods_are(lab, &pool, 1, 0).await?;
        ensure!(busy.contains(&left[0]), "{left:?} worked before, with {busy:?}");
        first.segments_go_on(&prefix, first.newest_segment(&prefix).await?, 2).await?;

        patch(json!({"classes": [{"name": "beside", "pods": 1, "slots": 1}]})).await?;
        pods_are(lab, &pool, 1, 1).await?;
        first.annotate("lectern.video/move", "now").await?;
        let is_at = async |wanted: bool| {
            eventually("the lecture has moved", 2 * STEP, async || {
                let now = pods_are(lab, &pool, 1, usize::from(!wanted)).await?;
                Ok(if (now == left) == wanted { Look::Found(()) } else { Look::NotYet(format!("it is at {now:?}")) })
            })
            .await
        };
        is_at(false).await?;
        patch(json!({"classes": []})).await?;
        is_at(true).await?;
        first.segments_go_on(&prefix, first.newest_segment(&prefix).await?, 2).await?;
        let published = vec![publisher.leave()?];
        first.end().await?;
        first.until("Ended", "True").await?;
        recorded(lab, &first).await?;
        judge::ended_run(&lab.storage, &prefix, &Expected { published, interrupted: false }, &lab.out.join("judge")).await?.sound()?;
        Ok(())
    })
    .await
}

/// Waits until the pool has so many ready transcoders that may not go, and so many that may; those that may not.
async fn pods_are(lab: &Lab, pool: &str, held: usize, free: usize) -> Result<Vec<String>> {
    let selector = format!("{POOL_LABEL}={pool},app.kubernetes.io/component=transcoder");
    eventually(&format!("{held} transcoders that are held and {free} that are not"), 2 * STEP, async || {
        let found = lab.pods().list(&ListParams::default().labels(&selector)).await?;
        let may_go = |pod: &&Pod| pod.annotations().get(MAY_GO).is_some_and(|may| may == "true");
        let (going, staying): (Vec<_>, Vec<_>) = found.iter().partition(may_go);
        let names: Vec<String> = staying.iter().map(|pod| pod.name_any()).collect();
        let all_there = found.iter().all(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(match (staying.len(), going.len()) == (held, free) && all_there {
            true => Look::Found(names),
            false => Look::NotYet(format!("held: {names:?}, free: {:?}", going.iter().map(|pod| pod.name_any()).collect::<Vec<_>>())),
        })
    })
    .await
    .context("the pool's transcoders")
}
