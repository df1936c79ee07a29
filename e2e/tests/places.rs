//! Where streams go: full pools, quotas, and pools that change their size.

use crate::ingest::{judged, received, small};
use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use lectern_contract::keys::RunPrefix;
use lectern_crds::{Exposure, LiveStream, POOL_LABEL, PlacementStatus, ShardCapacity, StreamPool};
use lectern_e2e::judge::Expected;
use lectern_e2e::lab::{Lecture, STEP, prefix_of};
use lectern_e2e::settings::PLATFORM;
use lectern_e2e::shards::{is_ready, placement};
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Publisher, Share, Shot, condition};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio::net::TcpStream;

/// Above the ports of the test cluster's own Services.
const FIRST_NODE_PORT: i32 = 32_100;
const RELAYED: &str = "lectern_ingest_relayed";

/// Two shards of one stream each, and four streams for the namespace: the third waits for room and the fifth for the quota, each with the number and the limit, until
/// a stream ends or the pool grows. The two that have a place are in different zones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_pools_and_quotas_say_what_they_wait_for() -> Result<()> {
    Lab::run("full_pools_and_quotas_say_what_they_wait_for", Share::Nothing, async |lab| {
        let (pool, mut spec) = lab.small_pool("full").await?;
        spec.ingest.shards = 2;
        spec.ingest.capacity = Some(ShardCapacity { streams: Some(1), megabits: None, assumed_megabits: 6 });
        let ours = json!({"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}});
        spec.tenants = serde_json::from_value(json!([{"namespaceSelector": ours, "maxStreams": 4}]))?;
        lab.apply_pool(&pool, &spec).await?;
        shards_are_known(lab, &pool, 2).await?;
        // Who comes before whom is told by seconds: each is made in one of its own.
        let apply = async |name: &str| {
            let lecture = lab.apply(name, json!({"poolName": pool})).await?;
            let made = lecture.api().get(name).await?.creation_timestamp().context("when it was made")?.0.as_second();
            eventually("the second is over", STEP, async || {
                let now = Timestamp::now().as_second();
                Ok(if now > made { Look::Found(()) } else { Look::NotYet(now.to_string()) })
            })
            .await?;
            anyhow::Ok(lecture)
        };
        let change = async |of: Value| {
            let change = Patch::Merge(json!({ "spec": of }));
            Api::<StreamPool>::all(lab.client.clone()).patch(&pool, &PatchParams::default(), &change).await.context("the pool")
        };

        let logic = apply("logic").await?;
        let first = placement(&logic.until("Placed", "True").await?)?;
        let rhetoric = apply("rhetoric").await?;
        let second = placement(&rhetoric.until("Placed", "True").await?)?;
        ensure!(first.shard != second.shard, "{first:?} and {second:?}");
        let zones = zones_of(lab, &pool).await?;
        if zones.values().collect::<BTreeSet<_>>().len() > 1 {
            ensure!(second.reason.ends_with(&format!("; zone {}", zones[&second.shard])), "{second:?} of {zones:?}");
        }
        let grammar = apply("grammar").await?;
        says(&grammar, "Placed", "NoCapacity", "2 of 2 streams").await?;
        ensure!(lab.secrets(&lab.namespace).get_opt("grammar-stream-key").await?.is_none(), "it has a key and nowhere to use it");
        let music = apply("music").await?;
        says(&music, "Placed", "NoCapacity", "2 of 2 streams").await?;
        let fifth = apply("geometry").await?;
        says(&fifth, "Accepted", "QuotaExceeded", "has 4 LiveStreams").await?;

        // One ends: the one that has waited longest has its place, and the fifth is the fourth now.
        logic.end().await?;
        ensure!(placement(&grammar.until("Placed", "True").await?)?.shard == first.shard, "grammar is elsewhere");
        says(&fifth, "Placed", "NoCapacity", "2 of 2 streams").await?;
        // The pool grows: both have room.
        change(json!({"ingest": {"shards": 4}})).await?;
        let places = [music.until("Placed", "True").await?, fifth.until("Placed", "True").await?];
        let shards: BTreeSet<String> = places.iter().filter_map(|stream| Some(placement(stream).ok()?.shard)).collect();
        ensure!(shards.len() == 2 && !shards.contains(&first.shard) && !shards.contains(&second.shard), "{shards:?}");
        origins_come_and_go_with_the_load(lab, &pool).await?;
        // The pool becomes somebody else's: what is there stays, what comes is refused.
        change(json!({"tenants": [{"namespaceSelector": {"matchLabels": {"school": "elsewhere"}}}]})).await?;
        says(&apply("astronomy").await?, "Accepted", "NotATenant", "label it as spec.tenants").await?;
        ensure!(placement(&rhetoric.api().get("rhetoric").await?)? == second, "a stream that had its place moved");
        Ok(())
    })
    .await
}

/// A pool that wants it has an autoscaler for its origins, and one that does so no more has none. (There is no metrics-server here that it could go by; `make autoscale` has one.)
async fn origins_come_and_go_with_the_load(lab: &Lab, pool: &str) -> Result<()> {
    let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(lab.client.clone(), PLATFORM);
    let name = format!("lectern-origin-{pool}");
    for most in [Some(3), None] {
        let change = Patch::Merge(json!({"spec": {"origin": {"autoscale": most.map(|most| json!({"maxReplicas": most}))}}}));
        Api::<StreamPool>::all(lab.client.clone()).patch(pool, &PatchParams::default(), &change).await?;
        eventually(&format!("an autoscaler up to {most:?}"), STEP, async || {
            let found = autoscalers.get_opt(&name).await?.and_then(|found| found.spec).map(|spec| (spec.min_replicas, spec.max_replicas));
            Ok(if found == most.map(|most| (Some(1), most)) { Look::Found(()) } else { Look::NotYet(format!("{found:?}")) })
        })
        .await?;
    }
    Ok(())
}

/// Each shard has an address of its own. A publisher comes to each of four by the address that it is told, nothing is relayed, and nothing moves when the pool
/// grows; when it shrinks, only the lecture of the shard that goes moves, and its publisher notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_two_shards_grows_to_four_and_shrinks_to_three_under_its_lectures() -> Result<()> {
    Lab::run("a_pool_of_two_shards_grows_to_four_and_shrinks_to_three_under_its_lectures", Share::Most, async |lab| {
        let (pool, mut spec) = lab.small_pool("size").await?;
        spec.ingest.shards = 2;
        spec.ingest.per_shard = true;
        spec.ingest.exposure = Exposure { service_type: Some("NodePort".into()), node_port: Some(FIRST_NODE_PORT) };
        spec.ingest.public_url = format!("rtmp://{}:{}{{shard}}/live", lab.node_address().await?, FIRST_NODE_PORT / 10);
        spec.transcoder.class.slots = 2;
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, 2 * STEP).await?;
        let resize = async |shards: i32| {
            let change = Patch::Merge(json!({"spec": {"ingest": {"shards": shards}}}));
            Api::<StreamPool>::all(lab.client.clone()).patch(&pool, &PatchParams::default(), &change).await.context("the pool's size")
        };
        let on = |number: usize| format!("lectern-ingest-{pool}-{number}");

        // As many streams as shards: each has one of its own. Two of them are published to.
        let mut streams = vec![placed(lab, "logic", &pool).await?, placed(lab, "rhetoric", &pool).await?];
        let staying = publishes(&streams[0].0).await?;
        resize(4).await?;
        shards_are_known(lab, &pool, 4).await?;
        streams.extend([placed(lab, "grammar", &pool).await?, placed(lab, "music", &pool).await?]);
        let shards: BTreeSet<String> = streams.iter().map(|(_, at)| at.shard.clone()).collect();
        ensure!(shards == (0..4).map(on).collect(), "{shards:?}");
        let last = streams.iter().position(|(_, at)| at.shard == on(3)).context("nobody is on the last shard")?;
        let (moving, before) = streams.remove(last);
        let going = publishes(&moving).await?;
        for number in 0..4 {
            lab.counts(&on(number), RELAYED, 0.0).await?;
        }

        let way = Api::<Service>::namespaced(lab.client.clone(), PLATFORM);
        let at = moving.newest_segment(&going.0).await?;
        resize(3).await?;
        let after = moving.wait_for("another shard receives", STEP, |stream| {
            placement(stream).is_ok_and(|now| now.shard != before.shard) && received(stream).is_some()
        });
        let now = placement(&after.await?)?;
        ensure!(now.reason.starts_with(&format!("{} has left the pool", on(3))) && now.epoch == before.epoch + 1, "{now:?}");
        let (url, _) = moving.credentials().await?;
        ensure!(url.contains(&format!(":{}{}/", FIRST_NODE_PORT / 10, &now.shard[now.shard.len() - 1..])), "{url} for {now:?}");
        moving.segments_resume(&going.0, at, 4).await?;
        ensure!(way.get_opt(&format!("{}-rtmp", on(3))).await?.is_some(), "its publisher has no way to it any more");
        for (lecture, before) in &streams {
            ensure!(placement(&lecture.api().get(&lecture.name).await?)? == *before, "{} moved", lecture.name);
        }
        let (first, (prefix, mut publisher)) = (&streams[0].0, staying);
        ensure!(publisher.is_running(), "{}", publisher.words());
        judged(lab, first, &prefix, Expected { published: vec![publisher.leave()?], interrupted: false }).await?;
        let (prefix, mut publisher) = going;
        ensure!(publisher.is_running(), "{}", publisher.words());
        judged(lab, &moving, &prefix, Expected { published: vec![publisher.leave()?], interrupted: false }).await?;
        // Its publisher has left: the shard goes, and with it its address.
        eventually("the last shard and its Service are gone", STEP, async || {
            let (pod, service) = (lab.pods().get_opt(&on(3)).await?, way.get_opt(&format!("{}-rtmp", on(3))).await?);
            Ok(match (pod, service) {
                (None, None) => Look::Found(()),
                (pod, service) => Look::NotYet(format!("pod: {}, Service: {}", pod.is_some(), service.is_some())),
            })
        })
        .await
    })
    .await
}

/// A stream of the pool that costs little to encode, and its place.
async fn placed<'a>(lab: &'a Lab, name: &str, pool: &str) -> Result<(Lecture<'a>, PlacementStatus)> {
    let lecture = lab.apply(name, small(json!({"poolName": pool}))).await?;
    let at = placement(&lecture.until("Placed", "True").await?)?;
    Ok((lecture, at))
}

/// Publishes to the stream at the address that it is told; returns once it is watched.
async fn publishes(lecture: &Lecture<'_>) -> Result<(RunPrefix, Publisher)> {
    let (url, _) = lecture.credentials().await?;
    let address = url.split('/').nth(2).context("the address")?;
    // A Service that has just been made opens its port on the nodes a little later.
    eventually(&format!("{address} takes connections"), STEP, async || {
        TcpStream::connect(address).await?;
        Ok(Look::Found(()))
    })
    .await?;
    let publisher = lecture.publish(Shot::small()).await?;
    Ok((prefix_of(&lecture.until("Playable", "True").await?)?, publisher))
}

/// Waits until a condition is false for this reason, and with these words.
async fn says(lecture: &Lecture<'_>, kind: &str, reason: &str, words: &str) -> Result<()> {
    let so = |stream: &LiveStream| {
        condition(stream, kind).is_some_and(|said| said.status == "False" && said.reason == reason && said.message.contains(words))
    };
    lecture.wait_for(&format!("{kind}=False, {reason}: {words}"), STEP, so).await.map(drop)
}

/// Waits until so many shards are ready, so that the operator hears of them.
async fn shards_are_known(lab: &Lab, pool: &str, count: usize) -> Result<()> {
    eventually(&format!("{count} shards are ready"), 2 * STEP, async || {
        let ready = shards(lab, pool).await?.iter().filter(|pod| is_ready(pod)).count();
        Ok(if ready == count { Look::Found(()) } else { Look::NotYet(ready.to_string()) })
    })
    .await
}

async fn shards(lab: &Lab, pool: &str) -> Result<Vec<Pod>> {
    let selector = format!("{POOL_LABEL}={pool},app.kubernetes.io/component=ingest");
    Ok(lab.pods().list(&ListParams::default().labels(&selector)).await?.items)
}

/// The zones of a pool's shards, where their nodes have any.
async fn zones_of(lab: &Lab, pool: &str) -> Result<BTreeMap<String, String>> {
    let nodes = Api::<Node>::all(lab.client.clone()).list(&ListParams::default()).await?;
    let zones: BTreeMap<String, String> =
        nodes.iter().filter_map(|node| Some((node.name_any(), node.labels().get("topology.kubernetes.io/zone")?.clone()))).collect();
    let zone = |pod: &Pod| Some((pod.name_any(), zones.get(pod.spec.as_ref()?.node_name.as_ref()?)?.clone()));
    Ok(shards(lab, pool).await?.iter().filter_map(zone).collect())
}
