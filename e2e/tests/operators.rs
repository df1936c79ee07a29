//! What the operator keeps in order while somebody pulls at it: its own death, an AWS console, a node that goes.

use crate::ingest::{begun, judged, small};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use lectern_contract::RunId;
use lectern_crds::LiveStream;
use lectern_e2e::by_hand::Queues;
use lectern_e2e::chaos::transcoder;
use lectern_e2e::judge::Expected;
use lectern_e2e::lab::{STEP, prefix_of};
use lectern_e2e::shards::placement;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Onlooker, PortForward, Settings, Share, Shot, Storage, condition};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Streams that are made, more than the operator looks at at a time.
const MANY: usize = 60;

/// The leader's processes are killed while sixty new streams come in and it gives them their Secrets and shards. The next one takes each from where it is: one Secret, one run, one
/// route, one move of nobody, and the shards are as balanced as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_while_it_makes_streams() -> Result<()> {
    Lab::run("the_leader_is_killed_while_it_makes_streams", Share::Whole, async |lab| {
        let leader = lab.leaders().await?.pop().context("nobody leads")?.name_any();
        lab.nodes_are_reached(std::slice::from_ref(&leader)).await?; // or all streams would be made by the time that it can be killed
        let streams = async || {
            anyhow::Ok(Api::<LiveStream>::namespaced(lab.client.clone(), &lab.namespace).list(&ListParams::default()).await?.items)
        };
        let made = async {
            let mut made = Vec::with_capacity(MANY);
            for number in 0..MANY {
                made.push(lab.apply(&format!("course-{number}"), small(json!({}))).await?);
            }
            anyhow::Ok(made)
        };
        let killed = async {
            eventually("it has begun", STEP, async || {
                Ok(if streams().await?.iter().any(is_placed) { Look::Found(()) } else { Look::NotYet("none has a place".to_owned()) })
            })
            .await?;
            lab.dies(&leader).await?;
            let all = streams().await?;
            anyhow::Ok((all.iter().filter(|stream| is_placed(stream)).count(), all.len()))
        };
        let (made, (done, there)) = try_join(made, killed).await?;

        let after = eventually("all streams have their place", STEP, async || {
            let all = streams().await?;
            let placed = all.iter().filter(|stream| is_placed(stream)).count();
            Ok(if placed == MANY { Look::Found(all) } else { Look::NotYet(format!("{placed} of {MANY}")) })
        })
        .await?;
        eprintln!("{}: {leader} was killed when {done} of {there} were done, and {MANY} were to come", lab.test);
        eventually("another one leads", STEP, async || {
            let now: Vec<_> = lab.leaders().await?.iter().map(ResourceExt::name_any).collect();
            Ok(if now.iter().any(|now| *now != leader) { Look::Found(()) } else { Look::NotYet(format!("{now:?} lead")) })
        })
        .await?;
        let mut load = BTreeMap::<String, usize>::new();
        for stream in &after {
            let (at, run) = (placement(stream)?, stream.status.as_ref().and_then(|status| status.run_id.clone()).context("status.runId")?);
            ensure!(at.epoch == 1, "{} moved: {at:?}", stream.name_any());
            *load.entry(at.shard.clone()).or_default() += 1;
            let routes = eventually("its route", STEP, async || {
                let routes = lab.routes(&RunId(run.clone())).await?;
                Ok(if routes.is_empty() { Look::NotYet("none".to_owned()) } else { Look::Found(routes) })
            });
            let routes = routes.await?;
            ensure!(routes.len() == 1 && routes[0].shard == at.shard, "{}: {routes:?}", stream.name_any());
        }
        let (least, most) = (load.values().min(), load.values().max());
        ensure!(most.zip(least).is_some_and(|(most, least)| most - least <= 1 + MANY / 20), "{load:?}");
        let secrets = lab.secrets(&lab.namespace).list(&ListParams::default()).await?;
        let keys: BTreeSet<&[u8]> = secrets.iter().filter_map(|secret| Some(secret.data.as_ref()?.get("key")?.0.as_slice())).collect();
        ensure!(secrets.items.len() == MANY && keys.len() == MANY, "{} Secrets, {} keys", secrets.items.len(), keys.len());

        let lecture = &made[MANY - 1];
        let publisher = lecture.publish(Shot::small()).await?;
        let playable = lecture.until("Playable", "True").await?;
        let attempt = playable.status.as_ref().and_then(|status| status.dispatch.as_ref()).map(|dispatch| dispatch.attempt);
        ensure!(attempt == Some(1), "its job was sent {attempt:?} times");
        let prefix = prefix_of(&playable)?;
        lecture.segments_go_on(&prefix, lecture.newest_segment(&prefix).await?, 2).await?;
        judged(lab, lecture, &prefix, Expected { published: vec![publisher.leave()?], interrupted: false }).await.map(drop)
    })
    .await
}

fn is_placed(stream: &LiveStream) -> bool {
    condition(stream, "Placed").is_some_and(|placed| placed.status == "True")
}

/// Somebody deletes a pool's bucket while it is empty, and its queues under a lecture: all are made again as they were, what runs goes on, and what begins then is
/// transcoded and recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_and_bucket_deleted_by_hand_come_back() -> Result<()> {
    let (settings, bucket) = (Settings::from_env()?, format!("by-hand-{:08x}", rand::random::<u32>()));
    let storage = Storage::at(settings.s3_port, &bucket);
    Lab::run_at(Some(storage), "queue_and_bucket_deleted_by_hand_come_back", Share::Half, async |lab| {
        let queues = Queues::new(&settings);
        let (pool, mut spec) = lab.small_pool("hand").await?;
        spec.bucket.name = bucket;
        spec.transcoder.class.slots = 2;
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, 2 * STEP).await?;
        lab.storage.delete_bucket().await?;
        eventually("the bucket is back, and closed to the public", STEP, async || {
            Ok(if lab.storage.is_blocked().await? { Look::Found(()) } else { Look::NotYet("open".to_owned()) })
        })
        .await?;

        let shard = PortForward::to(&lab.settings, &format!("lectern-ingest-{pool}-0"), 1935).await?;
        let url = shard.rtmp();
        let first = begun(lab, &pool, &url, "logic").await?;
        let policy = queues.redrive(&pool).await?;
        queues.delete(&pool).await?;
        queues.delete(&format!("{pool}-dead")).await?;
        eventually("the queue is back, with its dead-letter queue", STEP, async || {
            let now = queues.redrive(&pool).await?;
            Ok(if now == policy { Look::Found(()) } else { Look::NotYet(now) })
        })
        .await?;
        let at = first.1.newest_segment(&first.0).await?;
        let second = begun(lab, &pool, &url, "rhetoric").await?;
        first.1.segments_go_on(&first.0, at, 3).await?;
        second.1.segments_go_on(&second.0, second.1.newest_segment(&second.0).await?, 2).await?;
        for (prefix, lecture, publisher) in [first, second] {
            judged(lab, &lecture, &prefix, Expected { published: vec![publisher.leave()?], interrupted: false }).await?;
        }
        Ok(())
    })
    .await
}

/// `kubectl drain` of the node that a lecture's shard and its transcoder are on, with whatever else of the platform runs there, while its publisher comes in at
/// another shard: both move, nothing is missing, and the playlists only go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_mid_lecture() -> Result<()> {
    Lab::run("a_node_is_drained_mid_lecture", Share::Whole, async |lab| {
        let lecture = lab.apply("botany", small(json!({}))).await?;
        let (_, key) = lecture.credentials().await?;
        let owner = placement(&lecture.until("Placed", "True").await?)?.shard;
        let node_of = async |pod: &str| lab.pods().get(pod).await?.spec.and_then(|spec| spec.node_name).context("the pod's node");
        let node = node_of(&owner).await?;
        let door = lab.shards().await?.into_iter().find(|shard| *shard != owner).context("a second shard")?;
        if node_of(&door).await? == node {
            // An eviction before this one has left them together.
            let before = lab.pods().get(&door).await?.uid();
            lab.is_cordoned(&node).await?;
            lab.pods().delete(&door, &DeleteParams::default()).await?;
            lab.is_replaced(&door, before.as_deref()).await?;
            lab.is_open(&node).await?;
        }
        let way = PortForward::to(&lab.settings, &door, 1935).await?;
        let publisher = lab.publish(&way.rtmp(), &key, Shot::small())?;
        let works =
            |stream: &LiveStream| condition(stream, "Playable").is_some_and(|it| it.status == "True") && transcoder(stream).is_some();
        let before = lecture.wait_for("Playable=True with a transcoder", STEP, works).await?;
        let (prefix, mut working) = (prefix_of(&before)?, transcoder(&before).context("status.live.transcoder")?);
        let hls = before.status.as_ref().and_then(|status| status.playback.as_ref()).map(|playback| playback.hls.clone());
        let is_another = async |than: &str| {
            let moved = lecture.wait_for("another transcoder works", STEP, |stream| {
                let works = condition(stream, "Transcoding").is_some_and(|it| it.status == "True");
                works && transcoder(stream).is_some_and(|now| now != than)
            });
            transcoder(&moved.await?).context("status.live.transcoder")
        };
        if node_of(&working).await? != node {
            lecture.annotate("lectern.video/move", "now").await?;
            working = is_another(&working).await?;
        }
        let start = lecture.newest_segment(&prefix).await?;

        lab.is_cordoned(&node).await?;
        let evicted = lab.is_evicted(&node).await?;
        ensure!(evicted.contains(&working) && evicted.contains(&owner), "{working} and {owner} are not both among {evicted:?}");
        is_another(&working).await?;
        let at = placement(&lecture.api().get(&lecture.name).await?)?;
        ensure!(at.shard == door && at.reason.contains("is draining"), "{at:?}");
        let mut next = lecture.segments_go_on(&prefix, start, 8).await?;
        let mut onlooker = Onlooker::new(lab, &hls.context("status.playback.hls")?)?;
        for _ in 0..3 {
            eventually("the origin serves it", STEP, async || Ok(Look::Found(onlooker.look().await?))).await?;
            next = lecture.segments_go_on(&prefix, next, 1).await?;
        }
        judged(lab, &lecture, &prefix, Expected { published: vec![publisher.leave()?], interrupted: false }).await.map(drop)
    })
    .await
}
