//! What the three listeners do alike: listen, accept, limit, give each connection a task of its own, and end all of them at stop.

use crate::metrics::{Metrics, RefusedReason};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long connections may take to end after stop.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of file descriptors does not mend within microseconds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted (Linux takes the smaller of this and `net.core.somaxconn`). With fewer, all of a
/// node's publishers that come back at once make Linux answer without keeping a note of them, and lose some.
const BACKLOG: u32 = 4096;

/// For listeners whose connections are counted elsewhere.
pub(crate) const NO_LIMIT: usize = Semaphore::MAX_PERMITS;

/// How long a listener listens.
#[derive(Debug, Clone)]
pub struct Listening {
    /// No connection is accepted after this.
    pub accepting: CancellationToken,
    /// All connections end with this.
    pub stop: CancellationToken,
}

impl From<CancellationToken> for Listening {
    /// Both at once.
    fn from(stop: CancellationToken) -> Self {
        Self { accepting: stop.clone(), stop }
    }
}

/// How many connections of some listeners are open.
#[derive(Debug, Clone, Default)]
pub struct Open(Arc<watch::Sender<usize>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct OneOpen(Open);

impl Open {
    /// Waits until there is none.
    pub async fn none(&self) {
        // The sender is this one's own: it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(crate) fn one(&self) -> OneOpen {
        self.0.send_modify(|count| *count += 1);
        OneOpen(self.clone())
    }
}

impl Drop for OneOpen {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Listens at this address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?; // a restarted shard takes its port back from connections that are not quite gone
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Runs `handle` for each connection as long as `listening` says, at most `limit` at once. A panic in one costs that
/// connection only.
pub(crate) async fn serve<F, Done>(
    listener: TcpListener,
    limit: usize,
    metrics: Metrics,
    (listening, open): (impl Into<Listening>, &Open),
    handle: F,
) -> Result<(), Infallible>
where
    F: Fn(TcpStream, SocketAddr) -> Done,
    Done: Future<Output = ()> + Send + 'static,
{
    let Listening { accepting, stop } = listening.into();
    let room = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = accepting.cancelled() => break,
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => note(ended, &metrics),
            accepted = listener.accept() => match accepted {
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Ok((socket, remote)) => {
                    let Ok(place) = room.clone().try_acquire_owned() else {
                        metrics.refuse(RefusedReason::TooManyConnections);
                        tracing::warn!(%remote, limit, "closed at once: too many connections");
                        continue;
                    };
                    // Delayed answers cost every publish 40 ms (facts: 44 ms against 0.5 ms).
                    let _ = socket.set_nodelay(true);
                    let (stop, one, connection) = (stop.clone(), open.one(), handle(socket, remote));
                    connections.spawn(async move {
                        tokio::select! { () = stop.cancelled() => {}, () = connection => {} }
                        drop((place, one));
                    });
                }
            },
        }
    }
    drop(listener);
    // Those who came before may stay until the end, and it ends no sooner without any: a task that is over stops the whole process.
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => note(ended, &metrics),
        }
    }
    let farewell = async {
        while let Some(ended) = connections.join_next().await {
            note(ended, &metrics);
        }
    };
    // What is left after that is aborted with the set.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    Ok(())
}

fn note(ended: Result<(), JoinError>, metrics: &Metrics) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics.panics.inc();
        tracing::error!(%error, "a connection's task panicked; only that connection is lost");
    }
}

/// Ends a connection so that what was written last arrives: closing a socket with unread bytes in it would reset the
/// connection and may take the last words with it.
pub(crate) async fn farewell(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let rest = async {
        let mut ignored = [0; 4096];
        socket.shutdown().await?;
        while socket.read(&mut ignored).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn a_listener_that_accepts_no_more_and_has_no_connections_is_there_until_stop() {
        let listening = Listening { accepting: CancellationToken::new(), stop: CancellationToken::new() };
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (address, open) = (listener.local_addr().unwrap(), Open::default());
        let (given, counted) = (listening.clone(), open.clone());
        let handle = |mut socket: TcpStream, _| async move { drop(socket.read(&mut [0]).await) };
        let serving = tokio::spawn(async move { serve(listener, 9, Metrics::default(), (given, &counted), handle).await });
        let mut first = TcpStream::connect(address).await.unwrap();
        open.0.subscribe().wait_for(|count| *count == 1).await.unwrap();
        listening.accepting.cancel();
        first.shutdown().await.unwrap();
        open.none().await;
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
        assert!(!serving.is_finished());
        listening.stop.cancel();
        assert!(serving.await.is_ok());
    }
}
