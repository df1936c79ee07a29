//! The push server: hands [`Live`] to the origins that connect.

use super::Live;
use bytes::BytesMut;
use lectern_contract::push::PushRequest;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Who connects must say what it wants within this.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// A request is a run's name; more is nobody's.
const LARGEST_REQUEST: usize = 4096;
/// What is still on its way when the child ends gets this long.
const LINGER: Duration = Duration::from_secs(2);

/// Serves until `stop`, then lets what was said last go out.
pub async fn serve(listener: TcpListener, live: Live, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(connection(socket, live.clone()))),
                // Out of file descriptors, or the peer left at once: neither passes by trying without a pause.
                Err(error) => {
                    tracing::warn!(%error, "an origin cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    let _ = tokio::time::timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(socket: TcpStream, live: Live) {
    let peer = socket.peer_addr().ok();
    if let Err(error) = feed(socket, live).await {
        tracing::debug!(?peer, %error, "an origin is gone");
    }
}

async fn feed(mut socket: TcpStream, live: Live) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let request = tokio::time::timeout(REQUEST_WITHIN, request(&mut socket)).await??;
    let (now, later) = live.subscribe(&request.run);
    socket.write_all(&now).await?;
    let Some(mut later) = later else { return socket.shutdown().await };
    let mut nothing = [0; 1];
    loop {
        let sent = tokio::select! {
            sent = later.recv() => sent,
            _ = socket.read(&mut nothing) => return Ok(()), // it hung up, or says what nobody asked for
        };
        match sent {
            Some(mut sent) => socket.write_all_buf(&mut sent).await?,
            None => return socket.shutdown().await,
        }
    }
}

async fn request(socket: &mut TcpStream) -> io::Result<PushRequest> {
    let mut input = BytesMut::with_capacity(256);
    loop {
        if socket.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match PushRequest::decode(&mut input) {
            Ok(Some(request)) => return Ok(request),
            Ok(None) if input.len() < LARGEST_REQUEST => {}
            Ok(None) => return Err(io::Error::other("a request of over 4 KiB")),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}
