//! One message of a clip as chunks, made once; before each sending its timestamp and its counter are written into it.
//!
//! Sources: RTMP §5.3 for the chunks, ITU-T H.264 annex D.2.7 for the counter's SEI message.

/// RTMP's message types of media (RTMP §7.1).
pub const AUDIO: u8 = 8;
pub const VIDEO: u8 = 9;

/// The message stream that `createStream` answers first, here and at nginx.
const MESSAGE_STREAM: u32 = 1;
/// Bytes of a type 0 header.
const HEADER: usize = 12;
/// Bytes of an FLV video tag's header: frame type and codec, packet type, composition time.
const TAG: usize = 5;
/// Says that an SEI message is ours (its UUID).
const MARK: &[u8; 16] = b"lectern-counter!";
/// NAL unit type SEI, payload type `user_data_unregistered`, its size.
const SEI: [u8; 3] = [6, 5, 24];
/// Where the counter starts in an access unit with 4-byte lengths.
const COUNTER: usize = 4 + SEI.len() + MARK.len();

/// A message that can be sent again and again.
#[derive(Debug, Clone)]
pub struct Message {
    /// RTMP's message type.
    pub kind: u8,
    /// Milliseconds since the clip's start.
    pub at: u32,
    /// Bytes of its payload.
    pub payload: usize,
    /// Decoding can start here.
    pub keyframe: bool,
    chunks: Vec<u8>,
    counted: bool,
}

impl Message {
    /// A message in chunks of `chunk_size` bytes, 128 or more. `counted`: `body` is a picture that [`with_counter`] made.
    pub fn new(kind: u8, at: u32, body: &[u8], chunk_size: usize, counted: bool) -> Self {
        let chunk_stream = if kind == VIDEO { 6 } else { 4 };
        let [_, a, b, c] = (body.len() as u32).to_be_bytes();
        let mut chunks = vec![chunk_stream, 0, 0, 0, a, b, c, kind];
        chunks.extend(MESSAGE_STREAM.to_le_bytes());
        for (index, chunk) in body.chunks(chunk_size).enumerate() {
            if index > 0 {
                chunks.push(0xc0 | chunk_stream);
            }
            chunks.extend(chunk);
        }
        let keyframe = kind == VIDEO && body.starts_with(&[0x17, 1]);
        Self { kind, at, payload: body.len(), keyframe, chunks, counted }
    }

    /// The bytes to send, with this timestamp (below 2^24 - 1: runs are shorter than four hours) and this counter.
    pub fn stamped(&mut self, millis: u32, counter: u64) -> &[u8] {
        self.chunks[1..4].copy_from_slice(&millis.to_be_bytes()[1..]);
        if self.counted {
            self.chunks[HEADER + TAG + COUNTER..][..8].copy_from_slice(&digits(counter));
        }
        &self.chunks
    }
}

/// A picture's tag body (NAL units with 4-byte lengths) with an SEI message before its NAL units that has room for a counter.
/// It lies in the first 128 bytes, so that no chunk header cuts it.
pub fn with_counter(body: &[u8]) -> Vec<u8> {
    let (head, units) = body.split_at(TAG);
    let mut out = head.to_vec();
    out.extend(((SEI.len() + MARK.len() + 8 + 1) as u32).to_be_bytes());
    out.extend(SEI);
    out.extend(MARK);
    out.extend(digits(0));
    out.push(0x80); // rbsp_trailing_bits
    out.extend(units);
    out
}

/// The counter of an access unit (NAL units with 4-byte lengths), if it has one.
pub fn counter(unit: &[u8]) -> Option<u64> {
    let mark = unit.get(4..COUNTER)?;
    if mark[..3] != SEI || &mark[3..] != MARK {
        return None;
    }
    let digits: [u8; 8] = unit.get(COUNTER..COUNTER + 8)?.try_into().ok()?;
    Some(digits.iter().fold(0, |sum, digit| sum << 7 | u64::from(digit & 0x7f)))
}

/// The counter of a tag's body, as RTMP carries it to a player.
pub fn counter_of_tag(body: &[u8]) -> Option<u64> {
    body.get(TAG..).and_then(counter)
}

/// Seven bits a byte with the high bit set: nothing that emulation prevention would have to touch.
fn digits(counter: u64) -> [u8; 8] {
    std::array::from_fn(|index| 0x80 | (counter >> (7 * (7 - index))) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_comes_back_from_the_chunks() {
        let body = with_counter(&[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88]);
        let mut message = Message::new(VIDEO, 0, &body, 128, true);
        for number in [0, 1, 127, 128, 1 << 40] {
            let bytes = message.stamped(0x012345, number).to_vec();
            assert_eq!(bytes[..8], [6, 0x01, 0x23, 0x45, 0, 0, body.len() as u8, VIDEO]);
            assert_eq!(counter_of_tag(&bytes[HEADER..]), Some(number));
        }
        assert_eq!(counter(b"no counter in here, and enough bytes to hold one"), None);
    }

    #[test]
    fn a_long_message_is_cut_into_chunks() {
        let mut message = Message::new(AUDIO, 0, &[7; 300], 128, false);
        let bytes = message.stamped(0, 0);
        assert_eq!(bytes.len(), HEADER + 300 + 2);
        assert_eq!((bytes[HEADER + 128], bytes[HEADER + 128 + 129]), (0xc4, 0xc4));
    }
}
