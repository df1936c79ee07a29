//! What is done to the operator once the streams are there.

use crate::audit::Audit;
use crate::control_plane::ControlPlane;
use crate::figures::{Figures, Loss, Restart};
use crate::operator::Operator;
use crate::shards::{self, Fleet};
use crate::watched::Watched;
use anyhow::{Result, bail};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use lectern_cloud::testing::Backend;
use lectern_crds::{DEFAULT_POOL, StreamPool};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long it may take until nothing is written any more.
const CALMS_WITHIN: Duration = Duration::from_secs(120);
/// A new leader looks at everything again once pods had time to report to it: 5 s, and the time for that.
const SETTLES: Duration = Duration::from_secs(10);
const IN_SYNC_WITHIN: Duration = Duration::from_secs(60);
const MOVED_WITHIN: Duration = Duration::from_secs(60);

/// Waits until the operator has written nothing for so long.
pub async fn quiet(plane: &ControlPlane, long: Duration) -> Result<()> {
    let (begun, mut last, mut since) = (Instant::now(), plane.audit()?.without_leases().total(), Instant::now());
    while since.elapsed() < long {
        sleep(Duration::from_millis(250)).await;
        let now = plane.audit()?.without_leases().total();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if begun.elapsed() > CALMS_WITHIN {
            bail!("the operator still writes after {CALMS_WITHIN:?}");
        }
    }
    Ok(())
}

/// Lets so many seconds pass and counts what is written.
pub async fn steady(plane: &ControlPlane, operator: &Operator, seconds: u64, figures: &mut Figures) -> Result<()> {
    let (before, cpu) = (plane.audit()?, operator.cpu_seconds()?);
    sleep(Duration::from_secs(seconds)).await;
    figures.steady(&plane.audit()?.since(&before), (operator.cpu_seconds()? - cpu) / seconds as f64);
    Ok(())
}

/// Ends the operator in three ways and starts it again each time.
pub async fn restarts(plane: &ControlPlane, cloud: &Backend, operator: &mut Operator, figures: &mut Figures) -> Result<()> {
    for (words, key, killed, pod) in [
        ("killed, back in the same pod", "crash", true, "lectern-operator-0"),
        ("stopped, back in another pod", "rollout", false, "lectern-operator-1"),
        ("killed, back in another pod", "node_lost", true, "lectern-operator-2"),
    ] {
        let before = plane.audit()?;
        if killed {
            operator.kill().await?;
        } else {
            operator.stop().await?;
        }
        *operator = operator.again(plane, cloud, pod)?;
        let took = operator.in_sync(IN_SYNC_WITHIN).await?;
        sleep(SETTLES).await;
        let (resident, _) = operator.memory()?;
        figures.restarts.push(Restart { words, key, took, resident, writes: written(plane, &before)? });
    }
    Ok(())
}

/// Takes shards away in three ways. Each is gone for good.
pub async fn losses(
    plane: &ControlPlane,
    client: &Client,
    fleet: &Fleet,
    watched: &Watched,
    shards: usize,
    figures: &mut Figures,
) -> Result<()> {
    quiet(plane, Duration::from_secs(3)).await?;
    let pools: Api<StreamPool> = Api::all(client.clone());
    let smaller = json!({"spec": {"ingest": {"shards": shards - 1}}});
    let begun = Instant::now();
    pools.patch(DEFAULT_POOL, &PatchParams::default(), &Patch::Merge(smaller)).await?;
    figures.losses.push(lost(watched, shards - 1, begun, ("the pool has one shard less", "shrink")).await?);

    quiet(plane, Duration::from_secs(3)).await?;
    let begun = Instant::now();
    fleet.drain(1);
    figures.losses.push(lost(watched, 1, begun, ("a shard drains", "drain")).await?);

    quiet(plane, Duration::from_secs(3)).await?;
    let begun = Instant::now();
    fleet.silence(2);
    figures.losses.push(lost(watched, 2, begun, ("a shard dies: no reports, no pod", "dead")).await?);
    figures.left(watched, shards - 3);
    Ok(())
}

async fn lost(watched: &Watched, number: usize, begun: Instant, (words, key): (&'static str, &'static str)) -> Result<Loss> {
    let shard = shards::name(number);
    let streams = watched.seen().on(&shard);
    watched.until(&format!("{shard} has no streams"), MOVED_WITHIN, |seen| seen.on(&shard).is_empty()).await?;
    let (status, route) = watched.seen().moved(&streams, begun);
    Ok(Loss { words, key, streams: streams.len(), status, route })
}

/// What was written about streams since `before`: a leader's label and Lease are its own business.
fn written(plane: &ControlPlane, before: &Audit) -> Result<Audit> {
    Ok(plane.audit()?.since(before).without_leases())
}
