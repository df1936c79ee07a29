//! What LiveStreams and RouteSlices say, and when it was told.

use anyhow::Result;
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use lectern_crds::{LiveStream, RouteSlice};
use lectern_e2e::wait::{Look, asking_every};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether something has happened. When it did comes from the watch.
const LOOK: Duration = Duration::from_millis(20);

/// Two watches, and what they have told.
pub struct Watched(Arc<Mutex<Seen>>);

/// By namespace and name.
#[derive(Default)]
pub struct Seen(HashMap<(String, String), Line>);

/// Of one LiveStream.
#[derive(Default)]
pub struct Line {
    /// When it was sent to the API server, and when that had it.
    created: Option<(Instant, Instant)>,
    /// Its shard, as its status says, and since when.
    status: Since,
    /// Its shard, as its route says, and since when.
    route: Since,
}

/// A shard, and since when that is so.
#[derive(Default)]
struct Since {
    shard: String,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Since {
    fn note(&mut self, shard: &str, now: Instant) {
        if self.shard != shard {
            self.shard = shard.to_owned();
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
    }
}

/// How long it took from a LiveStream's being sent until it was told of, in milliseconds.
pub struct Delays {
    /// That the API server had it.
    pub created: f64,
    /// Its shard and its address, in its status.
    pub status: f64,
    /// Its route.
    pub route: f64,
}

impl Delays {
    /// Both.
    pub fn planned(&self) -> f64 {
        self.status.max(self.route)
    }
}

impl Watched {
    /// Watches from now on.
    pub fn start(client: &Client) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let watched = Self(seen.clone());
        let streams = watcher(Api::<LiveStream>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects();
        let slices = Api::<RouteSlice>::namespaced(client.clone(), crate::platform::NAMESPACE);
        let slices = watcher(slices, watcher::Config::default()).default_backoff().applied_objects();
        let (of_streams, of_slices) = (seen.clone(), seen);
        tokio::spawn(streams.for_each(move |stream| {
            match stream {
                Ok(stream) => lock(&of_streams).note_stream(&stream, Instant::now()),
                Err(error) => eprintln!("the watch of LiveStreams: {error}"),
            }
            std::future::ready(())
        }));
        tokio::spawn(slices.for_each(move |slice| {
            match slice {
                Ok(slice) => lock(&of_slices).note_slice(&slice, Instant::now()),
                Err(error) => eprintln!("the watch of RouteSlices: {error}"),
            }
            std::future::ready(())
        }));
        watched
    }

    /// Notes when a LiveStream was sent, and when the API server had it.
    pub fn created(&self, namespace: String, name: String, sent: Instant, had: Instant) {
        self.seen().0.entry((namespace, name)).or_default().created = Some((sent, had));
    }

    /// Waits until `holds`.
    pub async fn until(&self, what: &str, within: Duration, holds: impl Fn(&Seen) -> bool) -> Result<()> {
        let look = async || {
            let seen = self.seen();
            Ok(if holds(&seen) { Look::Found(()) } else { Look::NotYet(format!("{} of {} not planned", seen.unplanned(), seen.0.len())) })
        };
        asking_every(LOOK, what, within, look).await
    }

    /// All that is known.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }
}

impl Seen {
    fn note_stream(&mut self, stream: &LiveStream, now: Instant) {
        let Some(status) = &stream.status else { return };
        let (Some(placement), Some(_)) = (&status.placement, &status.ingest) else { return };
        let at = (stream.namespace().unwrap_or_default(), stream.name_any());
        self.0.entry(at).or_default().status.note(&placement.shard, now);
    }

    fn note_slice(&mut self, slice: &RouteSlice, now: Instant) {
        for route in &slice.spec.routes {
            let at = (route.namespace.clone(), route.name.clone());
            self.0.entry(at).or_default().route.note(&route.shard, now);
        }
    }

    /// How many have no shard yet, in their status or in their route.
    pub fn unplanned(&self) -> usize {
        self.0.values().filter(|line| line.status.first.is_none() || line.route.first.is_none()).count()
    }

    /// What it took, of each stream that is planned.
    pub fn delays(&self) -> Vec<Delays> {
        let of = |line: &Line| {
            let (sent, had) = line.created?;
            let after = |then: Instant| then.duration_since(sent).as_secs_f64() * 1000.0;
            Some(Delays { created: after(had), status: after(line.status.first?), route: after(line.route.first?) })
        };
        self.0.values().filter_map(of).collect()
    }

    /// How many streams each shard has, as statuses say.
    pub fn loads(&self) -> BTreeMap<&str, usize> {
        self.0.values().fold(BTreeMap::new(), |mut loads, line| {
            *loads.entry(line.status.shard.as_str()).or_default() += 1;
            loads
        })
    }

    /// Who is on `shard`, as status or route says.
    pub fn on(&self, shard: &str) -> Vec<(String, String)> {
        let is_on = |line: &Line| line.status.shard == shard || line.route.shard == shard;
        self.0.iter().filter(|(_, line)| is_on(line)).map(|(at, _)| at.clone()).collect()
    }

    /// How long after `begun` the last of `streams` had changed its shard: in its status, and in its route.
    pub fn moved(&self, streams: &[(String, String)], begun: Instant) -> (Duration, Duration) {
        let last = |of: fn(&Line) -> &Since| {
            let times = streams.iter().filter_map(|at| of(self.0.get(at)?).last);
            times.max().map_or(Duration::ZERO, |last| last.duration_since(begun))
        };
        (last(|line| &line.status), last(|line| &line.route))
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
