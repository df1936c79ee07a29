//! A connection's socket with its peer, in tokio's hands: while it sets itself up, while its media is relayed to another
//! shard, and for its last words.

use super::headers::Headers;
use super::peer::{End, Peer, Taken};
use super::pump::{Parted, Parting, Pump};
use super::session::Event;
use super::sink::SinkError;
use super::{BATCH, IDLE, SETUP, TOLD_TO_RECONNECT, TURN, with_scratch};
use crate::handover::{Baggage, Tag};
use crate::net;
use crate::relay::Forward;
use crate::stream::{Publication, PublishError};
use std::io;
use std::net::SocketAddr;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// See the module.
pub(super) struct Link {
    socket: TcpStream,
    peer: Peer,
    headers: Headers,
    /// What the owner before has handed over, until there is a next one.
    baggage: Option<Baggage>,
}

impl Link {
    /// A link past its handshake.
    pub(super) fn new(socket: TcpStream, peer: Peer) -> Self {
        Self { socket, peer, headers: Headers::default(), baggage: None }
    }

    /// The peer's address.
    pub(super) fn remote(&self) -> SocketAddr {
        self.peer.remote
    }

    /// Waits for a publish command until `deadline`; its key.
    pub(super) async fn publish_requested(&mut self, deadline: Instant) -> Result<String, End> {
        loop {
            let taken = self.take(false, &mut |event| Ok(Some(event)))?;
            self.peer.answer(&self.socket)?;
            match taken {
                Taken::Event(Event::Publish { key, .. }) => return Ok(key),
                Taken::Left | Taken::Event(Event::Closed) => return Err(End::Left),
                Taken::Event(_) | Taken::More => {} // late media of a publisher that has stopped
                Taken::Drained => timeout_at(deadline, self.ready()).await.map_err(|_| End::NeverPublished)??,
            }
            if Instant::now() >= deadline {
                return Err(End::NeverPublished); // a peer that never stops sending is no better than one that never starts
            }
        }
    }

    /// Says that the peer may publish.
    pub(super) fn accept_publish(&mut self) -> Result<(), End> {
        self.peer.session.accept_publish();
        self.peer.answer(&self.socket).map(drop)
    }

    /// Has the pump read the publisher, and gives the link back with why it came back. Without a link the pump is gone, and
    /// so is the connection.
    pub(super) async fn pumped(mut self, pump: &Pump, mut publication: Publication) -> (Option<Self>, Parting) {
        let told = self.headers.replay(&mut publication);
        let told = told.and_then(|()| self.baggage.take().map_or(Ok(()), |baggage| baggage.unpack(&mut publication)));
        if let Err(error) = told {
            publication.leave(error.to_string());
            return (Some(self), Parting::End(error.into()));
        }
        let lost = |error: io::Error| (None, Parting::End(error.into()));
        let socket = match self.socket.into_std() {
            Ok(socket) => socket,
            Err(error) => return lost(error),
        };
        let Some(parted) = pump.publish(self.peer, socket, self.headers, publication).await else { return (None, Parting::End(End::Left)) };
        let Parted { peer, socket, headers, baggage, why } = parted;
        match TcpStream::from_std(socket) {
            Ok(socket) => (Some(Self { socket, peer, headers, baggage }), why),
            Err(error) => lost(error),
        }
    }

    /// Hands the publisher's media on to the owner of its stream.
    pub(super) async fn relayed(mut self, mut forward: Forward, draining: watch::Receiver<bool>) -> (Option<Self>, Parting) {
        for (kind, payload) in self.headers.each() {
            forward.tag(Tag { kind, timestamp: 0, payload });
        }
        if let Some(baggage) = self.baggage.take() {
            forward.hand_over(baggage);
        }
        let parting = self.relay(&mut forward, draining).await.unwrap_or_else(Parting::End);
        self.baggage = forward.baggage();
        (Some(self), parting)
    }

    async fn relay(&mut self, forward: &mut Forward, mut draining: watch::Receiver<bool>) -> Result<Parting, End> {
        let mut heard = Instant::now();
        loop {
            let next = Instant::now() + BATCH;
            let Self { peer, socket, headers, .. } = self;
            let mut on = |event| match event {
                Event::Media { kind, timestamp, payload } => {
                    heard = Instant::now();
                    headers.note(kind, &payload);
                    forward.tag(Tag { kind, timestamp, payload });
                    Ok(None)
                }
                other => Ok(Some(other)),
            };
            let taken = with_scratch(|scratch| peer.take(socket, scratch, TURN, false, &mut on))?;
            if let Err(error) = forward.flush().await {
                return Err(SinkError::from(forward.last_words(error).await).into());
            }
            self.peer.answer(&self.socket)?;
            match taken {
                Taken::Event(_) => return Ok(Parting::Unpublished),
                Taken::Left => return Err(End::Left),
                Taken::More => continue,
                Taken::Drained => {}
            }
            tokio::select! {
                error = forward.closing() => return Err(SinkError::from(error).into()),
                ready = timeout(IDLE.saturating_sub(heard.elapsed()), self.ready()) => ready.map_err(|_| End::Idle)??,
                Ok(()) = draining.changed() => {
                    self.peer.session.request_reconnect(TOLD_TO_RECONNECT, None);
                }
            }
            sleep_until(next).await; // what comes meanwhile goes together
        }
    }

    /// Tells the peer why it has to go, where it has to, and closes the connection so that this arrives.
    pub(super) async fn end(mut self, end: &End) {
        match end {
            End::TurnedAway(error) => self.peer.session.reject_publish(error.code(), &error.to_string()),
            End::Media(error) => self.peer.session.end(code(error), &error.to_string()),
            _ => {}
        }
        let last = async {
            while !self.peer.answer(&self.socket)? {
                self.socket.writable().await?;
            }
            self.peer.wire.close();
            self.peer.wire.flush(&self.socket)?;
            Ok::<_, End>(())
        };
        if timeout(SETUP, last).await.is_ok_and(|sent| sent.is_ok()) {
            net::farewell(&mut self.socket).await;
        }
    }

    fn take(&mut self, closed: bool, on: &mut impl FnMut(Event) -> Result<Option<Event>, End>) -> Result<Taken, End> {
        with_scratch(|scratch| self.peer.take(&self.socket, scratch, TURN, closed, on))
    }

    /// Waits for more, and for room for what could not be sent.
    async fn ready(&self) -> io::Result<()> {
        let interest = if self.peer.wire.waiting() > 0 { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.socket.ready(interest).await.map(drop)
    }
}

/// The code of the `onStatus` that ends a publication.
fn code(error: &PublishError) -> &'static str {
    match error {
        PublishError::Closed(_) => "NetStream.Publish.Denied",
        _ => "NetStream.Publish.Failed",
    }
}
