//! The feed: transcoders read runs here, one run a connection.

use crate::metrics::Counted;
use crate::net;
use crate::shard::Shard;
use bytes::BytesMut;
use lectern_contract::feed::{FeedFrame, FeedRequest};
use lectern_contract::frame::FrameError;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Readers at once: a transcoder, its successor and a few tools for each of some thousand runs.
const MAX_READERS: usize = 16_384;
/// How long a reader may take to say what it wants.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A reader that takes nothing for so long is taken for dead.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// A request's bytes at most: a run id and a time.
const MAX_REQUEST: usize = 4096;

/// Why a reader is let go.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("no request came")]
    NoRequest,
    #[error(transparent)]
    Malformed(#[from] FrameError),
    #[error("it took nothing for {} s", STUCK_AFTER.as_secs())]
    Stuck,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves readers until `stop`.
pub async fn serve(listener: TcpListener, shard: Arc<Shard>, stop: CancellationToken) -> Result<(), Infallible> {
    let metrics = shard.metrics().clone();
    net::serve(listener, MAX_READERS, metrics, stop, move |socket, remote| connection(socket, remote, shard.clone())).await
}

async fn connection(mut socket: TcpStream, remote: SocketAddr, shard: Arc<Shard>) {
    if let Err(error) = read_run(&mut socket, remote, &shard).await {
        tracing::info!(%remote, %error, "a reader is let go");
    }
}

async fn read_run(socket: &mut TcpStream, remote: SocketAddr, shard: &Shard) -> Result<(), FeedError> {
    let request = tokio::time::timeout(ASK_WITHIN, request(socket)).await.map_err(|_| FeedError::NoRequest)??;
    let _counted = Counted::up(&shard.metrics().feed_readers);
    let run = match shard.run(&request.run) {
        Ok(run) => run,
        Err(closing) => return write(socket, &[FeedFrame::Refused { reason: closing.to_string() }], &mut BytesMut::new()).await,
    };
    tracing::info!(%remote, run = %run.id(), from = request.from.map(tracing::field::display), "a reader came");
    let mut reader = run.reader(request.from);
    let mut bytes = BytesMut::new();
    loop {
        let batch = tokio::select! {
            batch = reader.next() => batch,
            gone = hung_up(socket) => return gone,
        };
        write(socket, &batch.frames, &mut bytes).await?;
        if batch.last {
            return Ok(socket.shutdown().await?);
        }
    }
}

async fn request(socket: &mut TcpStream) -> Result<FeedRequest, FeedError> {
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

/// Writes frames in one go. `bytes` is a buffer to use again.
async fn write(socket: &mut TcpStream, frames: &[FeedFrame], bytes: &mut BytesMut) -> Result<(), FeedError> {
    bytes.clear();
    frames.iter().for_each(|frame| frame.encode(bytes));
    tokio::time::timeout(STUCK_AFTER, socket.write_all(bytes)).await.map_err(|_| FeedError::Stuck)??;
    Ok(())
}
