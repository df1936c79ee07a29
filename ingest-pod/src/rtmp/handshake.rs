//! RTMP's handshake (Adobe RTMP specification §5.2).

use rml_rtmp::handshake::{Handshake, HandshakeError, HandshakeProcessResult, PeerType};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

/// Shakes hands as the server; returns what the peer sent beyond the handshake.
pub(super) async fn shake(socket: &mut TcpStream) -> Result<Vec<u8>, HandshakeFailure> {
    let mut handshake = Handshake::new(PeerType::Server);
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Err(HandshakeFailure::Left);
        }
        match handshake.process_bytes(&buffer[..count])? {
            HandshakeProcessResult::InProgress { response_bytes } => socket.write_all(&response_bytes).await?,
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).await?;
                return Ok(remaining_bytes);
            }
        }
    }
}
