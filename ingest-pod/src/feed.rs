//! The feed: transcoders read runs here, one run a connection, and other shards for transcoders that do not reach this one.

use crate::metrics::Counted;
use crate::net;
use crate::relay::Owners;
use crate::shard::{NotServed, Shard};
use crate::stream::{Batch, Closing, Run};
use bytes::BytesMut;
use lectern_contract::Epoch;
use lectern_contract::feed::{ALIVE_EVERY, FeedFrame, FeedRequest};
use lectern_contract::frame::FrameError;
use lectern_podkit::Task;
use lectern_podkit::tls::{PeerRefused, PeerRole, PeerStream, PeerTls};
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
/// How long an owner may take to greet a shard that passes its feed on: the reader has others to ask.
const GREETS_WITHIN: Duration = Duration::from_secs(1);
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
        let (mut socket, _) = owners.peers().accept_one_of(socket, &[PeerRole::Transcoder, PeerRole::Ingest]).await?;
        let request = request(&mut socket).await?;
        Ok::<_, FeedError>((socket, request))
    });
    let (mut socket, request) = asked.await.map_err(|_| FeedError::NoRequest)??;
    let _counted = Counted::up(&shard.metrics().feed_readers);
    let mut bytes = BytesMut::new();
    let (run, epoch) = match served(shard, &request, owners).await {
        Served::Here(run, epoch) => (run, epoch),
        Served::There(owner) => {
            tracing::info!(%remote, run = %request.run, "the owner's feed is passed on");
            let _passed_on = Counted::up(&shard.metrics().feeds_passed_on);
            return pass_on(&mut socket, *owner).await;
        }
        Served::Not(verdict) => {
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

/// How a reader gets its run.
enum Served {
    Here(Arc<Run>, Epoch),
    /// By way of the owner.
    There(Box<Source>),
    Not(FeedFrame),
}

/// A connection to a run's owner, and what it has said that was not passed on yet.
struct Source {
    socket: PeerStream,
    said: BytesMut,
}

async fn served(shard: &Shard, request: &FeedRequest, owners: &Owners) -> Served {
    let mut routes = shard.routes();
    loop {
        let owner = match shard.run(&request.run, request.epoch) {
            Ok((run, epoch)) => return Served::Here(run, epoch),
            Err(NotServed::Moved(owner)) => owner,
            Err(other) => return Served::Not(FeedFrame::Refused { reason: other.to_string() }),
        };
        let feed = owners.feed(&owner);
        if !request.through {
            return Served::Not(FeedFrame::Moved { feed });
        }
        let moved = routes.wait_for(|table| table.by_run(&request.run).is_none_or(|route| route.shard != owner));
        tokio::select! {
            source = Source::open(request, &feed, owners.peers()) => return match source {
                Some(source) => Served::There(Box::new(source)),
                None => Served::Not(FeedFrame::Moved { feed }),
            },
            // It may be this shard by now. A closed channel says nothing of that.
            Ok(_) = moved => {}
        }
    }
}

impl Source {
    /// `None` where an owner at `feed` does not greet in time.
    async fn open(request: &FeedRequest, feed: &str, peers: &PeerTls) -> Option<Self> {
        let asking = async {
            let mut socket = peers.connect(feed, PeerRole::Ingest).await?;
            let mut said = BytesMut::new();
            // Who is asked so passes nothing on: two shards with different routes would ask each other.
            FeedRequest { through: false, ..request.clone() }.encode(&mut said);
            socket.write_all(&said).await?;
            socket.flush().await?;
            said.clear();
            let count = socket.read_buf(&mut said).await?;
            Ok::<_, io::Error>((count > 0).then_some(Self { socket, said }))
        };
        timeout(GREETS_WITHIN, asking).await.ok()?.ok()?
    }
}

/// Passes on what an owner says until either side hangs up.
async fn pass_on(reader: &mut PeerStream, Source { mut socket, mut said }: Source) -> Result<(), FeedError> {
    loop {
        write(reader, &mut said).await?;
        tokio::select! {
            read = socket.read_buf(&mut said) => if read? == 0 {
                return Ok(reader.shutdown().await?);
            },
            gone = hung_up(reader) => return gone,
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
