//! The relay: any shard accepts a publisher, the owner serves it. Both ends of `lectern_contract::relay`.

use crate::net;
use crate::routes::Route;
use crate::shard::{Admission, Shard};
use crate::stream::Publication;
use bytes::{Bytes, BytesMut};
use lectern_contract::frame::FrameError;
use lectern_contract::relay::RelayFrame;
use lectern_contract::{KeyHash, ShardName, StreamRef};
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
/// An owner that takes nothing for so long is taken for dead.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// As for a publisher of the shard's own.
const IDLE: Duration = crate::rtmp::IDLE;

/// How the owners of other streams are reached.
#[derive(Debug, Clone)]
pub struct Owners {
    template: String,
}

impl RelayError {
    /// Whether another owner, or the same one a little later, may well take the publisher.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotTheOwner(_))
    }
}

impl Owners {
    /// Addresses by a template, `host:port` with `{shard}` in it.
    pub fn new(template: String) -> Self {
        Self { template }
    }

    fn address(&self, shard: &ShardName) -> String {
        self.template.replace("{shard}", &shard.0)
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
    socket: TcpStream,
    out: BytesMut,
    input: BytesMut,
}

impl Forward {
    /// Connects to the owner of `route` and asks to publish; `remote` is the publisher's address.
    pub async fn open(owners: &Owners, route: &Route, key: &KeyHash, remote: &str) -> Result<Self, RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: route.shard.clone(), source };
        timeout(ANSWER_WITHIN, Self::ask(owners, route, key, remote)).await.map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
    }

    async fn ask(owners: &Owners, route: &Route, key: &KeyHash, remote: &str) -> Result<Self, RelayError> {
        let unreachable = |source| RelayError::Unreachable { shard: route.shard.clone(), source };
        let socket = TcpStream::connect(owners.address(&route.shard)).await.map_err(unreachable)?;
        let _ = socket.set_nodelay(true);
        let mut forward = Self { owner: route.shard.clone(), socket, out: BytesMut::new(), input: BytesMut::new() };
        let hello = RelayFrame::Hello { key: key.clone(), stream: route.stream.clone(), epoch: route.epoch, remote: remote.to_owned() };
        hello.encode(&mut forward.out);
        forward.flush().await?;
        match forward.answer().await? {
            RelayFrame::Accepted => Ok(forward),
            RelayFrame::Refused { reason } => Err(RelayError::Refused(reason)),
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
        let sent = timeout(STUCK_AFTER, self.socket.write_all(&self.out)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        self.out.clear();
        Ok(())
    }

    /// Waits until the owner ends the relay, and says why. May be cancelled and called again.
    pub async fn closing(&mut self) -> RelayError {
        match self.answer().await {
            Ok(RelayFrame::Refused { reason }) => RelayError::Refused(reason),
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

/// Takes publishers from other shards until `stop`: the owner's end.
pub async fn serve(listener: TcpListener, shard: Arc<Shard>, stop: CancellationToken) -> Result<(), Infallible> {
    let metrics = shard.metrics().clone();
    net::serve(listener, MAX_RELAYED, metrics, stop, move |socket, peer| connection(socket, peer, shard.clone())).await
}

async fn connection(mut socket: TcpStream, peer: SocketAddr, shard: Arc<Shard>) {
    let mut input = BytesMut::new();
    let refusal = match timeout(ANSWER_WITHIN, hello(&mut socket, &mut input)).await {
        Err(_) | Ok(None) => return tracing::info!(%peer, "a relay connection said no hello"),
        Ok(Some((key, stream, remote))) => match admit(&shard, &key, &stream, &remote) {
            Ok(publication) => match send(&mut socket, &RelayFrame::Accepted).await {
                Ok(()) => receive(&mut socket, &mut input, publication).await,
                Err(_) => None,
            },
            Err(reason) => Some(reason),
        },
    };
    if let Some(reason) = refusal {
        tracing::info!(%peer, reason, "a relayed publisher is turned away");
        // The reason is a courtesy: a shard that is gone needs none.
        let _ = send(&mut socket, &RelayFrame::Refused { reason }).await;
        net::farewell(&mut socket).await;
    }
}

/// The first frame; `None` if it is something else or does not come.
async fn hello(socket: &mut TcpStream, input: &mut BytesMut) -> Option<(KeyHash, StreamRef, String)> {
    loop {
        match RelayFrame::decode(input).ok()? {
            Some(RelayFrame::Hello { key, stream, remote, .. }) => return Some((key, stream, remote)),
            Some(_) => return None,
            None if socket.read_buf(input).await.ok()? == 0 => return None,
            None => {}
        }
    }
}

fn admit(shard: &Shard, key: &KeyHash, stream: &StreamRef, remote: &str) -> Result<Publication, String> {
    let admission = shard.admit(key, remote).map_err(|refusal| {
        shard.metrics().refuse(refusal.reason());
        refusal.to_string()
    })?;
    match admission {
        // Handing on once more could go in circles while two shards know different routes.
        Admission::Elsewhere(route) => Err(format!("the stream moved to shard {}", route.shard)),
        Admission::Here(publication) if publication.run().stream() != stream => {
            publication.leave("the relaying shard meant another stream");
            Err("the owning shard knows this key for another stream".to_owned())
        }
        Admission::Here(publication) => Ok(publication),
    }
}

/// Takes tags until the publisher leaves or has to; `Some` is what the other shard is to be told.
async fn receive(socket: &mut TcpStream, input: &mut BytesMut, mut publication: Publication) -> Option<String> {
    loop {
        loop {
            match RelayFrame::decode(input) {
                Ok(Some(RelayFrame::Tag { kind, timestamp, payload })) => {
                    if let Err(error) = publication.tag(kind, timestamp, payload) {
                        publication.leave(error.to_string());
                        return Some(error.to_string());
                    }
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    publication.leave("the relaying shard broke the protocol");
                    return Some("the relay protocol was broken".to_owned());
                }
            }
        }
        // One buffer's worth at a time: a slice of it is kept as long as its tag is.
        input.reserve(64 * 1024);
        tokio::select! {
            closing = publication.closing() => return Some(closing.to_string()),
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
                    return Some("nothing came for too long".to_owned());
                }
            },
        }
    }
}

async fn send(socket: &mut TcpStream, frame: &RelayFrame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    timeout(STUCK_AFTER, socket.write_all(&bytes)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
