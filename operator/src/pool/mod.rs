//! The StreamPool controller: the pods, services, queue and bucket of a pool.

pub mod certificates;
pub mod checks;
pub mod observe;
pub mod plan;
pub mod pods;
pub mod podspec;
pub mod status;

use crate::context::{Context, Error};
use crate::{apply, trust};
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use lectern_crds::StreamPool;
use plan::Planned;
use std::sync::Arc;
use std::time::Duration;

/// How often a pool is looked at although nothing changed.
const REFRESH: Duration = Duration::from_secs(30);

/// Brings one StreamPool closer to what its spec says.
pub async fn reconcile(pool: Arc<StreamPool>, ctx: Arc<Context>) -> Result<Action, Error> {
    if pool.meta().deletion_timestamp.is_some() {
        // What it owns is collected with it.
        return Ok(Action::await_change());
    }
    let cloud = ctx.checks.look(&pool, &ctx.clouds, &ctx.metrics).await;
    let plan = plan::plan(&pool, &plan::Place { namespace: ctx.namespace.clone(), operator_url: ctx.operator_url.clone() });
    apply_all(&plan, &ctx).await?;
    let seen = observe::observe(&pool, &ctx).await?;
    let change =
        pods::change(&seen.pods, plan.transcoders, usize::try_from(pool.spec.transcoder.slots).unwrap_or(1), &plan.transcoder_hash);
    change_pods(&plan, &change, &ctx).await?;
    status::write(&pool, &status::status(&pool, &seen, &cloud), &ctx).await?;
    let soon = if change.is_steady() { REFRESH } else { Duration::from_secs(3) };
    Ok(Action::requeue(soon.min(ctx.checks.next_look(&pool).max(Duration::from_millis(500)))))
}

async fn apply_all(plan: &Planned, ctx: &Context) -> Result<(), Error> {
    let (client, namespace) = (ctx.client(), ctx.namespace.as_str());
    for certificate in &plan.certificates {
        trust::ensure(&client, certificate, Timestamp::now()).await?;
    }
    for service in &plan.services {
        apply::object(&Api::namespaced(client.clone(), namespace), service).await?;
    }
    apply::object(&Api::namespaced(client.clone(), namespace), &plan.cameras).await?;
    apply::object(&Api::namespaced(client.clone(), namespace), &plan.ingest_budget).await?;
    apply::object(&Api::namespaced(client.clone(), namespace), &plan.ingest).await?;
    apply::object(&Api::namespaced(client, namespace), &plan.origin).await?;
    Ok(())
}

async fn change_pods(plan: &Planned, change: &pods::Change, ctx: &Context) -> Result<(), Error> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(ctx.client(), &ctx.namespace);
    for gone in &change.delete {
        tracing::info!(pod = gone.name, why = gone.why, "deleting a transcoder pod");
        apply::delete(&pods, &gone.name, gone.uid.clone()).await?;
    }
    for _ in 0..change.create {
        // Twenty-five random bits: a clash is a conflict, which the next try resolves.
        let suffix: String =
            rand::random::<[u8; 5]>().iter().map(|byte| char::from(b"abcdefghijkmnpqrstuvwxyz23456789"[usize::from(byte % 32)])).collect();
        let pod = plan.transcoder(&suffix);
        pods.create(&kube::api::PostParams { field_manager: Some(crate::MANAGER.to_owned()), ..Default::default() }, &pod).await?;
        tracing::info!(pod = pod.name_any(), "made a transcoder pod");
    }
    Ok(())
}
