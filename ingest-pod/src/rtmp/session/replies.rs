//! What the server says, written into one buffer.

use super::command::CAPS_RECONNECT;
use bytes::BytesMut;
use lectern_media::rtmp::amf::Value;
use lectern_media::rtmp::amf0;
use lectern_media::rtmp::message::kind;
use lectern_media::rtmp::writer::ChunkWriter;

/// Bytes in our chunks.
const CHUNK_SIZE: u32 = 4096;
/// What we ask publishers to have on the way at most, and to acknowledge by.
const WINDOW: u32 = 2_500_000;
/// Set Peer Bandwidth, limit type dynamic (RTMP §5.4.5).
const DYNAMIC: u8 = 2;
/// Chunk streams (RTMP §5.4 wants 2 for control; 3 for commands and 5 for a stream's status are the field's).
const CONTROL: u8 = 2;
const COMMANDS: u8 = 3;
const STATUS: u8 = 5;

/// E-RTMP v2, `FourCcInfoMask`: can decode, can forward.
const TAKEN: f64 = (0x01 | 0x04) as f64;
const VIDEO: [&str; 4] = ["avc1", "hvc1", "av01", "vp09"];
const AUDIO: [&str; 5] = ["mp4a", ".mp3", "Opus", "ac-3", "fLaC"];

/// Writes replies.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) output: BytesMut,
    writer: ChunkWriter,
}

impl Replies {
    /// The answer to `connect` and what comes before it.
    pub(super) fn connected(&mut self, transaction: f64, encoding: f64) {
        self.control(kind::WINDOW_ACKNOWLEDGEMENT_SIZE, &WINDOW.to_be_bytes());
        let [a, b, c, d] = WINDOW.to_be_bytes();
        self.control(kind::SET_PEER_BANDWIDTH, &[a, b, c, d, DYNAMIC]);
        self.control(kind::SET_CHUNK_SIZE, &CHUNK_SIZE.to_be_bytes());
        // The version is what publishers know to take for a Flash Media Server of a late year.
        let properties = [("fmsVer", Value::from("FMS/3,5,7,7009")), ("capabilities", Value::Number(31.0)), ("mode", Value::Number(1.0))];
        let information = [
            ("level", Value::from("status")),
            ("code", Value::from("NetConnection.Connect.Success")),
            ("description", Value::from("Connection succeeded.")),
            ("objectEncoding", Value::Number(encoding)),
        ];
        // E-RTMP v2 wants its fields in "an Object Type as one of the parameters": clients look in either of the two.
        let with = |own: Vec<(&str, Value)>| {
            Value::Object(own.into_iter().chain(enhanced()).map(|(name, value)| (name.to_owned(), value)).collect())
        };
        self.command(COMMANDS, 0, "_result", transaction, &[with(properties.into()), with(information.into())]);
    }

    /// The answer to a command that worked; nothing where none is wanted.
    pub(super) fn result(&mut self, transaction: f64, value: Value) {
        if transaction != 0.0 {
            self.command(COMMANDS, 0, "_result", transaction, &[Value::Null, value]);
        }
    }

    /// The answer to a command that did not; nothing where none is wanted.
    pub(super) fn error(&mut self, transaction: f64, code: &str, description: &str) {
        if transaction != 0.0 {
            self.command(COMMANDS, 0, "_error", transaction, &[Value::Null, information("error", code, description)]);
        }
    }

    /// An `onStatus` of a message stream (RTMP §7.2.2).
    pub(super) fn status(&mut self, stream: u32, level: &str, code: &str, description: &str) {
        self.command(STATUS, stream, "onStatus", 0.0, &[Value::Null, information(level, code, description)]);
    }

    /// Flash Media Live Encoder waits for these.
    pub(super) fn fc_publish(&mut self, name: &str, code: &str, key: &str) {
        let information = Value::object([("code", code.into()), ("description", key.into())]);
        self.command(COMMANDS, 0, name, 0.0, &[Value::Null, information]);
    }

    /// E-RTMP v2, "Reconnect Request": of the connection, not of a stream.
    pub(super) fn reconnect(&mut self, description: &str, tc_url: Option<&str>) {
        let mut information = information("status", "NetConnection.Connect.ReconnectRequest", description);
        if let (Value::Object(properties), Some(tc_url)) = (&mut information, tc_url) {
            properties.push(("tcUrl".to_owned(), tc_url.into()));
        }
        self.command(COMMANDS, 0, "onStatus", 0.0, &[Value::Null, information]);
    }

    /// User control, event 0: the stream can be used (RTMP §7.1.7).
    pub(super) fn stream_begin(&mut self, stream: u32) {
        self.user_control(0, stream);
    }

    /// User control, event 7: the answer to a ping.
    pub(super) fn pong(&mut self, time: u32) {
        self.user_control(7, time);
    }

    /// RTMP §5.4.3.
    pub(super) fn acknowledgement(&mut self, received: u32) {
        self.control(kind::ACKNOWLEDGEMENT, &received.to_be_bytes());
    }

    fn user_control(&mut self, event: u16, value: u32) {
        let [a, b, c, d] = value.to_be_bytes();
        let [high, low] = event.to_be_bytes();
        self.control(kind::USER_CONTROL, &[high, low, a, b, c, d]);
    }

    fn control(&mut self, kind: u8, payload: &[u8]) {
        self.writer.write(&mut self.output, CONTROL, kind, 0, payload);
    }

    fn command(&mut self, chunk_stream: u8, stream: u32, name: &str, transaction: f64, arguments: &[Value]) {
        let mut payload = BytesMut::with_capacity(256);
        amf0::write_text(&mut payload, name);
        amf0::write(&mut payload, &Value::Number(transaction));
        for argument in arguments {
            amf0::write(&mut payload, argument);
        }
        self.writer.write(&mut self.output, chunk_stream, kind::COMMAND_AMF0, stream, &payload);
    }
}

fn information(level: &str, code: &str, description: &str) -> Value {
    Value::object([("level", level.into()), ("code", code.into()), ("description", description.into())])
}

/// What Lectern takes (E-RTMP v2, "Enhancing NetConnection connect Command"). Multitrack is not among `capsEx`.
fn enhanced() -> [(&'static str, Value); 4] {
    let map = |codes: &[&str]| Value::Object(codes.iter().map(|code| ((*code).to_owned(), Value::Number(TAKEN))).collect());
    [
        ("fourCcList", Value::Array(VIDEO.iter().chain(&AUDIO).map(|code| Value::from(*code)).collect())),
        ("videoFourCcInfoMap", map(&VIDEO)),
        ("audioFourCcInfoMap", map(&AUDIO)),
        ("capsEx", Value::Number(CAPS_RECONNECT.into())),
    ]
}
