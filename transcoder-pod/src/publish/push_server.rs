//! The push server: hands [`Live`] to the origins that connect, and the run to a successor.

use super::{Answer, Live};
use bytes::BytesMut;
use lectern_contract::RunId;
use lectern_contract::frame::MAX_FRAME;
use lectern_contract::push::{ALIVE_EVERY, PushFrame, PushRequest};
use lectern_podkit::tls::{PeerRole, PeerStream, PeerTls};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Who connects must say what it wants within this.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// A request is a run's name; more is nobody's, but for an origin that says what it holds.
const LARGEST_REQUEST: usize = 4096;
/// Segments that an origin may say that it holds: more than it does hold.
const MOST_HELD: usize = 512;
/// What is still on its way when the child ends gets this long.
const LINGER: Duration = Duration::from_secs(2);

/// Serves the origins and transcoders among `peers` until `stop`, then lets what was said last go out.
pub async fn serve(listener: TcpListener, live: Live, peers: PeerTls, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(connections.spawn(connection(socket, live.clone(), peers.clone()))),
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

async fn connection(socket: TcpStream, live: Live, peers: PeerTls) {
    let peer = socket.peer_addr().ok();
    if let Err(error) = answer(socket, live, peers).await {
        tracing::debug!(?peer, %error, "an origin or a transcoder is gone");
    }
}

async fn answer(socket: TcpStream, live: Live, peers: PeerTls) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let accepted = peers.accept_one_of(socket, &[PeerRole::Origin, PeerRole::Transcoder]);
    let (mut socket, role) = tokio::time::timeout(REQUEST_WITHIN, accepted).await?.map_err(io::Error::other)?;
    let (mut input, mut anew) = (BytesMut::with_capacity(256), Vec::new());
    let largest = if role == Some(PeerRole::Transcoder) { LARGEST_REQUEST } else { MAX_FRAME };
    for _ in 0..=MOST_HELD {
        match tokio::time::timeout(REQUEST_WITHIN, request(&mut socket, &mut input, largest)).await?? {
            PushRequest::Holds { .. } if role == Some(PeerRole::Transcoder) => return Err(io::Error::other("a transcoder is no origin")),
            PushRequest::Holds { run, held } => {
                let (rendition, number) = (held.rendition.clone(), held.number);
                if !live.inherit(&run, held) {
                    anew.push(PushFrame::Anew { rendition, number });
                }
            }
            PushRequest::Objects(run) if role == Some(PeerRole::Transcoder) => {
                let answer = tokio::time::timeout(REQUEST_WITHIN, live.owner_of(&run)).await?;
                tell(&mut socket, &answer).await?;
                return socket.shutdown().await;
            }
            PushRequest::Objects(run) => return objects(socket, live, &run, &anew).await,
            PushRequest::HandOver(_) if role == Some(PeerRole::Origin) => return Err(io::Error::other("an origin is no successor")),
            PushRequest::HandOver(run) => return hand_over(socket, live, &run).await,
        }
    }
    Err(io::Error::other("an origin holds more segments than it can"))
}

/// Tells a successor that it has to wait, and then where it goes on; it sees by the connection's end that the run can be claimed.
async fn hand_over(mut socket: PeerStream, live: Live, run: &RunId) -> io::Result<()> {
    let mut nothing = [0; 1];
    let handing_over = live.hand_over(run);
    tokio::pin!(handing_over);
    let answer = loop {
        tokio::select! {
            answer = &mut handing_over => break answer,
            () = tokio::time::sleep(ALIVE_EVERY) => tell_serving(&mut socket, &live).await?,
            _ = socket.read(&mut nothing) => return Ok(()), // as in `objects`
        }
    };
    match answer {
        Answer::HandingOver(at) => tell(&mut socket, &PushFrame::HandingOver { at }).await?,
        Answer::Done => {}
        Answer::Refused => {
            tell(&mut socket, &PushFrame::Refused { reason: format!("this packager does not hand run {run} over") }).await?;
            return socket.shutdown().await;
        }
    }
    live.closed().await;
    socket.shutdown().await
}

async fn tell_serving(socket: &mut PeerStream, live: &Live) -> io::Result<()> {
    match live.serving() {
        Some(epoch) => tell(socket, &PushFrame::Serving { epoch }).await,
        None => Ok(()),
    }
}

async fn tell(socket: &mut PeerStream, frame: &PushFrame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    socket.write_all(&bytes).await?;
    socket.flush().await
}

/// Sends what there is and what comes of it; before that, what of the origin's is made `anew`.
async fn objects(mut socket: PeerStream, live: Live, run: &RunId, anew: &[PushFrame]) -> io::Result<()> {
    let (now, later) = live.subscribe(run);
    let mut first = BytesMut::new();
    anew.iter().for_each(|frame| frame.encode(&mut first));
    socket.write_all(&first).await?;
    socket.write_all(&now).await?;
    socket.flush().await?;
    let Some(mut later) = later else { return socket.shutdown().await };
    let mut nothing = [0; 1];
    loop {
        let sent = tokio::select! {
            sent = later.recv() => sent,
            () = tokio::time::sleep(ALIVE_EVERY) => {
                tell_serving(&mut socket, &live).await?;
                continue;
            }
            _ = socket.read(&mut nothing) => return Ok(()), // it hung up, or says what nobody asked for
        };
        match sent {
            Some(mut sent) => {
                socket.write_all_buf(&mut sent).await?;
                socket.flush().await?;
            }
            None => return socket.shutdown().await,
        }
    }
}

/// The next request, of at most `largest` bytes.
async fn request(socket: &mut PeerStream, input: &mut BytesMut, largest: usize) -> io::Result<PushRequest> {
    loop {
        match PushRequest::decode(input) {
            Ok(Some(request)) => return Ok(request),
            Ok(None) if input.len() <= largest.saturating_add(4) => {}
            Ok(None) => return Err(io::Error::other(format!("a request of over {largest} bytes"))),
            Err(error) => return Err(io::Error::other(error)),
        }
        if socket.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
