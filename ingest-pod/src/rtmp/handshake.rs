//! RTMP's handshake (Adobe RTMP specification §5.2), simple and with digests.

use super::wire::Wire;
use bytes::BytesMut;
use rml_rtmp::handshake::{Handshake, HandshakeError, HandshakeProcessResult, PeerType};
use std::io;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Why a connection does not get as far as RTMP.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeFailure {
    #[error("the peer does not speak RTMP: {0}")]
    Protocol(#[from] HandshakeError),
    #[error("the peer left during the handshake")]
    Left,
    #[error("the handshake took too long")]
    Slow,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl HandshakeFailure {
    /// Whether an attack would look like this: not a peer that only left.
    pub(super) fn is_hostile(&self) -> bool {
        match self {
            Self::Protocol(_) | Self::Slow => true,
            Self::Io(error) => error.kind() == io::ErrorKind::InvalidData,
            Self::Left => false,
        }
    }
}

/// Shakes hands as the server; returns what the peer sent beyond the handshake.
pub(super) async fn shake(socket: &TcpStream, wire: &mut Wire) -> Result<Vec<u8>, HandshakeFailure> {
    let mut handshake = Handshake::new(PeerType::Server);
    loop {
        let read = super::with_scratch(|scratch| {
            let count = wire.read(socket, scratch)?;
            Ok::<_, io::Error>((count > 0).then(|| handshake.process_bytes(&scratch[..count])))
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
            Ok(None) => return Err(HandshakeFailure::Left),
            Ok(Some(step)) => {
                let (response, rest) = match step? {
                    HandshakeProcessResult::InProgress { response_bytes } => (response_bytes, None),
                    HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => (response_bytes, Some(remaining_bytes)),
                };
                wire.write(&mut BytesMut::from(&response[..]));
                let sent = wire.flush(socket)?;
                match rest {
                    Some(rest) => return Ok(rest), // what is not sent yet goes with the next answer
                    None if sent => continue,
                    None => {}
                }
            }
        }
        let interest = if wire.waiting() > 0 { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        socket.ready(interest).await?;
        wire.flush(socket)?;
    }
}
