//! A client's bytes, and what it reads.

#![allow(clippy::unwrap_used, dead_code)]

use bytes::BytesMut;
use lectern_ingest_pod::rtmp::session::{Event, Session};
use lectern_media::rtmp::amf::{Limits, Value};
use lectern_media::rtmp::amf0;
use lectern_media::rtmp::chunk::{self, ChunkReader, Message};
use lectern_media::rtmp::message::{Command, kind};

/// Feeds all of `bytes` and lets whoever asks publish.
pub fn feed(session: &mut Session, mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = session.input(&mut bytes).unwrap() {
        if matches!(event, Event::Publish { .. }) {
            session.accept_publish();
        }
        events.push(event);
    }
    assert!(bytes.is_empty(), "not all was read");
    events
}

/// A message in chunks of 128 bytes.
pub fn message(stream: u32, kind: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let ([_, t @ ..], [_, l @ ..]) = (timestamp.to_be_bytes(), (payload.len() as u32).to_be_bytes());
    let mut bytes = [&[6][..], &t, &l, &[kind], &stream.to_le_bytes()].concat();
    for (index, chunk) in payload.chunks(128).enumerate() {
        bytes.extend((index > 0).then_some(0xc6));
        bytes.extend(chunk);
    }
    bytes
}

/// A tag on the published stream.
pub fn tag(kind: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    message(1, kind, timestamp, payload)
}

/// A command's payload.
pub fn body(name: &str, transaction: f64, arguments: &[Value]) -> BytesMut {
    let mut body = BytesMut::new();
    amf0::write_text(&mut body, name);
    for value in [&Value::Number(transaction)].into_iter().chain(arguments) {
        amf0::write(&mut body, value);
    }
    body
}

pub fn command(stream: u32, name: &str, transaction: f64, arguments: &[Value]) -> Vec<u8> {
    message(stream, kind::COMMAND_AMF0, 0, &body(name, transaction, arguments))
}

pub fn connect() -> Vec<u8> {
    command(0, "connect", 1.0, &[Value::object([("app", "live".into())])])
}

pub fn publish(key: &str) -> Vec<u8> {
    command(1, "publish", 5.0, &[Value::Null, key.into(), "live".into()])
}

/// Takes the session's output and reads it. Chunks are larger once `connect` is answered, and where its answer is not among
/// the output it has been.
pub fn replies(session: &mut Session) -> Vec<Message> {
    let output = session.output().split();
    let mut reader = ChunkReader::new(chunk::Limits::PUBLISHING);
    let larger = message(0, kind::SET_CHUNK_SIZE, 0, &4096u32.to_be_bytes());
    reader.read(&mut &larger[..]).unwrap();
    let (mut input, mut messages) = (&output[..], Vec::new());
    while let Some(message) = reader.read(&mut input).unwrap() {
        messages.push(message);
    }
    messages
}

pub fn as_command(message: &Message) -> Command {
    assert_eq!(message.kind, kind::COMMAND_AMF0);
    Command::amf0(&message.payload, Limits::COMMAND).unwrap()
}

/// Level and code of an `onStatus`.
pub fn status(message: &Message) -> (String, String) {
    let command = as_command(message);
    assert_eq!(command.name, "onStatus");
    let text = |name| command.arguments[1].get(name).and_then(Value::text).unwrap().to_owned();
    (text("level"), text("code"))
}
