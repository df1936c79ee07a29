//! Leader election on a Lease of our own, and the label that leads the operator's Service to the leader.
//!
//! A holder is judged dead when its Lease has not changed for ten seconds of *our* monotonic clock: no two machines' clocks
//! are compared. Every write carries the resourceVersion that was read, so of two that take over, one wins.

use crate::apply::{is_conflict, is_not_found};
use crate::{MANAGER, OPERATORS};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use lectern_podkit::Task;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The label on the leader's pod, which the Service `lectern-operator` selects.
pub const LEADER_LABEL: &str = "lectern.video/leader";

const RENEW: Duration = Duration::from_secs(2);
/// How often the Lease is looked at by who waits for it.
const LOOK: Duration = Duration::from_millis(250);
const LEASE: Duration = Duration::from_secs(10);
/// What was seen of the Lease earlier says nothing of now.
const RECENTLY: Duration = Duration::from_millis(1_500);
/// A leader that could not renew for this long stops: earlier than another may take over.
const GIVE_UP: Duration = Duration::from_secs(8);
/// One call; shorter than what is left between `RENEW` and `GIVE_UP`.
const CALL: Duration = Duration::from_secs(3);
/// How often the leader looks for the other operators, and sees to it that its pod, and no other, has the label.
const RELABEL: Duration = Duration::from_secs(10);

/// Who we are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our pod, which is what the Lease names.
    pub pod: String,
    /// The namespace of the pod and the Lease.
    pub namespace: String,
}

/// Why a leader stopped.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The Lease could not be renewed in time, or somebody else holds it. The process has to end: what it still has in
    /// flight cannot be told from the next leader's work.
    #[error("the lease {MANAGER} was lost: {0}")]
    Lost(String),
}

/// What an election tells.
#[derive(Debug, Clone, Default)]
pub struct Election {
    /// Cancelled once the Lease is ours.
    pub leading: CancellationToken,
    /// While it is somebody else's: what was seen of it last.
    pub lease: watch::Sender<Option<Sighting>>,
    /// While it is ours: where the pods of the other operators are, as of the last look.
    pub others: watch::Sender<Option<Vec<IpAddr>>>,
}

/// The Lease in somebody else's hand, by our clock.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// Since when it has not changed.
    pub since: Instant,
    /// When it was looked at.
    pub at: Instant,
}

impl Sighting {
    /// For how long it was seen to stand still; `None` where that was too long ago to say anything of now, since the API server is away or we are.
    pub fn stands_still_for(&self, now: Instant) -> Option<Duration> {
        (now.duration_since(self.at) < RECENTLY).then(|| self.at.duration_since(self.since))
    }
}

/// Waits for the Lease, and holds it until `stop`. The caller starts its work when the election says that we lead.
pub fn run(client: Client, me: Identity, election: Election, stop: CancellationToken) -> Task<LeaderError> {
    Box::pin(async move {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &me.namespace);
        let Some(mut held) = stop.run_until_cancelled(acquire(&leases, &me.pod, &election.lease)).await else { return Ok(()) };
        tracing::info!(pod = me.pod, "leading");
        election.leading.cancel();
        let (mut asked, mut labelled) = (Instant::now(), None::<Instant>);
        let mut renewed = asked;
        loop {
            if labelled.is_none_or(|at| at.elapsed() >= RELABEL) {
                match timeout(CALL, label_leader(&client, &me)).await {
                    Ok(Ok(others)) => {
                        labelled = Some(Instant::now());
                        election.others.send_replace(Some(others));
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "the leader's label could not be set; trying on"),
                    Err(_) => tracing::warn!("the leader's label could not be set in {CALL:?}; trying on"),
                }
            }
            if stop.run_until_cancelled(sleep_until(asked + RENEW)).await.is_none() {
                release(&leases, held).await;
                return Ok(());
            }
            asked = Instant::now();
            match timeout(CALL, write(&leases, &held, &me.pod)).await {
                Ok(Ok(lease)) => (held, renewed) = (lease, asked),
                Ok(Err(error)) if is_conflict(&error) => {
                    let now: Option<Lease> = leases.get_opt(MANAGER).await.ok().flatten();
                    match now.filter(|lease| holder(lease) == Some(me.pod.as_str())) {
                        // Somebody touched the Lease (an annotation), or our last answer was lost; it is still ours.
                        Some(lease) => held = lease,
                        None => return Err(LeaderError::Lost("another operator holds it".into())),
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed; trying on"),
                Err(_) => tracing::warn!("the lease was not renewed in {CALL:?}; trying on"),
            }
            if renewed.elapsed() >= GIVE_UP {
                return Err(LeaderError::Lost(format!("it could not be renewed for {GIVE_UP:?}")));
            }
        }
    })
}

/// Waits until the Lease is ours.
async fn acquire(leases: &Api<Lease>, me: &str, seen: &watch::Sender<Option<Sighting>>) -> Lease {
    let mut watch = Watch::default();
    loop {
        match timeout(CALL, try_acquire(leases, me, &mut watch)).await {
            Ok(Ok(Some(lease))) => return lease,
            Ok(Ok(None)) => drop(seen.send_replace(watch.since.map(|since| Sighting { since, at: Instant::now() }))),
            Ok(Err(error)) if is_conflict(&error) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be read or taken; trying on"),
            Err(_) => tracing::warn!("the lease cannot be read or taken in {CALL:?}; trying on"),
        }
        sleep(LOOK).await;
    }
}

async fn try_acquire(leases: &Api<Lease>, me: &str, watch: &mut Watch) -> Result<Option<Lease>, kube::Error> {
    let Some(lease) = leases.get_opt(MANAGER).await? else {
        let fresh =
            Lease { metadata: ObjectMeta { name: Some(MANAGER.to_owned()), ..ObjectMeta::default() }, spec: Some(LeaseSpec::default()) };
        return leases.create(&PostParams::default(), &taken(&fresh, me)).await.map(Some);
    };
    if watch.may_take(&lease, me, Instant::now()) { write(leases, &lease, me).await.map(Some) } else { Ok(None) }
}

/// What we have seen of the Lease, and when by our own clock.
#[derive(Debug, Default)]
struct Watch {
    version: Option<String>,
    since: Option<Instant>,
}

impl Watch {
    /// Whether `lease` is free: nobody's, ours from an earlier life of this pod, or unchanged for the lease's time.
    fn may_take(&mut self, lease: &Lease, me: &str, now: Instant) -> bool {
        if holder(lease).is_none_or(|holder| holder == me) {
            return true;
        }
        let version = lease.resource_version();
        match self.since {
            Some(since) if self.version == version => now.duration_since(since) >= LEASE,
            _ => {
                (self.version, self.since) = (version, Some(now));
                false
            }
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

async fn write(leases: &Api<Lease>, seen: &Lease, me: &str) -> Result<Lease, kube::Error> {
    leases.replace(MANAGER, &PostParams::default(), &taken(seen, me)).await
}

fn taken(seen: &Lease, me: &str) -> Lease {
    let mut lease = seen.clone();
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(me) {
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        spec.acquire_time = Some(now.clone());
    }
    spec.holder_identity = Some(me.to_owned());
    spec.lease_duration_seconds = i32::try_from(LEASE.as_secs()).ok();
    spec.renew_time = Some(now);
    lease.metadata.managed_fields = None;
    lease
}

/// Lets go, so that the other replica need not wait for the Lease to run out.
async fn release(leases: &Api<Lease>, mut held: Lease) {
    held.spec.get_or_insert_default().holder_identity = Some(String::new());
    held.metadata.managed_fields = None;
    match timeout(CALL, leases.replace(MANAGER, &PostParams::default(), &held)).await {
        Ok(Ok(_)) => tracing::info!("the lease is released"),
        Ok(Err(error)) => tracing::warn!(%error, "the lease could not be released; it runs out"),
        Err(_) => tracing::warn!("the lease could not be released in {CALL:?}; it runs out"),
    }
}

/// Puts the label on our pod and takes it off every other, and says where the others are. A merge patch: the pod belongs to its Deployment, and an
/// applied label could not be taken off by the next leader's apply where this pod's manager is still recorded.
async fn label_leader(client: &Client, me: &Identity) -> Result<Vec<IpAddr>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &me.namespace);
    let operators = pods.list(&ListParams::default().labels(OPERATORS)).await?.items;
    let is_labelled = |pod: &Pod| pod.labels().get(LEADER_LABEL).is_some_and(|value| value == "true");
    let (ours, others): (Vec<_>, Vec<_>) = operators.into_iter().partition(|pod| pod.name_any() == me.pod);
    for pod in others.iter().filter(|pod| is_labelled(pod)) {
        match set_label(&pods, &pod.name_any(), None).await {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    if !ours.iter().any(is_labelled) {
        set_label(&pods, &me.pod, Some("true")).await?;
    }
    Ok(others.iter().filter_map(address).collect())
}

/// Where a pod is that runs, and is not about to go.
fn address(pod: &Pod) -> Option<IpAddr> {
    let status =
        pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none())?;
    status.pod_ip.as_ref()?.parse().ok()
}

async fn set_label(pods: &Api<Pod>, pod: &str, value: Option<&str>) -> Result<(), kube::Error> {
    let patch = json!({ "metadata": { "labels": { LEADER_LABEL: value } } });
    pods.patch_metadata(pod, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let metadata = ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() }) }
    }

    #[test]
    fn a_lease_that_keeps_changing_is_never_taken() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for second in 0..60 {
            assert!(!watch.may_take(&lease("other", &second.to_string()), "me", start + Duration::from_secs(second)));
        }
    }

    #[test]
    fn a_lease_that_stood_still_for_ten_of_our_seconds_is_taken() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert!(!watch.may_take(&lease("other", "7"), "me", start));
        assert!(!watch.may_take(&lease("other", "7"), "me", start + Duration::from_secs(9)));
        assert!(watch.may_take(&lease("other", "7"), "me", start + Duration::from_secs(10)));
    }

    #[test]
    fn a_released_lease_and_one_of_our_earlier_life_are_taken_at_once() {
        assert!(Watch::default().may_take(&lease("", "7"), "me", Instant::now()));
        assert!(Watch::default().may_take(&lease("me", "7"), "me", Instant::now()));
    }

    #[test]
    fn taking_over_counts_a_transition_and_renewing_does_not() {
        let first = taken(&lease("other", "1"), "me");
        assert_eq!(first.spec.as_ref().unwrap().lease_transitions, Some(1));
        assert_eq!(taken(&first, "me").spec.unwrap().lease_transitions, Some(1));
    }
}
