//! What messages say (RTMP §5.4, §6.2, §7): commands, user control, aggregates.

use super::amf::{AmfError, Limits, Value};
use super::amf0;
use bytes::{Buf, Bytes};

/// Message type ids.
pub mod kind {
    /// Protocol control: bytes in a chunk (RTMP §5.4.1).
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Protocol control: a message under way is given up (RTMP §5.4.2).
    pub const ABORT: u8 = 2;
    /// Protocol control: bytes received so far (RTMP §5.4.3).
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User control: see [`UserControl`](super::UserControl) (RTMP §6.2).
    pub const USER_CONTROL: u8 = 4;
    /// Protocol control: bytes after which the peer wants an acknowledgement (RTMP §5.4.4).
    pub const WINDOW_ACKNOWLEDGEMENT_SIZE: u8 = 5;
    /// Protocol control: bytes that the peer may send without an acknowledgement (RTMP §5.4.5).
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Sound: the body of an FLV audio tag (RTMP §7.1.4).
    pub const AUDIO: u8 = 8;
    /// Pictures: the body of an FLV video tag (RTMP §7.1.5).
    pub const VIDEO: u8 = 9;
    /// Data in AMF3, or in AMF0 after a byte of zero (RTMP §7.1.2).
    pub const DATA_AMF3: u8 = 15;
    /// A shared object in AMF3 (RTMP §7.1.3).
    pub const SHARED_OBJECT_AMF3: u8 = 16;
    /// A command in AMF3, in fact in AMF0 after a byte of zero (RTMP §7.1.1).
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0: the body of an FLV script tag (RTMP §7.1.2).
    pub const DATA_AMF0: u8 = 18;
    /// A shared object in AMF0 (RTMP §7.1.3).
    pub const SHARED_OBJECT_AMF0: u8 = 19;
    /// A command in AMF0 (RTMP §7.1.1).
    pub const COMMAND_AMF0: u8 = 20;
    /// Several messages in one: see [`Aggregate`](super::Aggregate) (RTMP §7.1.6).
    pub const AGGREGATE: u8 = 22;
}

/// A command (RTMP §7.1.1).
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// `connect`, `publish`…
    pub name: String,
    /// What its reply has to repeat; zero: no reply is wanted. Also zero where a peer left it out.
    pub transaction: f64,
    /// What follows: first the command object, in most commands null.
    pub arguments: Vec<Value>,
}

/// Why a message is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Its values cannot be read.
    #[error("a command cannot be read: {0}")]
    Amf(#[from] AmfError),
    /// It does not start with a name.
    #[error("a command does not start with a name")]
    NoName,
}

impl Command {
    /// Reads the payload of a message of [`kind::COMMAND_AMF0`].
    pub fn amf0(payload: &[u8], limits: Limits) -> Result<Self, CommandError> {
        let mut values = amf0::read(payload, limits)?.into_iter();
        let Some(Value::String(name)) = values.next() else { return Err(CommandError::NoName) };
        let mut arguments: Vec<_> = values.collect();
        let transaction = match arguments.first() {
            Some(Value::Number(transaction)) => *transaction,
            _ => return Ok(Self { name, transaction: 0.0, arguments }),
        };
        arguments.remove(0);
        Ok(Self { name, transaction, arguments })
    }

    /// Reads the payload of a message of [`kind::COMMAND_AMF3`]: a format byte of zero, then AMF0 in which single values may
    /// switch to AMF3. Some peers leave the byte out.
    pub fn amf3(payload: &[u8], limits: Limits) -> Result<Self, CommandError> {
        Self::amf0(payload.strip_prefix(&[0]).unwrap_or(payload), limits)
    }

    /// The argument at `index` (zero is the command object) as a text.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.arguments.get(index)?.text()
    }
}

/// A user control message (RTMP §6.2, §7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserControl {
    /// A stream can be used.
    StreamBegin(u32),
    /// Milliseconds that a player wants buffered, of a stream. librtmp and ffmpeg send it as publishers, too.
    BufferLength {
        /// The stream.
        stream: u32,
        /// Milliseconds.
        millis: u32,
    },
    /// An answer with the same time is wanted.
    PingRequest(u32),
    /// The answer.
    PingResponse(u32),
    /// Anything else, known or not, and what is cut short: to be ignored.
    Other(u16),
}

impl UserControl {
    /// Reads the payload of a message of [`kind::USER_CONTROL`]; never fails.
    pub fn read(payload: &[u8]) -> Self {
        let event = payload.first_chunk().map_or(u16::MAX, |bytes| u16::from_be_bytes(*bytes));
        let word = |at: usize| Some(u32::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        match (event, word(2), word(6)) {
            (0, Some(stream), _) => Self::StreamBegin(stream),
            (3, Some(stream), Some(millis)) => Self::BufferLength { stream, millis },
            (6, Some(time), _) => Self::PingRequest(time),
            (7, Some(time), _) => Self::PingResponse(time),
            _ => Self::Other(event),
        }
    }
}

/// A sound, a picture or a script of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// [`kind::AUDIO`], [`kind::VIDEO`] or [`kind::DATA_AMF0`].
    pub kind: u8,
    /// Milliseconds, as of a message of its own.
    pub timestamp: u32,
    /// The body, a copy: keeping one tag keeps no other.
    pub payload: Bytes,
}

/// The tags of an aggregate message (RTMP §7.1.6), one after another. Anything else in it, aggregates included, is passed
/// over, and it ends where a tag is cut short.
#[derive(Debug, Clone)]
pub struct Aggregate {
    rest: Bytes,
    timestamp: u32,
    /// The first tag's own time: the difference to the message's holds for all.
    first: Option<u32>,
}

impl Aggregate {
    /// Of a message with this time and payload.
    pub fn new(timestamp: u32, payload: Bytes) -> Self {
        Self { rest: payload, timestamp, first: None }
    }
}

impl Iterator for Aggregate {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        const HEADER: usize = 11;
        const BACK_POINTER: usize = 4;
        loop {
            // The layout of an FLV tag (FLV E.4.1): the time's high byte comes after the others.
            let &[kind, l1, l2, l3, t2, t3, t4, t1, ..] = self.rest.first_chunk::<HEADER>()?;
            let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
            let time = u32::from_be_bytes([t1, t2, t3, t4]);
            let body = self.rest.get(HEADER..HEADER + length)?;
            let payload = matches!(kind, kind::AUDIO | kind::VIDEO | kind::DATA_AMF0).then(|| Bytes::copy_from_slice(body));
            // The last back pointer may be missing.
            self.rest.advance((HEADER + length + BACK_POINTER).min(self.rest.len()));
            let first = *self.first.get_or_insert(time);
            if let Some(payload) = payload {
                return Some(Tag { kind, timestamp: self.timestamp.wrapping_add(time.wrapping_sub(first)), payload });
            }
        }
    }
}
