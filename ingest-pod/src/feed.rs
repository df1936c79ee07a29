//! The feed: transcoders read runs here, one run a connection.

use crate::metrics::Counted;
use crate::net;
use crate::relay::Owners;
use crate::shard::{NotServed, Shard};
use crate::stream::{Batch, Closing};
use bytes::BytesMut;
use lectern_contract::feed::{ALIVE_EVERY, FeedFrame, FeedRequest};
use lectern_contract::frame::FrameError;
use lectern_podkit::Task;
use lectern_podkit::tls::{PeerRefused, PeerRole, PeerStream};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Readers at once: a transcoder, its successor and a few tools for each of some thousand runs.
const MAX_READERS: usize = 16_384;
/// How long a reader may take to say what it wants.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A reader that takes nothing for so long is taken for dead.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// A request's bytes at most: a run id, an epoch and a time.
const MAX_REQUEST: usize = 4096;
/// A buffer that a batch has made larger than this is not kept: readers are many, and idle between access units.
const KEEP: usize = 16 * 1024;

/// Why a reader is let go.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("no request came")]
    NoRequest,
    #[error(transparent)]
    Peer(#[from] PeerRefused),
    #[error(transparent)]
    Malformed(#[from] FrameError),
    #[error("it took nothing for {} s", STUCK_AFTER.as_secs())]
    Stuck,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves transcoders until `stop`. `owners` says how this shard's peers are let in and where others' feeds are. They are counted in `open`.
pub fn serve(listener: TcpListener, shard: Arc<Shard>, owners: Owners, open: net::Open, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        let metrics = shard.metrics().clone();
        let handle = move |socket, remote| connection(socket, remote, shard.clone(), owners.clone());
        net::serve(listener, MAX_READERS, metrics, (stop, &open), handle).await
    })
}

async fn connection(socket: TcpStream, remote: SocketAddr, shard: Arc<Shard>, owners: Owners) {
    if let Err(error) = read_run(socket, remote, &shard, &owners).await {
        tracing::info!(%remote, %error, "a reader is let go");
    }
}

async fn read_run(socket: TcpStream, remote: SocketAddr, shard: &Shard, owners: &Owners) -> Result<(), FeedError> {
    let asked = timeout(ASK_WITHIN, async {
        let mut socket = owners.peers().accept(socket, PeerRole::Transcoder).await?;
        let request = request(&mut socket).await?;
        Ok::<_, FeedError>((socket, request))
    });
    let (mut socket, request) = asked.await.map_err(|_| FeedError::NoRequest)??;
    let _counted = Counted::up(&shard.metrics().feed_readers);
    let mut bytes = BytesMut::new();
    let (run, epoch) = match shard.run(&request.run, request.epoch) {
        Ok(served) => served,
        Err(not_served) => {
            let verdict = match not_served {
                NotServed::Moved(owner) => FeedFrame::Moved { feed: owners.feed(&owner) },
                other => FeedFrame::Refused { reason: other.to_string() },
            };
            verdict.encode(&mut bytes);
            write(&mut socket, &mut bytes).await?;
            net::farewell(&mut socket).await;
            return Ok(());
        }
    };
    tracing::info!(%remote, run = %run.id(), %epoch, from = request.from.map(tracing::field::display), "a reader came");
    FeedFrame::Serving { epoch }.encode(&mut bytes);
    if request.alive {
        FeedFrame::Alive.encode(&mut bytes);
    }
    write(&mut socket, &mut bytes).await?;
    if let Some(reached) = request.from {
        run.has_come_to(reached);
    }
    if let Some(now) = request.now {
        run.is_now_at(now);
    }
    let mut reader = run.reader(request.from);
    loop {
        let batch = tokio::select! {
            biased; // what there is goes before words of nothing
            batch = reader.next(&mut bytes) => batch,
            () = sleep(ALIVE_EVERY), if request.alive => {
                FeedFrame::Alive.encode(&mut bytes);
                Batch::default()
            }
            gone = hung_up(&mut socket) => return gone,
        };
        if let Some(closing) = &batch.closed {
            verdict(closing, owners).encode(&mut bytes);
        }
        write(&mut socket, &mut bytes).await?;
        if batch.closed.is_some() {
            return Ok(socket.shutdown().await?);
        }
    }
}

/// A reader's last frame.
fn verdict(closing: &Closing, owners: &Owners) -> FeedFrame {
    match closing {
        Closing::Ended => FeedFrame::End,
        Closing::Moved(owner) => FeedFrame::Moved { feed: owners.feed(owner) },
        other => FeedFrame::Refused { reason: other.to_string() },
    }
}

async fn request(socket: &mut PeerStream) -> Result<FeedRequest, FeedError> {
    let mut input = BytesMut::new();
    loop {
        if let Some(request) = FeedRequest::decode(&mut input)? {
            return Ok(request);
        }
        if input.len() > MAX_REQUEST || socket.read_buf(&mut input).await? == 0 {
            return Err(FeedError::NoRequest);
        }
    }
}

/// Returns when the reader hangs up; it has nothing more to say.
async fn hung_up(socket: &mut (impl AsyncRead + Unpin)) -> Result<(), FeedError> {
    let mut ignored = [0; 64];
    while socket.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// Writes `bytes` in one go, and empties them for the next frames.
async fn write(socket: &mut PeerStream, bytes: &mut BytesMut) -> Result<(), FeedError> {
    // TLS keeps back what it could not send at once, until it is flushed.
    let sent = timeout(STUCK_AFTER, async {
        socket.write_all(bytes).await?;
        socket.flush().await
    });
    sent.await.map_err(|_| FeedError::Stuck)??;
    bytes.clear();
    if bytes.capacity() > KEEP {
        *bytes = BytesMut::new();
    }
    Ok(())
}
