//! Timed metadata: what a publisher says beside its sound and picture, as players' scripts get it.
//!
//! **In**, a data message (RTMP §7.1.2): a name and values in AMF0, `onTextData` and `onCuePoint` of encoders, or any other that a
//! school's own tools send. **Out**, an event message box (`emsg`, ISO/IEC 23009-1 §5.10.3.3) that holds an ID3v2.4 tag of one `TXXX` frame (ID3v2.4
//! §4.2.6): its description is the name and its value the values in JSON. Players know such tags
//! (AOM, "Carriage of ID3 Timed Metadata in CMAF"): docs/playback.md says which, and how a page gets at them.

use crate::cmaf::CmafError;
use crate::rtmp::amf::{Limits, Value};
use crate::rtmp::amf0;
use bytes::Bytes;
use lectern_contract::TICKS_PER_SECOND;
use lectern_contract::feed::TimedMetadata;
use mp4_atom::{Emsg, EmsgTimestamp, Encode as _};
use serde_json::{Map, Number};

/// `emsg`'s scheme; an MPD must name it (`InbandEventStream`) for players to look.
pub const SCHEME: &str = "https://aomedia.org/emsg/ID3";

/// What one message may hold, in AMF.
const LIMITS: Limits = Limits { depth: 8, elements: 256, text: 4 << 10, bytes: 8 << 10 };
/// And its values in JSON, in bytes: more than a page of text is no remark on a moment.
const MAX_VALUE: usize = 4 << 10;
/// Bytes of a name.
const MAX_NAME: usize = 64;
/// Messages that are for servers: what they say of the stream is not believed, and nobody else needs it.
const FOR_SERVERS: [&str; 4] = ["onMetaData", "|RtmpSampleAccess", "@clearDataFrame", "onStatus"];

/// What a data message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its name.
    pub name: String,
    /// Its values in JSON: of one the value, of several an array, of none `null`.
    pub value: String,
}

impl Said {
    /// Reads a data message in AMF0; `None` where it cannot be read, says more than is passed on, or is for servers only.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut values = amf0::read(body, LIMITS).ok()?.into_iter();
        let mut name = values.next()?;
        if name.text() == Some("@setDataFrame") {
            name = values.next()?;
        }
        let name = name.text()?;
        let fits = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control);
        if !fits || FOR_SERVERS.contains(&name) {
            return None;
        }
        let value = match (values.next(), values.as_slice()) {
            (None, _) => serde_json::Value::Null,
            (Some(only), []) => json(&only),
            (Some(first), rest) => std::iter::once(&first).chain(rest).map(json).collect(),
        };
        let value = value.to_string();
        (value.len() <= MAX_VALUE).then(|| Self { name: name.to_owned(), value })
    }
}

/// As deep as `value`, whose reader has bounded it.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Number(number) | Value::Date(number) => {
            whole(*number).or(Number::from_f64(*number)).map_or(serde_json::Value::Null, Into::into)
        }
        Value::Boolean(truth) => (*truth).into(),
        Value::String(text) => text.as_str().into(),
        Value::Object(properties) => properties.iter().map(|(name, value)| (name.clone(), json(value))).collect::<Map<_, _>>().into(),
        Value::Array(values) => values.iter().map(json).collect(),
        Value::Bytes(_) | Value::Null | Value::Undefined | Value::Reference(_) => serde_json::Value::Null,
    }
}

/// AMF has doubles only; a counter is to look like one.
fn whole(number: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    (number.fract() == 0.0 && number.abs() < EXACT).then(|| Number::from(number as i64))
}

/// The box that says it, to be put before the `moof` of the fragment that its time lies in.
///
/// # Errors
/// [`CmafError::Boxes`].
pub fn event_message(metadata: &TimedMetadata) -> Result<Bytes, CmafError> {
    let emsg = Emsg {
        timescale: TICKS_PER_SECOND as u32, // 90,000
        presentation_time: EmsgTimestamp::Absolute(metadata.at.0),
        // A moment has none, and the scheme would have it unknown (2^32 - 1); but shaka-player 5.2 tells of what its playhead meets within, looking
        // four times a second.
        event_duration: TICKS_PER_SECOND as u32,
        // Of events of one scheme, those with the same id are the same (§5.10.3.3.4): times repeat in it after 13 hours.
        id: metadata.at.0 as u32,
        scheme_id_uri: SCHEME.to_owned(),
        value: String::new(),
        message_data: id3(&metadata.name, &metadata.value),
    };
    let mut out = Vec::with_capacity(96 + emsg.message_data.len());
    emsg.encode(&mut out)?;
    Ok(out.into())
}

/// An ID3v2.4 tag of one user defined text, in UTF-8.
fn id3(description: &str, value: &str) -> Vec<u8> {
    const UTF_8: u8 = 3;
    let body = [&[UTF_8], description.as_bytes(), &[0], value.as_bytes()].concat();
    let frame = [&b"TXXX"[..], &synchsafe(body.len()), &[0, 0], &body].concat();
    [&b"ID3\x04\0\0"[..], &synchsafe(frame.len()), &frame].concat()
}

/// Seven bits a byte (ID3v2.4 §6.2).
fn synchsafe(length: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (length >> shift & 0x7f) as u8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use lectern_contract::Ticks;
    use mp4_atom::{Any, Decode as _};
    use proptest::prelude::*;

    fn message(values: &[Value]) -> BytesMut {
        let mut body = BytesMut::new();
        values.iter().for_each(|value| amf0::write(&mut body, value));
        body
    }

    fn read(values: &[Value]) -> Option<(String, String)> {
        Said::read(&message(values)).map(|Said { name, value }| (name, value))
    }

    #[test]
    fn a_data_message_is_a_name_and_json() {
        let text =
            Value::object([("type", "Text".into()), ("text", "Slide 7: “½ + ½”\n".into()), ("page", 7.0.into()), ("at", 1.5.into())]);
        let json = r#"{"at":1.5,"page":7,"text":"Slide 7: “½ + ½”\n","type":"Text"}"#;
        assert_eq!(read(&["onTextData".into(), text.clone()]), Some(("onTextData".into(), json.into())));
        assert_eq!(read(&["@setDataFrame".into(), "onTextData".into(), text]), Some(("onTextData".into(), json.into())));
        assert_eq!(read(&["onQuiz".into()]), Some(("onQuiz".into(), "null".into())));
        assert_eq!(read(&["onQuiz".into(), 1.0.into(), Value::Boolean(true)]), Some(("onQuiz".into(), "[1,true]".into())));
    }

    #[test]
    fn what_is_for_servers_or_too_much_is_passed_over() {
        for values in [
            vec!["@setDataFrame".into(), "onMetaData".into(), Value::object([("width", 640.0.into())])],
            vec!["|RtmpSampleAccess".into(), Value::Boolean(true)],
            vec![7.0.into()],
            vec!["".into()],
            vec!["on\0Text".into()],
            vec!["n".repeat(MAX_NAME + 1).as_str().into()],
            vec!["onTextData".into(), "\n".repeat(MAX_VALUE / 2).as_str().into()],
            vec![],
        ] {
            assert_eq!(read(&values), None, "{values:?}");
        }
    }

    #[test]
    fn numbers_that_json_does_not_have_are_null() {
        for (number, wanted) in [(f64::NAN, "null"), (f64::INFINITY, "null"), (-3.0, "-3"), (1e300, "1e+300"), (0.25, "0.25")] {
            assert_eq!(read(&["n".into(), number.into()]), Some(("n".into(), wanted.into())));
        }
    }

    #[test]
    fn an_event_message_holds_an_id3_tag() {
        let metadata = TimedMetadata { at: Ticks((1 << 40) + 7), name: "onTextData".into(), value: "x".repeat(300) };
        let bytes = event_message(&metadata).unwrap();
        let Any::Emsg(emsg) = Any::decode(&mut &bytes[..]).unwrap() else { panic!("no emsg") };
        assert_eq!(emsg.presentation_time, EmsgTimestamp::Absolute((1 << 40) + 7));
        assert_eq!((emsg.timescale, emsg.id, emsg.scheme_id_uri.as_str(), emsg.value.as_str()), (90_000, 7, SCHEME, ""));
        // 312 bytes of text and what is around them: 2 * 128 + 56.
        let frame = [&b"TXXX\0\0\x02\x38\0\0\x03onTextData\0"[..], "x".repeat(300).as_bytes()].concat();
        assert_eq!(emsg.message_data, [&b"ID3\x04\0\0\0\0\x02\x42"[..], &frame].concat());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(name in "[a-z@|]{0,12}", bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut body = message(&[name.as_str().into()]);
            body.extend_from_slice(&bytes);
            let said = [Said::read(&bytes), Said::read(&body)];
            prop_assert!(said.iter().flatten().all(|said| serde_json::from_str::<serde_json::Value>(&said.value).is_ok()));
        }
    }
}
