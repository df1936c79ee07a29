//! RouteSlices: one task keeps them equal to what the LiveStreams' statuses say.
//!
//! A route comes of what is written in a status and of nothing else, so a stream's run and shard are persisted before any
//! shard hears of them. Slices are sticky: a change rewrites the slice that it concerns and no other.

use crate::apply;
use crate::conditions::holds;
use crate::stores::Filled;
use crate::stream::claims::ENDED;
use crate::stream::{is_deleting, stream_ref};
use kube::api::{Api, ListParams, ObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use lectern_contract::RunId;
use lectern_contract::StreamRef;
use lectern_contract::keys::RunPrefix;
use lectern_crds::{LiveStream, POOL_LABEL, Route, RouteSlice, RouteSliceSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Routes in a slice.
pub const PER_SLICE: usize = 100;
/// Changes that come this close together are one round.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often the slices are read back, should somebody have touched them.
const RELIST: Duration = Duration::from_secs(60);
/// How soon a failed round is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a round may take.
const ROUND: Duration = Duration::from_secs(20);

/// The slices of all pools by name.
pub type Slices = BTreeMap<String, RouteSliceSpec>;

/// The route of a stream: there from its placement until its run is complete, with `ended` from when it is to end. That of a
/// camera with a password waits until the password is where its shard can read it.
pub fn route(stream: &LiveStream) -> Option<Route> {
    let status = stream.status.as_ref().filter(|status| !holds(&status.conditions, ENDED))?;
    let (placement, ingest, run) = (status.placement.as_ref()?, status.ingest.as_ref()?, status.run_id.as_ref()?);
    let rtsp = stream.spec.source.rtsp.as_ref();
    let ended = stream.spec.ended || is_deleting(stream);
    let credentials = ingest.camera_credentials.clone().filter(|_| rtsp.is_some_and(|rtsp| rtsp.secret_ref.is_some()));
    if credentials.is_none() && !ended && rtsp.is_some_and(|rtsp| rtsp.secret_ref.is_some()) {
        return None;
    }
    let here = stream_ref(stream);
    let original = stream.spec.record.original.then(|| RunPrefix::of(&here, &RunId(run.clone())).to_string());
    let StreamRef { namespace, name } = here;
    Some(Route {
        key_hash: ingest.key_hash.clone(),
        previous_key_hash: ingest.previous_key_hash.clone(),
        backup_key_hash: ingest.backup_key_hash.clone(),
        takeover: stream.spec.reconnect.takeover,
        namespace,
        name,
        run_id: run.clone(),
        shard: placement.shard.clone(),
        epoch: placement.epoch,
        anchor_millis: placement.anchor_millis,
        ended,
        rtsp_url: rtsp.map(|rtsp| rtsp.url.clone()),
        rtsp_transport: rtsp.map(|rtsp| rtsp.transport).unwrap_or_default(),
        rtsp_credentials: credentials,
        original_prefix: original,
    })
}

/// The slices as they should be, given as they are: a route stays in its slice, a new one goes where there is room, and a
/// slice without routes is left out. `wanted` is each route with its pool; routes of `unreadable` streams stay as they are.
pub fn plan(existing: &Slices, wanted: Vec<(String, Route)>, unreadable: &BTreeSet<StreamRef>) -> Slices {
    let mut wanted: BTreeMap<(String, String), Route> =
        wanted.into_iter().map(|(pool, route)| ((pool, route.run_id.clone()), route)).collect();
    let mut planned: Slices = BTreeMap::new();
    for (name, slice) in existing {
        let keep = |route: &Route| {
            let blind =
                || unreadable.contains(&StreamRef { namespace: route.namespace.clone(), name: route.name.clone() }).then(|| route.clone());
            wanted.remove(&(slice.pool_name.clone(), route.run_id.clone())).or_else(blind)
        };
        let routes: Vec<Route> = slice.routes.iter().filter_map(keep).collect();
        if !routes.is_empty() {
            planned.insert(name.clone(), RouteSliceSpec { pool_name: slice.pool_name.clone(), routes });
        }
    }
    let mut touched = BTreeSet::new();
    for ((pool, _), route) in wanted {
        let name = room(&planned, &pool);
        planned.entry(name.clone()).or_insert_with(|| RouteSliceSpec { pool_name: pool, routes: Vec::new() }).routes.push(route);
        touched.insert(name);
    }
    for name in touched {
        if let Some(slice) = planned.get_mut(&name) {
            slice.routes.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        }
    }
    planned
}

/// A slice of the pool with room, or the lowest number that is free.
fn room(planned: &Slices, pool: &str) -> String {
    let with_room = planned.iter().find(|(_, slice)| slice.pool_name == pool && slice.routes.len() < PER_SLICE);
    if let Some((name, _)) = with_room {
        return name.clone();
    }
    let mut number = 0usize;
    loop {
        let name = format!("{pool}-{number}");
        if !planned.contains_key(&name) {
            return name;
        }
        number += 1;
    }
}

/// Keeps the slices up to date until `stop`. `changed` wakes it when any LiveStream has changed.
pub async fn run(
    client: Client,
    namespace: String,
    (streams, filled): (Store<DeserializeGuard<LiveStream>>, Filled),
    changed: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let api: Api<RouteSlice> = Api::namespaced(client, &namespace);
    // Before all streams are known, a plan would take away the routes of those that are not.
    if stop.run_until_cancelled(filled.wait()).await.is_none() {
        return Ok(());
    }
    let mut known: Option<Slices> = None;
    loop {
        let pause = match timeout(ROUND, round(&api, &streams, &mut known)).await {
            Ok(Ok(())) => RELIST,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the RouteSlices are not up to date; trying again");
                known = None;
                RETRY
            }
            Err(_) => {
                tracing::warn!("the RouteSlices were not up to date within {ROUND:?}; trying again");
                known = None;
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = changed.notified() => {}
            () = sleep(pause) => known = None,
        }
        sleep(DEBOUNCE).await;
    }
}

async fn round(
    api: &Api<RouteSlice>,
    streams: &Store<DeserializeGuard<LiveStream>>,
    known: &mut Option<Slices>,
) -> Result<(), kube::Error> {
    let mut slices = match known.take() {
        Some(slices) => slices,
        None => api.list(&ListParams::default()).await?.items.into_iter().map(|slice| (slice.name_any(), slice.spec)).collect(),
    };
    let (mut wanted, mut unreadable) = (Vec::new(), BTreeSet::new());
    for stream in streams.state() {
        match &stream.0 {
            Ok(stream) => wanted.extend(route(stream).map(|route| (stream.spec.pool_name.clone(), route))),
            Err(invalid) => drop(unreadable.insert(StreamRef {
                namespace: invalid.metadata.namespace.clone().unwrap_or_default(),
                name: invalid.metadata.name.clone().unwrap_or_default(),
            })),
        }
    }
    let planned = plan(&slices, wanted, &unreadable);
    // Written first, deleted after: a route that moves between slices is twice there rather than not at all.
    for (name, spec) in planned.iter().filter(|(name, spec)| slices.get(*name) != Some(*spec)) {
        apply::object(api, &object(name, spec)).await?;
        tracing::debug!(slice = name, routes = spec.routes.len(), "RouteSlice written");
    }
    for name in slices.keys().filter(|name| !planned.contains_key(*name)) {
        apply::delete(api, name, None).await?;
    }
    slices = planned;
    *known = Some(slices);
    Ok(())
}

fn object(name: &str, spec: &RouteSliceSpec) -> RouteSlice {
    let labels = [("app.kubernetes.io/name", "lectern"), ("app.kubernetes.io/part-of", "lectern"), (POOL_LABEL, spec.pool_name.as_str())];
    RouteSlice {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..ObjectMeta::default()
        },
        spec: spec.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_crds::{RtspTransport, Takeover};

    fn a_route(number: usize) -> (String, Route) {
        let route = Route {
            key_hash: String::new(),
            previous_key_hash: None,
            backup_key_hash: None,
            takeover: Takeover::default(),
            namespace: "school".into(),
            name: format!("stream-{number}"),
            run_id: format!("run-{number:04}"),
            shard: "lectern-ingest-default-0".into(),
            epoch: 1,
            anchor_millis: 0,
            ended: false,
            rtsp_url: None,
            rtsp_transport: RtspTransport::default(),
            rtsp_credentials: None,
            original_prefix: None,
        };
        ("default".into(), route)
    }

    fn wanted(numbers: impl IntoIterator<Item = usize>) -> Vec<(String, Route)> {
        numbers.into_iter().map(a_route).collect()
    }

    fn changed(before: &Slices, after: &Slices) -> Vec<String> {
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
    }

    #[test]
    fn no_slice_holds_more_than_a_hundred_routes() {
        let slices = plan(&Slices::new(), wanted(0..250), &BTreeSet::new());
        let sizes: Vec<usize> = slices.values().map(|slice| slice.routes.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
    }

    #[test]
    fn a_route_that_goes_or_comes_touches_one_slice() {
        let before = plan(&Slices::new(), wanted(0..250), &BTreeSet::new());
        let gone = plan(&before, wanted((0..250).filter(|n| *n != 7)), &BTreeSet::new());
        assert_eq!(changed(&before, &gone), ["default-0"]);
        let come = plan(&gone, wanted((0..251).filter(|n| *n != 7)), &BTreeSet::new());
        assert_eq!(changed(&gone, &come), ["default-0"], "it fills the hole");
    }

    #[test]
    fn a_slice_without_routes_goes() {
        let before = plan(&Slices::new(), wanted(0..3), &BTreeSet::new());
        assert!(plan(&before, vec![], &BTreeSet::new()).is_empty());
    }

    #[test]
    fn the_route_of_a_stream_that_cannot_be_read_stays() {
        let before = plan(&Slices::new(), wanted(0..3), &BTreeSet::new());
        let blind = [StreamRef { namespace: "school".into(), name: "stream-1".into() }].into();
        let after = plan(&before, vec![], &blind);
        assert_eq!(after["default-0"].routes, [a_route(1).1]);
    }

    #[test]
    fn what_has_not_changed_is_planned_as_it_is() {
        let before = plan(&Slices::new(), wanted(0..120), &BTreeSet::new());
        assert_eq!(plan(&before, wanted(0..120), &BTreeSet::new()), before);
    }

    #[test]
    fn pools_share_no_slice() {
        let mut two = wanted(0..2);
        two[1].0 = "other".into();
        let slices = plan(&Slices::new(), two, &BTreeSet::new());
        assert_eq!(slices.keys().collect::<Vec<_>>(), ["default-0", "other-0"]);
    }
}
