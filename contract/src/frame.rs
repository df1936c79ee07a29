//! Length-delimited frames, shared by the feed, the relay and the push: `u32` length (big endian, of all that follows),
//! `u8` kind, body. Built for readers that get bytes in any pieces; no frame is allocated for by its claimed length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest frame that is taken, in bytes without its length field: a 4K segment of 4 s at 60 Mbit/s, and room.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;

/// What can be wrong with bytes that claim to be a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The claimed length is over [`MAX_FRAME`] or zero.
    #[error("a frame claims {0} bytes; 1 to {MAX_FRAME} are taken")]
    Length(usize),
    /// No frame of this protocol has this kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// The body is too short for its kind, or a field holds what it must not.
    #[error("a frame of kind {kind} is malformed: {what}")]
    Body {
        /// The frame's kind.
        kind: u8,
        /// The field and what is wrong with it.
        what: &'static str,
    },
}

/// Takes one whole frame off the front of `input`: its kind and its body. `None` until enough bytes are there.
pub fn take(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, FrameError> {
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length == 0 || length > MAX_FRAME {
        return Err(FrameError::Length(length));
    }
    if input.len() < 4 + length {
        return Ok(None);
    }
    input.advance(4);
    let mut frame = input.split_to(length).freeze();
    let kind = frame.get_u8();
    Ok(Some((kind, frame)))
}

/// Appends a frame to `out`.
pub fn put(out: &mut BytesMut, kind: u8, parts: &[&[u8]]) {
    out.reserve(5 + parts.iter().map(|part| part.len()).sum::<usize>());
    put_head(out, kind, parts, 0);
}

/// Appends a frame to `out` but for its last `rest` bytes, which are sent after it from where they lie.
pub(crate) fn put_head(out: &mut BytesMut, kind: u8, parts: &[&[u8]], rest: usize) {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>() + rest;
    out.put_u32(length as u32); // parts come from this process and hold one access unit or segment: far below 4 GiB
    out.put_u8(kind);
    for part in parts {
        out.put_slice(part);
    }
}

/// Reads fields off a frame's body and names what is missing.
pub(crate) struct Fields {
    kind: u8,
    body: Bytes,
}

impl Fields {
    pub(crate) fn new(kind: u8, body: Bytes) -> Self {
        Self { kind, body }
    }

    pub(crate) fn bad(&self, what: &'static str) -> FrameError {
        FrameError::Body { kind: self.kind, what }
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, FrameError> {
        self.body.try_get_u8().map_err(|_| self.bad(what))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, FrameError> {
        self.body.try_get_u32().map_err(|_| self.bad(what))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, FrameError> {
        self.body.try_get_u64().map_err(|_| self.bad(what))
    }

    /// A `u16` length and as many bytes of UTF-8.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, FrameError> {
        let length = self.body.try_get_u16().map_err(|_| self.bad(what))? as usize;
        if self.body.len() < length {
            return Err(self.bad(what));
        }
        String::from_utf8(self.body.split_to(length).to_vec()).map_err(|_| self.bad(what))
    }

    /// A `u32` length and as many bytes, without a copy.
    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<Bytes, FrameError> {
        let length = self.u32(what)? as usize;
        if self.body.len() < length {
            return Err(self.bad(what));
        }
        Ok(self.body.split_to(length))
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// All that is left, without a copy.
    pub(crate) fn rest(self) -> Bytes {
        self.body
    }
}

/// A text field as [`Fields::text`] reads it; what is over 64 KiB is cut at a character.
pub(crate) fn text_field(text: &str) -> Vec<u8> {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut field = Vec::with_capacity(2 + end);
    field.put_u16(end as u16);
    field.put_slice(&text.as_bytes()[..end]);
    field
}
