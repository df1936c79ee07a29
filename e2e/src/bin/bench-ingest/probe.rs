//! Questions to a server under load, from the process that makes the load, so that all times are of one clock.

use crate::client::Client;
use crate::load::Told;
use crate::message::{counter, counter_of_tag};
use crate::names::{key, run};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use lectern_contract::feed::{FeedFrame, FeedRequest, Track};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nobody waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Readers that join at the same time.
const AT_ONCE: usize = 4;
/// Where probes connect from.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

/// Who hands out what is published.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// The shard's feed.
    Feed(SocketAddr),
    /// An RTMP server that plays.
    Play(SocketAddr),
}

/// Publishes these spare streams one after the other; milliseconds from `publish` to its answer.
pub async fn accepted(rtmp: SocketAddr, spare: Range<usize>) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for publisher in spare {
        let publish = async { Client::connect(rtmp, FROM, 4096).await?.publish(&key(publisher)).await };
        all.push(millis(timeout(PATIENCE, publish).await.context("no publish was accepted in time")??));
    }
    Ok(all)
}

/// Joins these streams; milliseconds from the request to the first whole keyframe.
pub async fn joined(door: Door, streams: Vec<usize>) -> Result<Vec<f64>> {
    let join = |publisher| async move {
        let (mut reader, asked) = Reader::open(door, publisher).await?;
        loop {
            let (pictures, at) = reader.pictures().await?;
            if pictures.iter().any(|picture| picture.keyframe) {
                return Ok::<_, anyhow::Error>(millis(at - asked));
            }
        }
    };
    let all = stream::iter(streams).map(join).buffer_unordered(AT_ONCE).try_collect();
    timeout(PATIENCE, all).await.context("no keyframe came in time")?
}

/// Reads these watched streams for so long; for every picture the milliseconds from its writing to its coming out.
pub async fn delayed(door: Door, streams: &[usize], span: Duration, told: &Told) -> Result<Vec<f64>> {
    let follow = |publisher: usize| async move {
        let (mut reader, _) = Reader::open(door, publisher).await?;
        reader.pictures().await?;
        let begun = Instant::now();
        let mut delays = Vec::new();
        while begun.elapsed() < span {
            let (pictures, at) = reader.pictures().await?;
            let written = pictures.iter().filter_map(|picture| told.written(publisher, picture.counter?));
            // What was written before is the past that every reader gets at once.
            delays.extend(written.filter(|written| *written > begun).map(|written| millis(at.saturating_duration_since(written))));
        }
        Ok::<_, anyhow::Error>(delays)
    };
    let all = stream::iter(streams.iter().copied()).map(follow).buffer_unordered(streams.len().max(1)).try_concat();
    let all: Vec<f64> = timeout(span + PATIENCE, all).await.context("the followed streams came to a stop")??;
    ensure!(!all.is_empty(), "no picture came out that had gone in");
    Ok(all)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

struct Picture {
    keyframe: bool,
    counter: Option<u64>,
}

enum Reader {
    Feed { socket: TcpStream, input: BytesMut },
    Play(Box<Client>),
}

impl Reader {
    /// A reader of this stream, and when it asked.
    async fn open(door: Door, publisher: usize) -> Result<(Self, Instant)> {
        match door {
            Door::Feed(address) => {
                let mut socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                let mut request = BytesMut::new();
                FeedRequest::newest(run(publisher)).encode(&mut request);
                let asked = Instant::now();
                socket.write_all(&request).await?;
                Ok((Self::Feed { socket, input: BytesMut::with_capacity(1 << 20) }, asked))
            }
            Door::Play(address) => {
                let mut client = Client::connect(address, FROM, 4096).await?;
                let asked = client.play(&key(publisher)).await?;
                Ok((Self::Play(Box::new(client)), asked))
            }
        }
    }

    /// The next pictures, at least one, and when they were there in full.
    async fn pictures(&mut self) -> Result<(Vec<Picture>, Instant)> {
        match self {
            Self::Play(client) => {
                let bodies = client.pictures().await?;
                let at = Instant::now();
                let picture = |body: &bytes::Bytes| Picture { keyframe: body.starts_with(&[0x17, 1]), counter: counter_of_tag(body) };
                Ok((bodies.iter().map(picture).collect(), at))
            }
            Self::Feed { socket, input } => loop {
                let mut pictures = Vec::new();
                let at = Instant::now();
                while let Some(frame) = FeedFrame::decode(input)? {
                    match frame {
                        FeedFrame::AccessUnit(unit) if unit.track == Track::Video => {
                            pictures.push(Picture { keyframe: unit.keyframe, counter: counter(&unit.payload) });
                        }
                        FeedFrame::Refused { reason } => bail!("the feed refuses: {reason}"),
                        FeedFrame::Gap { reason, .. } => bail!("the feed has a gap: {reason}"),
                        _ => {}
                    }
                }
                if !pictures.is_empty() {
                    return Ok((pictures, at));
                }
                ensure!(socket.read_buf(input).await? > 0, "the feed was closed");
            },
        }
    }
}
