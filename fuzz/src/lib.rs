//! Every parser of bytes from outside, as a function of bytes: for the fuzzer (`make fuzz`), and for the corpus that every test
//! run goes through (`tests/corpus.rs`). A target asserts nothing but that it returns, and holds no more than it was given.

use bytes::{Bytes, BytesMut};
use lectern_contract::feed::{Codec, FeedFrame, FeedRequest, Track};
use lectern_contract::keys::RunPrefix;
use lectern_contract::push::{PushFrame, PushRequest};
use lectern_contract::relay::RelayFrame;
use lectern_contract::viewing::{self, ViewingKey};
use lectern_contract::{Ticks, VideoCodec};
use lectern_media::captions::{Captions, carriage, triplets, webvtt};
use lectern_media::fragments;
use lectern_media::rtmp::message::{Aggregate, Command, UserControl};
use lectern_media::rtmp::{amf, amf0, amf3, chunk};
use lectern_media::source::TagReader;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};

/// A target by its name, which is its corpus' folder and the fuzzer's binary too.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("handshake", handshake),
    ("chunk", chunks),
    ("amf", values),
    ("command", commands),
    ("flv", tags),
    ("avc", |bytes| configured(Codec::H264, bytes)),
    ("hevc", |bytes| configured(Codec::Hevc, bytes)),
    ("av1", |bytes| configured(Codec::Av1, bytes)),
    ("vp9", |bytes| configured(Codec::Vp9, bytes)),
    ("aac", |bytes| configured(Codec::Aac, bytes)),
    ("sound", sounds),
    ("captions", captions),
    ("feed", feed),
    ("token", tokens),
];

/// Runs a target by its name.
///
/// # Panics
/// Where there is no such target: the fuzzer's binary has a name of its own then.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| target);
    target.expect("a fuzz target of this name")(bytes);
}

/// RTMP's handshake, in the pieces that the first byte says.
fn handshake(bytes: &[u8]) {
    let Some((step, rest)) = bytes.split_first() else { return };
    let mut server = Handshake::new(PeerType::Server);
    for piece in rest.chunks(usize::from(*step).max(1) * 16) {
        match server.process_bytes(piece) {
            Ok(HandshakeProcessResult::InProgress { .. }) => {}
            Ok(HandshakeProcessResult::Completed { .. }) | Err(_) => return,
        }
    }
}

/// The chunk reader, whole and a byte at a time: the same messages.
fn chunks(bytes: &[u8]) {
    let mut whole = chunk::ChunkReader::new(chunk::Limits::SETUP);
    let (mut rest, mut messages) = (bytes, Vec::new());
    while let Ok(Some(message)) = whole.read(&mut rest) {
        messages.push(message);
    }
    assert!(whole.assembling() <= chunk::Limits::SETUP.assembling);
    let mut slow = chunk::ChunkReader::new(chunk::Limits::SETUP);
    let mut again = Vec::new();
    'bytes: for byte in bytes {
        let mut rest = std::slice::from_ref(byte);
        loop {
            match slow.read(&mut rest) {
                Ok(Some(message)) => again.push(message),
                Ok(None) => break,
                Err(_) => break 'bytes,
            }
        }
    }
    assert_eq!(messages, again);
}

fn values(bytes: &[u8]) {
    let _ = (amf0::read(bytes, amf::Limits::COMMAND), amf3::read(bytes, amf::Limits::COMMAND));
}

fn commands(bytes: &[u8]) {
    let _ = (Command::amf0(bytes, amf::Limits::COMMAND), Command::amf3(bytes, amf::Limits::COMMAND));
    let _ = UserControl::read(bytes);
    Aggregate::new(0, Bytes::copy_from_slice(bytes)).for_each(drop);
}

/// A publisher's tags, data among them: message type and length before each.
fn tags(mut bytes: &[u8]) {
    let mut reader = TagReader::default();
    while let Some((&[kind, length], rest)) = bytes.split_first_chunk::<2>() {
        let (body, rest) = rest.split_at(usize::from(length).min(rest.len()));
        let kind = if kind == 18 { 18 } else { 8 + kind % 2 };
        let _ = reader.tag(kind, Bytes::copy_from_slice(body));
        bytes = rest;
    }
}

/// A codec's configuration, then a frame under it: the first byte says where the one ends.
fn configured(codec: Codec, bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (config, frame) = rest.split_at(usize::from(*length).min(rest.len()));
    let mut reader = TagReader::default();
    if reader.config(codec, Bytes::copy_from_slice(config)).is_ok() {
        let _ = reader.frame(codec.track(), true, 0, Bytes::copy_from_slice(frame));
    }
}

/// Sound without a configuration of its own, by the first byte's codec.
fn sounds(bytes: &[u8]) {
    const CODECS: [Codec; 6] = [Codec::Mp3, Codec::Opus, Codec::Ac3, Codec::Flac, Codec::PcmAlaw, Codec::PcmMulaw];
    let Some((codec, rest)) = bytes.split_first() else { return };
    configured(CODECS[usize::from(*codec) % CODECS.len()], rest);
    let _ = TagReader::default().frame(Track::Audio, true, 0, Bytes::copy_from_slice(rest));
}

/// A coded picture that may carry captions; and captions, ten a picture, with what is read of them every second.
fn captions(bytes: &[u8]) {
    for codec in [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1] {
        assert!(carriage::carried(codec, bytes).len() * 3 <= bytes.len());
    }
    let mut captions = Captions::default();
    for (picture, some) in bytes.chunks(30).enumerate() {
        let at = Ticks(picture as u64 * 3000);
        captions.take(at, triplets(some));
        if picture % 30 == 29 {
            let _ = webvtt(&captions.between(Ticks(at.0 - 87_000), at));
        }
    }
}

/// What peers inside send: frames of feed, relay and push.
fn feed(bytes: &[u8]) {
    let _ = (FeedRequest::decode(&mut BytesMut::from(bytes)), PushRequest::decode(&mut BytesMut::from(bytes)));
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(frame)) = FeedFrame::decode(&mut input) {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        assert_eq!(FeedFrame::decode(&mut out).ok().flatten(), Some(frame));
    }
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(_)) = RelayFrame::decode(&mut input) {}
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(_)) = PushFrame::decode(&mut input) {}
    // And the segments in them.
    let _ = (fragments::of(&Bytes::copy_from_slice(bytes)).count(), fragments::decode_time(bytes));
}

/// A path and a token, as a player sends both: nobody gets in who has not the key.
fn tokens(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, token) = text.split_once('?').unwrap_or((&text, &text));
    if let Some((prefix, _)) = RunPrefix::of_key(path) {
        assert!(viewing::verify([&ViewingKey::from([9; 32])], &prefix, token, 0).is_err());
    }
}
