//! `lectern-operator redrive`: jobs that were given up, back to where they are taken.

use kube::{Api, Client};
use lectern_cloud::{Delivery, Queue, QueueAt, QueueError};
use lectern_contract::job::{ArchiveJob, LiveJob};
use lectern_contract::message::{Message as _, NoJob};
use lectern_crds::StreamPool;
use std::time::Duration;

/// How long nobody else gets a message that is being moved.
const HELD: Duration = Duration::from_secs(30);
/// How long the queue may look for one more.
const LOOK: Duration = Duration::from_secs(1);

/// Whose queue, and what to do.
#[derive(Debug, Clone, clap::Args)]
pub struct RedriveArgs {
    /// The StreamPool whose queue is meant.
    #[arg(long, default_value = lectern_crds::DEFAULT_POOL)]
    pool: String,
    /// The queue of what is encoded after the end, and not that of lectures.
    #[arg(long)]
    archive: bool,
    /// Only say what is there, and what is wrong with it.
    #[arg(long)]
    list: bool,
}

/// Why not all of it was done.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// The API server.
    #[error("the StreamPool cannot be read: {0}")]
    Kube(#[from] kube::Error),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Moves every message of the dead-letter queue back, and prints a line for each: a job of a run that has ended is taken, found to be over, and
/// deleted, so that moving too much does no harm.
///
/// # Errors
/// The API server's, and the queue's. What was moved until then stays moved; a message may then be in both.
pub async fn run(args: RedriveArgs, client: Client) -> Result<(), RedriveError> {
    let spec = Api::<StreamPool>::all(client).get(&args.pool).await?.spec.queue;
    let live = QueueAt::new(spec.name, spec.region, spec.endpoint);
    let queue = Queue::connect(&if args.archive { live.archive() } else { live }).await;
    let dead = queue.dead();
    let (mut moved, mut left) = (0, dead.depth().await?.all());
    let mut seen = Vec::new();
    while left > 0
        && let Some(letter) = dead.receive_within(HELD, LOOK).await?
    {
        left -= 1;
        println!("{}", words(&letter, args.archive));
        if args.list {
            seen.push(letter.receipt);
            continue;
        }
        queue.send(&letter.body).await?;
        dead.delete(&letter.receipt).await?;
        moved += 1;
    }
    for receipt in seen {
        dead.extend(&receipt, Duration::ZERO).await?;
    }
    println!("{moved} of the messages in {} went to {}", dead.at(), queue.at());
    Ok(())
}

/// What a message is, for people; of one that no transcoder takes also why.
fn words(letter: &Delivery, archive: bool) -> String {
    let told = match archive {
        false => LiveJob::of_message(&letter.body).map(|job| format!("{}, run {}, attempt {}", job.stream, job.run, job.attempt)),
        true => ArchiveJob::of_message(&letter.body).map(|job| format!("{}, run {}", job.stream, job.run)),
    };
    told.unwrap_or_else(|error: NoJob| format!("no job, {error}: {:.200}", letter.body))
}
