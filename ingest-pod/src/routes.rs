//! Which shard owns which stream: the pool's RouteSlices, watched, as one table in memory.
//!
//! Publishing works on what was last known while the API server or the operator is away.

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use lectern_contract::keys::RunPrefix;
use lectern_contract::{Epoch, KeyHash, RunId, ShardName, StreamRef, WallMillis};
use lectern_crds::{POOL_LABEL, RouteSlice, RtspTransport, Takeover};
use lectern_podkit::Task;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

/// A route that vanished still counts for so long: one that moves from a slice to another is in neither for a moment.
const GRACE: Duration = Duration::from_secs(5);

/// One stream's way in, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The hashes of the stream's keys.
    pub keys: Keys,
    /// Who stays when a second publisher comes with the same key.
    pub takeover: Takeover,
    /// The LiveStream.
    pub stream: StreamRef,
    /// The run.
    pub run: RunId,
    /// The owning shard.
    pub shard: ShardName,
    /// Grows each time the stream moves.
    pub epoch: Epoch,
    /// Wall-clock time of tick zero.
    pub anchor: WallMillis,
    /// Nobody may publish any more.
    pub ended: bool,
    /// The camera to pull from.
    pub camera: Option<Camera>,
    /// Where to keep what the publisher sends, as it came.
    pub original: Option<RunPrefix>,
}

/// A camera to pull from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera {
    /// `rtsp://host[:port]/path`.
    pub url: Url,
    /// How it sends its media.
    pub transport: RtspTransport,
    /// The key of its credentials in the pool's Secret of cameras.
    pub credentials: Option<String>,
}

/// The keys of a route, by what they let their publisher do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The stream's key.
    pub primary: KeyHash,
    /// The key before the last rotation, while it may still be used.
    pub previous: Option<KeyHash>,
    /// The key of the publisher that stands by.
    pub backup: Option<KeyHash>,
}

/// Whose key a publisher gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seat {
    /// The lecturer's.
    Primary,
    /// The one that stands by for the lecturer.
    Backup,
}

impl Keys {
    /// A stream's key alone.
    pub fn only(primary: KeyHash) -> Self {
        Self { primary, previous: None, backup: None }
    }

    /// All of them, with the seat that each is for.
    pub fn each(&self) -> impl Iterator<Item = (&KeyHash, Seat)> {
        let primary = std::iter::once(&self.primary).chain(&self.previous).map(|key| (key, Seat::Primary));
        primary.chain(self.backup.iter().map(|key| (key, Seat::Backup)))
    }
}

/// Why a RouteSlice's entry is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A number that cannot be negative is.
    #[error("its {0} is negative")]
    Negative(&'static str),
    /// The camera's URL does not parse.
    #[error("its rtspUrl does not parse: {0}")]
    Camera(#[from] url::ParseError),
    /// The prefix is not one of a run.
    #[error("its originalPrefix is not a run's")]
    Prefix,
}

impl TryFrom<&lectern_crds::Route> for Route {
    type Error = RouteError;
    fn try_from(entry: &lectern_crds::Route) -> Result<Self, RouteError> {
        let unsigned = |value: i64, what| u64::try_from(value).map_err(|_| RouteError::Negative(what));
        Ok(Self {
            keys: Keys {
                primary: KeyHash(entry.key_hash.clone()),
                previous: entry.previous_key_hash.clone().map(KeyHash),
                backup: entry.backup_key_hash.clone().map(KeyHash),
            },
            takeover: entry.takeover,
            stream: StreamRef { namespace: entry.namespace.clone(), name: entry.name.clone() },
            run: RunId(entry.run_id.clone()),
            shard: ShardName(entry.shard.clone()),
            epoch: Epoch(unsigned(entry.epoch, "epoch")?),
            anchor: WallMillis(unsigned(entry.anchor_millis, "anchorMillis")?),
            ended: entry.ended,
            camera: entry.rtsp_url.as_deref().map(|url| camera(url, entry)).transpose()?,
            original: entry.original_prefix.as_deref().map(prefix).transpose()?,
        })
    }
}

fn camera(url: &str, entry: &lectern_crds::Route) -> Result<Camera, RouteError> {
    Ok(Camera { url: Url::parse(url)?, transport: entry.rtsp_transport, credentials: entry.rtsp_credentials.clone() })
}

/// A run's prefix, read as that of an object below it.
fn prefix(text: &str) -> Result<RunPrefix, RouteError> {
    let below = format!("{text}/x");
    RunPrefix::of_key(&below).map(|(prefix, _)| prefix).filter(|prefix| prefix.as_str() == text).ok_or(RouteError::Prefix)
}

/// All routes of the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    by_run: HashMap<RunId, Route>,
    by_key: HashMap<KeyHash, (RunId, Seat)>,
}

impl FromIterator<Route> for RouteTable {
    /// Of two routes of one run the newer counts: the one with the greater epoch, then the one that has ended.
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        let mut by_run = HashMap::<RunId, Route>::new();
        for route in routes {
            match by_run.get(&route.run) {
                Some(known) if (known.epoch, known.ended) >= (route.epoch, route.ended) => {}
                _ => drop(by_run.insert(route.run.clone(), route)),
            }
        }
        // A key may have an ended run and a new one.
        let mut by_key = HashMap::<KeyHash, (RunId, Seat)>::new();
        for route in by_run.values() {
            for (key, seat) in route.keys.each() {
                match by_key.get(key).and_then(|(run, _)| by_run.get(run)) {
                    Some(known) if (!known.ended, &known.run) >= (!route.ended, &route.run) => {}
                    _ => drop(by_key.insert(key.clone(), (route.run.clone(), seat))),
                }
            }
        }
        Self { by_run, by_key }
    }
}

impl RouteTable {
    /// The route for a stream key's hash.
    ///
    /// A hash table's comparison takes a time that depends on the hashes compared, not on the key: who measures it learns
    /// bits of a SHA-256 of their own choice, which says nothing about another's 160-bit key.
    pub fn by_key(&self, key: &KeyHash) -> Option<(&Route, Seat)> {
        self.by_key.get(key).and_then(|(run, seat)| Some((self.by_run.get(run)?, *seat)))
    }

    /// The route of a run.
    pub fn by_run(&self, run: &RunId) -> Option<&Route> {
        self.by_run.get(run)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.by_run.values()
    }
}

/// The slices seen so far, and the routes that have just left them.
#[derive(Debug, Default)]
struct Slices {
    by_name: HashMap<String, Vec<Route>>,
    leaving: HashMap<RunId, (Route, Instant)>,
    known: RouteTable,
}

impl Slices {
    /// The table of now; routes that vanished stay for [`GRACE`].
    fn table(&mut self, now: Instant) -> RouteTable {
        let mut table: RouteTable = self.by_name.values().flatten().cloned().collect();
        for route in self.known.routes().filter(|route| table.by_run(&route.run).is_none()) {
            self.leaving.entry(route.run.clone()).or_insert_with(|| (route.clone(), now + GRACE));
        }
        self.leaving.retain(|run, (_, until)| *until > now && table.by_run(run).is_none());
        if !self.leaving.is_empty() {
            let leaving = self.leaving.values().map(|(route, _)| route.clone());
            table = self.by_name.values().flatten().cloned().chain(leaving).collect();
        }
        self.known = table.clone();
        table
    }

    fn next_to_leave(&self) -> Option<Instant> {
        self.leaving.values().map(|(_, until)| *until).min()
    }
}

/// Watches the pool's RouteSlices in `namespace` and keeps `table` up to date until `stop`. `first` is called when all of
/// them have been seen once.
pub fn follow(
    client: kube::Client,
    namespace: String,
    pool: String,
    table: watch::Sender<Arc<RouteTable>>,
    first: Box<dyn Fn() + Send>,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        let api = Api::<DeserializeGuard<RouteSlice>>::namespaced(client, &namespace);
        let config = watcher::Config::default().labels(&format!("{POOL_LABEL}={pool}"));
        let mut events = watch_objects(api, config).default_backoff().boxed();
        let (mut slices, mut listing) = (Slices::default(), HashMap::new());
        loop {
            let leave = slices.next_to_leave();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(leave.unwrap_or_else(Instant::now)), if leave.is_some() => {}
                event = events.try_next() => match event {
                    Ok(Some(Event::Init)) => listing.clear(),
                    Ok(Some(Event::InitApply(slice))) => keep(&mut listing, slice),
                    Ok(Some(Event::InitDone)) => {
                        slices.by_name = std::mem::take(&mut listing);
                        first();
                    }
                    Ok(Some(Event::Apply(slice))) => keep(&mut slices.by_name, slice),
                    Ok(Some(Event::Delete(slice))) => drop(slices.by_name.remove(&slice.name_any())),
                    Ok(None) => tracing::warn!("the watch of RouteSlices ended; it is started anew"),
                    Err(error) => tracing::warn!(%error, "RouteSlices cannot be watched; going on with the routes known"),
                },
            }
            let now = slices.table(Instant::now());
            table.send_if_modified(|known| {
                let changed = **known != now;
                if changed {
                    tracing::info!(routes = now.by_run.len(), "routes changed");
                    *known = Arc::new(now);
                }
                changed
            });
        }
    })
}

/// Files a slice under its name. A slice that cannot be read leaves what was known of it.
fn keep(slices: &mut HashMap<String, Vec<Route>>, slice: DeserializeGuard<RouteSlice>) {
    let name = slice.name_any();
    let slice = match slice.0 {
        Ok(slice) => slice,
        Err(invalid) => {
            tracing::warn!(slice = name, error = %invalid.error, "a RouteSlice cannot be read");
            return;
        }
    };
    let routes = slice.spec.routes.iter().filter_map(|entry| match Route::try_from(entry) {
        Ok(route) => Some(route),
        Err(error) => {
            tracing::warn!(slice = name, run = entry.run_id, %error, "a route cannot be taken");
            None
        }
    });
    let routes = routes.collect();
    slices.insert(name, routes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// A stream's to shard `a`.
    pub(crate) fn route(run: &str, epoch: u64) -> Route {
        Route {
            keys: Keys::only(KeyHash::of("key")),
            takeover: Takeover::default(),
            stream: StreamRef { namespace: "school".into(), name: "algebra".into() },
            run: run.into(),
            shard: "a".into(),
            epoch: Epoch(epoch),
            anchor: WallMillis(0),
            ended: false,
            camera: None,
            original: None,
        }
    }

    #[test]
    fn a_route_that_moves_between_slices_is_never_missing() {
        let now = Instant::now();
        let mut slices = Slices::default();
        slices.by_name.insert("one".into(), vec![route("r", 1)]);
        assert!(slices.table(now).by_run(&"r".into()).is_some());
        slices.by_name.remove("one");
        assert!(slices.table(now).by_run(&"r".into()).is_some());
        slices.by_name.insert("two".into(), vec![route("r", 2)]);
        assert_eq!(slices.table(now + GRACE).by_run(&"r".into()).unwrap().epoch, Epoch(2));
        assert_eq!(slices.next_to_leave(), None);
    }

    #[test]
    fn a_route_that_stays_away_leaves() {
        let now = Instant::now();
        let mut slices = Slices::default();
        slices.by_name.insert("one".into(), vec![route("r", 1)]);
        slices.table(now);
        slices.by_name.clear();
        slices.table(now);
        assert_eq!(slices.next_to_leave(), Some(now + GRACE));
        assert_eq!(slices.table(now + GRACE).routes().count(), 0);
        assert_eq!(slices.next_to_leave(), None);
    }

    #[test]
    fn a_key_leads_to_the_run_that_has_not_ended() {
        let ended = Route { ended: true, ..route("r9", 1) };
        for routes in [[ended.clone(), route("r1", 1)], [route("r1", 1), ended]] {
            let table: RouteTable = routes.into_iter().collect();
            assert_eq!(table.by_key(&KeyHash::of("key")).unwrap().0.run, "r1".into());
        }
    }
}
