//! Chunk headers (RTMP §5.3.1): basic header, message header and extended timestamp.

use super::{ChunkError, ChunkStream};

/// Bytes of the longest header: three of basic header, eleven of message header, four of extended timestamp.
pub(super) const MAX_HEADER: usize = 18;
/// The timestamp field that says that the value follows (RTMP §5.3.1.3).
const EXTENDED: u32 = 0x00ff_ffff;

/// A header as it was read, before it changes anything.
pub(super) struct Header {
    pub(super) id: u32,
    /// Where its chunk stream is, if there was one.
    pub(super) known: Option<usize>,
    format: u8,
    /// Timestamp (type 0) or delta (types 1 and 2), extension included.
    time: u32,
    extended: bool,
    /// Types 0 and 1.
    length: usize,
    /// Types 0 and 1.
    kind: u8,
    /// Type 0.
    stream: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`, and says how many bytes it has; `None`: it is not whole.
    /// It always is with [`MAX_HEADER`] bytes.
    pub(super) fn read<'a>(
        bytes: &[u8],
        find: impl Fn(u32) -> Option<(usize, &'a ChunkStream)>,
    ) -> Result<Option<(Self, usize)>, ChunkError> {
        let Some((format, id, basic)) = basic_header(bytes) else { return Ok(None) };
        let found = find(id);
        let mut header = Self { id, known: None, format, time: 0, extended: false, length: 0, kind: 0, stream: 0 };
        match found {
            Some((index, _)) => header.known = Some(index),
            None if format > 0 => return Err(ChunkError::NoPredecessor { id, format }),
            None => {}
        }
        let (size, rest) = ([11, 7, 3, 0][usize::from(format)], &bytes[basic..]);
        let Some((fields, rest)) = rest.split_at_checked(size) else { return Ok(None) };
        let used = basic + size;
        if let [a, b, c, ..] = *fields {
            header.time = u32::from_be_bytes([0, a, b, c]);
            header.extended = header.time == EXTENDED;
        }
        if let [_, _, _, a, b, c, kind, ..] = *fields {
            header.length = u32::from_be_bytes([0, a, b, c]) as usize;
            header.kind = kind;
        }
        if let [.., a, b, c, d] = *fields
            && format == 0
        {
            header.stream = u32::from_le_bytes([a, b, c, d]);
        }
        match found {
            Some((_, stream)) if format == 3 => Ok(repeated_time(rest, stream).map(|extension| (header, used + extension))),
            _ if header.extended => Ok(rest.first_chunk().map(|value| {
                header.time = u32::from_be_bytes(*value);
                (header, used + 4)
            })),
            _ => Ok(Some((header, used))),
        }
    }

    /// Whether the chunk goes on with the message under way rather than starts one.
    ///
    /// By the specification only type 3 does. `rml_rtmp`, told not to compress, and some encoders repeat the first header
    /// instead, field for field; a new message in the middle of another would differ in one at least.
    pub(super) fn continues(&self, stream: &ChunkStream) -> bool {
        let time = self.format == stream.format && self.time == stream.delta;
        let shape = self.length == stream.length && self.kind == stream.kind;
        match self.format {
            0 => time && shape && self.stream == stream.stream,
            1 => time && shape,
            2 => time,
            _ => true,
        }
    }

    /// Starts a message: fields that the header leaves out stay as they were (RTMP §5.3.1.2).
    pub(super) fn apply(&self, stream: &mut ChunkStream) {
        stream.format = self.format;
        if self.format < 3 {
            stream.extended = self.extended;
            stream.delta = self.time;
        }
        if self.format < 2 {
            stream.length = self.length;
            stream.kind = self.kind;
        }
        if self.format == 0 {
            stream.stream = self.stream;
            stream.timestamp = self.time;
        } else {
            stream.timestamp = stream.timestamp.wrapping_add(stream.delta);
        }
    }
}

/// Type, chunk stream id and length of a basic header of one, two or three bytes (RTMP §5.3.1.1).
fn basic_header(bytes: &[u8]) -> Option<(u8, u32, usize)> {
    let format = bytes.first()? >> 6;
    let (id, length) = match *bytes {
        [first, second, ..] if first & 0x3f == 0 => (64 + u32::from(second), 2),
        [first, second, third, ..] if first & 0x3f == 1 => (64 + u32::from(second) + 256 * u32::from(third), 3),
        [first, ..] if first & 0x3f > 1 => (u32::from(first & 0x3f), 1),
        _ => return None,
    };
    Some((format, id, length))
}

/// How long the extended timestamp of a type 3 header is: four bytes or none; `None` where more bytes have to come first.
///
/// The specification (§5.3.1.3) wants it repeated; librtmp and ffmpeg do, others (old Flash Media Live Encoders, some phones)
/// leave it out, and nothing announces which. So it is compared, as SRS does: bytes that are the value are the value, anything
/// else is payload. The first byte that differs decides, so that the end of a message does not wait for the next one. A peer
/// that leaves it out and has these very bytes as payload at the border of a chunk loses the message, once in 2³² chunks.
fn repeated_time(rest: &[u8], stream: &ChunkStream) -> Option<usize> {
    if !stream.extended {
        return Some(0);
    }
    let there = &rest[..rest.len().min(4)];
    // Some repeat the absolute time where the first header had a delta.
    let repeats = [stream.delta, stream.timestamp].iter().any(|time| time.to_be_bytes().starts_with(there));
    match (repeats, there.len()) {
        (false, _) => Some(0),
        (true, 4) => Some(4),
        (true, _) => None,
    }
}
