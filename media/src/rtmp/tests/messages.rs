//! Commands, user control and aggregates.

use super::super::amf::{Limits, Value};
use super::super::amf0;
use super::super::chunk::{self, ChunkReader};
use super::super::message::{Aggregate, Command, CommandError, Tag, UserControl, kind};
use super::super::writer::ChunkWriter;
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn a_command_of_fewer_than_three_values_is_read() {
    let read = |bytes: &[u8]| Command::amf0(bytes, Limits::COMMAND);
    let named = |transaction: f64| Command { name: "ab".into(), transaction, arguments: vec![] };
    assert_eq!(read(b"\x02\0\x02ab"), Ok(named(0.0)));
    assert_eq!(read(b"\x02\0\x02ab\0\x3f\xf0\0\0\0\0\0\0"), Ok(named(1.0)));
    assert_eq!(read(b"\x02\0\x02ab\x05"), Ok(Command { arguments: vec![Value::Null], ..named(0.0) }));
    assert_eq!(read(b""), Err(CommandError::NoName));
    assert_eq!(read(b"\x05"), Err(CommandError::NoName));
}

#[test]
fn an_amf3_command_is_amf0_after_a_zero_that_may_be_missing() {
    for bytes in [&b"\0\x02\0\x02ab\0\x3f\xf0\0\0\0\0\0\0\x11\x06\x03k"[..], b"\x02\0\x02ab\0\x3f\xf0\0\0\0\0\0\0\x11\x06\x03k"] {
        let command = Command::amf3(bytes, Limits::COMMAND).unwrap();
        assert_eq!((&*command.name, command.transaction, command.text(0)), ("ab", 1.0, Some("k")));
    }
}

#[test]
fn user_control_that_nobody_knows_is_told_apart_and_no_error() {
    assert_eq!(UserControl::read(&[0, 6, 0, 0, 0, 9]), UserControl::PingRequest(9));
    assert_eq!(UserControl::read(&[0, 7, 0, 0, 0, 9]), UserControl::PingResponse(9));
    assert_eq!(UserControl::read(&[0, 3, 0, 0, 0, 1, 0, 0, 0, 9]), UserControl::BufferLength { stream: 1, millis: 9 });
    assert_eq!(UserControl::read(&[0, 0, 0, 0, 0, 1]), UserControl::StreamBegin(1));
    assert_eq!(UserControl::read(&[0, 31, 1]), UserControl::Other(31));
    assert_eq!(UserControl::read(&[0, 6]), UserControl::Other(6));
    assert_eq!(UserControl::read(&[]), UserControl::Other(u16::MAX));
}

fn tag(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
    let ([high, t @ ..], [_, l @ ..]) = (time.to_be_bytes(), (body.len() as u32).to_be_bytes());
    let head = [&[kind][..], &l, &t, &[high, 0, 0, 0], body].concat();
    [&head[..], &(head.len() as u32).to_be_bytes()].concat()
}

#[test]
fn an_aggregate_is_its_tags_at_the_time_of_the_message() {
    let mut bytes = [tag(9, 5000, b"picture"), tag(22, 5001, &tag(8, 0, b"hidden")), tag(8, 5040, b"sound")].concat();
    bytes.truncate(bytes.len() - 4); // the last back pointer is optional
    let tags: Vec<_> = Aggregate::new(100, bytes.into()).collect();
    let expected = [
        Tag { kind: kind::VIDEO, timestamp: 100, payload: Bytes::from_static(b"picture") },
        Tag { kind: kind::AUDIO, timestamp: 140, payload: Bytes::from_static(b"sound") },
    ];
    assert_eq!(tags, expected);
    let cut = tag(9, 0, &[7; 100])[..50].to_vec();
    assert_eq!(Aggregate::new(0, cut.into()).count(), 0);
}

#[test]
fn the_writer_is_read_by_the_reader_through_a_change_of_chunk_size() {
    let (mut writer, mut bytes) = (ChunkWriter::default(), BytesMut::new());
    writer.write(&mut bytes, 3, kind::COMMAND_AMF0, 0, &[5; 300]);
    writer.write(&mut bytes, 2, kind::SET_CHUNK_SIZE, 0, &4096u32.to_be_bytes());
    writer.write(&mut bytes, 3, kind::COMMAND_AMF0, 1, &[6; 5000]);
    let (mut reader, mut input) = (ChunkReader::new(chunk::Limits::SETUP), &bytes[..]);
    let mut lengths = Vec::new();
    while let Some(message) = reader.read(&mut input).unwrap() {
        lengths.push((message.kind, message.stream, message.payload.len()));
    }
    assert_eq!(lengths, [(20, 0, 300), (1, 0, 4), (20, 1, 5000)]);
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in vec(prop_oneof![0u8..23, any::<u8>()], 0..200)) {
        let _ = (Command::amf0(&bytes, Limits::COMMAND), Command::amf3(&bytes, Limits::COMMAND), UserControl::read(&bytes));
        let _ = amf0::read(&bytes, Limits::COMMAND);
        prop_assert!(Aggregate::new(0, bytes.into()).count() < 20);
    }
}
