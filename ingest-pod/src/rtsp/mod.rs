//! Cameras: streams with an RTSP URL are pulled by the shard that owns them, and reconnected for as long as they last.
//!
//! `retina` speaks RTSP and RTP; what it leaves out is here: a limit on silence, trying again, credentials that change,
//! decode times, one clock for picture and sound, and words for people.

mod backoff;
mod clocks;
mod credentials;
mod pull;
mod reason;
mod tracks;

pub use credentials::{Credentials, Known, follow};

use crate::routes::{Camera, Route, RouteTable};
use crate::shard::Shard;
use lectern_contract::RunId;
use lectern_podkit::Task;
use pull::Pull;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long pulling waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For the answer to each of describe, setup and play.
    pub answer: Duration,
    /// For the next picture or sound; `retina` itself would wait for ever.
    pub silence: Duration,
    /// For the camera to confirm that a session has ended; cameras that serve few sessions at once need it.
    pub teardown: Duration,
    /// Before the second try. Each pause is twice the one before, up to [`Timing::longest_pause`].
    pub first_pause: Duration,
    /// The longest pause before a try.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            teardown: Duration::from_secs(1),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// Pulls the cameras of all routes that this shard owns until `stop`, with the credentials that are known at the time.
pub fn run(shard: Arc<Shard>, credentials: watch::Receiver<Known>, timing: Timing, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        let mut routes = shard.routes();
        let mut pulls = HashMap::<RunId, (Camera, CancellationToken)>::new();
        let mut tasks = JoinSet::new();
        loop {
            let table = routes.borrow_and_update().clone();
            let wanted: HashMap<_, _> = wanted(&shard, &table).collect();
            pulls.retain(|run, (camera, stop_pull)| {
                let keep = wanted.get(run).is_some_and(|(_, wanted)| *wanted == camera);
                if !keep {
                    stop_pull.cancel();
                }
                keep
            });
            for (run, (route, camera)) in wanted {
                pulls.entry(run.clone()).or_insert_with(|| {
                    let stop_pull = stop.child_token();
                    let pull = Pull::new(shard.clone(), route, credentials.clone(), timing, camera.clone());
                    tasks.spawn(pull.run(stop_pull.clone()));
                    (camera.clone(), stop_pull)
                });
            }
            // Without a sender the routes hold as they are.
            let changed = async {
                if routes.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = changed => {}
                Some(_ended) = tasks.join_next() => {}
            }
        }
        // Every pull ends by itself, within the time for teardown; what hangs is aborted with the set.
        let _ = tokio::time::timeout(timing.teardown * 2, async { while tasks.join_next().await.is_some() {} }).await;
        Ok(())
    })
}

/// The cameras that this shard is to pull, by run.
fn wanted<'a>(shard: &Shard, table: &'a RouteTable) -> impl Iterator<Item = (&'a RunId, (&'a Route, &'a Camera))> {
    let mine = table.routes().filter(|route| shard.owns(route) && !route.ended);
    mine.filter_map(|route| Some((&route.run, (route, route.camera.as_ref()?))))
}
