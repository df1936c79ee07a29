//! Captured publishers and an independent client publish to a session (`captures/README.md` says who they are).

#![allow(clippy::unwrap_used)]

mod rtmp_client;

use lectern_ingest_pod::rtmp::session::{Event, Limits, Session};
use lectern_media::rtmp::chunk::{self, ChunkReader};
use lectern_media::rtmp::message::kind;
use proptest::prelude::*;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::sessions::{ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType};
use rml_rtmp::time::RtmpTimestamp;
use rtmp_client::feed;

fn captures() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir("tests/captures").unwrap().map(|entry| entry.unwrap().path());
    let captures: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rtmp"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    assert!(captures.len() >= 8, "captures are missing");
    captures
}

fn capture(name: &str) -> Vec<u8> {
    captures().into_iter().find(|(known, _)| known == name).unwrap().1
}

/// Events and output of a session that reads `bytes` in pieces of these lengths, over and over.
fn replay(mut bytes: &[u8], lengths: &[usize]) -> (Vec<Event>, Vec<u8>) {
    let (mut session, mut events) = (Session::new(Limits::default()), Vec::new());
    let mut lengths = lengths.iter().cycle();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((*lengths.next().unwrap()).min(bytes.len()));
        events.extend(feed(&mut session, piece));
        bytes = rest;
    }
    let output = session.output().to_vec();
    (events, output)
}

fn media(events: &[Event], wanted: u8) -> Vec<(u32, &[u8])> {
    let of_kind = |event| match event {
        &Event::Media { kind, timestamp, ref payload } if kind == wanted => Some((timestamp, &payload[..])),
        _ => None,
    };
    events.iter().filter_map(of_kind).collect()
}

#[test]
fn every_capture_publishes_pictures_and_sound_and_stops() {
    for (name, bytes) in captures() {
        let (events, _) = replay(&bytes, &[bytes.len()]);
        assert_eq!(events.first(), Some(&Event::Publish { app: "live".into(), key: "secret".into() }), "{name}");
        assert_eq!(events.last(), Some(&Event::Unpublish), "{name}");
        assert_eq!(media(&events, kind::DATA_AMF0).first().map(|(_, body)| &body[3..16]), Some(&b"@setDataFrame"[..]), "{name}");
        let (pictures, sounds) = (media(&events, kind::VIDEO), media(&events, kind::AUDIO));
        // A second has ten pictures and about forty sounds; a header comes before each. OBS starts and stops when it likes.
        assert!(pictures.len() > 7, "{name}: {} pictures", pictures.len());
        assert!(sounds.len() > 20, "{name}: {} sounds", sounds.len());
        for tags in [pictures, sounds] {
            assert!(tags.iter().is_sorted_by_key(|(time, _)| time), "{name}: time goes back");
        }
    }
}

#[test]
fn enhanced_captures_carry_their_codecs() {
    let codecs = [
        ("ffmpeg9-hevc-aac", kind::VIDEO, b"hvc1"),
        ("ffmpeg9-av1-opus", kind::VIDEO, b"av01"),
        ("ffmpeg9-av1-opus", kind::AUDIO, b"Opus"),
    ];
    for (name, kind, code) in codecs {
        let (events, _) = replay(&capture(name), &[100_000]);
        assert!(media(&events, kind).iter().all(|(_, body)| &body[1..5] == code), "{name}");
    }
}

#[test]
fn captures_with_extended_timestamps_go_past_24_bits() {
    for name in ["ffmpeg5-extended-timestamps", "ffmpeg9-extended-timestamps"] {
        let (events, _) = replay(&capture(name), &[100_000]);
        let pictures = media(&events, kind::VIDEO);
        assert_eq!(pictures.first().unwrap().0, 0, "{name}");
        assert!((16_800_700..16_801_300).contains(&pictures.last().unwrap().0), "{name}: {}", pictures.last().unwrap().0);
    }
}

#[test]
fn every_capture_is_the_same_byte_by_byte() {
    for (name, bytes) in captures() {
        assert!(replay(&bytes, &[1]) == replay(&bytes, &[bytes.len()]), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_capture_is_the_same_however_it_is_cut(lengths in proptest::collection::vec(1..3000usize, 1..30)) {
        for (name, bytes) in captures() {
            prop_assert!(replay(&bytes, &lengths) == replay(&bytes, &[bytes.len()]), "{}", name);
        }
    }

    #[test]
    fn an_independent_writer_is_read(
        messages in proptest::collection::vec((8..10u8, 0..0x0100_0100u32, 1..2u32, proptest::collection::vec(any::<u8>(), 1..500)), 1..10),
        chunk_size in 1..600u32,
        uncompressed in any::<bool>(),
    ) {
        let mut serializer = ChunkSerializer::new();
        let mut bytes = serializer.set_max_chunk_size(chunk_size, RtmpTimestamp::new(0)).unwrap().bytes;
        for (kind, timestamp, stream, payload) in &messages {
            let message = MessagePayload {
                timestamp: RtmpTimestamp::new(*timestamp),
                type_id: *kind,
                message_stream_id: *stream,
                data: payload.clone().into(),
            };
            bytes.extend(serializer.serialize(&message, uncompressed, false).unwrap().bytes);
        }
        let (mut reader, mut input) = (ChunkReader::new(chunk::Limits::PUBLISHING), &bytes[..]);
        prop_assert_eq!(reader.read(&mut input).unwrap().unwrap().kind, kind::SET_CHUNK_SIZE);
        for (kind, timestamp, stream, payload) in messages {
            let message = reader.read(&mut input).unwrap().unwrap();
            prop_assert_eq!((message.kind, message.timestamp, message.stream), (kind, timestamp, stream));
            prop_assert_eq!(&message.payload[..], &payload[..]);
        }
        prop_assert!(input.is_empty());
    }
}

/// `rml_rtmp`'s client and our session, passing bytes to each other until neither has any.
struct Pair {
    client: ClientSession,
    session: Session,
    to_server: Vec<u8>,
    seen: Vec<ClientSessionEvent>,
    events: Vec<Event>,
}

impl Pair {
    fn take(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.to_server.extend(packet.bytes),
                ClientSessionResult::RaisedEvent(event) => self.seen.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }

    fn exchange(&mut self) {
        while !self.to_server.is_empty() || !self.session.output().is_empty() {
            let sent = std::mem::take(&mut self.to_server);
            self.events.extend(feed(&mut self.session, &sent));
            let answer = self.session.output().split();
            let results = self.client.handle_input(&answer).unwrap();
            self.take(results);
        }
    }
}

#[test]
fn an_independent_client_connects_publishes_and_stops() {
    let (client, hello) = ClientSession::new(ClientSessionConfig::new()).unwrap();
    let session = Session::new(Limits::default());
    let mut pair = Pair { client, session, to_server: Vec::new(), seen: Vec::new(), events: Vec::new() };
    pair.take(hello);
    let request = pair.client.request_connection("live".to_owned()).unwrap();
    pair.take(vec![request]);
    pair.exchange();
    assert_eq!(pair.seen, [ClientSessionEvent::ConnectionRequestAccepted]);
    let request = pair.client.request_publishing("secret".to_owned(), PublishRequestType::Live).unwrap();
    pair.take(vec![request]);
    pair.exchange();
    assert!(pair.seen.contains(&ClientSessionEvent::PublishRequestAccepted), "{:?}", pair.seen);
    let video = pair.client.publish_video_data(vec![0x17; 1000].into(), RtmpTimestamp::new(40), false).unwrap();
    pair.take(vec![video]);
    let stop = pair.client.stop_publishing().unwrap();
    pair.take(stop);
    pair.exchange();
    let expected = [
        Event::Publish { app: "live".into(), key: "secret".into() },
        Event::Media { kind: kind::VIDEO, timestamp: 40, payload: vec![0x17; 1000].into() },
        Event::Unpublish,
    ];
    assert_eq!(pair.events, expected);
}
