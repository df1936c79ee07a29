//! What comes from the internet besides publishers. Every attack is one connection, and ends when the shard ends it or when it
//! has nothing more to try; whether it got in is not its concern.

use super::peer::{Publisher, dial, shaken};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between two bytes of a slow peer.
const SLOW: Duration = Duration::from_millis(50);

/// An attack on `target`, from an address, with a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    Idle,
    SlowHandshake,
    SlowMessage,
    HalfHandshake,
    Noise,
    NoiseAfterHandshake,
    DeepAmf,
    HugeClaim,
    ManyClaims,
    TinyChunks,
    HugeChunks,
    Deaf,
    WrongKey,
}

impl Attack {
    /// Those that end quickly and can be tried again and again.
    pub const QUICK: [Self; 9] = [
        Self::HalfHandshake,
        Self::Noise,
        Self::NoiseAfterHandshake,
        Self::DeepAmf,
        Self::HugeClaim,
        Self::TinyChunks,
        Self::HugeChunks,
        Self::Deaf,
        Self::WrongKey,
    ];

    pub async fn run(self, target: SocketAddr, from: Ipv4Addr, number: u64) {
        // An attack that fails is one that the shard has ended.
        let _ = self.attempt(target, from, number).await;
    }

    async fn attempt(self, target: SocketAddr, from: Ipv4Addr, number: u64) -> io::Result<()> {
        match self {
            Self::Idle => until_closed(dial(target, from).await?).await,
            Self::SlowHandshake => slowly(dial(target, from).await?, &[3; 1537]).await,
            Self::SlowMessage => {
                let (socket, _) = shaken(target, from).await?;
                slowly(socket, &message(3, 20, &connect(), 128)).await
            }
            Self::HalfHandshake => dial(target, from).await?.write_all(&[3; 700]).await,
            Self::Noise => {
                let mut socket = dial(target, from).await?;
                socket.write_all(&noise(number)).await?;
                until_closed(socket).await
            }
            Self::NoiseAfterHandshake => after_handshake(target, from, &noise(number)).await,
            Self::DeepAmf => {
                let nested = [&[2, 0, 7][..], b"connect", &[0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], &[10, 0, 0, 0, 1].repeat(12_000)].concat();
                after_handshake(target, from, &message(3, 20, &nested, 128)).await
            }
            Self::HugeClaim => {
                let headers: Vec<u8> = (2..64).flat_map(|stream| header(stream, 9, 0x00ff_ffff)).collect();
                after_handshake(target, from, &headers).await
            }
            // As many and as much as is allowed, and then nothing.
            Self::ManyClaims => {
                let (mut socket, _) = shaken(target, from).await?;
                let chunk = |stream| [&header(stream, 9, 20_000)[..], &[0; 128]].concat();
                socket.write_all(&(2..6).flat_map(chunk).collect::<Vec<_>>()).await?;
                until_closed(socket).await
            }
            Self::TinyChunks => {
                let bytes = [message(2, 1, &1u32.to_be_bytes(), 128), message(3, 20, &connect(), 1).repeat(20)].concat();
                after_handshake(target, from, &bytes).await
            }
            Self::HugeChunks => {
                let claim = [&header(4, 8, 60_000)[..], &[0; 100]].concat();
                after_handshake(target, from, &[message(2, 1, &0x7fff_ffffu32.to_be_bytes(), 128), claim].concat()).await
            }
            Self::Deaf => {
                let (mut socket, _) = shaken(target, from).await?;
                socket.write_all(&message(3, 20, &connect(), 128)).await?;
                let questions = message(3, 20, &command("createStream"), 128).repeat(1000);
                for _ in 0..1000 {
                    socket.write_all(&questions).await?; // until it is cut
                }
                Ok(())
            }
            Self::WrongKey => Publisher::start(target, from, &format!("guess-{number}")).await.map(drop),
        }
    }
}

/// Sends this past a handshake, and waits for the end.
async fn after_handshake(target: SocketAddr, from: Ipv4Addr, bytes: &[u8]) -> io::Result<()> {
    let (mut socket, _) = shaken(target, from).await?;
    socket.write_all(bytes).await?;
    socket.shutdown().await?;
    until_closed(socket).await
}

async fn slowly(mut socket: TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        socket.write_all(&[*byte]).await?;
        tokio::time::sleep(SLOW).await; // what makes it the attack that it is
    }
    until_closed(socket).await
}

async fn until_closed(mut socket: TcpStream) -> io::Result<()> {
    let mut ignored = [0; 512];
    while socket.read(&mut ignored).await? > 0 {}
    Ok(())
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 16 * 1024];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// A type 0 header of a message on this stream (RTMP §5.3.1).
fn header(chunk_stream: u8, kind: u8, length: u32) -> Vec<u8> {
    let [_, a, b, c] = length.to_be_bytes();
    vec![chunk_stream, 0, 0, 0, a, b, c, kind, 0, 0, 0, 0]
}

fn message(chunk_stream: u8, kind: u8, payload: &[u8], chunk_size: usize) -> Vec<u8> {
    let mut bytes = header(chunk_stream, kind, payload.len() as u32);
    for (index, chunk) in payload.chunks(chunk_size).enumerate() {
        if index > 0 {
            bytes.push(0xc0 | chunk_stream);
        }
        bytes.extend(chunk);
    }
    bytes
}

/// `connect` to the application `live`, in AMF0.
fn connect() -> Vec<u8> {
    let object = [&[3, 0, 3][..], b"app", &[2, 0, 4], b"live", &[0, 0, 9]].concat();
    [&[2, 0, 7][..], b"connect", &[0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], &object].concat()
}

/// A command without arguments, transaction 1.
fn command(name: &str) -> Vec<u8> {
    [&[2, 0, name.len() as u8][..], name.as_bytes(), &[0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 5]].concat()
}
