//! The StreamPool controller: the pods, services, queue and bucket of a pool.

pub mod certificates;
pub mod checks;
pub mod demand;
pub mod keys;
pub mod observe;
pub mod plan;
pub mod pods;
pub mod podspec;
pub mod scaling;
pub mod status;
pub mod transcoder;
pub mod viewing;
pub mod waiting;

use crate::apply::Applied;
use crate::context::{Context, Error};
use crate::{apply, trust};
use demand::Load;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use lectern_contract::Ladder;
use lectern_crds::{POOL_LABEL, StreamPool};
use observe::Seen;
use plan::{Place, Planned};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use transcoder::PlannedClass;

/// How often a pool is looked at although nothing changed.
const REFRESH: Duration = Duration::from_secs(30);
/// Jobs that a pod can have whose class, and so its slots, nobody knows any more: the schema's bound.
const MOST_SLOTS: usize = 64;

/// Brings one StreamPool closer to what its spec says.
pub async fn reconcile(pool: Arc<StreamPool>, ctx: Arc<Context>) -> Result<Action, Error> {
    if pool.meta().deletion_timestamp.is_some() {
        // What it owns is collected with it.
        return Ok(Action::await_change());
    }
    let cloud = ctx.checks.look(&pool, &ctx.clouds, &ctx.metrics).await;
    let keys = keys::version(&pool, &ctx).await?;
    let place = Place { namespace: ctx.namespace.clone(), operator_url: ctx.operator_url.clone(), keys };
    let plan = plan::plan(&pool, &place);
    viewing::ensure(&pool, &place, &ctx).await?; // before the origins, which mount it
    apply_all(&pool, &plan, &ctx).await?;
    scale_origins(&pool, &place, &ctx).await?;
    let seen = observe::observe(&pool, &ctx).await?;
    let changes = changes(&pool, &plan, &seen, &ctx);
    for (class, change) in &changes {
        change_pods(class, change, &ctx).await?;
    }
    mark(&seen, &ctx).await?;
    let alive = seen.pods.iter().filter(|pod| pod.is_alive()).count();
    ctx.applied.object(&Api::namespaced(ctx.client(), &ctx.namespace), &transcoder::budget(&pool, &place, alive)).await?;
    status::write(&pool, &status::status(&pool, &seen, &cloud), &ctx).await?;
    let soon = if changes.iter().all(|(_, change)| change.is_steady()) { REFRESH } else { Duration::from_secs(3) };
    let idle = |class: &str| plan.classes.iter().find(|known| known.name == class).map(PlannedClass::idle);
    let fewer = ctx.peaks.next_change(&pool.name_any(), idle, Instant::now()).unwrap_or(soon);
    Ok(Action::requeue(soon.min(fewer).min(ctx.checks.next_look(&pool)).max(Duration::from_millis(500))))
}

/// What becomes of each class's pods; of those whose class the pool does not know any more, too: they go when they are idle, or when others have room for their jobs.
fn changes<'a>(pool: &StreamPool, plan: &'a Planned, seen: &Seen, ctx: &Context) -> Vec<(Option<&'a PlannedClass>, pods::Change)> {
    let (name, now) = (pool.name_any(), Instant::now());
    let of_class = |class: &str| seen.pods.iter().filter(|pod| pod.class == class).collect::<Vec<_>>();
    let (mut changes, mut elsewhere) = (Vec::new(), 0);
    let mut waiting: Vec<&Ladder> = seen.waiting.iter().collect();
    for class in &plan.classes {
        let pods = of_class(&class.name);
        let alive = pods.iter().filter(|pod| pod.is_alive());
        let working: Vec<Load> = alive
            .clone()
            .filter(|pod| !pod.is_idle())
            .map(|pod| Load { jobs: pod.jobs.unwrap_or(class.slots()), taken: pod.taken })
            .collect();
        let (wanted, left) = demand::wanted(&class.spec, &working, &waiting);
        waiting = left;
        let held = ctx.peaks.hold((&name, &class.name), (wanted, alive.count()), class.idle(), now);
        // A class whose bounds have changed is not held to what it needed under the old ones, nor to all that work: the surplus moves.
        let most = class.spec.max_pods.unwrap_or(class.spec.pods);
        let held = held.min(usize::try_from(most).unwrap_or(0));
        let change = pods::change(&pods, held, class.slots(), &class.hash, 0);
        let stays = |pod: &&pods::Seen| pod.is_alive() && pod.hash == class.hash && change.delete.iter().all(|gone| gone.name != pod.name);
        elsewhere += pods::free(&pods.iter().copied().filter(stays).collect::<Vec<_>>(), class.slots());
        changes.push((Some(class), change));
    }
    let strangers: Vec<_> = seen.pods.iter().filter(|pod| plan.classes.iter().all(|class| class.name != pod.class)).collect();
    changes.push((None, pods::change(&strangers, 0, MOST_SLOTS, "", elsewhere)));
    changes
}

async fn apply_all(pool: &StreamPool, plan: &Planned, ctx: &Context) -> Result<(), Error> {
    let (client, namespace) = (ctx.client(), ctx.namespace.as_str());
    for certificate in &plan.certificates {
        trust::ensure(&client, certificate, Timestamp::now()).await?;
    }
    for service in &plan.services {
        ctx.applied.object(&Api::namespaced(client.clone(), namespace), service).await?;
    }
    remove_services(pool, plan, ctx).await?;
    ctx.applied.object(&Api::namespaced(client.clone(), namespace), &plan.cameras).await?;
    ctx.applied.object(&Api::namespaced(client.clone(), namespace), &plan.ingest_budget).await?;
    ctx.applied.object(&Api::namespaced(client.clone(), namespace), &plan.ingest).await?;
    apply_origins(pool, &plan.origin, &Api::namespaced(client, namespace), &ctx.applied).await?;
    Ok(())
}

/// Applies the origins. How many there are is left to the autoscaler, where there is one: a conflict, and nothing is written, where it changes that meanwhile.
pub async fn apply_origins(pool: &StreamPool, planned: &Deployment, api: &Api<Deployment>, applied: &Applied) -> Result<(), kube::Error> {
    if pool.spec.origin.autoscale.is_none() {
        return applied.object(api, planned).await;
    }
    let now = api.get_opt(&planned.name_any()).await?;
    let mut planned = planned.clone();
    planned.spec.get_or_insert_default().replicas = Some(scaling::replicas(&pool.spec.origin, now.as_ref()));
    applied.object_made_of(api, &planned, now.as_ref()).await
}

/// Applies the origins' autoscaler, or takes away the one that the pool had.
async fn scale_origins(pool: &StreamPool, place: &Place, ctx: &Context) -> Result<(), Error> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(ctx.client(), &ctx.namespace);
    match scaling::autoscaler(pool, place) {
        Some(wanted) => ctx.applied.object(&api, &wanted).await?,
        None => {
            let name = plan::origin_name(&pool.name_any());
            if let Some(left) = api.get_metadata_opt(&name).await? {
                apply::delete(&api, &name, left.uid()).await?;
            }
        }
    }
    Ok(())
}

/// Takes away Services that the pool had: of shards that it has no more, or of all of them together since each has its own. That of a shard
/// stays until its pod is gone: publishers who have not left yet are relayed, and come by it.
async fn remove_services(pool: &StreamPool, plan: &Planned, ctx: &Context) -> Result<(), Error> {
    let services: Api<Service> = Api::namespaced(ctx.client(), &ctx.namespace);
    let selector = format!("{POOL_LABEL}={},app.kubernetes.io/managed-by={}", pool.name_any(), crate::MANAGER);
    let planned: BTreeSet<String> = plan.services.iter().map(Service::name_any).collect();
    let pods: Api<Pod> = Api::namespaced(ctx.client(), &ctx.namespace);
    for there in services.list_metadata(&ListParams::default().labels(&selector)).await? {
        let name = there.name_any();
        if planned.contains(&name) {
            continue;
        }
        let of_shard = plan::shard_of(&name).filter(|_| pool.spec.ingest.per_shard);
        let is_used = match of_shard {
            Some(shard) => pods.get_metadata_opt(shard).await?.is_some(),
            None => false,
        };
        if !is_used {
            apply::delete(&services, &name, there.uid()).await?;
        }
    }
    Ok(())
}

/// Tells autoscalers which pods may be taken off their nodes.
async fn mark(seen: &Seen, ctx: &Context) -> Result<(), Error> {
    let pods: Api<Pod> = Api::namespaced(ctx.client(), &ctx.namespace);
    for (pod, may_go) in pods::to_mark(&seen.pods) {
        let annotations: BTreeMap<_, _> = transcoder::marks(may_go).into();
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid, "annotations": annotations}}));
        match pods
            .patch_metadata(&pod.name, &PatchParams { field_manager: Some(crate::MANAGER.to_owned()), ..PatchParams::default() }, &patch)
            .await
        {
            Err(error) if !apply::is_not_found(&error) && !apply::is_conflict(&error) => return Err(error.into()),
            _ => {} // marked, or gone meanwhile
        }
    }
    Ok(())
}

async fn change_pods(class: &Option<&PlannedClass>, change: &pods::Change, ctx: &Context) -> Result<(), Error> {
    let pods: Api<Pod> = Api::namespaced(ctx.client(), &ctx.namespace);
    for gone in &change.delete {
        tracing::info!(pod = gone.name, why = gone.why, "deleting a transcoder pod");
        apply::delete(&pods, &gone.name, gone.uid.clone()).await?;
    }
    let Some(class) = class else { return Ok(()) };
    for _ in 0..change.create {
        // Twenty-five random bits: a clash is a conflict, which the next try resolves.
        let suffix: String =
            rand::random::<[u8; 5]>().iter().map(|byte| char::from(b"abcdefghijkmnpqrstuvwxyz23456789"[usize::from(byte % 32)])).collect();
        let pod = class.pod(&suffix);
        pods.create(&kube::api::PostParams { field_manager: Some(crate::MANAGER.to_owned()), ..Default::default() }, &pod).await?;
        tracing::info!(pod = pod.name_any(), "made a transcoder pod");
    }
    Ok(())
}
