//! Messages out of interleaved chunks (RTMP §5.3).

mod header;

use super::message::kind;
use bytes::Bytes;
use header::{Header, MAX_HEADER};

/// The chunk size before a peer sets another (RTMP §5.4.1).
pub const INITIAL_CHUNK_SIZE: usize = 128;
/// The least that a payload's buffer is born with, where the message is not shorter: a claimed length allocates no more.
const FIRST_ALLOCATION: usize = 4096;

/// What one peer may make a [`ChunkReader`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Chunk streams that exist at once. Publishers use three to seven.
    pub chunk_streams: usize,
    /// Bytes of one message's payload. The format's own limit is 16 MiB.
    pub message: usize,
    /// Bytes allocated for messages that are not whole yet, all chunk streams together.
    pub assembling: usize,
}

impl Limits {
    /// For a peer that may publish. A keyframe of 4K at 50 Mbit/s with all of a second's bits in it has 6 MiB; beside it,
    /// sound and a metadata message may be under way.
    pub const PUBLISHING: Self = Self { chunk_streams: 32, message: 8 << 20, assembling: 9 << 20 };
    /// For a peer that has not said who it is: `connect` is the longest message that it has a reason to send.
    pub const SETUP: Self = Self { chunk_streams: 16, message: 64 << 10, assembling: 96 << 10 };
}

/// A whole message (RTMP §6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message type id: see [`kind`].
    pub kind: u8,
    /// The absolute time in milliseconds; wraps after 49.7 days.
    pub timestamp: u32,
    /// The message stream id: zero is the connection itself.
    pub stream: u32,
    /// The payload, in a buffer of its own of exactly its length: keeping it keeps no read buffer.
    pub payload: Bytes,
}

/// Why a peer's bytes are no chunks. The connection is over: where the next chunk starts is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A header that leaves fields out, on a chunk stream without an earlier header.
    #[error("chunk stream {id} starts with a type {format} header: the first chunk of a chunk stream has to be of type 0")]
    NoPredecessor {
        /// The chunk stream.
        id: u32,
        /// The header's type, 1 to 3.
        format: u8,
    },
    /// More chunk streams than the limit.
    #[error("more than {limit} chunk streams are open")]
    ChunkStreams {
        /// The limit.
        limit: usize,
    },
    /// A message longer than the limit.
    #[error("a message of {length} bytes is announced, at most {limit} are taken")]
    TooLong {
        /// Bytes, as its header says.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many bytes in messages that are not whole.
    #[error("more than {limit} bytes of unfinished messages")]
    Assembling {
        /// The limit.
        limit: usize,
    },
    /// A chunk size of zero, or of more than 31 bits (RTMP §5.4.1).
    #[error("the chunk size {0} is not between 1 and 2147483647")]
    ChunkSize(u32),
    /// A Set Chunk Size or Abort message of fewer than four bytes (RTMP §5.4).
    #[error("a protocol control message of type {0} is cut short")]
    Control(u8),
}

/// Puts messages together, from bytes in pieces of any size.
///
/// Between calls it holds a header that is cut (18 bytes at most) and the messages under way, nothing else. Payload bytes
/// are copied once, from the input into the message's own buffer.
pub struct ChunkReader {
    limits: Limits,
    chunk_size: usize,
    /// Few, and mostly the last one again: a scan beats a hash.
    streams: Vec<ChunkStream>,
    /// The chunk stream of the last header.
    current: usize,
    /// Payload bytes of the current chunk that are still to come; zero: a header is next.
    left: usize,
    /// A header that is not whole yet.
    held: [u8; MAX_HEADER],
    held_length: usize,
    /// The capacities of all payloads under way.
    assembling: usize,
    received: u64,
}

/// What the headers of a chunk stream leave to the next one, and its message under way.
#[derive(Default)]
struct ChunkStream {
    id: u32,
    /// Of the message, absolute.
    timestamp: u32,
    /// What a type 3 header that starts a message adds. After type 0 it is the timestamp itself (RTMP §5.3.1.2.4: ffmpeg
    /// and `rml_rtmp` write it so, ffmpeg, librtmp and SRS read it so).
    delta: u32,
    length: usize,
    kind: u8,
    stream: u32,
    /// The type of the header that started the message.
    format: u8,
    /// The last timestamp field was too small for its value, which is `delta`.
    extended: bool,
    /// A message is under way.
    open: bool,
    payload: Vec<u8>,
}

impl ChunkReader {
    /// A reader before the first chunk.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunk_size: INITIAL_CHUNK_SIZE,
            streams: Vec::with_capacity(4),
            current: 0,
            left: 0,
            held: [0; MAX_HEADER],
            held_length: 0,
            assembling: 0,
            received: 0,
        }
    }

    /// Other limits from the next header on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes read since the start, the number that acknowledgements tell (RTMP §5.4.3; there modulo 2³²).
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes allocated for messages that are not whole.
    pub fn assembling(&self) -> usize {
        self.assembling
    }

    /// Reads from the front of `input` until a message is whole, and leaves the rest of `input` for the next call; `None`
    /// when all of `input` is read. Call it until it says `None`.
    ///
    /// Set Chunk Size and Abort (RTMP §5.4.1, §5.4.2) take effect here, and are returned like any other message.
    ///
    /// # Errors
    /// The peer broke the protocol or a limit; the reader is of no use from then on.
    #[inline]
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        let before = input.len();
        let message = self.advance(input);
        self.received += (before - input.len()) as u64;
        message
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        loop {
            if self.left == 0 && !self.header(input)? {
                return Ok(None);
            }
            self.payload(input)?;
            if self.left > 0 {
                return Ok(None);
            }
            let stream = &mut self.streams[self.current];
            if stream.payload.len() == stream.length {
                stream.open = false;
                let payload = std::mem::take(&mut stream.payload);
                self.assembling -= payload.capacity();
                // The capacity is the length: no byte is moved.
                let message = Message { kind: stream.kind, timestamp: stream.timestamp, stream: stream.stream, payload: payload.into() };
                self.control(&message)?;
                return Ok(Some(message));
            }
        }
    }

    /// Reads a chunk's header; `false` when `input` ends first.
    #[inline]
    fn header(&mut self, input: &mut &[u8]) -> Result<bool, ChunkError> {
        if self.held_length > 0 {
            return self.held_header(input);
        }
        // By far the most frequent: one byte that continues the message.
        if let (Some(&first), Some(stream)) = (input.first(), self.streams.get(self.current))
            && first > 0xc1 // type 3, basic header of one byte
            && u32::from(first & 0x3f) == stream.id
            && stream.open
            && !stream.extended
        {
            self.left = self.chunk_size.min(stream.length - stream.payload.len());
            *input = &input[1..];
            return Ok(true);
        }
        let Some((header, used)) = Header::read(input, |id| self.find(id))? else {
            self.held[..input.len()].copy_from_slice(input);
            self.held_length = input.len();
            *input = &[];
            return Ok(false);
        };
        *input = &input[used..];
        self.open(&header)?;
        Ok(true)
    }

    /// The same, where an earlier input ended within the header.
    #[cold]
    fn held_header(&mut self, input: &mut &[u8]) -> Result<bool, ChunkError> {
        let held = self.held_length;
        let more = input.len().min(MAX_HEADER - held);
        let whole = held + more;
        self.held[held..whole].copy_from_slice(&input[..more]);
        let Some((header, used)) = Header::read(&self.held[..whole], |id| self.find(id))? else {
            self.held_length = whole;
            *input = &input[more..];
            return Ok(false);
        };
        // Bytes held as a repeated extended timestamp may turn out to be payload: those past the header stay held.
        *input = &input[used.saturating_sub(held)..];
        self.held.copy_within(used.min(held)..held, 0);
        self.held_length = held - used.min(held);
        self.open(&header)?;
        Ok(true)
    }

    /// Opens the chunk that a header announces.
    fn open(&mut self, header: &Header) -> Result<(), ChunkError> {
        let index = match header.known {
            Some(index) => index,
            None if self.streams.len() >= self.limits.chunk_streams => {
                return Err(ChunkError::ChunkStreams { limit: self.limits.chunk_streams });
            }
            None => {
                self.streams.push(ChunkStream { id: header.id, ..ChunkStream::default() });
                self.streams.len() - 1
            }
        };
        self.current = index;
        let stream = &mut self.streams[index];
        if !(stream.open && header.continues(stream)) {
            // A message that was under way is given up: encoders that drop frames do it without an Abort.
            self.assembling -= stream.payload.capacity();
            stream.payload = Vec::new();
            header.apply(stream);
            if stream.length > self.limits.message {
                return Err(ChunkError::TooLong { length: stream.length, limit: self.limits.message });
            }
            stream.open = true;
        }
        self.left = self.chunk_size.min(stream.length - stream.payload.len());
        Ok(())
    }

    /// Moves payload of the current chunk.
    #[inline]
    fn payload(&mut self, input: &mut &[u8]) -> Result<(), ChunkError> {
        if self.held_length > 0 {
            let held = self.held;
            let count = self.left.min(self.held_length);
            self.append(&held[..count], count)?;
            self.held.copy_within(count..self.held_length, 0);
            self.held_length -= count;
        }
        let here = input.len();
        let (payload, rest) = input.split_at(self.left.min(here));
        *input = rest;
        self.append(payload, here)
    }

    /// Appends to the current message; `here` bytes of input are there, though not all need be this message's.
    #[inline]
    fn append(&mut self, payload: &[u8], here: usize) -> Result<(), ChunkError> {
        let stream = &mut self.streams[self.current];
        if payload.len() > stream.payload.capacity() - stream.payload.len() {
            self.grow(here)?;
        }
        self.streams[self.current].payload.extend_from_slice(payload);
        self.left -= payload.len();
        Ok(())
    }

    /// Grows the current message's buffer: to what is there already, or to the double, never beyond its length.
    #[cold]
    fn grow(&mut self, here: usize) -> Result<(), ChunkError> {
        let stream = &mut self.streams[self.current];
        let (length, old) = (stream.payload.len(), stream.payload.capacity());
        let wanted = (length + here).max(2 * old).max(FIRST_ALLOCATION).min(stream.length);
        if self.assembling - old + wanted > self.limits.assembling {
            return Err(ChunkError::Assembling { limit: self.limits.assembling });
        }
        stream.payload.reserve_exact(wanted - length);
        self.assembling += stream.payload.capacity() - old;
        Ok(())
    }

    /// Obeys Set Chunk Size and Abort.
    fn control(&mut self, message: &Message) -> Result<(), ChunkError> {
        if !matches!(message.kind, kind::SET_CHUNK_SIZE | kind::ABORT) {
            return Ok(());
        }
        let value = message.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(ChunkError::Control(message.kind))?;
        if message.kind == kind::SET_CHUNK_SIZE {
            if value == 0 || value > 0x7fff_ffff {
                return Err(ChunkError::ChunkSize(value));
            }
            // Larger than any message is as good as a message's length, and allocates nothing.
            self.chunk_size = value as usize;
        } else if let Some(index) = self.find(value).map(|(index, _)| index) {
            let stream = &mut self.streams[index];
            self.assembling -= stream.payload.capacity();
            stream.payload = Vec::new();
            stream.open = false;
        }
        Ok(())
    }

    #[inline]
    fn find(&self, id: u32) -> Option<(usize, &ChunkStream)> {
        match self.streams.get(self.current) {
            Some(stream) if stream.id == id => Some((self.current, stream)),
            _ => self.streams.iter().enumerate().find(|(_, stream)| stream.id == id),
        }
    }
}
