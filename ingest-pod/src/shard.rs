//! The shard: its runs, who may publish them, and what happens to them when routes change.

use crate::metrics::{Metrics, RefusedReason};
use crate::routes::{Route, RouteTable};
use crate::stream::{Closing, Limits, Publication, Run, Shared};
use lectern_contract::report::IngestRun;
use lectern_contract::{Epoch, KeyHash, RunId, ShardName};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The state of an ingest shard.
#[derive(Debug)]
pub struct Shard {
    me: ShardName,
    routes: watch::Receiver<Arc<RouteTable>>,
    shared: Shared,
    runs: Mutex<HashMap<RunId, Arc<Run>>>,
}

/// Who serves a publisher that may publish.
#[derive(Debug)]
pub enum Admission {
    /// This shard.
    Here(Publication),
    /// The shard that this route names.
    Elsewhere(Route),
}

/// Why a publisher may not publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No route has this key.
    #[error("no stream has this key")]
    UnknownKey,
    /// The stream is pulled from a camera.
    #[error("this stream is pulled from its camera; nobody can publish it")]
    Camera,
    /// The run is closed.
    #[error("{0}")]
    Closed(Closing),
}

impl Refusal {
    /// The metric's label.
    pub fn reason(&self) -> RefusedReason {
        match self {
            Self::UnknownKey => RefusedReason::UnknownKey,
            Self::Camera => RefusedReason::Camera,
            Self::Closed(_) => RefusedReason::Ended,
        }
    }
}

/// Why a reader of the feed is not served here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No route names the run.
    #[error("{}", Closing::Unrouted)]
    Unknown,
    /// The reader has heard of a newer owner than the one that this shard's routes name.
    #[error("this shard knows the stream's owner of epoch {known}, and you one of epoch {heard}")]
    Outdated {
        /// In the route.
        known: Epoch,
        /// In the request.
        heard: Epoch,
    },
    /// Another shard owns it.
    #[error("the stream is on shard {0}")]
    Moved(ShardName),
}

impl Shard {
    /// The shard named `me` (its pod's name) under these routes.
    pub fn new(me: ShardName, routes: watch::Receiver<Arc<RouteTable>>, limits: Limits, metrics: Metrics) -> Arc<Self> {
        let shared = Shared { limits, metrics, changed: Arc::new(Notify::new()) };
        Arc::new(Self { me, routes, shared, runs: Mutex::default() })
    }

    /// The shard's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Told when a report would say something new.
    pub fn changed(&self) -> Arc<Notify> {
        self.shared.changed.clone()
    }

    /// The routes as they change.
    pub fn routes(&self) -> watch::Receiver<Arc<RouteTable>> {
        self.routes.clone()
    }

    /// Whether this shard owns the route's stream.
    pub fn owns(&self, route: &Route) -> bool {
        route.shard == self.me
    }

    /// Lets the publisher with this key publish, here or elsewhere. `remote` is its address, for people.
    ///
    /// # Errors
    /// The reason that the publisher is told.
    pub fn admit(&self, key: &KeyHash, remote: &str) -> Result<Admission, Refusal> {
        let (route, _seat) = self.routes.borrow().by_key(key).map(|(route, seat)| (route.clone(), seat)).ok_or(Refusal::UnknownKey)?;
        if route.camera.is_some() {
            return Err(Refusal::Camera);
        }
        if route.ended {
            return Err(Refusal::Closed(Closing::Ended));
        }
        if !self.owns(&route) {
            return Ok(Admission::Elsewhere(route));
        }
        self.run_of(&route).publish(remote.to_owned()).map(Admission::Here).map_err(Refusal::Closed)
    }

    /// Lets the puller of a route's camera publish; `host` is the camera's, for people.
    ///
    /// # Errors
    /// The reason, if the run is closed.
    pub fn pull(&self, route: &Route, host: &str) -> Result<Publication, Closing> {
        self.run_of(route).publish(host.to_owned())
    }

    /// The run for a reader of the feed, and the epoch under which this shard owns it. `heard` is the newest epoch that
    /// the reader has heard of.
    ///
    /// # Errors
    /// What the reader is told, if this shard does not own the run or cannot know who does.
    pub fn run(&self, id: &RunId, heard: Epoch) -> Result<(Arc<Run>, Epoch), NotServed> {
        let route = self.routes.borrow().by_run(id).cloned().ok_or(NotServed::Unknown)?;
        if heard > route.epoch {
            // Whom this route names has lost the run, be it this shard or another.
            return Err(NotServed::Outdated { known: route.epoch, heard });
        }
        if !self.owns(&route) {
            return Err(NotServed::Moved(route.shard));
        }
        Ok((self.run_of(&route), route.epoch))
    }

    /// What the report says about every run that has seen a publisher.
    pub fn reports(&self) -> Vec<IngestRun> {
        let runs: Vec<_> = self.lock().values().cloned().collect();
        let mut reports: Vec<_> = runs.iter().filter_map(|run| run.report()).collect();
        reports.sort_by(|a, b| a.run.cmp(&b.run));
        reports
    }

    /// Closes runs as their routes end, move or vanish, until `stop`.
    pub async fn follow_routes(self: Arc<Self>, stop: CancellationToken) -> Result<(), Infallible> {
        let mut routes = self.routes.clone();
        loop {
            let table = routes.borrow_and_update().clone();
            self.apply(&table);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = routes.changed() => if changed.is_err() {
                    stop.cancelled().await; // nobody can change them any more: they hold
                    return Ok(());
                },
            }
        }
    }

    fn apply(&self, table: &RouteTable) {
        self.lock().retain(|id, run| match table.by_run(id) {
            None => {
                run.close(Closing::Unrouted);
                false
            }
            Some(route) if !self.owns(route) => {
                run.close(Closing::Moved(route.shard.clone()));
                false
            }
            Some(route) => {
                if route.ended {
                    run.close(Closing::Ended); // and stay, so that late readers are told
                }
                true
            }
        });
    }

    /// The run of a route that this shard owns; made at first use.
    fn run_of(&self, route: &Route) -> Arc<Run> {
        let run = self.lock().entry(route.run.clone()).or_insert_with(|| Run::new(route, self.shared.clone())).clone();
        if route.ended {
            run.close(Closing::Ended);
        }
        run
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner) // a map of whole runs, whatever panicked
    }
}
