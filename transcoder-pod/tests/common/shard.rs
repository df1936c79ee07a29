//! A shard's feed for tests: a lecture in memory, given out at the pace of its stamps.

use bytes::BytesMut;
use lectern_contract::feed::{FeedFrame, FeedRequest, Track};
use lectern_contract::{Epoch, Ticks};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Serves `frames` from now on, then the end of the run.
pub async fn serve(frames: Vec<FeedFrame>) -> SocketAddr {
    serve_begun(frames, Instant::now()).await
}

/// The same of a lecture whose first frame came when it `began`.
pub async fn serve_begun(frames: Vec<FeedFrame>, began: Instant) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let frames = Arc::new(frames);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(reader(socket, frames.clone(), began));
        }
    });
    address
}

async fn reader(mut socket: TcpStream, frames: Arc<Vec<FeedFrame>>, began: Instant) -> std::io::Result<()> {
    let mut input = BytesMut::new();
    let request = loop {
        if let Some(request) = FeedRequest::decode(&mut input).unwrap() {
            break request;
        }
        if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    };
    send(&mut socket, &FeedFrame::Serving { epoch: Epoch(1) }).await?;
    let first = dts(&frames, 0);
    let now = Ticks(first.0 + began.elapsed().as_millis() as u64 * 90);
    let from = request.from.unwrap_or(now);
    let key =
        |frame: &FeedFrame| matches!(frame, FeedFrame::AccessUnit(unit) if unit.track == Track::Video && unit.keyframe && unit.dts <= from);
    let start = frames.iter().rposition(key).unwrap_or(0);
    for (at, frame) in frames.iter().enumerate() {
        if at < start && !matches!(frame, FeedFrame::Config { .. }) {
            continue;
        }
        tokio::time::sleep_until(began + Duration::from_millis(dts(&frames, at).since(first).as_millis())).await;
        send(&mut socket, frame).await?;
    }
    send(&mut socket, &FeedFrame::End).await?;
    let _ = socket.read_buf(&mut input).await;
    Ok(())
}

/// The decode time of the first unit at or after `at`.
fn dts(frames: &[FeedFrame], at: usize) -> Ticks {
    let unit = frames[at..].iter().find_map(|frame| if let FeedFrame::AccessUnit(unit) = frame { Some(unit.dts) } else { None });
    unit.unwrap_or_default()
}

async fn send(socket: &mut TcpStream, frame: &FeedFrame) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    socket.write_all(&bytes).await
}
