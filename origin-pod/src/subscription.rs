//! The one connection to a run's packager: found through the head, kept up until the run ends or nobody asks.

use crate::metrics::{During, Metrics};
use crate::runs::{Backoff, Phase, Run};
use crate::store::Store;
use bytes::BytesMut;
use lectern_contract::Epoch;
use lectern_contract::frame::FrameError;
use lectern_contract::head::Head;
use lectern_contract::push::{ALIVE_EVERY, PushFrame, PushRequest};
use lectern_podkit::CancellationToken;
use lectern_podkit::tls::{PeerRole, PeerStream, PeerTls};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

const CONNECT: Duration = Duration::from_secs(2);
/// A packager says every second that it is there. After this silence the head is read again: it may be frozen, or its machine gone without a word, and
/// somebody else may own the run. A successor waits for origins for three seconds, to be told what was shown.
const SILENCE: Duration = ALIVE_EVERY.saturating_mul(2).saturating_add(Duration::from_millis(500));
/// How long it is silent on before the head is read once more.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const READ: usize = 256 * 1024;
/// How often a successor that has not said yet that it serves is told what there is of its predecessors': connections break. One that does not understand it must not be
/// told for ever.
const TELLS: u8 = 4;

/// Why a packager pushes no more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("no connection within {CONNECT:?}")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("it closed the connection")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it refused: {0}")]
    Refused(String),
    #[error("it was silent, and is the owner no more")]
    Moved,
    #[error("it pushes under epoch {0}, and there is an owner of a newer one")]
    Outdated(Epoch),
    #[error("it pushes without a word of its epoch")]
    Unannounced,
}

/// Follows the run until it ends, is not there, or `stop`.
pub(crate) async fn keep(run: Arc<Run>, stop: CancellationToken, store: Store, peers: PeerTls, metrics: Metrics) {
    tokio::select! {
        () = stop.cancelled() => tracing::debug!(run = %run.prefix, "nobody asks any more"),
        () = follow(&run, &store, &peers, &metrics) => {}
    }
}

/// How often the owner of an epoch was told what there is of its predecessors' that S3 may not have.
#[derive(Default)]
struct Told {
    epoch: Epoch,
    times: u8,
}

impl Told {
    /// Whether the owner of `epoch` is to be told, once more.
    fn again(&mut self, epoch: Epoch) -> bool {
        if self.epoch < epoch {
            *self = Self { epoch, times: 0 };
        }
        let again = self.times < TELLS;
        self.times += u8::from(again);
        again
    }

    /// The owner serves: it has read what it was told before it was asked for objects.
    fn is_heard(&mut self) {
        self.times = TELLS;
    }
}

async fn follow(run: &Run, store: &Store, peers: &PeerTls, metrics: &Metrics) {
    let (mut backoff, mut told) = (Backoff::new(), Told::default());
    loop {
        match store.head(&run.prefix).await {
            Ok(None) => return run.set(Phase::Absent { since: Instant::now() }),
            Ok(Some(head)) if head.ended => return run.set(Phase::Ended { complete: false }),
            Ok(Some(head)) => match head.address.clone().filter(|_| run.heard_of(head.epoch)) {
                Some(address) => match listen(run, &address, &head, store, (peers, metrics), (&mut backoff, &mut told)).await {
                    Ok(()) => return run.set(Phase::Ended { complete: true }),
                    Err(lost) => tracing::info!(run = %run.prefix, address, %lost, "the packager is lost; reading the head again"),
                },
                None => tracing::debug!(run = %run.prefix, "nobody owns the run just now"),
            },
            Err(error) => tracing::warn!(run = %run.prefix, %error, "the head cannot be read"),
        }
        run.lost();
        backoff.wait().await;
    }
}

/// Takes what the packager at `address`, which `head` names, pushes, until the run ends. A successor is told first what there is of its predecessors' that S3 may not
/// have.
async fn listen(
    run: &Run,
    address: &str,
    head: &Head,
    store: &Store,
    (peers, metrics): (&PeerTls, &Metrics),
    (backoff, told): (&mut Backoff, &mut Told),
) -> Result<(), Lost> {
    let mut connection = connect(run, address, store, peers).await?;
    let mut input = BytesMut::new();
    if told.again(head.epoch) {
        for held in run.held_beyond(head) {
            tracing::info!(run = %run.prefix, rendition = held.rendition, number = %held.number, whole = held.whole, "told to the successor");
            PushRequest::Holds { run: run.prefix.run(), held }.encode(&mut input);
        }
    }
    PushRequest::Objects(run.prefix.run()).encode(&mut input);
    connection.write_all(&input).await?;
    connection.flush().await?;
    input.clear();
    run.set(Phase::Connected { since: Instant::now() });
    metrics.subscribed.inc();
    let _open = During::new(&metrics.subscriptions);
    tracing::info!(run = %run.prefix, address, "subscribed");
    let (mut announced, mut patience) = (false, SILENCE);
    loop {
        while let Some(frame) = PushFrame::decode(&mut input)? {
            match frame {
                PushFrame::Serving { epoch } if run.heard_of(epoch) => {
                    announced = true;
                    told.is_heard();
                }
                PushFrame::Serving { epoch } => return Err(Lost::Outdated(epoch)),
                PushFrame::Object { .. } | PushFrame::Joined { .. } if !announced => return Err(Lost::Unannounced),
                PushFrame::Object { name, body } => {
                    metrics.pushed.inc();
                    run.pushed(&name, &body);
                    *backoff = Backoff::new();
                }
                PushFrame::Joined { name, parts } => run.joined(&name, parts),
                PushFrame::Ended => return Ok(()),
                PushFrame::Refused { reason } => return Err(Lost::Refused(reason)),
                PushFrame::Anew { rendition, number } => run.forget(&rendition, number),
                PushFrame::HandingOver { .. } => {} // a word for successors
            }
        }
        input.reserve(READ);
        let read = timeout(patience, connection.read_buf(&mut input)).await;
        patience = if read.is_ok() { SILENCE } else { LOOK_AGAIN };
        match read {
            Ok(Ok(0)) => return Err(Lost::Closed),
            Ok(Ok(_)) => {}
            Ok(Err(broken)) => return Err(broken.into()),
            Err(_) => stays(run, address, store).await?,
        }
    }
}

/// A connection to the packager, unless the run moves meanwhile: what is gone without a word refuses nobody.
async fn connect(run: &Run, address: &str, store: &Store, peers: &PeerTls) -> Result<PeerStream, Lost> {
    let moves = async {
        loop {
            sleep(LOOK_AGAIN).await;
            if let Err(moved) = stays(run, address, store).await {
                return moved;
            }
        }
    };
    tokio::select! {
        connected = timeout(CONNECT, peers.connect(address, PeerRole::Transcoder)) => Ok(connected??),
        moved = moves => Err(moved),
    }
}

/// [`Lost::Moved`] where the head says that the run is not at `address` any more.
async fn stays(run: &Run, address: &str, store: &Store) -> Result<(), Lost> {
    match store.head(&run.prefix).await {
        Ok(Some(head)) if !head.ended && head.address.as_deref() == Some(address) => Ok(()),
        Ok(_) => Err(Lost::Moved),
        Err(error) => {
            tracing::debug!(run = %run.prefix, %error, "silence, and the head cannot be read");
            Ok(())
        }
    }
}
