//! The `onStatus` that turns a publisher away.
//!
//! `rml_rtmp`'s own `reject_request` sends `_error`, which publishers do not look for: ffmpeg would go on for ever.

use rml_rtmp::chunk_io::{ChunkSerializationError, ChunkSerializer};
use rml_rtmp::messages::{MessageSerializationError, RtmpMessage};
use rml_rtmp::rml_amf0::Amf0Value;
use rml_rtmp::time::RtmpTimestamp;
use std::collections::HashMap;

/// `rml_rtmp` numbers message streams from one, and a publisher makes one.
const MESSAGE_STREAM: u32 = 1;

/// Why the message cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatusError {
    #[error(transparent)]
    Message(#[from] MessageSerializationError),
    #[error(transparent)]
    Chunk(#[from] ChunkSerializationError),
}

/// The chunks of an `onStatus` with level `error`, the last message of a connection.
///
/// It comes from a serializer of its own, because the session keeps its one to itself: with full headers it needs nothing
/// of what was sent before, and nothing sent later could need it. `chunk_size` is what the session has announced.
pub(super) fn error(code: &str, description: &str, chunk_size: u32) -> Result<Vec<u8>, StatusError> {
    let text = |text: &str| Amf0Value::Utf8String(text.to_owned());
    let properties = [("level", text("error")), ("code", text(code)), ("description", text(description))];
    let properties: HashMap<_, _> = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let message = RtmpMessage::Amf0Command {
        command_name: "onStatus".to_owned(),
        transaction_id: 0.0,
        command_object: Amf0Value::Null,
        additional_arguments: vec![Amf0Value::Object(properties)],
    };
    let payload = message.into_message_payload(RtmpTimestamp::new(0), MESSAGE_STREAM)?;
    let mut serializer = ChunkSerializer::new();
    serializer.set_max_chunk_size(chunk_size, RtmpTimestamp::new(0))?; // already announced: its packet is not sent again
    Ok(serializer.serialize(&payload, true, false)?.bytes)
}
