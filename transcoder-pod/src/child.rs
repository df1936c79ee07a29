//! One job in a process of its own: claims the run, encodes its feed, publishes, and says how it goes.

mod seat;

use crate::engine::{Backend, EngineError, without_joints};
use crate::publish::{KeeperError, Live, serve_push};
use crate::status::Status;
use crate::studio::StudioError;
use lectern_cloud::{BucketAt, Objects};
use lectern_contract::job::LiveJob;
use lectern_contract::push::PushFrame;
use lectern_contract::report::TranscoderState;
use lectern_contract::{Epoch, Owner};
use lectern_podkit::Task;
use lectern_podkit::tls::{PeerTls, TlsError};
use seat::Seat;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

/// How often the child says how it goes.
const SAY_EVERY: Duration = Duration::from_millis(500);

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
    /// MiB of segments that may wait for S3; `None`: by the ladder.
    pub backlog_mib: Option<u32>,
    /// The source's pictures are not looked at: they may be what kills children.
    pub deaf_to_pictures: bool,
    /// What is left out because of former children's deaths, for people.
    pub caution: Option<String>,
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
    /// Whether it has begun a segment of the run: who goes on after it can be told where.
    pub has_begun: bool,
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
        let (said, saying) = (status.clone(), tokio::spawn(say_on(status.clone(), epoch.clone())));
        let outcome = run(job, status, epoch.clone(), stop).await;
        saying.abort();
        // Not through the runtime's end: it would wait for the thread that reads standard input.
        match outcome {
            Ok(state) => {
                if let Some(state) = state {
                    say(&ChildSays { epoch: Epoch(epoch.load(Ordering::Relaxed)), state, has_begun: said.has_begun() });
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
        tokio::select! {
            _ = ticks.tick() => {}
            () = status.until_begun() => {} // a pod may be stopped at any time, and then it should be known
        }
        say(&ChildSays { epoch: Epoch(epoch.load(Ordering::Relaxed)), state: status.state(), has_begun: status.has_begun() });
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
    live.goes_on_only_after_whole(without_joints(&given.job.ladder, given.job.segment_duration));
    let pushing = CancellationToken::new();
    let server = tokio::spawn(serve_push(listener, live.clone(), peers.clone(), pushing.clone()));

    let seat = Seat { given, peers, objects, live: live.clone(), status, stop };
    let outcome = seat.take(&address, &epoch).await;
    live.close(match &outcome {
        Ok(Some(TranscoderState::Ended { .. })) => PushFrame::Ended,
        _ => PushFrame::Refused { reason: "this packager has let go of the run".to_owned() },
    });
    pushing.cancel();
    server.await?;
    outcome
}
