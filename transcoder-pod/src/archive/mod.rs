//! After the end: a run's original is encoded into renditions that were too dear to encode live, and the recording gets them.
//!
//! A child process does it, at the lowest priority, in a slot that no lecture needs. It can be killed at any line: what is stored stays, and whoever comes next goes
//! on at the first segment that is missing. A rendition is named in `ended.json`, from which the recording's playlists are made, once it has every segment that the
//! others have.

mod books;
mod reel;
mod shelf;

use crate::child::ChildError;
use crate::engine::{Backend, Card, Input, Order, Predecessor};
use crate::line::drive;
use crate::retry::Backoff;
use books::{Books, Plan};
use lectern_cloud::{BucketAt, Objects, StorageError};
use lectern_contract::Ticks;
use lectern_contract::job::ArchiveJob;
use lectern_contract::ledger::ArchiveState;
use lectern_media::cmaf::CmafError;
use lectern_media::original;
use lectern_podkit::Task;
use reel::Reel;
use serde::{Deserialize, Serialize};
use shelf::Shelf;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pictures that may wait for the engine, and samples that may wait for the packager.
const INPUTS: usize = 64;
const OUTPUTS: usize = 256;
/// How long S3 may be away before the job goes back to the queue.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is written down how far the work is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The priority at which it gets what lectures leave of the processors (setpriority(2)).
const LOWEST: i32 = 19;

/// What the supervisor gives a child, as one line of JSON on standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveChild {
    /// The job.
    pub job: ArchiveJob,
    /// A picture to be shown where nothing came from the lecturer, instead of a card with the title.
    pub slate_picture: Option<PathBuf>,
    /// The bucket's name.
    pub bucket: String,
    /// Its region.
    pub bucket_region: String,
    /// Its server's URL; `None`: AWS.
    pub bucket_endpoint: Option<String>,
}

/// Why a child gives up, and another should try.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// As of a live child.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// S3 was away for too long.
    #[error("S3 was away for too long: {0}")]
    Storage(#[from] StorageError),
    /// A segment cannot be written.
    #[error(transparent)]
    Cmaf(#[from] CmafError),
    /// An object of the run is not what its name says.
    #[error("{key} cannot be read: {what}")]
    Malformed {
        /// Its key.
        key: String,
        /// What is wrong.
        what: String,
    },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All renditions are in the recording.
    Done,
    /// They will never be.
    Failed(String),
    /// The run was deleted; nothing of ours is left.
    Gone,
}

/// Does the job on standard input.
///
/// # Errors
/// The job is not done, and somebody else should try.
pub fn main() -> Task<ArchiveError> {
    Box::pin(async move {
        // Of this thread, and of those that it starts: the engine's.
        if let Err(error) = rustix::process::nice(LOWEST) {
            tracing::warn!(%error, "the archive's work has the priority of lectures");
        }
        let mut line = String::new();
        BufReader::new(tokio::io::stdin()).read_line(&mut line).await.map_err(ChildError::Job)?;
        let given: ArchiveChild = serde_json::from_str(&line).map_err(|error| ChildError::Job(error.into()))?;
        let at = BucketAt::new(given.bucket.clone(), given.bucket_region.clone(), given.bucket_endpoint.clone());
        let outcome = run(&given, &Objects::connect(&at).await).await;
        match &outcome {
            Ok(outcome) => tracing::info!(run = %given.job.run, ?outcome, "the archive's job is done with"),
            Err(error) => tracing::error!(run = %given.job.run, %error, "the archive's job is left to others"),
        }
        // Not through the runtime's end: it would wait for the engine's thread.
        std::process::exit(i32::from(outcome.is_err()))
    })
}

/// Does the job, and writes down how it went.
///
/// # Errors
/// [`ArchiveError`].
pub async fn run(given: &ArchiveChild, objects: &Objects) -> Result<Outcome, ArchiveError> {
    let job = &given.job;
    let books = Books::new(objects.clone(), job.clone());
    let outcome = match books.open().await? {
        None => Outcome::Gone,
        Some(plan) => encode(given, &books, plan).await?,
    };
    match &outcome {
        Outcome::Done => {
            books.name_renditions().await?;
            books.tell(ArchiveState::Done).await?;
        }
        Outcome::Failed(reason) => books.tell(ArchiveState::Failed { reason: reason.clone() }).await?,
        Outcome::Gone => {}
    }
    Ok(outcome)
}

async fn encode(given: &ArchiveChild, books: &Books, plan: Plan) -> Result<Outcome, ArchiveError> {
    let job = &given.job;
    let Some(from) = plan.next() else { return Ok(Outcome::Done) };
    let start = from.start(plan.segment_duration);
    let pieces = books.pieces().await?;
    // The last that begins before what is to be shown first.
    let first = pieces.iter().rposition(|(at, _)| at.plus(plan.shift).plus(reel::REORDER) <= start).unwrap_or(0);
    if pieces.is_empty() {
        return Ok(Outcome::Failed("nothing of the original is stored".to_owned()));
    }
    tracing::info!(run = %job.run, %from, pieces = pieces.len() - first, "the original is encoded");
    let order = Order {
        ladder: job.ladder(),
        segment_duration: plan.segment_duration,
        from: start,
        card: Card { title: job.title.clone(), text: job.slate.clone().unwrap_or_default(), picture: given.slate_picture.clone() },
        // Sessions of a GPU are for lectures.
        encoder: Backend::Software,
        passthrough: false,
        parts: None,
        joints_until: Ticks(0),
        predecessor: Predecessor::default(),
    };
    let (inputs, taken) = mpsc::channel(INPUTS);
    let (put, mut outputs) = mpsc::channel(OUTPUTS);
    let engine = std::thread::Builder::new()
        .name("decode".to_owned())
        .spawn(move || drive(order, taken, put, &CancellationToken::new()))
        .map_err(|error| ChildError::Thread(error.to_string()))?;

    let reel = Reel::new(plan.shift, plan.first_ends(), job.slate.is_some());
    let feeding = feed(books, &pieces[first..], reel, plan.end(), inputs);
    let mut shelf = Shelf::open(books, plan).await?;
    let shelving = async {
        let mut told = Instant::now();
        books.tell(shelf.state()).await?;
        while let Some(output) = outputs.recv().await {
            if !shelf.take(output).await? {
                return Ok(None);
            }
            if told.elapsed() >= TELL_EVERY {
                books.tell(shelf.state()).await?;
                told = Instant::now();
            }
        }
        shelf.close().await?;
        Ok::<_, ArchiveError>(Some(shelf.lacks()))
    };
    tokio::pin!(feeding, shelving);
    let mut left_out = None;
    let lacks = loop {
        tokio::select! {
            fed = &mut feeding, if left_out.is_none() => left_out = Some(fed?),
            shelved = &mut shelving => break shelved?,
        }
    };
    let Some(lacks) = lacks else { return Ok(Outcome::Gone) };
    engine.join().unwrap_or_else(|_| Err(ChildError::Thread("it panicked".to_owned())))?;
    let left_out = match left_out {
        Some(known) => known,
        None => feeding.await?, // the engine takes nothing more
    };
    Ok(match lacks {
        None => Outcome::Done,
        Some(lacks) => Outcome::Failed(left_out.unwrap_or(lacks)),
    })
}

/// Gives the engine the pieces, one after the other; what is wrong with one that it left out.
async fn feed(
    books: &Books,
    pieces: &[(Ticks, String)],
    mut reel: Reel,
    end: Ticks,
    inputs: mpsc::Sender<Input>,
) -> Result<Option<String>, ArchiveError> {
    let mut left_out = None;
    for (_, key) in pieces {
        let Some(object) = patiently(|| books.objects().get(key)).await? else { continue };
        let given = match original::pictures(&object.body) {
            Ok(Some((coding, units))) => reel.take(coding, units),
            Ok(None) => continue, // sound alone
            Err(error) => {
                tracing::warn!(key, %error, "a piece of the original is left out");
                left_out = Some(format!("{key}: {error}"));
                continue;
            }
        };
        for input in given {
            if inputs.send(input).await.is_err() {
                return Ok(left_out); // the engine says why
            }
        }
    }
    for input in reel.finish(end) {
        if inputs.send(input).await.is_err() {
            break;
        }
    }
    Ok(left_out)
}

/// Asks S3 again and again while it is away, but not for ever.
async fn patiently<T, F: Future<Output = Result<T, StorageError>>>(ask: impl Fn() -> F) -> Result<T, StorageError> {
    let (since, mut backoff) = (Instant::now(), Backoff::default());
    loop {
        match ask().await {
            Err(error) if since.elapsed() < PATIENCE => {
                if backoff.failures().is_multiple_of(16) {
                    tracing::warn!(%error, "S3 does not do it; trying on");
                }
                tokio::time::sleep(backoff.next_wait()).await;
            }
            other => return other,
        }
    }
}

/// Tells the supervisor that the work goes on.
fn is_alive() {
    let mut out = io::stdout().lock();
    let _ = out.write_all(b"\n").and_then(|()| out.flush()); // a supervisor that is gone kills nobody
}
