//! Messages into chunks (RTMP §5.3), for the little that a server says.

use super::chunk::INITIAL_CHUNK_SIZE;
use super::message::kind;
use bytes::{BufMut, BytesMut};

/// Writes messages as chunks: a whole header first, so that no peer needs to remember anything, then type 3.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self { chunk_size: INITIAL_CHUNK_SIZE }
    }
}

impl ChunkWriter {
    /// Appends a message with the timestamp zero to `out`, on the chunk stream `chunk_stream` (2 to 63).
    /// Set Chunk Size changes the chunks that follow.
    pub fn write(&mut self, out: &mut BytesMut, chunk_stream: u8, kind: u8, stream: u32, payload: &[u8]) {
        // A server's messages are far below the 16 MiB that the field can say.
        let length = payload.len().min(0x00ff_ffff) as u32;
        let [_, a, b, c] = length.to_be_bytes();
        out.put_slice(&[chunk_stream & 0x3f, 0, 0, 0, a, b, c, kind]);
        out.put_u32_le(stream);
        for (index, chunk) in payload.chunks(self.chunk_size).enumerate() {
            if index > 0 {
                out.put_u8(0xc0 | chunk_stream);
            }
            out.put_slice(chunk);
        }
        if let (kind::SET_CHUNK_SIZE, Some(size)) = (kind, payload.first_chunk()) {
            self.chunk_size = (u32::from_be_bytes(*size) as usize).max(1);
        }
    }
}
