//! The original recording: what publishers send goes to S3 as it came, in pieces of about ten seconds.
//!
//! A recorder is a reader of its run. What waits for S3 is the run's own history; besides, it holds the piece that it
//! assembles and a copy of the one that is on its way. When S3 is away for longer than that lasts, the reader falls off
//! the history, the recording has a gap, and the gap is told. `docs/original.md` has the whole of it.

mod source;
mod store;

use crate::routes::{Route, RouteTable};
use crate::shard::Shard;
use crate::stream::Run;
use lectern_cloud::Objects;
use lectern_contract::RunId;
use lectern_contract::keys::RunPrefix;
use lectern_podkit::Task;
use source::Source;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long recorders may take to store what they have once the shard stops. A piece takes a second or less; this is
/// for an S3 that is slow or away.
const GRACE: Duration = Duration::from_secs(5);

/// The recorder of one run.
#[derive(Debug)]
struct Recorder {
    run: Weak<Run>,
    /// Asks it to store what there is and to end. Runs that end or move do so by themselves.
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Records every run of this shard whose route asks for it, until `stop`; then stores what is open, within a few seconds.
/// Without `objects` nothing is recorded, and reports say so.
pub fn run(shard: Arc<Shard>, objects: Option<Objects>, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        match &objects {
            Some(objects) => tracing::info!(bucket = %objects.at(), "originals are recorded where routes ask for it"),
            None => tracing::info!("no bucket is configured: originals are not recorded"),
        }
        let mut routes = shard.routes();
        let mut recorders = HashMap::<RunId, Recorder>::new();
        let (tasks, give_up) = (TaskTracker::new(), CancellationToken::new());
        loop {
            let table = routes.borrow_and_update().clone();
            recorders.retain(|run, recorder| keep(&shard, &table, run, recorder));
            for (route, prefix) in wanted(&shard, &table) {
                let Ok((run, _epoch)) = shard.run(&route.run, route.epoch) else { continue }; // it moved since
                let Some(objects) = &objects else {
                    run.note_recording(|recording| {
                        recording.trouble = Some("this shard has no bucket to store the original in".to_owned())
                    });
                    continue;
                };
                if recorders.get(&route.run).is_some_and(|recorder| recorder.is_of(&run)) {
                    continue;
                }
                let stop_one = stop.child_token();
                let source = Source::new(run.clone(), shard.metrics().clone(), stop_one.clone());
                let store = Store::new(objects.clone(), prefix.clone(), run.clone(), shard.metrics().clone(), give_up.clone());
                let task = tasks.spawn(record(source, store));
                recorders.insert(route.run.clone(), Recorder { run: Arc::downgrade(&run), stop: stop_one, task });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = routes.changed() => if changed.is_err() {
                    stop.cancelled().await;
                    break;
                },
            }
        }
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            give_up.cancel();
            tasks.wait().await;
        }
        Ok(())
    })
}

/// While a piece is stored the next one is assembled; no more than that is held.
async fn record(mut source: Source, store: Store) {
    source.is_settled().await;
    let mut piece = source.next().await;
    while let Some(complete) = piece {
        ((), piece) = tokio::join!(store.store(complete), source.next());
    }
}

fn wanted<'a>(shard: &'a Shard, table: &'a RouteTable) -> impl Iterator<Item = (&'a Route, &'a RunPrefix)> {
    // Those that have ended, too: what was published a moment before may not have been recorded yet.
    let mine = table.routes().filter(|route| shard.owns(route));
    mine.filter_map(|route| Some((route, route.original.as_ref()?)))
}

/// Whether a recorder has to be remembered. One whose route no longer asks for a recording is told to end; one whose run
/// ended, moved or vanished comes to the end of its run.
fn keep(shard: &Shard, table: &RouteTable, run: &RunId, recorder: &Recorder) -> bool {
    let route = table.by_run(run).filter(|route| shard.owns(route) && !route.ended);
    if route.is_some_and(|route| route.original.is_none()) {
        recorder.stop.cancel();
    }
    // One that has finished is remembered as long as its route is there: a run is recorded once.
    !recorder.task.is_finished() || table.by_run(run).is_some_and(|route| shard.owns(route))
}

impl Recorder {
    /// A run that was away and came back is another one.
    fn is_of(&self, run: &Arc<Run>) -> bool {
        std::ptr::eq(self.run.as_ptr(), Arc::as_ptr(run)) && !self.stop.is_cancelled()
    }
}
