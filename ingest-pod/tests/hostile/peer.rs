//! An RTMP client, `rml_rtmp`'s, from an address of choice: good publishers, and the polite beginning of bad ones.

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent as Event, ClientSessionResult as Outcome, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;
use socket2::TcpKeepalive;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How long the shard may say nothing before a peer asks whether it still knows of the connection.
const SUSPICION: Duration = Duration::from_secs(20);

/// A TCP connection from this address of the loopback network. One that Linux has forgotten on the shard's side, as it may
/// when thousands come at once, is found out and ends.
pub async fn dial(target: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket2::SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(SUSPICION).with_interval(SUSPICION))?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(target).await
}

/// A connection past RTMP's handshake, and what came after it.
pub async fn shaken(target: SocketAddr, from: Ipv4Addr) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut socket = dial(target, from).await?;
    let mut handshake = Handshake::new(PeerType::Client);
    let greeting = handshake.generate_outbound_p0_and_p1().map_err(io::Error::other)?;
    socket.write_all(&greeting).await?;
    let mut buffer = [0; 2048];
    loop {
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match handshake.process_bytes(&buffer[..count]).map_err(io::Error::other)? {
            HandshakeProcessResult::InProgress { response_bytes } => socket.write_all(&response_bytes).await?,
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).await?;
                return Ok((socket, remaining_bytes));
            }
        }
    }
}

/// A publisher that has been accepted.
pub struct Publisher {
    pub socket: TcpStream,
    session: ClientSession,
}

impl Publisher {
    /// Publishes; an error if the shard hangs up or says no.
    pub async fn start(target: SocketAddr, from: Ipv4Addr, key: &str) -> io::Result<Self> {
        let (socket, early) = shaken(target, from).await?;
        let (session, hello) = ClientSession::new(ClientSessionConfig::new()).map_err(io::Error::other)?;
        let mut publisher = Self { socket, session };
        publisher.settle(hello).await?;
        let results = publisher.session.handle_input(&early).map_err(io::Error::other)?;
        publisher.settle(results).await?;
        let request = publisher.session.request_connection("live".to_owned()).map_err(io::Error::other)?;
        publisher.settle(vec![request]).await?;
        publisher.until(|event| *event == Event::ConnectionRequestAccepted).await?;
        let request = publisher.session.request_publishing(key.to_owned(), PublishRequestType::Live).map_err(io::Error::other)?;
        publisher.settle(vec![request]).await?;
        publisher.until(|event| *event == Event::PublishRequestAccepted).await?;
        Ok(publisher)
    }

    /// Sends the body of a video tag.
    pub async fn video(&mut self, body: Bytes, millis: u32) -> io::Result<()> {
        let packet = self.session.publish_video_data(body, RtmpTimestamp::new(millis), false).map_err(io::Error::other)?;
        self.settle(vec![packet]).await.map(drop)
    }

    /// Leaves, and waits until the shard has taken note: an unread answer would make the end a reset.
    pub async fn leave(mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let mut ignored = [0; 4096];
        while self.socket.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    async fn until(&mut self, found: impl Fn(&Event) -> bool) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let count = self.socket.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let results = self.session.handle_input(&buffer[..count]).map_err(io::Error::other)?;
            for event in self.settle(results).await? {
                if found(&event) {
                    return Ok(());
                }
                if let Event::UnhandleableOnStatusCode { code } = event {
                    return Err(io::Error::other(code));
                }
            }
        }
    }

    async fn settle(&mut self, results: Vec<Outcome>) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        for result in results {
            match result {
                Outcome::OutboundResponse(packet) => self.socket.write_all(&packet.bytes).await?,
                Outcome::RaisedEvent(event) => events.push(event),
                Outcome::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(events)
    }
}
