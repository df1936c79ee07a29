//! Chunks.

use super::super::chunk::{ChunkError, ChunkReader, Limits, Message};
use super::super::message::kind;
use super::writing::ChunkStreamWriter;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits { chunk_streams: 8, message: 1 << 20, assembling: 1 << 20 };

fn message(kind: u8, timestamp: u32, payload: &[u8]) -> Message {
    Message { kind, timestamp, stream: 1, payload: Bytes::copy_from_slice(payload) }
}

fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<Message>, ChunkError> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input)? {
        messages.push(message);
    }
    assert!(input.is_empty(), "the reader stopped early");
    Ok(messages)
}

fn read(bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    read_all(&mut ChunkReader::new(LIMITS), bytes)
}

/// A header of type 0 on chunk stream `id`.
fn header(id: u8, timestamp: u32, length: u32, kind: u8) -> Vec<u8> {
    let ([_, t @ ..], [_, l @ ..]) = (timestamp.to_be_bytes(), length.to_be_bytes());
    [&[id][..], &t, &l, &[kind], &[1, 0, 0, 0]].concat()
}

#[test]
fn messages_of_two_chunk_streams_may_interleave() {
    let (video, sound) = (message(kind::VIDEO, 40, &[7; 300]), message(kind::AUDIO, 41, &[8; 200]));
    let mut pictures = ChunkStreamWriter::new(6).chunks(&video, 128).into_iter();
    let mut sounds = ChunkStreamWriter::new(4).chunks(&sound, 128).into_iter();
    let mut bytes = Vec::new();
    for _ in 0..3 {
        bytes.extend(pictures.next().into_iter().chain(sounds.next()).flatten());
    }
    assert_eq!(read(&bytes), Ok(vec![sound, video]));
}

#[test]
fn an_extended_timestamp_may_be_repeated_or_left_out_and_neither_stalls() {
    for repeats_time in [true, false] {
        // The last chunk has one byte of payload: fewer than the four that would be a timestamp.
        let messages = [message(kind::VIDEO, 0x0100_0000, &[7; 257]), message(kind::VIDEO, 0x0100_0021, &[9; 129])];
        let mut writer = ChunkStreamWriter::new(6);
        writer.repeats_time = repeats_time;
        let mut reader = ChunkReader::new(LIMITS);
        for message in messages {
            let bytes = writer.chunks(&message, 128).concat();
            assert_eq!(read_all(&mut reader, &bytes), Ok(vec![message]), "repeated: {repeats_time}");
        }
    }
}

#[test]
fn payload_that_looks_like_the_start_of_an_extended_timestamp_is_given_back() {
    let mut payload = vec![7; 128];
    payload.extend([1, 0, 0]); // the timestamp's first three bytes end the message
    let first = message(kind::VIDEO, 0x0100_0000, &payload);
    let second = message(kind::AUDIO, 5, &[8; 3]);
    let mut writer = ChunkStreamWriter::new(6);
    writer.repeats_time = false;
    let bytes = [writer.chunks(&first, 128).concat(), ChunkStreamWriter::new(4).chunks(&second, 128).concat()].concat();
    let mut reader = ChunkReader::new(LIMITS);
    let messages: Vec<_> = bytes.chunks(1).flat_map(|byte| read_all(&mut reader, byte).unwrap()).collect();
    assert_eq!(messages, [first.clone(), second.clone()]);
    assert_eq!(read(&bytes), Ok(vec![first, second]));
}

#[test]
fn type_3_starts_a_message_with_the_last_delta() {
    let mut bytes = header(4, 1000, 1, kind::AUDIO);
    bytes.push(b'a');
    bytes.extend([0x84, 0, 0, 20, b'b', 0xc4, b'c', 0xc4, b'd']);
    let times: Vec<_> = read(&bytes).unwrap().iter().map(|message| message.timestamp).collect();
    assert_eq!(times, [1000, 1020, 1040, 1060]);
}

#[test]
fn time_wraps_at_32_bits() {
    let mut bytes = header(4, 0x00ff_ffff, 0, kind::AUDIO);
    bytes.extend(u32::MAX.to_be_bytes());
    bytes.extend([0x84, 0, 0, 20]);
    let times: Vec<_> = read(&bytes).unwrap().iter().map(|message| message.timestamp).collect();
    assert_eq!(times, [u32::MAX, 19]);
}

#[test]
fn a_new_chunk_size_holds_for_the_chunks_that_follow() {
    let mut bytes = header(2, 0, 4, kind::SET_CHUNK_SIZE);
    bytes.extend(4096u32.to_be_bytes());
    let video = message(kind::VIDEO, 0, &[7; 5000]);
    bytes.extend(ChunkStreamWriter::new(6).chunks(&video, 4096).concat());
    assert_eq!(read(&bytes).unwrap()[1], video);
    let set = |size: u32| [&header(2, 0, 4, kind::SET_CHUNK_SIZE)[..], &size.to_be_bytes()].concat();
    assert_eq!(read(&set(0)), Err(ChunkError::ChunkSize(0)));
    assert_eq!(read(&set(1 << 31)), Err(ChunkError::ChunkSize(1 << 31)));
    assert!(read(&set(0x7fff_ffff)).is_ok());
    let cut = [&header(2, 0, 2, kind::SET_CHUNK_SIZE)[..], &[0, 0]].concat();
    assert_eq!(read(&cut), Err(ChunkError::Control(kind::SET_CHUNK_SIZE)));
}

#[test]
fn an_aborted_message_is_forgotten_and_its_memory_freed() {
    let mut bytes = header(6, 0, 200, kind::VIDEO);
    bytes.extend([7; 128]);
    bytes.extend(header(2, 0, 4, kind::ABORT));
    bytes.extend(6u32.to_be_bytes());
    let mut reader = ChunkReader::new(LIMITS);
    assert_eq!(read_all(&mut reader, &bytes).unwrap().len(), 1, "the Abort alone is whole");
    assert_eq!(reader.assembling(), 0);
    let whole = message(kind::VIDEO, 9, &[9; 100]);
    assert_eq!(read_all(&mut reader, &ChunkStreamWriter::new(6).chunks(&whole, 128).concat()), Ok(vec![whole]));
}

#[test]
fn a_message_that_is_given_up_without_an_abort_gives_way() {
    let mut bytes = header(6, 0, 200, kind::VIDEO);
    bytes.extend([7; 128]);
    bytes.extend(header(6, 40, 3, kind::VIDEO));
    bytes.extend([9; 3]);
    assert_eq!(read(&bytes), Ok(vec![message(kind::VIDEO, 40, &[9; 3])]));
}

#[test]
fn a_repeated_full_header_goes_on_with_its_message() {
    let mut bytes = header(6, 40, 130, kind::VIDEO);
    bytes.extend([7; 128]);
    bytes.extend(header(6, 40, 130, kind::VIDEO));
    bytes.extend([7; 2]);
    assert_eq!(read(&bytes), Ok(vec![message(kind::VIDEO, 40, &[7; 130])]));
}

#[test]
fn a_first_header_that_leaves_fields_out_is_an_error() {
    for format in 1..4u8 {
        let bytes = [format << 6 | 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&bytes), Err(ChunkError::NoPredecessor { id: 5, format }));
    }
}

#[test]
fn a_claimed_length_allocates_little() {
    let mut bytes = header(6, 0, 1 << 20, kind::VIDEO);
    bytes.push(7);
    let mut reader = ChunkReader::new(LIMITS);
    assert_eq!(read_all(&mut reader, &bytes), Ok(vec![]));
    assert_eq!(reader.assembling(), 4096);
    assert_eq!(read(&header(6, 0, (1 << 20) + 1, kind::VIDEO)), Err(ChunkError::TooLong { length: (1 << 20) + 1, limit: 1 << 20 }));
}

#[test]
fn many_chunk_streams_and_much_under_way_are_errors() {
    let open = |count: u8| (0..count).flat_map(|id| [header(3 + id, 0, 1 << 20, kind::VIDEO), vec![7; 128]].concat()).collect::<Vec<_>>();
    assert_eq!(read(&open(9)), Err(ChunkError::ChunkStreams { limit: 8 }));
    let tight = Limits { assembling: 4 * 4096, ..LIMITS };
    let mut reader = ChunkReader::new(tight);
    let error = open(8).chunks(64).find_map(|bytes| read_all(&mut reader, bytes).err());
    assert_eq!(error, Some(ChunkError::Assembling { limit: 4 * 4096 }));
}

#[test]
fn a_payload_has_a_buffer_of_its_own_length() {
    for (length, piece) in [(100, 7), (5000, 1), (100_000, 4096), (300_000, 65_536)] {
        let video = message(kind::VIDEO, 0, &vec![7; length]);
        let bytes = ChunkStreamWriter::new(6).chunks(&video, 128).concat();
        let mut reader = ChunkReader::new(LIMITS);
        let mut messages: Vec<_> = bytes.chunks(piece).flat_map(|piece| read_all(&mut reader, piece).unwrap()).collect();
        let payload = Vec::from(messages.remove(0).payload);
        assert_eq!((payload.len(), payload.capacity()), (length, length));
        assert_eq!(reader.assembling(), 0);
        assert_eq!(reader.received(), bytes.len() as u64);
    }
}

#[test]
fn what_came_before_an_error_is_not_lost() {
    let sound = message(kind::AUDIO, 0, b"sound");
    let mut bytes = ChunkStreamWriter::new(4).chunks(&sound, 128).concat();
    bytes.extend([0xff; 20]);
    let (mut reader, mut input) = (ChunkReader::new(LIMITS), &bytes[..]);
    assert_eq!(reader.read(&mut input), Ok(Some(sound)));
    assert!(reader.read(&mut input).is_err());
}

/// Messages by chunk stream. Payload bytes and times cannot be mistaken for each other: see `repeated_time`.
fn messages() -> impl Strategy<Value = Vec<(usize, Message)>> {
    let time = prop_oneof![0u32..100, 0x00ff_fff0..0x0100_0010u32, 0..0x7fff_ffffu32];
    let payload = prop_oneof![vec(0x80..=0xffu8, 0..10), vec(0x80..=0xffu8, 0..600)];
    let one = (0..4usize, 7..10u8, time, 0..2u32, payload)
        .prop_map(|(id, kind, timestamp, stream, payload)| (id, Message { kind, timestamp, stream, payload: payload.into() }));
    vec(one, 1..20)
}

/// The messages as chunks of four chunk streams, the next one's turn decided by `turns`.
fn interleaved(messages: &[(usize, Message)], turns: &[usize], repeats_time: bool) -> Vec<u8> {
    let mut queues: [std::collections::VecDeque<Vec<u8>>; 4] = Default::default();
    let mut writers = [3, 63, 200, 5000].map(ChunkStreamWriter::new);
    for (id, message) in messages {
        writers[*id].repeats_time = repeats_time;
        queues[*id].extend(writers[*id].chunks(message, 128));
    }
    let mut bytes = Vec::new();
    let mut turns = turns.iter().cycle();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let from = *turns.next().unwrap();
        let queue = (0..4).map(|offset| (from + offset) % 4).find(|index| !queues[*index].is_empty()).unwrap();
        bytes.extend(queues[queue].pop_front().unwrap());
    }
    bytes
}

/// Reads `bytes` in pieces.
fn in_pieces(mut bytes: &[u8], lengths: &[usize]) -> Vec<Message> {
    let (mut reader, mut messages, mut lengths) = (ChunkReader::new(LIMITS), Vec::new(), lengths.iter().cycle());
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((*lengths.next().unwrap()).min(bytes.len()));
        messages.extend(read_all(&mut reader, piece).unwrap());
        bytes = rest;
    }
    messages
}

/// A start that gets noise past the first headers, then noise.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let start = [header(3, 0, 40, kind::VIDEO), vec![7; 40], header(2, 0x00ff_ffff, 1, kind::AUDIO), vec![1, 0, 0, 0, 9]].concat();
    (any::<bool>(), vec(prop_oneof![any::<u8>(), Just(0xc3), Just(0xc2), Just(0), Just(2)], 0..400))
        .prop_map(move |(started, noise)| if started { [start.clone(), noise].concat() } else { noise })
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_however_it_is_cut(
        messages in messages(),
        turns in vec(0..4usize, 1..20),
        lengths in vec(1..300usize, 1..10),
        repeats_time in any::<bool>(),
    ) {
        let bytes = interleaved(&messages, &turns, repeats_time);
        let whole = in_pieces(&bytes, &[bytes.len()]);
        prop_assert_eq!(whole.len(), messages.len());
        for id in 0..4 {
            let written = messages.iter().filter(|(at, _)| *at == id).map(|(_, message)| message);
            // Each message is told from those of other chunk streams by standing in their order.
            let mut read = whole.iter();
            for message in written {
                prop_assert!(read.any(|found| found == message), "missing: {message:?}");
            }
        }
        prop_assert_eq!(&in_pieces(&bytes, &[1]), &whole);
        prop_assert_eq!(&in_pieces(&bytes, &lengths), &whole);
    }

    #[test]
    fn noise_neither_panics_nor_grows(bytes in noise(), piece in 1..50usize) {
        let limits = Limits { chunk_streams: 4, message: 1000, assembling: 2000 };
        let mut reader = ChunkReader::new(limits);
        for mut piece in bytes.chunks(piece) {
            while let Ok(Some(message)) = reader.read(&mut piece) {
                prop_assert!(message.payload.len() <= 1000);
            }
            prop_assert!(reader.assembling() <= 2000);
        }
    }
}
