//! One RTMP connection, from the handshake to its end.

use super::handshake::{HandshakeFailure, shake};
use super::sink::{Sink, SinkError};
use super::{IDLE, SETUP, status};
use crate::metrics::RefusedReason;
use crate::net;
use crate::relay::Owners;
use crate::shard::Shard;
use bytes::Bytes;
use rml_rtmp::sessions::{ServerSession, ServerSessionConfig, ServerSessionError, ServerSessionEvent, ServerSessionResult};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes that are read at once: the cost of ingest is wake-ups, so batches are large.
const READ: usize = 64 * 1024;
/// Bytes in a chunk of ours, as the session announces it.
const CHUNK_SIZE: u32 = 4096;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// A connection after its handshake.
pub(super) struct Connection {
    socket: TcpStream,
    remote: SocketAddr,
    session: ServerSession,
    shard: Arc<Shard>,
    owners: Arc<Owners>,
    state: State,
    out: Vec<u8>,
}

/// How far a peer is.
enum State {
    /// It has to publish before the deadline.
    Connected { deadline: Instant },
    /// Its tags go into the sink.
    Publishing { sink: Sink },
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the publisher closed the connection")]
    Left,
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("nothing came for {} s", IDLE.as_secs())]
    Idle,
    #[error("it did not publish in time")]
    NeverPublished,
    #[error("the publisher broke the protocol: {0}")]
    Protocol(#[from] ServerSessionError),
    #[error("{0}")]
    TurnedAway(#[from] SinkError),
}

impl Connection {
    /// Shakes hands and opens a session, within [`SETUP`].
    pub(super) async fn open(mut socket: TcpStream, remote: SocketAddr, shard: Arc<Shard>, owners: Arc<Owners>) -> Result<Self, OpenError> {
        let deadline = Instant::now() + SETUP;
        let early = timeout_at(deadline, shake(&mut socket)).await.map_err(|_| HandshakeFailure::Slow)??;
        let config = ServerSessionConfig { chunk_size: CHUNK_SIZE, ..ServerSessionConfig::new() };
        let (session, hello) = ServerSession::new(config)?;
        let state = State::Connected { deadline };
        let mut connection = Self { socket, remote, session, shard, owners, state, out: Vec::new() };
        // The greeting holds packets only.
        connection.queue(hello);
        connection.flush().await?;
        if !early.is_empty() {
            connection.input(&early).await.map_err(|end| OpenError::Early(end.to_string()))?;
        }
        Ok(connection)
    }

    /// Serves the peer to its end.
    pub(super) async fn run(mut self) {
        let Err(end) = self.serve().await;
        let remote = self.remote;
        match &end {
            End::TurnedAway(error) => {
                self.shard.metrics().refuse(error.reason());
                tracing::info!(%remote, why = %error, "a publisher is turned away");
                if let Ok(bytes) = status::error(error.code(), &error.to_string(), CHUNK_SIZE) {
                    self.out.extend_from_slice(&bytes);
                }
            }
            End::Protocol(error) => {
                self.shard.metrics().refuse(RefusedReason::Protocol);
                tracing::info!(%remote, %error, "a peer broke the protocol");
            }
            end => tracing::debug!(%remote, why = %end, "a connection ends"),
        }
        if let State::Publishing { sink } = std::mem::replace(&mut self.state, State::Connected { deadline: Instant::now() }) {
            sink.leave(end.to_string()).await;
        }
        if self.flush().await.is_ok() {
            net::farewell(&mut self.socket).await;
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let mut buffer = vec![0; READ];
        loop {
            let count = match &mut self.state {
                State::Connected { deadline } => {
                    timeout_at(*deadline, self.socket.read(&mut buffer)).await.map_err(|_| End::NeverPublished)??
                }
                State::Publishing { sink } => tokio::select! {
                    closing = sink.closing() => return Err(closing.into()),
                    read = timeout(IDLE, self.socket.read(&mut buffer)) => read.map_err(|_| End::Idle)??,
                },
            };
            if count == 0 {
                return Err(End::Left);
            }
            self.input(&buffer[..count]).await?;
        }
    }

    /// Handles what was read, and answers.
    async fn input(&mut self, bytes: &[u8]) -> Result<(), End> {
        let results = self.session.handle_input(bytes)?;
        for event in self.queue(results) {
            self.event(event).await?;
        }
        self.flush().await?;
        if let State::Publishing { sink } = &mut self.state {
            sink.flush().await?;
        }
        Ok(())
    }

    async fn event(&mut self, event: ServerSessionEvent) -> Result<(), End> {
        match event {
            ServerSessionEvent::ConnectionRequested { request_id, .. } => self.accept(request_id)?,
            ServerSessionEvent::PublishStreamRequested { request_id, stream_key, .. } => {
                // Some publishers append `?parameter=value` to the key.
                let key = stream_key.split('?').next().unwrap_or_default();
                let sink = Sink::open(&self.shard, &self.owners, key, &self.remote.to_string()).await?;
                self.state = State::Publishing { sink };
                self.accept(request_id)?;
            }
            ServerSessionEvent::AudioDataReceived { data, timestamp, .. } => self.tag(AUDIO, timestamp.value, data)?,
            ServerSessionEvent::VideoDataReceived { data, timestamp, .. } => self.tag(VIDEO, timestamp.value, data)?,
            ServerSessionEvent::PublishStreamFinished { .. } => {
                let deadline = Instant::now() + SETUP;
                if let State::Publishing { sink } = std::mem::replace(&mut self.state, State::Connected { deadline }) {
                    sink.leave("the publisher stopped".to_owned()).await;
                }
            }
            // Metadata is not believed (codec configurations say it all), and nobody plays from here.
            _ => {}
        }
        Ok(())
    }

    fn tag(&mut self, kind: u8, timestamp: u32, body: Bytes) -> Result<(), End> {
        match &mut self.state {
            State::Publishing { sink } => Ok(sink.tag(kind, timestamp, body)?),
            State::Connected { .. } => Ok(()), // late tags of a publisher that has stopped
        }
    }

    fn accept(&mut self, request_id: u32) -> Result<(), End> {
        let results = self.session.accept_request(request_id)?;
        self.queue(results);
        Ok(())
    }

    /// Queues packets to the peer and returns the events.
    fn queue(&mut self, results: Vec<ServerSessionResult>) -> Vec<ServerSessionEvent> {
        let mut events = Vec::new();
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => self.out.extend_from_slice(&packet.bytes),
                ServerSessionResult::RaisedEvent(event) => events.push(event),
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        events
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            let sent = timeout(SETUP, self.socket.write_all(&self.out)).await;
            sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            self.out.clear();
        }
        Ok(())
    }
}

/// Why a connection does not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Handshake(#[from] HandshakeFailure),
    #[error(transparent)]
    Session(#[from] ServerSessionError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Early(String),
}
