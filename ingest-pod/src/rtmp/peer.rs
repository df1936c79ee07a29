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
            let stopped = on(event);
            if !matches!(stopped, Ok(None)) {
                // Also where it is an error: a stream that moves ends this way of its media, and not the connection.
                self.early = bytes.to_vec();
                return stopped;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::session;
    use super::*;

    /// A publisher whose stream moves while a read brought several messages: the rest of them is still there for whoever
    /// reads next. What was forgotten here once left the peer in the middle of a chunk, and cost it its connection.
    #[test]
    fn what_was_read_and_not_taken_is_heard_later() {
        let capture = include_bytes!("../../tests/captures/ffmpeg5-h264-aac.rtmp");
        let mut peer = Peer {
            remote: "192.0.2.1:9".parse().unwrap(),
            wire: Wire::new(None).unwrap(),
            session: Session::new(session::Limits::default()),
            early: Vec::new(),
        };
        let publish = peer.hear(capture, &mut |event| Ok(Some(event))).unwrap();
        assert!(matches!(publish, Some(Event::Publish { .. })), "{publish:?}");
        peer.session.accept_publish();
        let (mut heard, mut moves) = (0, 0);
        loop {
            let early = std::mem::take(&mut peer.early);
            let outcome = peer.hear(&early, &mut |event| match event {
                Event::Media { .. } if heard % 7 == 3 => {
                    heard += 1;
                    Err(End::Idle)
                }
                Event::Media { .. } => {
                    heard += 1;
                    Ok(None)
                }
                other => Ok(Some(other)),
            });
            match outcome {
                Err(End::Idle) => moves += 1,
                Err(other) => panic!("after {heard} tags: {other}"),
                Ok(_) if peer.early.is_empty() => break,
                Ok(_) => {}
            }
        }
        assert!(heard > 50 && moves > 5, "{heard} tags, {moves} moves");
    }
}
