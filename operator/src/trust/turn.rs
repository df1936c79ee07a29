//! The CA's keeper: makes it, or takes over somebody else's, and turns one rotation step after the other.

use super::authority::{Authority, UnusableCa};
use super::leaf::{self, Need};
use super::rotation::{self, Held, Rotation, Seen, Source, Step};
use super::{CA_SECRET, LOOK, RETRY, TrustError, Wanted, labelled};
use crate::pool::certificates::certificates;
use crate::{MANAGER, apply};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt};
use lectern_crds::StreamPool;
use lectern_podkit::Task;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// `kubectl annotate secret lectern-ca lectern.video/rotate=now`: another CA takes this one's place, without a connection refused meanwhile. Taken
/// off as soon as that begins.
pub const ROTATE_ANNOTATION: &str = "lectern.video/rotate";
/// On the CA's Secret: when it runs out, for people.
const NOT_AFTER: &str = "lectern.video/not-after";

/// Whose CA it is, and what certificates there are of it.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// The operator's namespace.
    pub namespace: String,
    /// The Secret with somebody else's CA; without one the operator makes its own.
    pub given: Option<String>,
    /// How long Secrets take to reach all pods, amply.
    pub pause: SignedDuration,
    /// The certificates beside those of the pools.
    pub beside: Vec<Wanted>,
}

/// Keeps the CA until `stop`.
pub fn run(client: Client, keeper: Keeper, stop: CancellationToken) -> Task<std::convert::Infallible> {
    Box::pin(async move {
        loop {
            let pause = match turn(&client, &keeper, Timestamp::now()).await {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "the CA could not be looked after; trying on");
                    RETRY
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    })
}

/// Makes the CA where there is none, and does a rotation's next step where it is time.
///
/// # Errors
/// There is none and none could be made, the one that is given is unusable, or the API server says no. Trying again may help.
pub async fn turn(client: &Client, keeper: &Keeper, now: Timestamp) -> Result<(), TrustError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &keeper.namespace);
    let given = match &keeper.given {
        Some(name) => Some(given(&secrets, name, now).await?),
        None => None,
    };
    let Some(secret) = secrets.get_opt(CA_SECRET).await? else {
        let first = match given {
            Some(usable) => usable?,
            None => Authority::generate(now)?,
        };
        return make(&secrets, first).await;
    };
    let held = Held::read(&secret)?;
    let source = given.as_ref().map_or(Source::Own, |given| Source::Given(given.as_ref().ok()));
    let settled = if held.rotation == Rotation::Steady { None } else { settled(client, &secrets, keeper, &held, now).await? };
    let asked = secret.annotations().contains_key(ROTATE_ANNOTATION);
    let seen = Seen { held: &held, asked, source, settled, now, pause: keeper.pause };
    let (then, what) = match rotation::next(&seen) {
        Step::Stay => return given.map_or(Ok(()), |given| given.map(drop)), // a CA that cannot be used is told of
        Step::Make => (held.trusting(Authority::generate(now)?), "another CA is trusted from now on"),
        Step::Trust(next) => (held.trusting(next), "the CA that is given is trusted from now on"),
        Step::Use => (held.using(), "certificates are issued by the next CA from now on"),
        Step::Forget => (held.forgetting(), "the CA before is trusted no more"),
    };
    write(&secrets, &secret, &then).await?;
    tracing::info!(issuing = then.issuing.fingerprint(), until = %then.issuing.until, "{what}");
    Ok(())
}

/// The CA that somebody else keeps in this Secret: the inner error says that it is away, or none.
async fn given(secrets: &Api<Secret>, name: &str, now: Timestamp) -> Result<Result<Authority, TrustError>, kube::Error> {
    let usable = secrets.get_opt(name).await?.ok_or(UnusableCa::Absent).and_then(|secret| {
        let found = rotation::authority(&secret, "tls.crt", "tls.key")?;
        if found.until <= now { Err(UnusableCa::RunOut(found.until)) } else { Ok(found) }
    });
    Ok(usable.map_err(|source| TrustError::BadGiven { secret: name.to_owned(), source }))
}

/// Once, for all replicas.
async fn make(secrets: &Api<Secret>, first: Authority) -> Result<(), TrustError> {
    let annotations = [(NOT_AFTER, first.until.to_string())];
    let secret = labelled(CA_SECRET, [("tls.crt", first.chain), ("tls.key", first.key)], annotations);
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(()),
        // An operator before us won; its CA is the one.
        Err(error) if apply::is_conflict(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Provided that nobody has written to the Secret since it was read. A merge, because an apply could not take the annotation off.
async fn write(secrets: &Api<Secret>, seen: &Secret, then: &Held) -> Result<(), kube::Error> {
    let began = matches!(then.rotation, Rotation::Trusted(_));
    let mut annotations = json!({ NOT_AFTER: then.issuing.until.to_string() });
    if began {
        annotations[ROTATE_ANNOTATION] = json!(null);
    }
    let patch = json!({ "metadata": { "resourceVersion": seen.resource_version(), "annotations": annotations }, "data": then.entries() });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    secrets.patch(CA_SECRET, &params, &Patch::Merge(patch)).await.map(drop)
}

/// When the last of all certificates' Secrets was written, once all are as `held` says.
async fn settled(
    client: &Client,
    secrets: &Api<Secret>,
    keeper: &Keeper,
    held: &Held,
    now: Timestamp,
) -> Result<Option<Timestamp>, kube::Error> {
    // A pool that cannot be read has no certificates that anybody could renew.
    let pools = Api::<DeserializeGuard<StreamPool>>::all(client.clone()).list(&ListParams::default()).await?;
    let pools = pools.items.into_iter().filter_map(|pool| pool.0.ok()).filter(|pool| pool.metadata.deletion_timestamp.is_none());
    let wanted: Vec<_> = keeper.beside.iter().cloned().chain(pools.flat_map(|pool| certificates(&pool, &keeper.namespace))).collect();
    let mut last = None;
    for wanted in &wanted {
        let there = secrets.get_opt(&wanted.secret).await?;
        if leaf::need(there.as_ref(), wanted, held, now) != Need::Nothing {
            return Ok(None);
        }
        last = last.max(there.as_ref().and_then(leaf::written));
    }
    Ok(last)
}
