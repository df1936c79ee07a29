//! TLS between the pods of a pool: both sides show a certificate of the operator's CA, and each checks the other's role.

use super::follow::Followed;
use super::{Identity, PeerRole, TlsError};
use crate::health::Readiness;
use rustls::client::verify_server_name;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long a peer's kernel may leave unanswered what it was sent: longer than the operator waits for a report.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// How long an address of a name may take to answer before the next one is asked, too.
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// How long none of them may answer before the name is looked up anew.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where a pod's certificate for its peers is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PeerTlsArgs {
    /// A folder with tls.crt, tls.key and ca.crt, for connections between the pool's pods. Without it they are in the clear.
    #[arg(long, env = "LECTERN_PEER_TLS_DIR")]
    pub peer_tls_dir: Option<PathBuf>,
}

impl PeerTlsArgs {
    /// The pod's end of connections to peers of its pool, once its files are there; `/readyz` says what it waits for.
    pub async fn when_there(&self, pool: &str, readiness: &Readiness) -> PeerTls {
        let Some(folder) = &self.peer_tls_dir else {
            tracing::warn!("no --peer-tls-dir: whoever reaches this pod's ports may read and publish; fit for tests only");
            return PeerTls::plain();
        };
        let configs = Followed::when_there(folder, Configs::of, |obstacle| readiness.not_ready(obstacle)).await;
        PeerTls { pool: pool.into(), configs: Some(configs) }
    }
}

/// A pod's end of connections to its peers, the newest certificate for each new one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerTls {
    pool: Arc<str>,
    configs: Option<Followed<Configs>>,
}

#[derive(Debug)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    fn of(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self { server: Arc::new(identity.peer_server()?), client: Arc::new(identity.peer_client()?) })
    }
}

/// Why a peer is not let in.
#[derive(Debug, thiserror::Error)]
pub enum PeerRefused {
    /// It shows no certificate, or one of another CA; or it speaks no TLS.
    #[error("it has no certificate of this pool: {0}")]
    Handshake(#[from] io::Error),
    /// Its certificate is good, and for something else.
    #[error("its certificate is for another role: {0}")]
    Role(#[source] rustls::Error),
    /// The pool's name is none that a certificate can be for.
    #[error(transparent)]
    Name(#[from] TlsError),
}

impl PeerTls {
    /// No TLS at all: for tests and benchmarks.
    pub fn plain() -> Self {
        Self { pool: "".into(), configs: None }
    }

    /// With the certificate in `folder`, among pods of `pool`. Inside a runtime: a task of it reads the files again.
    ///
    /// # Errors
    /// The files are missing or unusable now.
    pub async fn load(folder: &Path, pool: &str) -> Result<Self, TlsError> {
        Ok(Self { pool: pool.into(), configs: Some(Followed::load(folder, Configs::of).await?) })
    }

    /// Lets in who has just connected, if it is a `peer` of this pool. It has no time limit of its own: give it one.
    ///
    /// # Errors
    /// Why it is not let in. The peer learns the reason only where its certificate is missing or of another CA.
    pub async fn accept(&self, socket: TcpStream, peer: PeerRole) -> Result<PeerStream, PeerRefused> {
        Ok(self.accept_one_of(socket, &[peer]).await?.0)
    }

    /// The same of one of these `peers`, and which; `None` without TLS, where nobody knows.
    ///
    /// # Errors
    /// As [`PeerTls::accept`].
    pub async fn accept_one_of(&self, socket: TcpStream, peers: &[PeerRole]) -> Result<(PeerStream, Option<PeerRole>), PeerRefused> {
        let Some(configs) = &self.configs else { return Ok((PeerStream::Plain(socket), None)) };
        let stream = TlsAcceptor::from(configs.now().server.clone()).accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // The handshake does not succeed without one; were it to, nobody gets in.
        let leaf = shown.ok_or(PeerRefused::Role(rustls::Error::NoCertificatesPresented))?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(PeerRefused::Role)?;
        let mut refused = PeerRefused::Role(rustls::Error::NoCertificatesPresented);
        for peer in peers {
            match verify_server_name(&parsed, &peer.server_name(&self.pool)?) {
                Ok(()) => return Ok((PeerStream::Tls(Box::new(stream.into())), Some(*peer))),
                Err(other) => refused = PeerRefused::Role(other),
            }
        }
        Err(refused)
    }

    /// Lets in whoever shows a certificate of the CA, and what it says: for who serves all pools, and learns only then whom it serves.
    ///
    /// # Errors
    /// [`PeerRefused::Handshake`].
    pub async fn accept_any(&self, socket: TcpStream) -> Result<(PeerStream, PeerProof), PeerRefused> {
        let Some(configs) = &self.configs else { return Ok((PeerStream::Plain(socket), PeerProof(None))) };
        let stream = TlsAcceptor::from(configs.now().server.clone()).accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let leaf = shown.ok_or(PeerRefused::Role(rustls::Error::NoCertificatesPresented))?.clone().into_owned();
        Ok((PeerStream::Tls(Box::new(stream.into())), PeerProof(Some(leaf))))
    }

    /// Connects to `address` (`host:port`), where a `server` of this pool must be. It has no time limit of its own.
    ///
    /// # Errors
    /// Nobody is there, or somebody else.
    pub async fn connect(&self, address: &str, server: PeerRole) -> io::Result<PeerStream> {
        let socket = first_of(|| async { Ok(tokio::net::lookup_host(address).await?.collect()) }).await?;
        // Delayed answers cost 40 ms each.
        socket.set_nodelay(true)?;
        be_attentive(&socket)?;
        let Some(configs) = &self.configs else { return Ok(PeerStream::Plain(socket)) };
        let expected = server.server_name(&self.pool).map_err(io::Error::other)?;
        let stream = TlsConnector::from(configs.now().client.clone()).connect(expected, socket).await?;
        Ok(PeerStream::Tls(Box::new(stream.into())))
    }

    /// Waits until a newer certificate is in use; without TLS, for ever.
    pub async fn renewed(&mut self) {
        match &mut self.configs {
            Some(configs) => configs.renewed().await,
            None => std::future::pending().await,
        }
    }
}

/// The certificate that a peer has shown; none without TLS, where everybody is believed.
#[derive(Debug, Clone)]
pub struct PeerProof(Option<CertificateDer<'static>>);

impl PeerProof {
    /// Whether it is for a pod of this role in this pool.
    pub fn is(&self, role: PeerRole, pool: &str) -> bool {
        let Some(leaf) = &self.0 else { return true };
        let (Ok(parsed), Ok(expected)) = (ParsedCertificate::try_from(leaf), role.server_name(pool)) else { return false };
        verify_server_name(&parsed, &expected).is_ok()
    }
}

/// Connects to the address that answers first. They are asked in their order, the next one as soon as one fails or lets wait
/// for [`NEXT_AFTER`] (as RFC 8305 does): one whose machine is gone does not answer at all, and would hold up the others.
///
/// Where none is left to ask, the name is looked up anew every [`LOOK_AGAIN`]: a pod that is replaced keeps its name and not its address, and the cluster's
/// DNS tells of the new one seconds after the pod is ready, on a busy day.
async fn first_of<F: Future<Output = io::Result<Vec<SocketAddr>>>>(lookup: impl Fn() -> F) -> io::Result<TcpStream> {
    let (mut known, mut next, mut asked) = (lookup().await?, 0, JoinSet::new());
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = known.get(next) {
            asked.spawn(TcpStream::connect(*address));
            next += 1;
        }
        let all = next == known.len();
        match timeout(if all { LOOK_AGAIN } else { NEXT_AFTER }, asked.join_next()).await {
            Ok(Some(Ok(Ok(socket)))) => return Ok(socket),
            Ok(Some(Ok(Err(error)))) => failed = error,
            Ok(Some(Err(panicked))) => failed = io::Error::other(panicked),
            Ok(None) if all => return Err(failed),
            // A name that cannot be looked up now could be a moment ago.
            Err(_) if all => {
                let fresh = lookup().await.unwrap_or_default();
                known.extend(fresh.into_iter().filter(|address| !known.contains(address)).collect::<Vec<_>>());
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// A peer whose machine is gone says no goodbye. Who only reads would wait for it for ever, and who writes until the kernel
/// gives up, a quarter of an hour. So a peer that is silent for two seconds is asked whether it is there, and after
/// [`GONE_AFTER`] without an answer the connection is broken.
fn be_attentive(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(2)).with_interval(Duration::from_secs(1)))?;
    socket.set_tcp_user_timeout(Some(GONE_AFTER)) // for what was sent, and for the questions (tcp(7))
}

/// A connection between two pods.
///
/// An end is an end, with or without TLS's goodbye: frames have lengths, and what ends a run says so.
#[derive(Debug)]
pub enum PeerStream {
    /// In the clear.
    Plain(TcpStream),
    /// Mutual TLS, either side.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => match Pin::new(stream.as_mut()).poll_read(cx, buffer) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::future::ready;

    #[tokio::test]
    async fn a_peer_that_falls_silent_is_asked_whether_it_is_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let PeerStream::Plain(socket) = PeerTls::plain().connect(&address, PeerRole::Ingest).await.unwrap() else { panic!("TLS") };
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        let (first, then) = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!((first, then), (Duration::from_secs(2), Duration::from_secs(1)));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(GONE_AFTER));
    }

    /// An address that does not answer, as long as what else there is lives: one that has as many connections waiting as it takes drops what comes, as a
    /// machine that is gone does.
    fn deaf() -> (SocketAddr, (std::net::TcpListener, Vec<std::net::TcpStream>)) {
        use socket2::{Domain, Socket, Type};
        let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        deaf.listen(0).unwrap();
        let deaf = std::net::TcpListener::from(deaf);
        let address = deaf.local_addr().unwrap();
        let waiting = std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok()).collect();
        (address, (deaf, waiting))
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_others() {
        let (deaf, _holds) = deaf();
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = listening.local_addr().unwrap();
        let socket = first_of(|| ready(Ok(vec![deaf, refusing, wanted]))).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), wanted);
        assert_eq!(first_of(|| ready(Ok(vec![refusing]))).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of(|| ready(Ok(vec![]))).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A shard that has just been replaced is met at its new address as soon as its name has it.
    #[tokio::test]
    async fn a_name_that_gets_another_address_is_looked_up_again() {
        let (old, _holds) = deaf();
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let new = listening.local_addr().unwrap();
        let looks = std::cell::Cell::new(0);
        let lookup = || {
            looks.set(looks.get() + 1);
            ready(match looks.get() {
                1 | 3 => Ok(vec![old]),
                2 => Err(io::ErrorKind::TimedOut.into()),
                _ => Ok(vec![new]),
            })
        };
        assert_eq!(first_of(lookup).await.unwrap().peer_addr().unwrap(), new);
        assert_eq!(looks.get(), 4);
    }
}
