//! One job in a process of its own: claims the run, encodes its feed, publishes, and says how it goes.

use crate::align;
use crate::engine::{Backend, Card, Engine, EngineError, Input, Libav, Order, Output};
use crate::feed::{Feed, FeedEnd};
use crate::head::{Claim, HeadError, Ownership};
use crate::publish::{Event, Keeper, KeeperError, Live, Parting, Restored, Uploader, Written, empty_window, marked, restore, serve_push};
use crate::retry::Backoff;
use crate::status::Status;
use crate::studio::{Studio, StudioError};
use lectern_cloud::{BucketAt, Objects};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::push::PushFrame;
use lectern_contract::report::TranscoderState;
use lectern_contract::{Epoch, Owner, SegmentNumber, Ticks};
use lectern_podkit::Task;
use lectern_podkit::tls::{PeerTls, TlsError};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How often the child says how it goes.
const SAY_EVERY: Duration = Duration::from_millis(500);
/// Access units that may wait for the engine; at 30 pictures and 43 sound frames a second, most of a second.
const INPUTS: usize = 64;
/// Samples that may wait for the packager.
const OUTPUTS: usize = 256;
/// How long S3 may take for the head of a new run to say where its media begins; then another child tries.
const SHIFT_WITHIN: Duration = Duration::from_secs(60);
/// Pictures are shown in another order than they are sent in: those of a segment's start may come before the keyframe
/// that is sent at that time. H.264 reorders by 16 pictures at most (ISO/IEC 14496-10 §E.2.1).
const REORDER: Ticks = Ticks::from_millis(1_000);

/// What the supervisor gives a child, as one line of JSON on standard input. The end of input asks it to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildJob {
    /// The job.
    pub job: LiveJob,
    /// What encodes.
    pub encoder: Backend,
    /// Whether the source may be passed on as a rendition that it agrees with.
    pub passthrough: bool,
    /// A picture to be shown while nothing comes from the lecturer, instead of a card with the title.
    pub slate_picture: Option<PathBuf>,
    /// Who the child is.
    pub owner: Owner,
    /// The address that other pods reach this pod by.
    pub pod_ip: IpAddr,
    /// The bucket's name.
    pub bucket: String,
    /// Its region.
    pub bucket_region: String,
    /// Its server's URL; `None`: AWS.
    pub bucket_endpoint: Option<String>,
    /// The pool whose shards serve the feed.
    pub pool: String,
    /// The folder of the pod's certificate for them; `None`: the feed is read in the clear.
    pub peer_tls_dir: Option<PathBuf>,
}

/// What a child says, a line of JSON on standard output each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildSays {
    /// The epoch under which it writes; zero before it has the run.
    pub epoch: Epoch,
    /// How it goes.
    pub state: TranscoderState,
}

impl ChildSays {
    /// Whether the job is done with: its message can go.
    pub fn is_final(&self) -> bool {
        use TranscoderState::{Ended, Failed, Idle, Lost};
        matches!(self.state, Idle | Ended { .. } | Failed { .. } | Lost)
    }
}

/// Why a child dies: its job goes to another.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// Standard input holds no job.
    #[error("no job on standard input: {0}")]
    Job(#[source] io::Error),
    /// No port for origins to connect to.
    #[error("origins cannot be served: {0}")]
    Listen(#[source] io::Error),
    /// The pod's certificate.
    #[error("the pod's certificate cannot be used: {0}")]
    Certificate(#[from] TlsError),
    /// The engine.
    #[error("the engine broke: {0}")]
    Engine(#[from] EngineError),
    /// The packager.
    #[error("the packager broke: {0}")]
    Studio(#[from] StudioError),
    /// The books.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A task panicked.
    #[error("a task of the child panicked: {0}")]
    Panicked(#[from] JoinError),
    /// The engine's thread cannot be started, or panicked.
    #[error("the engine's thread: {0}")]
    Thread(String),
}

/// Does the job on standard input; `stop` (and the end of input) asks it to hand over.
///
/// # Errors
/// The job is not done and somebody else should try.
pub fn main(stop: CancellationToken) -> Task<ChildError> {
    Box::pin(async move {
        let mut input = BufReader::new(tokio::io::stdin());
        let mut line = String::new();
        input.read_line(&mut line).await.map_err(ChildError::Job)?;
        let job: ChildJob = serde_json::from_str(&line).map_err(|error| ChildError::Job(error.into()))?;
        let supervised = stop.clone();
        tokio::spawn(async move {
            let mut rest = Vec::new();
            let _ = input.read_to_end(&mut rest).await; // its end is all that matters, error or not
            supervised.cancel();
        });
        let (status, epoch) = (Status::default(), Arc::new(AtomicU64::new(0)));
        let saying = tokio::spawn(say_on(status.clone(), epoch.clone()));
        let outcome = run(job, status, epoch.clone(), stop).await;
        saying.abort();
        // Not through the runtime's end: it would wait for the thread that reads standard input.
        match outcome {
            Ok(state) => {
                if let Some(state) = state {
                    say(&ChildSays { epoch: Epoch(epoch.load(Ordering::Relaxed)), state });
                }
                std::process::exit(0)
            }
            Err(error) => {
                tracing::error!(error = %error, "the job is left to others");
                std::process::exit(1)
            }
        }
    })
}

async fn say_on(status: Status, epoch: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(SAY_EVERY);
    loop {
        ticks.tick().await;
        say(&ChildSays { epoch: Epoch(epoch.load(Ordering::Relaxed)), state: status.state() });
    }
}

fn say(says: &ChildSays) {
    let mut line = serde_json::to_vec(says).unwrap_or_default(); // strings and numbers always encode
    line.push(b'\n');
    let mut out = io::stdout().lock();
    // A supervisor that is gone has closed standard input, too.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Does `given` until it is done with (its final state), or until it was asked to stop (`None`: somebody goes on).
async fn run(
    given: ChildJob,
    status: Status,
    epoch: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Result<Option<TranscoderState>, ChildError> {
    let peers = match &given.peer_tls_dir {
        Some(folder) => PeerTls::load(folder, &given.pool).await?,
        None => PeerTls::plain(),
    };
    let objects = Objects::connect(&BucketAt::new(given.bucket.clone(), given.bucket_region.clone(), given.bucket_endpoint.clone())).await;
    let listener = TcpListener::bind((IpAddr::from([0, 0, 0, 0]), 0)).await.map_err(ChildError::Listen)?;
    let port = listener.local_addr().map_err(ChildError::Listen)?.port();
    let address = std::net::SocketAddr::new(given.pod_ip, port).to_string();
    let live = Live::new(given.job.run.clone());
    let pushing = CancellationToken::new();
    let server = tokio::spawn(serve_push(listener, live.clone(), pushing.clone()));

    let outcome = match claim(&objects, &given, &address, &status, &stop).await {
        Claimed::Owned(ownership, restored) => {
            epoch.store(ownership.head().epoch.0, Ordering::Relaxed);
            tracing::info!(run = %given.job.run, epoch = %ownership.head().epoch, next = %ownership.head().next_segment, address, "the run is ours");
            work(given, peers, objects, *ownership, *restored, live.clone(), status, stop).await
        }
        Claimed::Final(state) => Ok(Some(state)),
        Claimed::Stopped => Ok(None),
    };
    live.close(match &outcome {
        Ok(Some(TranscoderState::Ended { .. })) => PushFrame::Ended,
        _ => PushFrame::Refused { reason: "this packager has let go of the run".to_owned() },
    });
    pushing.cancel();
    server.await?;
    outcome
}

enum Claimed {
    Owned(Box<Ownership>, Box<Restored>),
    Final(TranscoderState),
    Stopped,
}

/// Claims the run and learns what a predecessor did, for as long as S3 takes.
async fn claim(objects: &Objects, given: &ChildJob, address: &str, status: &Status, stop: &CancellationToken) -> Claimed {
    let mut backoff = Backoff::default();
    loop {
        let attempt = async {
            Ok::<_, HeadError>(match Ownership::claim(objects, &given.job, &given.owner, address).await? {
                Claim::Owned { ownership, taken_over: false } => Claimed::Owned(ownership, Box::default()),
                Claim::Owned { ownership, taken_over: true } => {
                    let restored = restore(objects, &given.job, ownership.head().next_segment).await?;
                    Claimed::Owned(ownership, Box::new(restored))
                }
                Claim::Ended => Claimed::Final(TranscoderState::Ended { first: None, last: None }),
                Claim::Lost { owner } => {
                    tracing::info!(%owner, "the run has a living owner");
                    Claimed::Final(TranscoderState::Lost)
                }
            })
        };
        let error = tokio::select! {
            () = stop.cancelled() => return Claimed::Stopped,
            claimed = attempt => match claimed {
                Ok(claimed) => return claimed,
                Err(HeadError::Lost { .. }) => return Claimed::Final(TranscoderState::Lost),
                Err(error @ HeadError::Malformed { .. }) => return Claimed::Final(TranscoderState::Failed { reason: error.to_string() }),
                Err(HeadError::Storage(error)) => error,
            },
        };
        if backoff.failures().is_multiple_of(16) {
            tracing::warn!(%error, "the run cannot be claimed; trying on");
        }
        status.waiting_for(Some(format!("S3 cannot be reached: {error}")));
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Encodes and publishes until the feed is over.
#[allow(clippy::too_many_arguments, reason = "what a job is made of, once")]
async fn work(
    given: ChildJob,
    peers: PeerTls,
    objects: Objects,
    mut ownership: Ownership,
    restored: Restored,
    live: Live,
    status: Status,
    stop: CancellationToken,
) -> Result<Option<TranscoderState>, ChildError> {
    let ChildJob { job, encoder, passthrough, slate_picture, .. } = given;
    status.waiting_for(None);
    let next = ownership.head().next_segment;
    let taken_over = next > SegmentNumber(0) || ownership.head().epoch > Epoch(1);
    if passthrough && !taken_over && job.parts.is_none() {
        let shift = align::shift(&job, &peers).await;
        if shift > Ticks(0) {
            let told = ownership.change_patiently(SHIFT_WITHIN, |head| head.shift = shift, |trouble| status.trouble("head", trouble)).await;
            match told {
                Ok(()) => {}
                Err(HeadError::Lost { .. }) => return Ok(Some(TranscoderState::Lost)),
                Err(error) => return Err(KeeperError::from(error).into()),
            }
        }
    }
    let shift = ownership.head().shift;
    let job = align::shifted(job, shift);
    let from = taken_over.then(|| next.start(job.segment_duration));
    let asked = from.map(|from| from.since(shift).since(REORDER));

    let (events, heard) = mpsc::unbounded_channel();
    let mut studio = Studio::new(job.clone(), &restored, next, live, status.clone(), events.clone());
    let mut uploads = uploads(&studio, &job, &objects, ownership.head().epoch, &restored, &status, &events);
    drop(events);
    let mut keeper = tokio::spawn(Keeper::new(objects, job.clone(), status.clone(), ownership, restored).run(heard));

    let (inputs, taken) = mpsc::channel(INPUTS);
    let (put, mut outputs) = mpsc::channel(OUTPUTS);
    let card = Card { title: job.title.clone(), text: job.slate.clone().unwrap_or_default(), picture: slate_picture };
    let order = Order {
        ladder: job.ladder.clone(),
        segment_duration: job.segment_duration,
        from: from.unwrap_or(Ticks(0)),
        card,
        encoder,
        passthrough,
        parts: job.parts.is_some(),
    };
    let abandoned = CancellationToken::new();
    let abandon = abandoned.clone();
    let engine = std::thread::Builder::new()
        .name("decode".to_owned())
        .spawn(move || drive(order, taken, put, &abandon))
        .map_err(|error| ChildError::Thread(error.to_string()))?;
    let feed = tokio::spawn(Feed::new(&job, peers, (asked, shift), inputs, status.clone(), stop, abandoned.clone()).run());

    // Until the engine has put out its last; or until the keeper finds that the run is somebody else's.
    loop {
        tokio::select! {
            output = outputs.recv() => match output {
                // An encoder that was cut off ends its rendition, too; the open segment is the successor's.
                Some(Output::End { .. }) if abandoned.is_cancelled() => {}
                Some(output) => studio.take(output)?,
                None => break,
            },
            kept = &mut keeper => return match kept? {
                Err(KeeperError::Head(HeadError::Lost { owner, epoch, .. })) => {
                    tracing::warn!(%owner, %epoch, "the run is lost");
                    Ok(Some(TranscoderState::Lost))
                }
                Err(error) => Err(error.into()),
                Ok(_) => Err(ChildError::Thread("the keeper ended early".to_owned())),
            },
        }
    }
    let broken = engine.join().unwrap_or_else(|_| Err(ChildError::Thread("it panicked".to_owned())));
    let end = if broken.is_err() { FeedEnd::EngineGone } else { feed.await? };
    let parting = if end == FeedEnd::Ended { Parting::Ended } else { Parting::Released };
    tracing::info!(?end, "the feed is over");
    studio.close(parting == Parting::Ended);

    // A pod that is being stopped cannot wait for an S3 that is away: its successor makes those segments anew.
    let hurry = if matches!(end, FeedEnd::Stopped | FeedEnd::EngineGone) { Duration::from_secs(10) } else { Duration::from_secs(3600) };
    let uploaded = tokio::time::timeout(hurry, async { while uploads.join_next().await.is_some() {} }).await;
    if uploaded.is_err() {
        tracing::warn!("S3 is away; segments are left to the successor");
        uploads.shutdown().await;
    }
    let (first, last) = match keeper.await? {
        Ok(keeper) => match keeper.part(parting).await {
            Ok(span) => span,
            Err(KeeperError::Head(HeadError::Lost { .. })) => return Ok(Some(TranscoderState::Lost)),
            Err(error) => return Err(error.into()),
        },
        Err(KeeperError::Head(HeadError::Lost { .. })) => return Ok(Some(TranscoderState::Lost)),
        Err(error) => return Err(error.into()),
    };
    broken?;
    Ok(match end {
        FeedEnd::Ended => Some(TranscoderState::Ended { first, last }),
        FeedEnd::Idle => Some(TranscoderState::Idle),
        FeedEnd::Stopped | FeedEnd::EngineGone => None,
    })
}

fn uploads(
    studio: &Studio,
    job: &LiveJob,
    objects: &Objects,
    epoch: Epoch,
    restored: &Restored,
    status: &Status,
    keeper: &mpsc::UnboundedSender<Event>,
) -> JoinSet<()> {
    let mut uploads = JoinSet::new();
    for (at, (name, backlog)) in studio.backlogs().enumerate() {
        let uploader = Uploader {
            at,
            window: restored.windows.get(&name).cloned().unwrap_or_else(empty_window),
            playlist: Written::new(objects.clone(), job.prefix.key(&ObjectName::MediaPlaylist(name.clone())), epoch, marked),
            name,
            objects: objects.clone(),
            job: job.clone(),
            backlog,
            keeper: keeper.clone(),
            status: status.clone(),
        };
        uploads.spawn(uploader.run());
    }
    uploads
}

/// The engine's thread: pushes what the feed brings, and at its end finishes; unless the child was asked to stop, for then
/// a successor makes the open segments, whole.
fn drive(
    order: Order,
    mut inputs: mpsc::Receiver<Input>,
    out: mpsc::Sender<Output>,
    abandon: &CancellationToken,
) -> Result<(), ChildError> {
    let mut engine: Box<dyn Engine> = Box::new(Libav::new(order, out)?);
    while let Some(input) = inputs.blocking_recv() {
        engine.push(input)?;
    }
    if !abandon.is_cancelled() {
        engine.finish()?;
    }
    Ok(())
}
