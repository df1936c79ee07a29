//! The server's side of an RTMP connection after its handshake: bytes in, events and bytes out. It does no I/O and knows no
//! clock, so that whole connections can be replayed in tests.
//!
//! Sources: RTMP §7.2 for the commands of the specification; FFmpeg's `rtmpproto.c`, librtmp (OBS) and Flash Media Live
//! Encoder for those that it does not name (`releaseStream`, `FCPublish`…); E-RTMP v2, "Enhancing NetConnection connect
//! Command" and "Reconnect Request".

mod command;
mod replies;

use bytes::{Bytes, BytesMut};
use lectern_media::rtmp::message::{Aggregate, Command, CommandError, Tag, UserControl, kind};
use lectern_media::rtmp::{amf, chunk};
use replies::Replies;

/// After so many bytes a peer that has not asked for a window gets an acknowledgement.
const DEFAULT_WINDOW: u64 = 2_500_000;

/// What one peer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until it may publish.
    pub setup: chunk::Limits,
    /// From then on.
    pub publishing: chunk::Limits,
    /// Of each command.
    pub command: amf::Limits,
    /// Bytes of replies that are not taken yet. A peer that asks more than it reads is cut.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { setup: chunk::Limits::SETUP, publishing: chunk::Limits::PUBLISHING, command: amf::Limits::COMMAND, output: 256 << 10 }
    }
}

/// What a peer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wants to publish. Nothing more is read until [`Session::accept_publish`] or [`Session::reject_publish`].
    Publish {
        /// The application: the URL's path without the key.
        app: String,
        /// The stream key, without the parameters that some append to it.
        key: String,
    },
    /// A tag's body, while it publishes.
    Media {
        /// [`kind::AUDIO`], [`kind::VIDEO`] or [`kind::DATA_AMF0`].
        kind: u8,
        /// Milliseconds, as the publisher counts them.
        timestamp: u32,
        /// The FLV tag's body.
        payload: Bytes,
    },
    /// It has stopped publishing, and may publish again.
    Unpublish,
    /// All is said, by the peer or by us: send what there is of output and close. Comes once, then nothing does.
    Closed,
}

/// Why a connection cannot go on. What was there before the error has been returned before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The bytes are no chunks.
    #[error(transparent)]
    Chunk(#[from] chunk::ChunkError),
    /// A command cannot be read.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It does not read our replies.
    #[error("{0} bytes of replies wait to be read")]
    Output(usize),
}

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before `connect`.
    Fresh,
    /// May publish.
    Connected,
    /// Has asked to publish on this message stream.
    Asked(u32),
    /// Publishes on this message stream.
    Publishing(u32),
    /// Is done; [`Event::Closed`] comes next.
    Closing,
    /// Is done, and that has been said.
    Closed,
}

/// What `connect` said.
#[derive(Debug, Default)]
struct Peer {
    app: String,
    tc_url: String,
    /// It understands ReconnectRequest (E-RTMP v2, `capsEx`).
    reconnects: bool,
}

/// One peer's session.
pub struct Session {
    limits: Limits,
    reader: chunk::ChunkReader,
    replies: Replies,
    stage: Stage,
    peer: Peer,
    /// Message streams created so far.
    streams: u32,
    /// Bytes between our acknowledgements.
    window: u64,
    acknowledged: u64,
    /// An aggregate whose tags are handed out one by one.
    tags: Option<Aggregate>,
}

impl Session {
    /// A session right after the handshake.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            reader: chunk::ChunkReader::new(limits.setup),
            replies: Replies::default(),
            stage: Stage::Fresh,
            peer: Peer::default(),
            streams: 0,
            window: DEFAULT_WINDOW,
            acknowledged: 0,
            tags: None,
        }
    }

    /// Reads from the front of `input` until something happens; the rest of `input` is for the next call. `None`: all is
    /// read, or (see [`Event::Publish`]) has to wait. Call it until it says `None`, then send [`Session::output`].
    ///
    /// # Errors
    /// The peer broke the protocol or a limit: close the connection.
    pub fn input(&mut self, input: &mut &[u8]) -> Result<Option<Event>, SessionError> {
        loop {
            match self.stage {
                Stage::Asked(_) => return Ok(None),
                Stage::Closing => {
                    self.stage = Stage::Closed;
                    return Ok(Some(Event::Closed));
                }
                Stage::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                Stage::Fresh | Stage::Connected | Stage::Publishing(_) => {}
            }
            if let Some(tag) = self.tags.as_mut().and_then(Iterator::next) {
                let Tag { kind, timestamp, payload } = tag;
                return Ok(Some(Event::Media { kind, timestamp, payload }));
            }
            self.tags = None;
            let message = self.reader.read(input)?;
            self.acknowledge();
            let Some(message) = message else { return Ok(None) };
            let event = self.message(message)?;
            if self.replies.output.len() > self.limits.output {
                return Err(SessionError::Output(self.limits.output));
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// What has to be sent to the peer: take it off the front.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.replies.output
    }

    /// The URL that the peer says it connected to; empty where it said none.
    pub fn tc_url(&self) -> &str {
        &self.peer.tc_url
    }

    /// Bytes read since the handshake.
    pub fn received(&self) -> u64 {
        self.reader.received()
    }

    /// Bytes allocated for messages that are not whole.
    pub fn assembling(&self) -> usize {
        self.reader.assembling()
    }

    /// Lets a peer that asked publish; otherwise does nothing.
    pub fn accept_publish(&mut self) {
        if let Stage::Asked(stream) = self.stage {
            self.reader.set_limits(self.limits.publishing);
            self.replies.stream_begin(stream);
            self.replies.status(stream, "status", "NetStream.Publish.Start", "the stream is taken");
            self.stage = Stage::Publishing(stream);
        }
    }

    /// Turns a peer that asked to publish away, and is done with it: a second guess at a key needs a second connection.
    ///
    /// Publishers look for an `onStatus` of level error; an `_error` is what only the specification's `call` gets.
    /// `code` is one of `NetStream.Publish.BadName`, `….Denied` and `….Failed`.
    pub fn reject_publish(&mut self, code: &str, description: &str) {
        self.end(code, description);
    }

    /// Asks a publisher to connect again, elsewhere if `tc_url` says so, and to keep sending until it has (E-RTMP v2,
    /// "Reconnect Request"). `false`: it did not say that it understands, and nothing was sent.
    pub fn request_reconnect(&mut self, description: &str, tc_url: Option<&str>) -> bool {
        let open = matches!(self.stage, Stage::Connected | Stage::Asked(_) | Stage::Publishing(_));
        if open && self.peer.reconnects {
            self.replies.reconnect(description, tc_url);
        }
        open && self.peer.reconnects
    }

    /// Ends the session from our side with an `onStatus` of level error, on the publisher's stream where there is one.
    pub fn end(&mut self, code: &str, description: &str) {
        let stream = match self.stage {
            Stage::Asked(stream) | Stage::Publishing(stream) => stream,
            Stage::Fresh | Stage::Connected => 0,
            Stage::Closing | Stage::Closed => return,
        };
        self.replies.status(stream, "error", code, description);
        self.stage = Stage::Closing;
    }

    /// Handles a whole message.
    fn message(&mut self, message: chunk::Message) -> Result<Option<Event>, SessionError> {
        let chunk::Message { kind, timestamp, stream, payload } = message;
        match kind {
            kind::AUDIO | kind::VIDEO | kind::DATA_AMF0 => return Ok(self.media(kind, timestamp, payload)),
            // The same after a byte that says AMF0, where it does.
            kind::DATA_AMF3 if payload.first() == Some(&0) => return Ok(self.media(kind::DATA_AMF0, timestamp, payload.slice(1..))),
            kind::AGGREGATE if matches!(self.stage, Stage::Publishing(_)) => self.tags = Some(Aggregate::new(timestamp, payload)),
            kind::COMMAND_AMF0 => return Ok(self.command(stream, &Command::amf0(&payload, self.limits.command)?)),
            kind::COMMAND_AMF3 => return Ok(self.command(stream, &Command::amf3(&payload, self.limits.command)?)),
            kind::USER_CONTROL => {
                if let UserControl::PingRequest(time) = UserControl::read(&payload) {
                    self.replies.pong(time);
                }
            }
            kind::WINDOW_ACKNOWLEDGEMENT_SIZE => {
                if let Some(window) = payload.first_chunk() {
                    // Windows below what one read brings would be acknowledged once a read anyway.
                    self.window = u64::from(u32::from_be_bytes(*window)).max(4096);
                }
            }
            // The reader has obeyed (1, 2), we count nothing (3), our output is short (6), or nobody means it for us.
            _ => {}
        }
        Ok(None)
    }

    /// Hands a tag on while the peer publishes; what comes before or after is dropped.
    fn media(&self, kind: u8, timestamp: u32, payload: Bytes) -> Option<Event> {
        matches!(self.stage, Stage::Publishing(_)).then_some(Event::Media { kind, timestamp, payload })
    }

    /// Tells the running total once a window (RTMP §5.4.3), which wraps at 32 bits.
    fn acknowledge(&mut self) {
        let received = self.reader.received();
        if received - self.acknowledged >= self.window {
            self.acknowledged = received;
            self.replies.acknowledgement(received as u32);
        }
    }
}
