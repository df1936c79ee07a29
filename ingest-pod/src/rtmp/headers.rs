//! A publisher's sequence headers, kept so that another run or owner can be told of them in mid-stream.

use crate::stream::{Publication, PublishError};
use bytes::Bytes;

/// RTMP's message types of media (Adobe RTMP specification §7.1).
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// The newest sequence header of each track, as the publisher sent it.
#[derive(Debug, Clone, Default)]
pub(super) struct Headers {
    video: Option<Bytes>,
    audio: Option<Bytes>,
}

impl Headers {
    /// Takes note of a tag, if it is one.
    pub(super) fn note(&mut self, kind: u8, body: &Bytes) {
        match kind {
            VIDEO if opens_video(body) => self.video = Some(body.clone()),
            AUDIO if opens_audio(body) => self.audio = Some(body.clone()),
            _ => {}
        }
    }

    /// Both, with their message types; the picture's first.
    pub(super) fn each(&self) -> impl Iterator<Item = (u8, Bytes)> {
        let of = |kind, body: &Option<Bytes>| body.clone().map(|body| (kind, body));
        [of(VIDEO, &self.video), of(AUDIO, &self.audio)].into_iter().flatten()
    }

    /// Tells a publication of them. Their stamps do not count.
    pub(super) fn replay(&self, publication: &mut Publication) -> Result<(), PublishError> {
        self.each().try_for_each(|(kind, body)| publication.tag(kind, 0, body))
    }
}

/// Legacy H.264 (and HEVC by a vendor's id) with packet type 0 (FLV E.4.3.1), or an extended header with packet type 0,
/// SequenceStart (enhanced RTMP v2, "Enhanced Video").
fn opens_video(body: &[u8]) -> bool {
    match body {
        [head, ..] if head & 0x80 != 0 => head & 0x0f == 0,
        [head, packet_type, ..] => matches!(head & 0x0f, 7 | 12) && *packet_type == 0,
        _ => false,
    }
}

/// AAC with packet type 0 (FLV E.4.2.1), or the extended header's SequenceStart (enhanced RTMP v2, "Enhanced Audio").
fn opens_audio(body: &[u8]) -> bool {
    match body {
        [head, ..] if head >> 4 == 9 => head & 0x0f == 0,
        [head, packet_type, ..] => head >> 4 == 10 && *packet_type == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_header_of_each_track_is_kept_and_nothing_else() {
        let mut headers = Headers::default();
        let tags: [(u8, &'static [u8]); 8] = [
            (9, &[0x17, 0, 0, 0, 0, 1]),
            (9, &[0x17, 1, 0, 0, 0, 2]),
            (8, &[0xaf, 0, 0x12, 0x10]),
            (8, &[0xaf, 1, 9]),
            (9, b"\x90hvc1\x01"),
            (9, b"\x91hvc1\x02"),
            (18, b"\x02"),
            (9, b""),
        ];
        for (kind, body) in tags {
            headers.note(kind, &Bytes::from_static(body));
        }
        let kept: Vec<_> = headers.each().collect();
        assert_eq!(kept, [(9, Bytes::from_static(b"\x90hvc1\x01")), (8, Bytes::from_static(&[0xaf, 0, 0x12, 0x10]))]);
    }
}
