//! The shard: its runs, who may publish them, and what happens to them when routes change.

use crate::memory::{Full, Memory};
use crate::metrics::{Metrics, RefusedReason};
use crate::routes::{Route, RouteTable, Seat};
use crate::stream::{Closing, Limits, Occupied, Publication, Run, Shared};
use lectern_contract::relay::Asked;
use lectern_contract::report::{IngestRun, Orphan, Role};
use lectern_contract::{Epoch, KeyHash, RunId, ShardName};
use lectern_podkit::Task;
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
    orphans: Mutex<HashMap<RunId, (Orphan, usize)>>,
    draining: watch::Sender<bool>,
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
    /// The stream is ending or has ended.
    #[error("{0}")]
    Closed(Closing),
    /// Another publisher is there, and the first one wins.
    #[error(transparent)]
    Occupied(Occupied),
    /// The shard has no memory for another one.
    #[error(transparent)]
    Full(#[from] Full),
}

impl From<Occupied> for Refusal {
    fn from(occupied: Occupied) -> Self {
        match occupied {
            Occupied::Closed(closing) => Self::Closed(closing),
            other @ (Occupied::ByAnother | Occupied::ByNewer) => Self::Occupied(other),
        }
    }
}

impl Refusal {
    /// The metric's label.
    pub fn reason(&self) -> RefusedReason {
        match self {
            Self::UnknownKey => RefusedReason::UnknownKey,
            Self::Camera => RefusedReason::Camera,
            Self::Closed(_) => RefusedReason::Ended,
            Self::Occupied(_) => RefusedReason::Occupied,
            Self::Full(_) => RefusedReason::Full,
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
    /// The shard named `me` (its pod's name) under these routes, with its memory for media.
    pub fn new(me: ShardName, routes: watch::Receiver<Arc<RouteTable>>, limits: Limits, memory: Memory, metrics: Metrics) -> Arc<Self> {
        let shared = Shared { limits, memory, metrics, changed: Arc::new(Notify::new()) };
        let draining = watch::Sender::new(false);
        Arc::new(Self { me, routes, shared, runs: Mutex::default(), orphans: Mutex::default(), draining })
    }

    /// The shard is going from now on: it says so in its reports, and its publishers are asked to connect anew.
    pub fn drain(&self) {
        self.draining.send_replace(true);
        self.shared.changed.notify_one();
    }

    /// Whether the shard is going.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// The memory for media.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
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

    /// Lets the publisher with this key publish, which `asked` to so long ago, here or elsewhere. `remote` is its address, for people.
    ///
    /// # Errors
    /// The reason that the publisher is told.
    pub fn admit(&self, key: &KeyHash, remote: &str, asked: Asked) -> Result<Admission, Refusal> {
        let (route, seat) = self.routes.borrow().by_key(key).map(|(route, seat)| (route.clone(), seat)).ok_or(Refusal::UnknownKey)?;
        if route.camera.is_some() {
            return Err(Refusal::Camera);
        }
        if route.ended {
            return Err(Refusal::Closed(Closing::Ended));
        }
        if !self.owns(&route) {
            return Ok(Admission::Elsewhere(route));
        }
        self.shared.memory.admit()?;
        Ok(Admission::Here(self.run_of(&route).publish(seat, remote.to_owned(), asked)?))
    }

    /// Lets the puller of a route's camera publish; `host` is the camera's, for people.
    ///
    /// # Errors
    /// The reason, if the run is closed.
    pub fn pull(&self, route: &Route, host: &str) -> Result<Publication, Occupied> {
        self.run_of(route).publish(Seat::Primary, host.to_owned(), Asked::NOW)
    }

    /// Says why nobody publishes a run, where this shard owns it and nobody does: `the camera refuses the password`.
    pub fn explain(&self, run: &RunId, reason: &str) {
        let route = self.routes.borrow().by_run(run).filter(|route| self.owns(route)).cloned();
        if let Some(route) = route {
            self.run_of(&route).explain(reason);
        }
    }

    /// Tells the operator that the owner of a route cannot be reached and a publisher is here, for as long as the notice
    /// is held.
    pub fn orphan(self: &Arc<Self>, route: &Route) -> OrphanNotice {
        let orphan = Orphan { stream: route.stream.clone(), run: route.run.clone(), epoch: route.epoch };
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner); // whole entries, whatever panicked
        let (known, holders) = orphans.entry(route.run.clone()).or_insert_with(|| (orphan.clone(), 0));
        *holders += 1;
        known.epoch = known.epoch.max(orphan.epoch);
        drop(orphans);
        self.shared.changed.notify_one();
        OrphanNotice { shard: self.clone(), run: route.run.clone() }
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

    /// What this shard tells the operator.
    pub fn role(&self) -> Role {
        let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut orphans: Vec<_> = orphans.values().map(|(orphan, _)| orphan.clone()).collect();
        orphans.sort_by(|a, b| a.run.cmp(&b.run));
        Role::Ingest { runs: self.reports(), draining: *self.draining.borrow(), orphans }
    }

    /// Waits until no route names this shard as an owner.
    pub async fn owns_nothing(&self) {
        let owns = |table: &Arc<RouteTable>| table.routes().any(|route| self.owns(route) && !route.ended);
        // A channel that is closed has the routes that hold: then this waits for ever, and the caller has a deadline.
        if self.routes().wait_for(|table| !owns(table)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the report says about every run that has seen a publisher.
    pub fn reports(&self) -> Vec<IngestRun> {
        let runs: Vec<_> = self.lock().values().cloned().collect();
        let mut reports: Vec<_> = runs.iter().filter_map(|run| run.report()).collect();
        reports.sort_by(|a, b| a.run.cmp(&b.run));
        reports
    }

    /// Closes runs as their routes end, move or vanish, until `stop`.
    pub fn follow_routes(self: Arc<Self>, stop: CancellationToken) -> Task<Infallible> {
        Box::pin(async move {
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
        })
    }

    fn apply(&self, table: &RouteTable) {
        self.lock().retain(|id, run| match table.by_run(id) {
            None => {
                run.close(Closing::Unrouted);
                false
            }
            // Another epoch means that it was elsewhere meanwhile: what is here is no longer the whole of it.
            Some(route) if !self.owns(route) || route.epoch != run.epoch() => {
                run.close(Closing::Moved(route.shard.clone()));
                false
            }
            Some(route) => {
                run.set_takeover(route.takeover);
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

/// An orphan that the operator is told of until this is dropped.
#[derive(Debug)]
pub struct OrphanNotice {
    shard: Arc<Shard>,
    run: RunId,
}

impl Drop for OrphanNotice {
    fn drop(&mut self) {
        let mut orphans = self.shard.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, holders)) = orphans.get_mut(&self.run) {
            *holders -= 1;
            if *holders == 0 {
                orphans.remove(&self.run);
            }
        }
    }
}
