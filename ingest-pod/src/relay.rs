//! The relay: any shard accepts a publisher, the owner serves it. Both ends of `lectern_contract::relay`.

use crate::handover::{self, Baggage, Pieces, Tag, Untaken};
use crate::net;
use crate::routes::{Route, RouteTable};
use crate::shard::{Admission, Shard};
use crate::stream::{Closing, Heritage, Publication, PublishError};
use bytes::BytesMut;
use lectern_contract::frame::FrameError;
use lectern_contract::relay::{Asked, RelayFrame};
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
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Relayed publishers at once.
const MAX_RELAYED: usize = 8_192;
/// How long the owner may take to answer, and the accepting shard to say hello.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection to the owner may take, which is of the same cluster: one whose node is gone refuses nothing, and until it is given up nobody is told that its
/// stream needs another.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// How long the owner waits for its routes to become as new as those of the accepting shard: both watch the same slices, so
/// one lags the other by moments. Less than [`ANSWER_WITHIN`], or nobody would hear the answer.
const CATCH_UP: Duration = Duration::from_secs(3);
/// An owner that takes nothing for so long is taken for dead.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How often an owner says what it has taken.
const TELL_TAKEN: Duration = Duration::from_millis(200);
/// How long the last words of an owner may take that closes the connection.
const LAST_WORDS: Duration = Duration::from_secs(1);
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
    /// What the next owner may need; `None` where this one says nothing of what it takes.
    untaken: Option<Untaken>,
    pieces: Pieces,
    heritage: Option<Heritage>,
}

impl Forward {
    /// Connects to the owner of `route` and asks to publish; `remote` is the publisher's address.
    pub async fn open(owners: &Owners, route: &Route, key: &KeyHash, (remote, asked): (&str, Asked)) -> Result<Self, RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: route.shard.clone(), source };
        timeout(ANSWER_WITHIN, Self::ask(owners, route, key, (remote, asked)))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
    }

    async fn ask(owners: &Owners, route: &Route, key: &KeyHash, (remote, asked): (&str, Asked)) -> Result<Self, RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: route.shard.clone(), source };
        let connected = timeout(CONNECT_WITHIN, owners.connect(&route.shard)).await;
        let socket = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        let mut forward = Self {
            owner: route.shard.clone(),
            socket,
            out: BytesMut::new(),
            input: BytesMut::new(),
            untaken: None,
            pieces: Pieces::default(),
            heritage: None,
        };
        let (key, stream, remote) = (key.clone(), route.stream.clone(), remote.to_owned());
        RelayFrame::Hello { key, stream, epoch: route.epoch, remote, asked, heirs: true }.encode(&mut forward.out);
        forward.flush().await?;
        match forward.answer().await? {
            RelayFrame::Accepted { heirs } => {
                forward.untaken = heirs.then(Untaken::default);
                Ok(forward)
            }
            RelayFrame::Refused { reason } => Err(RelayError::Refused(reason)),
            RelayFrame::NotMine { reason } => Err(RelayError::NotTheOwner(reason)),
            _ => Err(RelayError::Refused("the owning shard gave no verdict".to_owned())),
        }
    }

    /// Queues a tag.
    pub fn tag(&mut self, tag: Tag) {
        RelayFrame::Tag { kind: tag.kind, timestamp: tag.timestamp, payload: tag.payload.clone() }.encode(&mut self.out);
        if let Some(untaken) = &mut self.untaken {
            untaken.sent(tag);
        }
    }

    /// Queues what the owner before has handed over, for an owner that can go on with it.
    pub fn hand_over(&mut self, baggage: Baggage) {
        if self.untaken.is_some() {
            handover::frames(&baggage.heritage).for_each(|frame| frame.encode(&mut self.out));
            baggage.tags.into_iter().for_each(|tag| self.tag(tag));
        }
    }

    /// What the next owner goes on with, once this one has said that it lost the stream.
    pub fn baggage(self) -> Option<Baggage> {
        let tags = self.untaken.map(Untaken::into_tags)?;
        Some(Baggage { heritage: self.heritage?, tags })
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
        loop {
            match self.answer().await {
                Ok(RelayFrame::Taken { tags }) => self.untaken.iter_mut().for_each(|untaken| untaken.taken(tags)),
                Ok(RelayFrame::Past { frames }) if self.pieces.add(&frames) => {}
                Ok(RelayFrame::Heritage(timeline)) => self.heritage = Some(self.pieces.close(timeline)),
                Ok(RelayFrame::Refused { reason }) => return RelayError::Refused(reason),
                Ok(RelayFrame::NotMine { reason }) => return RelayError::NotTheOwner(reason),
                Ok(_) => return RelayError::Refused("the owning shard sent what it must not".to_owned()),
                Err(error) => return error,
            }
        }
    }

    /// What the owner said last, where nothing can be sent to it any more: that came of `error`, unless it tells of more.
    pub async fn last_words(&mut self, error: RelayError) -> RelayError {
        match timeout(LAST_WORDS, self.closing()).await {
            Ok(said @ (RelayError::Refused(_) | RelayError::NotTheOwner(_))) => said,
            _ => error,
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

/// Takes publishers from other shards, `peers`, until `stop`: the owner's end. They are counted in `open`.
pub fn serve(listener: TcpListener, shard: Arc<Shard>, peers: PeerTls, open: net::Open, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        let metrics = shard.metrics().clone();
        let handle = move |socket, peer| connection(socket, peer, shard.clone(), peers.clone());
        net::serve(listener, MAX_RELAYED, metrics, (stop, &open), handle).await
    })
}

async fn connection(socket: TcpStream, peer: SocketAddr, shard: Arc<Shard>, peers: PeerTls) {
    let mut socket = match timeout(ANSWER_WITHIN, peers.accept(socket, PeerRole::Ingest)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return tracing::info!(%peer, %error, "a relay connection is not let in"),
        Err(_) => return tracing::info!(%peer, "a relay connection shook no hands"),
    };
    let mut input = BytesMut::new();
    let last = match timeout(ANSWER_WITHIN, hello(&mut socket, &mut input)).await {
        Err(_) | Ok(None) => return tracing::info!(%peer, "a relay connection said no hello"),
        Ok(Some(hello)) => match admit(&shard, &hello).await {
            Ok(publication) => match send(&mut socket, &[RelayFrame::Accepted { heirs: true }]).await {
                Ok(()) => receive(&mut socket, &mut input, publication, hello.heirs).await,
                Err(_) => None,
            },
            Err(verdict) => Some(Last { verdict, before: Vec::new() }),
        },
    };
    if let Some(Last { verdict, before }) = last {
        tracing::info!(%peer, ?verdict, handed_over = before.len(), "a relayed publisher is turned away");
        // What is said last is a courtesy: a shard that is gone needs none.
        let said: Vec<RelayFrame> = before.into_iter().chain([verdict]).collect();
        let _ = send(&mut socket, &said).await;
        net::farewell(&mut socket).await;
    }
}

/// What the accepting shard is told last.
struct Last {
    verdict: RelayFrame,
    /// What goes before it: what the next owner needs.
    before: Vec<RelayFrame>,
}

impl Last {
    fn refused(reason: impl Into<String>) -> Option<Self> {
        Some(Self { verdict: RelayFrame::Refused { reason: reason.into() }, before: Vec::new() })
    }

    /// The run is closed here. `tags`: so many of the publisher's were taken; `None` where the accepting shard has no use for a heritage.
    fn closed(closing: &Closing, publication: &Publication, tags: Option<u64>) -> Option<Self> {
        let heritage = tags.and_then(|tags| Some((tags, publication.heritage()?)));
        let before = heritage.map(|(tags, heritage)| [RelayFrame::Taken { tags }].into_iter().chain(handover::frames(&heritage)).collect());
        Some(Self { verdict: told(closing), before: before.unwrap_or_default() })
    }
}

/// What another shard's publisher wants.
struct Hello {
    key: KeyHash,
    stream: StreamRef,
    epoch: Epoch,
    remote: String,
    asked: Asked,
    heirs: bool,
}

/// The first frame; `None` if it is something else or does not come.
async fn hello(socket: &mut PeerStream, input: &mut BytesMut) -> Option<Hello> {
    loop {
        match RelayFrame::decode(input).ok()? {
            Some(RelayFrame::Hello { key, stream, epoch, remote, asked, heirs }) => {
                return Some(Hello { key, stream, epoch, remote, asked, heirs });
            }
            Some(_) => return None,
            None if socket.read_buf(input).await.ok()? == 0 => return None,
            None => {}
        }
    }
}

/// The publication, or what the other shard is told instead.
async fn admit(shard: &Shard, hello: &Hello) -> Result<Publication, RelayFrame> {
    catch_up(shard, hello).await?;
    let admission = shard.admit(&hello.key, &hello.remote, hello.asked).map_err(|refusal| {
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

/// Takes tags until the publisher leaves or has to; `Some` is what the other shard is to be told, one that is for `heirs` where it understands
/// what an owner hands over.
async fn receive(socket: &mut PeerStream, input: &mut BytesMut, mut publication: Publication, heirs: bool) -> Option<Last> {
    let (mut taken, mut told_of, mut told_at, mut pieces) = (0, 0, Instant::now(), Pieces::default());
    loop {
        loop {
            match RelayFrame::decode(input) {
                Ok(Some(RelayFrame::Tag { kind, timestamp, payload })) => match publication.tag(kind, timestamp, payload) {
                    Ok(()) => taken += 1,
                    Err(PublishError::Closed(closing)) => {
                        let last = Last::closed(&closing, &publication, heirs.then_some(taken));
                        publication.leave(closing.to_string());
                        return last;
                    }
                    Err(error) => {
                        publication.leave(error.to_string());
                        return Last::refused(error.to_string());
                    }
                },
                Ok(Some(RelayFrame::Past { frames })) if pieces.add(&frames) => {}
                Ok(Some(RelayFrame::Heritage(timeline))) => publication.inherit(&pieces.close(timeline)),
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    publication.leave("the relaying shard broke the protocol");
                    return Last::refused("the relay protocol was broken");
                }
            }
        }
        if heirs && taken > told_of && told_at.elapsed() >= TELL_TAKEN {
            (told_of, told_at) = (taken, Instant::now());
            if let Err(error) = send(socket, &[RelayFrame::Taken { tags: taken }]).await {
                publication.leave(format!("the relaying shard was lost: {error}"));
                return None;
            }
        }
        // One buffer's worth at a time: a slice of it is kept as long as its tag is.
        input.reserve(64 * 1024);
        tokio::select! {
            closing = publication.closing() => return Last::closed(&closing, &publication, heirs.then_some(taken)),
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
                    return Last::refused("nothing came for too long");
                }
            },
        }
    }
}

async fn send(socket: &mut PeerStream, frames: &[RelayFrame]) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
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
