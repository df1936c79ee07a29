//! A peer past its handshake: bytes of its socket become events of its session.

use super::session::{Event, Session, SessionError};
use super::wire::{Socket, Wire};
use crate::stream::PublishError;
use std::io;
use std::net::SocketAddr;

/// A peer's protocol state, which outlives the socket's moves between tokio and the pump.
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) wire: Wire,
    pub(super) session: Session,
    /// What was read and not looked at yet.
    pub(super) early: Vec<u8>,
}

/// How reading went.
#[derive(Debug)]
pub(super) enum Taken {
    /// The socket is empty.
    Drained,
    /// There may be more; others come first.
    More,
    /// The peer has closed the connection.
    Left,
    /// Something that the one who reads has to see to.
    Event(Event),
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the publisher closed the connection")]
    Left,
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("nothing whole came for {} s", super::IDLE.as_secs())]
    Idle,
    #[error("it did not publish in time")]
    NeverPublished,
    #[error("it takes no answers")]
    Deaf,
    #[error("the publisher broke the protocol: {0}")]
    Protocol(#[from] SessionError),
    #[error("{0}")]
    Media(#[from] PublishError),
    #[error("{0}")]
    TurnedAway(#[from] super::sink::SinkError),
}

impl Peer {
    /// Reads what the socket has, about `most` bytes of it, through `scratch`. `on` gets every event; one that it gives
    /// back ends the reading. `closed`: the peer has closed its end, so a short read does not mean that nothing follows.
    pub(super) fn take(
        &mut self,
        socket: &impl Socket,
        scratch: &mut [u8],
        most: usize,
        closed: bool,
        on: &mut impl FnMut(Event) -> Result<Option<Event>, End>,
    ) -> Result<Taken, End> {
        let mut taken = 0;
        loop {
            let early = std::mem::take(&mut self.early);
            if let Some(event) = self.hear(&early, on)? {
                return Ok(Taken::Event(event));
            }
            let count = match self.wire.read(socket, scratch) {
                Ok(0) => return Ok(Taken::Left),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::Drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(event) = self.hear(&scratch[..count], on)? {
                return Ok(Taken::Event(event));
            }
            taken += count;
            if count < scratch.len() && self.wire.is_plain() && !closed {
                return Ok(Taken::Drained);
            }
            if taken >= most {
                return Ok(Taken::More);
            }
        }
    }

    fn hear(&mut self, mut bytes: &[u8], on: &mut impl FnMut(Event) -> Result<Option<Event>, End>) -> Result<Option<Event>, End> {
        while let Some(event) = self.session.input(&mut bytes)? {
            if let Some(event) = on(event)? {
                self.early = bytes.to_vec();
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Sends what the session has to say, as far as the socket takes it. True if nothing is left.
    pub(super) fn answer(&mut self, socket: &impl Socket) -> Result<bool, End> {
        let output = self.session.output();
        if !output.is_empty() {
            self.wire.write(output);
        }
        if self.wire.waiting() > super::MOST_UNSENT {
            return Err(End::Deaf);
        }
        Ok(self.wire.flush(socket)?)
    }
}
