//! When a run may move: a successor has a dozen things to ask of S3 while students live on what they have in hand, so that it is not let in while S3 gives trouble.

use super::Live;
use super::live::{HandOver, SUCCESSORS};
use crate::status::Status;
use futures::future::join_all;
use lectern_cloud::Objects;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// For so many segments S3 must have given no trouble: a packager writes to it once or more in each.
const CALM_SEGMENTS: u32 = 2;
/// And so many questions it must answer then: what began a moment ago has met no upload yet.
const PROBES: usize = 4;

/// Those of `live`'s successors whose time has come, each as soon as S3 is calm. Nothing is heard of those that hang up before.
pub fn successors_in_calm(live: &Live, objects: Objects, job: &LiveJob, status: Status) -> mpsc::Receiver<HandOver> {
    let (ready, heard) = mpsc::channel(SUCCESSORS);
    let (live, mut asking) = (live.clone(), live.successors());
    let (head, span) = (job.prefix.key(&ObjectName::Head), Duration::from(job.segment_duration) * CALM_SEGMENTS);
    tokio::spawn(async move {
        while let Some(mut asked) = asking.recv().await {
            let is_calm = tokio::select! {
                () = calm(&objects, &head, span, &status) => true,
                () = asked.closed() => false,
                () = live.closed() => return,
            };
            status.remark("move", None);
            if is_calm && ready.send(asked).await.is_err() {
                return;
            }
        }
    });
    heard
}

/// Resolves when S3 has given no trouble for `span`, and gives none now.
async fn calm(objects: &Objects, head: &str, span: Duration, status: &Status) {
    let trouble = || objects.last_trouble().map(|at| at + span).filter(|over| *over > Instant::now());
    loop {
        while let Some(over) = trouble() {
            status.remark("move", Some("it is to move, which waits until S3 gives no trouble".to_owned()));
            sleep_until(over).await;
        }
        join_all((0..PROBES).map(|_| objects.probe(head))).await;
        if trouble().is_none() {
            return;
        }
    }
}
