//! An RTMP client, `rml_rtmp`'s: it sets publishers up, and plays.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent as Event, ClientSessionResult as Outcome, PublishRequestType,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// The application that all streams are in.
const APP: &str = "live";

/// A connection past `connect`.
pub struct Client {
    socket: TcpStream,
    session: ClientSession,
    /// When the last byte was sent, and when the newest was received.
    sent: Instant,
    received: Instant,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects from this address of the loopback network: a server may count connections by address. Chunks that follow have
    /// `chunk_size` bytes.
    pub async fn connect(server: SocketAddr, from: Ipv4Addr, chunk_size: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let mut socket = socket.connect(server).await.with_context(|| format!("no connection to {server}"))?;
        socket.set_nodelay(true)?;
        let early = shake(&mut socket).await?;
        let tc_url = Some(format!("rtmp://{server}/{APP}"));
        let config = ClientSessionConfig { chunk_size, tc_url, ..ClientSessionConfig::new() };
        let (session, hello) = ClientSession::new(config)?;
        let now = Instant::now();
        let mut client = Self { socket, session, sent: now, received: now, buffer: vec![0; 64 * 1024] };
        client.settle(hello).await?;
        let results = client.session.handle_input(&early)?;
        client.settle(results).await?;
        let request = client.session.request_connection(APP.to_owned())?;
        client.settle(vec![request]).await?;
        client.until(|event| matches!(event, Event::ConnectionRequestAccepted).then_some(())).await?;
        Ok(client)
    }

    /// Publishes; the time from the last byte of the `publish` command to its answer.
    pub async fn publish(&mut self, key: &str) -> Result<Duration> {
        let request = self.session.request_publishing(key.to_owned(), PublishRequestType::Live)?;
        self.settle(vec![request]).await?;
        self.until(|event| matches!(event, Event::PublishRequestAccepted).then_some(())).await?;
        Ok(self.received.duration_since(self.sent))
    }

    /// Asks to play; when that was.
    pub async fn play(&mut self, key: &str) -> Result<Instant> {
        let asked = Instant::now();
        let request = self.session.request_playback(key.to_owned())?;
        self.settle(vec![request]).await?;
        Ok(asked)
    }

    /// The bodies of the next video tags that come, at least one.
    pub async fn pictures(&mut self) -> Result<Vec<Bytes>> {
        loop {
            let video = |event| if let Event::VideoDataReceived { data, .. } = event { Some(data) } else { None };
            let pictures: Vec<_> = self.events().await?.into_iter().filter_map(video).collect();
            if !pictures.is_empty() {
                return Ok(pictures);
            }
        }
    }

    /// The socket, for whoever sends the media.
    pub fn into_socket(self) -> Result<std::net::TcpStream> {
        Ok(self.socket.into_std()?)
    }

    async fn until<T>(&mut self, mut found: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        loop {
            for event in self.events().await? {
                if let Some(found) = found(&event) {
                    return Ok(found);
                }
                if let Event::UnhandleableOnStatusCode { code } = event {
                    bail!("the server says {code}");
                }
            }
        }
    }

    async fn events(&mut self) -> Result<Vec<Event>> {
        let count = self.socket.read(&mut self.buffer).await?;
        ensure!(count > 0, "the server closed the connection");
        self.received = Instant::now();
        let results = self.session.handle_input(&self.buffer[..count])?;
        self.settle(results).await
    }

    async fn settle(&mut self, results: Vec<Outcome>) -> Result<Vec<Event>> {
        let (mut out, mut events) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Outcome::OutboundResponse(packet) => out.extend(packet.bytes),
                Outcome::RaisedEvent(event) => events.push(event),
                Outcome::UnhandleableMessageReceived(_) => {}
            }
        }
        if !out.is_empty() {
            self.socket.write_all(&out).await?;
            self.sent = Instant::now();
        }
        Ok(events)
    }
}

/// Shakes hands; what the server sent beyond that.
async fn shake(socket: &mut TcpStream) -> Result<Vec<u8>> {
    let mut handshake = Handshake::new(PeerType::Client);
    socket.write_all(&handshake.generate_outbound_p0_and_p1()?).await?;
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).await?;
        ensure!(count > 0, "the server hung up during the handshake");
        match handshake.process_bytes(&buffer[..count])? {
            HandshakeProcessResult::InProgress { response_bytes } => socket.write_all(&response_bytes).await?,
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).await?;
                return Ok(remaining_bytes);
            }
        }
    }
}
