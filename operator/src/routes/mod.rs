//! RouteSlices: one task keeps them equal to what the LiveStreams' statuses say.
//!
//! A route comes of what is written in a status and of nothing else, so a stream's run and shard are persisted before any
//! shard hears of them. Slices are sticky: a change rewrites the slice that it concerns and no other. Streams of one shard share slices, so that
//! losing it rewrites few.

mod changes;
mod table;

pub use changes::Changes;

use crate::apply;
use crate::conditions::holds;
use crate::stores::Filled;
use crate::stream::claims::ENDED;
use crate::stream::{schedule, stream_ref};
use changes::Changed;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::api::{Api, ListParams, ObjectMeta, Patch};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use lectern_contract::RunId;
use lectern_contract::StreamRef;
use lectern_contract::keys::RunPrefix;
use lectern_crds::{LiveStream, POOL_LABEL, Route, RouteSlice, RouteSliceSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use table::{Name, Slices, Table, Wanted};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Routes in a slice. The API has room for 100; writing a slice costs the API server 3 ms and a fifth more for each route in it (docs/scale.md).
pub const PER_SLICE: usize = 25;
/// Changes that come this close together are one round.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often it is looked whether somebody has touched the slices.
const LOOK: Duration = Duration::from_secs(60);
/// How soon a failed round is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a round may take.
const ROUND: Duration = Duration::from_secs(20);
/// Slices that are written at a time.
const WRITES: usize = 8;

/// The route of a stream: there from its placement until its run is complete, with `ended` from when it is to end. That of a
/// camera with a password waits until the password is where its shard can read it.
pub fn route(stream: &LiveStream) -> Option<Route> {
    let status = stream.status.as_ref().filter(|status| !holds(&status.conditions, ENDED))?;
    let (placement, ingest, run) = (status.placement.as_ref()?, status.ingest.as_ref()?, status.run_id.as_ref()?);
    let rtsp = stream.spec.source.rtsp.as_ref();
    let ended = schedule::is_to_end(stream, Timestamp::now());
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

/// The slices as this task has left them.
#[derive(Debug)]
struct Known {
    table: Table,
    /// Slices that are not written as the table has them.
    touched: BTreeSet<Name>,
    /// Their versions as the API server has told them last.
    versions: BTreeMap<String, Option<String>>,
}

/// All that a round needs.
struct Keeper {
    api: Api<RouteSlice>,
    streams: Store<DeserializeGuard<LiveStream>>,
    known: Option<Known>,
}

/// Keeps the slices up to date until `stop`. `changes` says which LiveStreams to look at.
pub async fn run(
    client: Client,
    namespace: String,
    (streams, filled): (Store<DeserializeGuard<LiveStream>>, Filled),
    changes: Arc<Changes>,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut keeper = Keeper { api: Api::namespaced(client, &namespace), streams, known: None };
    // Before all streams are known, a plan would take away the routes of those that are not.
    if stop.run_until_cancelled(filled.wait()).await.is_none() {
        return Ok(());
    }
    let mut look = false;
    loop {
        let pause = match timeout(ROUND, keeper.round(&changes, look)).await {
            Ok(Ok(())) => LOOK,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the RouteSlices are not up to date; trying again");
                keeper.known = None;
                RETRY
            }
            Err(_) => {
                tracing::warn!("the RouteSlices were not up to date within {ROUND:?}; trying again");
                keeper.known = None;
                RETRY
            }
        };
        look = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = changes.wait() => false,
            () = sleep(pause) => true,
        };
        sleep(DEBOUNCE).await;
    }
}

impl Keeper {
    /// Brings the slices up to date; `look`: whether somebody else has touched them is asked first.
    async fn round(&mut self, changes: &Changes, look: bool) -> Result<(), kube::Error> {
        if look && self.known.is_some() && self.is_touched().await? {
            self.known = None;
        }
        // Taken before the store is read: what comes meanwhile is for the next round.
        let changed = changes.take();
        let mut known = match self.known.take() {
            Some(known) if !changed.all => {
                let Known { mut table, mut touched, versions } = known;
                touched.extend(table.bring(self.wanted(changed)));
                Known { table, touched, versions }
            }
            known => self.all(known).await?,
        };
        let written = self.write(&mut known).await;
        self.known = Some(known);
        written
    }

    /// What the slices should be, read anew where they are not known.
    async fn all(&self, known: Option<Known>) -> Result<Known, kube::Error> {
        let mut known = match known {
            Some(known) => known,
            None => {
                let listed = self.api.list(&ListParams::default()).await?.items;
                let versions = listed.iter().map(|slice| (slice.name_any(), slice.resource_version())).collect();
                let slices: Slices = listed.into_iter().map(|slice| (slice.name_any().into(), slice.spec)).collect();
                let (table, touched) = Table::of(slices);
                Known { table, touched, versions }
            }
        };
        let mut streams: BTreeSet<StreamRef> = known.table.streams().cloned().collect();
        streams.extend(self.streams.state().iter().map(|stream| reference(stream.as_ref())));
        known.touched.extend(known.table.bring(self.wanted(Changed { all: true, streams: streams.into_iter().collect() })));
        Ok(known)
    }

    /// What each of the streams should have. One that cannot be read keeps what it has.
    fn wanted(&self, changed: Changed) -> Vec<(StreamRef, Wanted)> {
        let of = |stream: StreamRef| {
            let held = self.streams.get(&ObjectRef::new(&stream.name).within(&stream.namespace));
            match held.as_deref().map(|held| &held.0) {
                None => Some((stream, None)),
                Some(Ok(held)) => Some((stream, route(held).map(|route| (held.spec.pool_name.clone(), route)))),
                Some(Err(_)) => None,
            }
        };
        changed.streams.into_iter().filter_map(of).collect()
    }

    /// Writes what is touched. Written first, deleted after: a route that moves between slices is twice there rather than not at all.
    async fn write(&self, known: &mut Known) -> Result<(), kube::Error> {
        let Known { table, touched, versions } = known;
        let slices: Vec<RouteSlice> = touched.iter().filter_map(|name| Some(object(name, table.slice(name)?))).collect();
        let mut written = stream::iter(slices).map(|slice| self.apply(slice)).buffer_unordered(WRITES);
        while let Some((name, version)) = written.try_next().await? {
            versions.insert(name, version);
        }
        for name in touched.iter().filter(|name| table.slice(name).is_none()) {
            apply::delete(&self.api, name, None).await?;
            versions.remove(name.as_ref());
        }
        touched.clear();
        Ok(())
    }

    /// Applies a slice; its name and version. The answer's metadata is all that is asked for: the rest is what was sent.
    async fn apply(&self, slice: RouteSlice) -> Result<(String, Option<String>), kube::Error> {
        let name = slice.name_any();
        let written = self.api.patch_metadata(&name, &apply::params(), &Patch::Apply(&slice)).await?;
        tracing::debug!(slice = name, routes = slice.spec.routes.len(), "RouteSlice written");
        Ok((name, written.resource_version()))
    }

    /// Whether the slices are others than this task has written.
    async fn is_touched(&self) -> Result<bool, kube::Error> {
        let listed = self.api.list_metadata(&ListParams::default()).await?.items;
        let versions: BTreeMap<_, _> = listed.iter().map(|slice| (slice.name_any(), slice.resource_version())).collect();
        Ok(self.known.as_ref().is_none_or(|known| known.versions != versions))
    }
}

fn reference(stream: &DeserializeGuard<LiveStream>) -> StreamRef {
    StreamRef { namespace: stream.namespace().unwrap_or_default(), name: stream.name_any() }
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
