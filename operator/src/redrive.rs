//! `lectern-operator redrive`: jobs that were given up, back to where they are taken.

use kube::{Api, Client};
use lectern_cloud::{Delivery, Queue, QueueAt, QueueError};
use lectern_contract::job::{ArchiveJob, LiveJob};
use lectern_contract::message::{Message as _, NoJob};
use lectern_crds::StreamPool;
use std::io::{self, Write};
use std::time::Duration;

/// How long nobody else gets a message that is being moved.
const HELD: Duration = Duration::from_secs(30);
/// How long the queue may look for one more.
const LOOK: Duration = Duration::from_secs(1);
/// What becomes of a message that is no job to this build: it may be one to a transcoder that is newer, and to the others it does no harm.
const ALL_THE_SAME: &str = "it goes back all the same, and comes here again unless a transcoder knows better";

/// Whose queue, and what to do.
#[derive(Debug, Clone, clap::Args)]
pub struct RedriveArgs {
    /// The StreamPool whose queue is meant.
    #[arg(long, default_value = lectern_crds::DEFAULT_POOL)]
    pub pool: String,
    /// The queue of what is encoded after the end, and not that of lectures.
    #[arg(long)]
    pub archive: bool,
    /// Only say what is there, and what is wrong with it.
    #[arg(long)]
    pub list: bool,
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
    /// Nobody reads what is told any more.
    #[error("what is there cannot be told: {0}")]
    Told(#[from] io::Error),
}

/// [`redrive`] of a pool's queue, told to whoever has called the program.
///
/// # Errors
/// The API server's, and those of [`redrive`].
pub async fn run(args: RedriveArgs, client: Client) -> Result<(), RedriveError> {
    let spec = Api::<StreamPool>::all(client).get(&args.pool).await?.spec.queue;
    let live = QueueAt::new(spec.name, spec.region, spec.endpoint);
    let queue = Queue::connect(&if args.archive { live.archive() } else { live }).await;
    redrive(&queue, &args, &mut io::stdout()).await
}

/// Moves every message of the dead-letter queue back to `queue`, and says of each in a line what it is: a job of a run that has ended is taken,
/// found to be over, and deleted, so that moving too much does no harm. Where it is only to list them, they stay where they are.
///
/// # Errors
/// The queue's, and `out`'s. What was moved until then stays moved; a message may then be in both.
pub async fn redrive(queue: &Queue, args: &RedriveArgs, out: &mut impl Write) -> Result<(), RedriveError> {
    let dead = queue.dead();
    let (mut moved, mut left) = (0, dead.depth().await?.all());
    let mut seen = Vec::new();
    while left > 0
        && let Some(letter) = dead.receive_within(HELD, LOOK).await?
    {
        left -= 1;
        let told = match (words(&letter, args.archive), args.list) {
            (Err(no_job), false) => format!("{no_job}; {ALL_THE_SAME}"),
            (Ok(told) | Err(told), _) => told,
        };
        writeln!(out, "{told}")?;
        if args.list {
            seen.push(letter.receipt);
            continue;
        }
        queue.send(&letter.body).await?;
        dead.delete(&letter.receipt).await?;
        moved += 1;
    }
    for receipt in &seen {
        dead.extend(receipt, Duration::ZERO).await?;
    }
    if args.list {
        writeln!(out, "messages in {}: {}", dead.at(), seen.len())?;
    } else {
        writeln!(out, "{moved} of the messages in {} went to {}", dead.at(), queue.at())?;
    }
    Ok(())
}

/// What a letter is and why it is here, for people: a job that was delivered in vain, or (`Err`) nothing that a transcoder takes.
fn words(letter: &Delivery, archive: bool) -> Result<String, String> {
    let job = match archive {
        false => LiveJob::of_message(&letter.body).map(|job| format!("{}, run {}, attempt {}", job.stream, job.run, job.attempt)),
        true => ArchiveJob::of_message(&letter.body).map(|job| format!("{}, run {}", job.stream, job.run)),
    };
    // SQS counts on from queue to queue (SQS API reference, ApproximateReceiveCount): this look is no try, earlier looks count as tries.
    let tries = letter.received.saturating_sub(1);
    // Who gave it up knew best, be that another build than this one.
    let given_up = letter.reason.as_deref();
    let no_job = |error: NoJob| format!("no job, {}: {:.200}", given_up.unwrap_or(&error.to_string()), letter.body);
    let in_vain = given_up.map_or_else(|| format!("delivered {tries} times in vain"), str::to_owned);
    job.map(|job| format!("{job}: {in_vain}")).map_err(no_job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_cloud::Receipt;
    use serde_json::json;

    #[test]
    fn a_letter_says_what_it_is_and_to_the_other_queue_that_it_is_no_job() {
        let stream = json!({ "namespace": "school", "name": "algebra" });
        let prefix = "0a/school/algebra/r1";
        let job = json!({ "kind": "archive", "stream": stream, "run": "r1", "title": "", "prefix": prefix, "video": [] });
        let letter = Delivery { body: job.to_string(), receipt: Receipt("1".into()), age: Duration::ZERO, received: 11, reason: None };
        assert_eq!(words(&letter, true).unwrap(), "school/algebra, run r1: delivered 10 times in vain");
        let given_up = Delivery { reason: Some("its pod says so".into()), ..letter.clone() };
        assert_eq!(words(&given_up, true).unwrap(), "school/algebra, run r1: its pod says so");
        let told = words(&letter, false).unwrap_err();
        assert!(told.starts_with(r#"no job, it is a job of kind "archive", and this queue is for "live": {"#), "{told}");
    }
}
