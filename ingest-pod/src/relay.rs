//! The relay: any shard accepts a publisher, the owner serves it. Both ends of `lectern_contract::relay`.

use crate::net;
use crate::routes::{Route, RouteTable};
use crate::shard::{Admission, Shard};
use crate::stream::{Closing, Publication, PublishError};
use bytes::{Bytes, BytesMut};
use lectern_contract::frame::FrameError;
use lectern_contract::relay::{Coming, RelayFrame};
use lectern_contract::{Epoch, KeyHash, ShardName, StreamRef};
use lectern_podkit::Task;
use lectern_podkit::tls::{PeerRole, PeerStream, PeerTls};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Relayed publishers at once.
const MAX_RELAYED: usize = 8_192;
/// How long the owner may take to answer, and the accepting shard to say hello.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long the owner waits for its routes to become as new as those of the accepting shard: both watch the same slices, so
/// one lags the other by moments. Less than [`ANSWER_WITHIN`], or nobody would hear the answer.
const CATCH_UP: Duration = Duration::from_secs(3);
/// An owner that takes nothing for so long is taken for dead.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// As for a publisher of the shard's own.
const IDLE: Duration = crate::rtmp::IDLE;

/// How the owners of other streams are reached, and how peers are let in.
#[derive(Debug, Clone)]
pub struct Owners {
    relay: String,
    feed: String,
    peers: PeerTls,
}

impl RelayError {
    /// Whether another owner, or the same one a little later, may well take the publisher.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotTheOwner(_))
    }
}

impl Owners {
    /// Addresses of relay and feed by templates, `host:port` with `{shard}` in it; `peers` is this shard's end of
    /// connections to and from them.
    pub fn new(relay: String, feed: String, peers: PeerTls) -> Self {
        Self { relay, feed, peers }
    }

    /// Where the shard's feed is served, for its readers: `host:port`.
    pub fn feed(&self, shard: &ShardName) -> String {
        self.feed.replace("{shard}", &shard.0)
    }

    /// This shard's end of connections to other pods.
    pub fn peers(&self) -> &PeerTls {
        &self.peers
    }

    async fn connect(&self, shard: &ShardName) -> io::Result<PeerStream> {
        self.peers.connect(&self.relay.replace("{shard}", &shard.0), PeerRole::Ingest).await
    }
}

/// Why a publisher cannot be handed on.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The owner cannot be reached, or did not answer in time.
    #[error("shard {shard}, which owns the stream, cannot be reached: {source}")]
    Unreachable {
        /// The owner.
        shard: ShardName,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The owner said no.
    #[error("{0}")]
    Refused(String),
    /// The shard that was taken for the owner does not own the stream, or no more.
    #[error("{0}")]
    NotTheOwner(String),
    /// The owner's answer is no answer.
    #[error("the owning shard speaks another protocol: {0}")]
    Protocol(#[from] FrameError),
}

/// A publisher that is handed on: the accepting shard's end.
#[derive(Debug)]
pub struct Forward {
    owner: ShardName,
    socket: PeerStream,
    out: BytesMut,
    input: BytesMut,
}

impl Forward {
    /// Connects to the owner of `route` and asks to publish; `remote` is the publisher's address.
    pub async fn open(owners: &Owners, route: &Route, key: &KeyHash, (remote, coming): (&str, Coming)) -> Result<Self, RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: route.shard.clone(), source };
        timeout(ANSWER_WITHIN, Self::ask(owners, route, key, (remote, coming)))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
    }

    async fn ask(owners: &Owners, route: &Route, key: &KeyHash, (remote, coming): (&str, Coming)) -> Result<Self, RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: route.shard.clone(), source };
        let socket = owners.connect(&route.shard).await.map_err(unreachable)?;
        let mut forward = Self { owner: route.shard.clone(), socket, out: BytesMut::new(), input: BytesMut::new() };
        let hello =
            RelayFrame::Hello { key: key.clone(), stream: route.stream.clone(), epoch: route.epoch, remote: remote.to_owned(), coming };
        hello.encode(&mut forward.out);
        forward.flush().await?;
        match forward.answer().await? {
            RelayFrame::Accepted => Ok(forward),
            RelayFrame::Refused { reason } => Err(RelayError::Refused(reason)),
            RelayFrame::NotMine { reason } => Err(RelayError::NotTheOwner(reason)),
            _ => Err(RelayError::Refused("the owning shard gave no verdict".to_owned())),
        }
    }

    /// Queues an FLV tag body as it came.
    pub fn tag(&mut self, kind: u8, timestamp: u32, payload: Bytes) {
        RelayFrame::Tag { kind, timestamp, payload }.encode(&mut self.out);
    }

    /// Sends what is queued. A slow owner slows the publisher, as it would without a relay in between.
    pub async fn flush(&mut self) -> Result<(), RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: self.owner.clone(), source };
        put(&mut self.socket, &self.out).await.map_err(unreachable)?;
        self.out.clear();
        Ok(())
    }

    /// Waits until the owner ends the relay, and says why. May be cancelled and called again.
    pub async fn closing(&mut self) -> RelayError {
        match self.answer().await {
            Ok(RelayFrame::Refused { reason }) => RelayError::Refused(reason),
            Ok(RelayFrame::NotMine { reason }) => RelayError::NotTheOwner(reason),
            Ok(_) => RelayError::Refused("the owning shard sent what it must not".to_owned()),
            Err(error) => error,
        }
    }

    async fn answer(&mut self) -> Result<RelayFrame, RelayError> {
        loop {
            if let Some(frame) = RelayFrame::decode(&mut self.input)? {
                return Ok(frame);
            }
            let read = self.socket.read_buf(&mut self.input).await;
            let read = read.and_then(|count| if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) });
            read.map_err(|source| RelayError::Unreachable { shard: self.owner.clone(), source })?;
        }
    }
}

/// Takes publishers from other shards, `peers`, until `stop`: the owner's end.
pub fn serve(listener: TcpListener, shard: Arc<Shard>, peers: PeerTls, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        let metrics = shard.metrics().clone();
        let handle = move |socket, peer| connection(socket, peer, shard.clone(), peers.clone());
        net::serve(listener, MAX_RELAYED, metrics, stop, handle).await
    })
}

async fn connection(socket: TcpStream, peer: SocketAddr, shard: Arc<Shard>, peers: PeerTls) {
    let mut socket = match timeout(ANSWER_WITHIN, peers.accept(socket, PeerRole::Ingest)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return tracing::info!(%peer, %error, "a relay connection is not let in"),
        Err(_) => return tracing::info!(%peer, "a relay connection shook no hands"),
    };
    let mut input = BytesMut::new();
    let verdict = match timeout(ANSWER_WITHIN, hello(&mut socket, &mut input)).await {
        Err(_) | Ok(None) => return tracing::info!(%peer, "a relay connection said no hello"),
        Ok(Some(hello)) => match admit(&shard, &hello).await {
            Ok(publication) => match send(&mut socket, &RelayFrame::Accepted).await {
                Ok(()) => receive(&mut socket, &mut input, publication).await,
                Err(_) => None,
            },
            Err(verdict) => Some(verdict),
        },
    };
    if let Some(verdict) = verdict {
        tracing::info!(%peer, ?verdict, "a relayed publisher is turned away");
        // The verdict is a courtesy: a shard that is gone needs none.
        let _ = send(&mut socket, &verdict).await;
        net::farewell(&mut socket).await;
    }
}

/// What another shard's publisher wants.
struct Hello {
    key: KeyHash,
    stream: StreamRef,
    epoch: Epoch,
    remote: String,
    coming: Coming,
}

/// The first frame; `None` if it is something else or does not come.
async fn hello(socket: &mut PeerStream, input: &mut BytesMut) -> Option<Hello> {
    loop {
        match RelayFrame::decode(input).ok()? {
            Some(RelayFrame::Hello { key, stream, epoch, remote, coming }) => return Some(Hello { key, stream, epoch, remote, coming }),
            Some(_) => return None,
            None if socket.read_buf(input).await.ok()? == 0 => return None,
            None => {}
        }
    }
}

/// The publication, or what the other shard is told instead.
async fn admit(shard: &Shard, hello: &Hello) -> Result<Publication, RelayFrame> {
    catch_up(shard, hello).await?;
    let admission = shard.admit(&hello.key, &hello.remote, hello.coming).map_err(|refusal| {
        shard.metrics().refuse(refusal.reason());
        RelayFrame::Refused { reason: refusal.to_string() }
    })?;
    match admission {
        // Handing on once more could go in circles while two shards know different routes.
        Admission::Elsewhere(route) => Err(told(&Closing::Moved(route.shard))),
        Admission::Here(publication) if *publication.run().stream() != hello.stream => {
            publication.leave("the relaying shard meant another stream");
            Err(RelayFrame::NotMine { reason: "the owning shard knows this key for another stream".to_owned() })
        }
        Admission::Here(publication) => Ok(publication),
    }
}

/// Waits until this shard's routes are as new as those of the shard that says hello. An unknown key passes: it is refused as
/// any other.
async fn catch_up(shard: &Shard, hello: &Hello) -> Result<(), RelayFrame> {
    let mut routes = shard.routes();
    let epoch = |table: &RouteTable| table.by_key(&hello.key).map(|(route, _)| route.epoch);
    // Those of now count where they do not catch up in time.
    let _ = timeout(CATCH_UP, routes.wait_for(|table| epoch(table) >= Some(hello.epoch))).await;
    let (known, meant) = (epoch(&routes.borrow()), hello.epoch);
    let reason = match known {
        Some(known) if known < meant => format!("the owning shard knows epoch {known} of the stream only, not yet {meant}"),
        Some(known) if known > meant => format!("the stream is in epoch {known}, and the relaying shard knows {meant} only"),
        _ => return Ok(()),
    };
    Err(RelayFrame::NotMine { reason })
}

/// What the other shard is told of a publication that is closed.
fn told(closing: &Closing) -> RelayFrame {
    let reason = closing.to_string();
    match closing {
        Closing::Moved(_) => RelayFrame::NotMine { reason },
        _ => RelayFrame::Refused { reason },
    }
}

/// Takes tags until the publisher leaves or has to; `Some` is what the other shard is to be told.
async fn receive(socket: &mut PeerStream, input: &mut BytesMut, mut publication: Publication) -> Option<RelayFrame> {
    loop {
        loop {
            match RelayFrame::decode(input) {
                Ok(Some(RelayFrame::Tag { kind, timestamp, payload })) => {
                    if let Err(error) = publication.tag(kind, timestamp, payload) {
                        publication.leave(error.to_string());
                        return Some(match error {
                            PublishError::Closed(closing) => told(&closing),
                            other => RelayFrame::Refused { reason: other.to_string() },
                        });
                    }
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    publication.leave("the relaying shard broke the protocol");
                    return Some(RelayFrame::Refused { reason: "the relay protocol was broken".to_owned() });
                }
            }
        }
        // One buffer's worth at a time: a slice of it is kept as long as its tag is.
        input.reserve(64 * 1024);
        tokio::select! {
            closing = publication.closing() => return Some(told(&closing)),
            read = timeout(IDLE, socket.read_buf(input)) => match read {
                Ok(Ok(0)) => {
                    publication.leave("the publisher left");
                    return None;
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    publication.leave(format!("the relaying shard was lost: {error}"));
                    return None;
                }
                Err(_) => {
                    publication.leave(format!("nothing came for {} s", IDLE.as_secs()));
                    return Some(RelayFrame::Refused { reason: "nothing came for too long".to_owned() });
                }
            },
        }
    }
}

async fn send(socket: &mut PeerStream, frame: &RelayFrame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    put(socket, &bytes).await
}

/// Writes all of `bytes`, to the end: TLS keeps back what it could not send at once, until it is flushed.
async fn put(socket: &mut PeerStream, bytes: &[u8]) -> io::Result<()> {
    let sent = timeout(STUCK_AFTER, async {
        socket.write_all(bytes).await?;
        socket.flush().await
    });
    sent.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
