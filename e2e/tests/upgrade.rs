//! The chart is changed under a lecture. A binary of its own, because cargo runs one after the other: all other tests need the release.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use lectern_crds::{DEFAULT_POOL, LiveStream, POOL_LABEL};
use lectern_e2e::chaos::{self, Fault, Store};
use lectern_e2e::lab::{STEP, prefix_of, small};
use lectern_e2e::release::{Release, with_the_release};
use lectern_e2e::settings::PLATFORM;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Onlooker, Shot};
use serde_json::json;
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

/// An upgrade gives every pod of the pool another template, under six lectures: transcoders are replaced one by one, the origin too, and the shards hand their streams over.
/// Every picture of all six is there, once, and who watches one of them never waits for media (a player that has a buffer: at low latency six encoders and a browser on two
/// cores are themselves what it would wait for).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_lectures_go_on_while_every_pod_of_their_pool_is_replaced() -> Result<()> {
    let cost = chaos::trial(&[Fault::ChartUpgraded], "Standard", Store::Ministack).await?;
    eprintln!("six lectures under an upgrade: {cost:?}");
    ensure!(cost.is_sound() && cost.complaints.is_empty() && cost.frames == 0 && cost.sound == 0, "{cost:?}");
    ensure!(cost.waits == 0, "the player stood still: {cost:?}");
    Ok(())
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
