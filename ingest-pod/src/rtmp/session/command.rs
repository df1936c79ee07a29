//! What each command does. None is an error out of its turn: publishers differ, and a server that ignores is one that works.

use super::{Event, Session, Stage};
use lectern_media::rtmp::amf::Value;
use lectern_media::rtmp::message::Command;

/// E-RTMP v2, `capsEx`: the peer understands ReconnectRequest.
pub(super) const CAPS_RECONNECT: u32 = 0x01;

impl Session {
    /// Handles a command that came on this message stream.
    pub(super) fn command(&mut self, stream: u32, command: &Command) -> Option<Event> {
        let transaction = command.transaction;
        match (command.name.as_str(), self.stage) {
            ("connect", Stage::Fresh) => self.connect(command),
            // Answers are for those who ask; ours are not answered.
            ("_result" | "_error" | "onStatus", _) => {}
            ("close", _) => self.stage = Stage::Closing,
            // Not in the specification, and before `connect` or a second time: nobody does it by mistake.
            (_, Stage::Fresh) | ("connect", _) => self.replies.error(transaction, "NetConnection.Call.Failed", "out of turn"),
            ("createStream", _) => {
                self.streams = self.streams.wrapping_add(1).max(1);
                self.replies.result(transaction, Value::Number(self.streams.into()));
            }
            // Flash Media Live Encoder's way to take a stream over, kept alive by librtmp, ffmpeg and GStreamer.
            ("FCPublish", _) => {
                self.replies.result(transaction, Value::Undefined);
                self.replies.fc_publish("onFCPublish", "NetStream.Publish.Start", command.text(1).unwrap_or_default());
            }
            ("FCUnpublish", _) => {
                self.replies.result(transaction, Value::Undefined);
                self.replies.fc_publish("onFCUnpublish", "NetStream.Unpublish.Success", command.text(1).unwrap_or_default());
                return self.unpublish();
            }
            ("releaseStream" | "_checkbw" | "checkBandwidth" | "setPeerInfo" | "setBufferTime", _) => {
                self.replies.result(transaction, Value::Undefined);
            }
            // Length in seconds: it is live.
            ("getStreamLength", _) => self.replies.result(transaction, Value::Number(0.0)),
            // Flash's way to stop: `publish(false)`.
            ("publish", _) if command.arguments.get(1) == Some(&Value::Boolean(false)) => return self.unpublish(),
            ("publish", Stage::Connected) => {
                let (app, key) = address(&self.peer.app, command.text(1).unwrap_or_default());
                self.stage = Stage::Asked(stream);
                return Some(Event::Publish { app, key });
            }
            ("publish", _) => {
                self.replies.status(stream, "error", "NetStream.Publish.BadName", "this connection publishes already: open another one");
            }
            ("closeStream", Stage::Publishing(publishing)) if stream == publishing => return self.unpublish(),
            ("deleteStream", Stage::Publishing(publishing)) => {
                let named = command.arguments.get(1).and_then(Value::number);
                if named.is_none_or(|named| named == f64::from(publishing)) {
                    return self.unpublish();
                }
            }
            ("closeStream" | "deleteStream", _) => {}
            ("play" | "play2", _) => {
                self.replies.status(stream, "error", "NetStream.Play.Failed", "streams are watched over HTTPS, not over RTMP");
            }
            _ if transaction != 0.0 => self.replies.error(transaction, "NetConnection.Call.Failed", "an unknown command"),
            _ => {}
        }
        None
    }

    /// RTMP §7.2.1.1: the peer says what it is, and gets window, bandwidth and chunk size before the result.
    fn connect(&mut self, command: &Command) {
        let object = command.arguments.first().unwrap_or(&Value::Null);
        let text = |name| object.get(name).and_then(Value::text).unwrap_or_default();
        let number = |name| object.get(name).and_then(Value::number).unwrap_or_default();
        self.peer.app = text("app").to_owned();
        self.peer.tc_url = text("tcUrl").to_owned();
        // Saturates, and takes NaN for zero.
        self.peer.reconnects = number("capsEx") as u32 & CAPS_RECONNECT != 0;
        self.replies.connected(command.transaction, number("objectEncoding"));
        self.stage = Stage::Connected;
    }

    fn unpublish(&mut self) -> Option<Event> {
        let Stage::Publishing(stream) = self.stage else { return None };
        self.replies.status(stream, "status", "NetStream.Unpublish.Success", "the stream has stopped");
        self.stage = Stage::Connected;
        Some(Event::Unpublish)
    }
}

/// Application and key. A key may have `?name=value` after it; phones that know only one field for the URL put the key at the
/// end of the application and publish an empty name.
fn address(app: &str, name: &str) -> (String, String) {
    let plain = |text: &str| text.split('?').next().unwrap_or_default().trim_matches('/').to_owned();
    let (app, key) = (plain(app), plain(name));
    if !key.is_empty() {
        return (app, key);
    }
    match app.rsplit_once('/') {
        Some((app, key)) => (app.to_owned(), key.to_owned()),
        None => (String::new(), app),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_loses_its_parameters_and_may_stand_in_the_application() {
        let owned = |app: &str, key: &str| (app.to_owned(), key.to_owned());
        assert_eq!(address("live", "secret?token=1"), owned("live", "secret"));
        assert_eq!(address("live/", "secret"), owned("live", "secret"));
        assert_eq!(address("live/secret", ""), owned("live", "secret"));
        assert_eq!(address("live/secret?token=1", ""), owned("live", "secret"));
        assert_eq!(address("school/live/secret/", ""), owned("school/live", "secret"));
        assert_eq!(address("secret", ""), owned("", "secret"));
        assert_eq!(address("", ""), owned("", ""));
    }
}
