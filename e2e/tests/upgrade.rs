//! The chart is changed under a lecture. A binary of its own, because cargo runs one after the other: all other tests need the release.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_crds::{DEFAULT_POOL, LiveStream, POOL_LABEL};
use lectern_e2e::judge::{self, Expected};
use lectern_e2e::lab::{Lecture, STEP, prefix_of, small};
use lectern_e2e::release::{Release, with_the_release};
use lectern_e2e::rotation::watched_while;
use lectern_e2e::settings::PLATFORM;
use lectern_e2e::shards::placement;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Onlooker, PortForward, Publisher, Shot};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;

/// Values that the chart before this one does not know.
const NEW_VALUES: [&str; 3] = ["networkPolicies", "aggregateRoles", "trust"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lecture_goes_on_while_the_chart_is_upgraded_uninstalled_and_installed_again() -> Result<()> {
    with_the_release("chart_changed_under_a_lecture", under_a_lecture).await
}

async fn under_a_lecture(lab: &Lab, release: &Release) -> Result<()> {
    let spec = small(json!({}));
    let media = format!("{POOL_LABEL}={DEFAULT_POOL}");
    let lived = lab.steady(&media).await?;
    ensure!(lived.len() >= 4, "shards, transcoders and an origin are expected under {media}: {lived:?}");
    let lecture = lab.apply("astronomy", spec.clone()).await?;
    let _publisher = lecture.publish(Shot::small()).await?;
    let playable = lecture.until("Playable", "True").await?;
    let hls = playable.status.as_ref().and_then(|status| status.playback.as_ref()).map(|playback| playback.hls.clone()).unwrap_or_default();
    let prefix = prefix_of(&playable)?;
    let (mut onlooker, mut next) = (Onlooker::new(lab, &hls)?, lecture.newest_segment(&prefix).await?);
    let began = Instant::now();
    // No segment is missing and one more comes, the origin's playlists only went on, and no pod of the pool is another.
    let mut goes_on = async |after: &str| {
        let newest = lecture.newest_segment(&prefix).await?;
        next = lecture.segments_go_on(&prefix, next, newest + 2 - next).await?;
        onlooker.look().await?;
        let lives = lab.lives(&media).await?;
        ensure!(lives == lived, "{after}: {lived:?} became {lives:?}");
        eprintln!("chart_changed_under_a_lecture: {after}: segment {next} after {:.1} s", began.elapsed().as_secs_f64());
        anyhow::Ok(())
    };

    release.go_back(&NEW_VALUES).await?;
    goes_on("the chart before this one").await?;
    release.upgrade(&["log.filter=debug", "gateway.replicas=1"]).await?;
    goes_on("an upgrade with other values").await?;
    let told = release.test().await?;
    for what in ["resource types", "leader", "pools", "gateway"] {
        ensure!(told.contains(&format!("ok      {what}: ")), "helm test says nothing of {what}:\n{told}");
    }
    editors_edit_lectures(lab).await?;

    let idle = lab.apply("theology", spec).await?;
    idle.wait_for("the operator's finalizer", STEP, is_held).await?;
    let told = release.uninstall().await?;
    for what in [&format!("2 in {}", lab.namespace), "nothing holds them", "StreamPool default stays", "queue lectern-jobs stay"] {
        ensure!(told.contains(what), "helm uninstall does not say {what:?}:\n{told}");
    }
    eprintln!("{told}");
    nothing_is_left_behind(lab).await?;
    idle.api().delete(&idle.name, &DeleteParams::default()).await?;
    ensure!(idle.api().get_opt(&idle.name).await?.is_none(), "a LiveStream waits for an operator that is not there");
    goes_on("helm uninstall").await?;

    release.upgrade(&[]).await?;
    lecture.wait_for("the operator's finalizer", STEP, is_held).await?;
    lab.pool_is_ready(DEFAULT_POOL, STEP).await?;
    goes_on("helm install").await?;
    // The new operator knows the stream, and the shards hear it: an end reaches them.
    lecture.end().await?;
    lecture.until("Ended", "True").await?;
    ensure!(lab.lives(&media).await? == lived, "{lived:?} became {:?}", lab.lives(&media).await?);
    Ok(())
}

/// What the default pool's shards are called, before their number.
const SHARD: &str = "lectern-ingest-default-";

/// Lectures at once, each of a small picture.
const SIX: [&str; 6] = ["grammar", "logic", "rhetoric", "arithmetic", "geometry", WATCHED];
/// The one that a browser plays.
const WATCHED: &str = "music";

/// An upgrade gives every pod of the pool another template, under six lectures: transcoders are replaced one by one, the origin too, and the shards hand their streams over.
/// Every picture of all six is there, once, and who watches one of them never waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_lectures_go_on_while_every_pod_of_their_pool_is_replaced() -> Result<()> {
    with_the_release("pool_replaced_under_six_lectures", under_six_lectures).await
}

async fn under_six_lectures(lab: &Lab, release: &Release) -> Result<()> {
    const ROOM: &str = "pool.transcoder.slots=6";
    release.upgrade(&[ROOM]).await?;
    lab.pool_is_ready(DEFAULT_POOL, STEP).await?;
    // All come by the first shard. So nobody holds up the second one, which is replaced at once and takes all streams over as soon as it is back: the first one goes then.
    let door = PortForward::to(&lab.settings, &format!("{SHARD}0"), 1935).await?;
    let (mut lectures, mut player) = (Vec::new(), None);
    for name in SIX {
        // A player that has a buffer: at low latency six encoders and a browser on two cores are themselves what it would wait for.
        let more = if name == WATCHED { json!({"latency": "Standard"}) } else { json!({}) };
        let lecture = lab.apply(name, small(more)).await?;
        let publisher = lab.publish(&door.rtmp(), &lecture.credentials().await?.1, Shot::small())?;
        let playable = lecture.until("Playable", "True").await?;
        lectures.push((prefix_of(&playable)?, lecture, publisher));
        player = playable.status.and_then(|status| status.playback).map(|playback| playback.player);
    }
    let mut browser = lab.browser().await?;
    browser.open(&player.context("status.playback")?, None, STEP).await?;
    browser.playing_about(STEP).await?;
    let media = format!("{POOL_LABEL}={DEFAULT_POOL}");
    let before = lab.steady(&media).await?;
    let (_, _, watched) = lectures.last().context("six lectures")?;
    watched_while(lab, (&mut browser, 10), watched, is_replaced(lab, release, ROOM, &before, &lectures)).await?;
    browser.close().await?;

    for (prefix, lecture, publisher) in lectures {
        let published = vec![publisher.leave()?];
        lecture.end().await?;
        lecture.until("Ended", "True").await?;
        eventually("the recording's playlist", STEP, async || Ok(Look::Found(lab.storage.text(&prefix, &ObjectName::Vod).await?))).await?;
        let verdict =
            judge::ended_run(&lab.storage, &prefix, &Expected { published, interrupted: false }, &lab.out.join(&lecture.name)).await?;
        verdict.sound().with_context(|| lecture.name.clone())?;
    }
    // The first one stays for its publishers.
    eventually("the shards are others", 2 * STEP, async || {
        let now = lab.lives(&media).await?;
        let left: Vec<_> = before.iter().filter(|(name, life)| now.get(*name) == Some(*life)).map(|(name, _)| name).collect();
        Ok(if left.is_empty() { Look::Found(()) } else { Look::NotYet(format!("{left:?} are still there")) })
    })
    .await
}

/// Has every pod of the default pool replaced, which has `room` for the lectures, and waits until they go on without any but the first shard.
async fn is_replaced(
    lab: &Lab,
    release: &Release,
    room: &str,
    before: &BTreeMap<String, (String, i32)>,
    lectures: &[(RunPrefix, Lecture<'_>, Publisher)],
) -> Result<()> {
    let media = format!("{POOL_LABEL}={DEFAULT_POOL}");
    let starts = try_join_all(lectures.iter().map(async |(prefix, lecture, _)| lecture.newest_segment(prefix).await)).await?;

    // True of every node that the pods run on: nothing but the template changes.
    let elsewhere = ["ingest", "transcoder", "origin"].map(|part| format!("pool.{part}.nodeSelector.kubernetes\\.io/os=linux"));
    let values: Vec<&str> = [room].into_iter().chain(elsewhere.iter().map(String::as_str)).collect();
    release.upgrade(&values).await?;
    let is_shard = |name: &str| name.starts_with(SHARD);
    let replaced = eventually("all but the shards are others", 2 * STEP, async || {
        let now = lab.lives(&media).await?;
        let left: Vec<_> = before.keys().filter(|name| !is_shard(name) && now.contains_key(*name)).collect();
        Ok(if left.is_empty() { Look::Found(()) } else { Look::NotYet(format!("{left:?} are still there")) })
    });
    replaced.await?;
    let handed_over = eventually("the second shard is another, and all streams are its", 2 * STEP, async || {
        let second = format!("{SHARD}1");
        let now = lab.lives(&media).await?;
        let (is_new, mut elsewhere) = (now.contains_key(&second) && now.get(&second) != before.get(&second), Vec::new());
        for (_, lecture, _) in lectures {
            let at = placement(&lecture.api().get(&lecture.name).await?)?;
            if at.shard != second {
                elsewhere.push(lecture.name.clone());
            }
        }
        Ok(if is_new && elsewhere.is_empty() { Look::Found(()) } else { Look::NotYet(format!("new: {is_new}; elsewhere: {elsewhere:?}")) })
    });
    handed_over.await?;
    try_join_all(lectures.iter().zip(starts).map(async |((prefix, lecture, _), start)| lecture.segments_go_on(prefix, start, 12).await))
        .await
        .map(drop)
}

fn is_held(stream: &LiveStream) -> bool {
    !stream.finalizers().is_empty()
}

/// No operator, no gateway, nothing of the hooks, and no finalizer of ours in the whole cluster.
async fn nothing_is_left_behind(lab: &Lab) -> Result<()> {
    let held = Api::<LiveStream>::all(lab.client.clone()).list(&ListParams::default()).await?;
    let held: Vec<_> = held.iter().filter(|stream| is_held(stream)).map(LiveStream::name_any).collect();
    ensure!(held.is_empty(), "LiveStreams are still held: {held:?}");
    let ours = ListParams::default().labels("app.kubernetes.io/instance=lectern");
    let (pods, platform) = (lab.pods().list(&ours).await?, lab.client.clone());
    let mut left: Vec<_> = pods.iter().map(Pod::name_any).collect();
    left.extend(Api::<Deployment>::namespaced(platform.clone(), PLATFORM).list(&ours).await?.iter().map(Deployment::name_any));
    left.extend(Api::<Job>::namespaced(platform.clone(), PLATFORM).list(&ours).await?.iter().map(Job::name_any));
    let accounts = Api::<ServiceAccount>::namespaced(platform, PLATFORM).list(&ours).await?;
    let accounts: Vec<_> = accounts.iter().map(ServiceAccount::name_any).collect();
    // Gateways have half a minute to end.
    left.retain(|name| !name.starts_with("lectern-gateway-"));
    ensure!(left.is_empty(), "these are left: {left:?}");
    ensure!(
        accounts == ["lectern-ingest", "lectern-origin", "lectern-transcoder"],
        "the pools' pods need theirs, and nobody else: {accounts:?}"
    );
    Ok(())
}

/// Who may edit a namespace may edit its lectures, and no others.
async fn editors_edit_lectures(lab: &Lab) -> Result<()> {
    let teacher = "ada@school.example";
    let binding = json!({
        "metadata": {"name": "teachers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": teacher}],
    });
    let bindings = Api::<RoleBinding>::namespaced(lab.client.clone(), &lab.namespace);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    let may = async |namespace: &str| {
        let wanted = json!({"namespace": namespace, "group": "lectern.video", "resource": "livestreams", "verb": "create"});
        let review = json!({"metadata": {"namespace": namespace}, "spec": {"user": teacher, "resourceAttributes": wanted}});
        let reviews = Api::<LocalSubjectAccessReview>::namespaced(lab.client.clone(), namespace);
        let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
        anyhow::Ok(answer.status.is_some_and(|status| status.allowed))
    };
    eventually("a teacher may make lectures", STEP, async || {
        Ok(if may(&lab.namespace).await? { Look::Found(()) } else { Look::NotYet("not allowed".into()) })
    })
    .await?;
    ensure!(!may(PLATFORM).await?, "a teacher may make lectures in every namespace");
    Ok(())
}
