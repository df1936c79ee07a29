//! A chunk writer that knows every trick: each header type, long chunk stream ids, extended timestamps repeated or not,
//! chunk streams interleaved.

use super::super::chunk::Message;

/// What a chunk stream remembers.
struct Last {
    message: Message,
    delta: Option<u32>,
}

/// One chunk stream's side of it.
pub(super) struct ChunkStreamWriter {
    id: u32,
    /// Extended timestamps stand in type 3 headers, too.
    pub(super) repeats_time: bool,
    last: Option<Last>,
    extended: Option<u32>,
}

impl ChunkStreamWriter {
    pub(super) fn new(id: u32) -> Self {
        Self { id, repeats_time: true, last: None, extended: None }
    }

    /// The message as chunks, each with its header, as short as the headers before allow.
    pub(super) fn chunks(&mut self, message: &Message, chunk_size: usize) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let mut first = self.first_header(message);
        let mut parts = message.payload.chunks(chunk_size);
        first.extend_from_slice(parts.next().unwrap_or_default());
        chunks.push(first);
        for part in parts {
            let mut chunk = self.continuation();
            chunk.extend_from_slice(part);
            chunks.push(chunk);
        }
        chunks
    }

    /// A type 3 header.
    pub(super) fn continuation(&self) -> Vec<u8> {
        let mut header = self.basic(3);
        if let (Some(value), true) = (self.extended, self.repeats_time) {
            header.extend(value.to_be_bytes());
        }
        header
    }

    fn first_header(&mut self, message: &Message) -> Vec<u8> {
        let format = match &self.last {
            Some(last) if last.message.stream == message.stream && message.timestamp >= last.message.timestamp => {
                let delta = message.timestamp - last.message.timestamp;
                let same_shape = last.message.kind == message.kind && last.message.payload.len() == message.payload.len();
                match (same_shape, last.delta == Some(delta)) {
                    (true, true) => 3,
                    (true, false) => 2,
                    (false, _) => 1,
                }
            }
            _ => 0,
        };
        let time = match &self.last {
            Some(last) if format > 0 => message.timestamp - last.message.timestamp,
            _ => message.timestamp,
        };
        let header = if format == 3 { self.continuation() } else { self.full_header(format, time, message) };
        self.last = Some(Last { message: message.clone(), delta: Some(time) });
        header
    }

    fn full_header(&mut self, format: u8, time: u32, message: &Message) -> Vec<u8> {
        let mut header = self.basic(format);
        self.extended = (time >= 0x00ff_ffff).then_some(time);
        header.extend_from_slice(&time.min(0x00ff_ffff).to_be_bytes()[1..]);
        if format < 2 {
            header.extend_from_slice(&(message.payload.len() as u32).to_be_bytes()[1..]);
            header.push(message.kind);
        }
        if format == 0 {
            header.extend(message.stream.to_le_bytes());
        }
        header.extend(self.extended.into_iter().flat_map(u32::to_be_bytes));
        header
    }

    fn basic(&self, format: u8) -> Vec<u8> {
        let format = format << 6;
        match self.id {
            id @ 2..64 => vec![format | id as u8],
            id @ 64..320 => vec![format, (id - 64) as u8],
            id => vec![format | 1, ((id - 64) % 256) as u8, ((id - 64) / 256) as u8],
        }
    }
}
