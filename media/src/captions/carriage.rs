//! cc_data in coded pictures: ATSC A/53 part 4 §6.2.3, in a message registered by ITU-T T.35, which is an SEI message in H.264
//! (ISO/IEC 14496-10 §D.1.6) and HEVC (ISO/IEC 23008-2 §D.2.6), and a metadata unit in AV1 (§6.7.2).

use super::triplet::{MOST, Triplet, triplets};
use crate::{av1, avc};
use bytes::{BufMut, Bytes, BytesMut};
use lectern_contract::VideoCodec;

/// United States, ATSC, "GA94", cc_data.
const HEAD: [u8; 8] = [0xb5, 0x00, 0x31, b'G', b'A', b'9', b'4', 3];
/// user_data_registered_itu_t_t35, both as SEI payloadType and as AV1's metadata_type.
const REGISTERED_SEI: u8 = 4;
const REGISTERED_OBU: u8 = 4;
/// reserved bit, process_cc_data_flag, no additional data; the lower five bits count.
const PROCESS: u8 = 0xc0;

/// Puts `captions` into a coded picture, before its slices: H.264 and HEVC as NAL units with lengths of 4 bytes, AV1 as a temporal unit.
/// At most 31 triplets are written; without any, and where there is no picture in it, `unit` stays as it is.
pub fn carry(codec: VideoCodec, unit: Bytes, captions: &[Triplet]) -> Bytes {
    if captions.is_empty() {
        return unit;
    }
    let Some(at) = first_of_picture(codec, &unit) else { return unit };
    let message = message(&captions[..captions.len().min(MOST)]);
    let carrier = match codec {
        VideoCodec::H264 => nal(&[6], &message),
        VideoCodec::Hevc => nal(&[39 << 1, 1], &message), // PREFIX_SEI_NUT of the base layer
        VideoCodec::Av1 => metadata(&message),
    };
    let mut out = BytesMut::with_capacity(unit.len() + carrier.len());
    out.put_slice(&unit[..at]);
    out.put_slice(&carrier);
    out.put_slice(&unit[at..]);
    out.freeze()
}

/// The triplets that a coded picture carries, in their order. Whatever the bytes are, there are at most a third as many.
pub fn carried(codec: VideoCodec, unit: &[u8]) -> Vec<Triplet> {
    let mut found = Vec::new();
    match codec {
        VideoCodec::H264 => {
            avc::nal_units(unit).filter(|nal| nal_kind(codec, nal) == Some(6)).for_each(|nal| in_sei(&nal[1..], &mut found))
        }
        VideoCodec::Hevc => avc::nal_units(unit)
            .filter(|nal| nal_kind(codec, nal) == Some(39) && nal.len() > 2)
            .for_each(|nal| in_sei(&nal[2..], &mut found)),
        VideoCodec::Av1 => av1::units_of(unit).filter(|unit| unit.kind == av1::METADATA).for_each(|unit| {
            if let Some((&REGISTERED_OBU, payload)) = unit.payload.split_first() {
                found.extend(in_message(payload));
            }
        }),
    }
    found
}

/// A NAL unit's type; `None` where it is empty.
fn nal_kind(codec: VideoCodec, nal: &[u8]) -> Option<u8> {
    let header = *nal.first()?;
    Some(if codec == VideoCodec::Hevc { header >> 1 & 0x3f } else { header & 0x1f })
}

/// Where the first slice of the picture begins, with its length or header.
fn first_of_picture(codec: VideoCodec, unit: &[u8]) -> Option<usize> {
    let is_slice = |nal: &[u8]| match (codec, nal_kind(codec, nal)) {
        (VideoCodec::Hevc, Some(kind)) => kind < 32,
        (_, Some(kind)) => (1..=5).contains(&kind),
        (_, None) => false,
    };
    let mut at = 0;
    if codec == VideoCodec::Av1 {
        for unit in av1::units_of(unit) {
            if matches!(unit.kind, av1::FRAME_HEADER | av1::FRAME) {
                return Some(at);
            }
            at = unit.end;
        }
        return None;
    }
    for nal in avc::nal_units(unit) {
        if is_slice(nal) {
            return Some(at);
        }
        at += 4 + nal.len();
    }
    None
}

fn message(captions: &[Triplet]) -> Vec<u8> {
    let mut message = HEAD.to_vec();
    message.extend([PROCESS | captions.len() as u8, 0xff]); // at most MOST; em_data
    captions.iter().for_each(|triplet| message.extend(triplet.0));
    message.push(0xff); // marker_bits
    message
}

/// The SEI NAL unit, with its length before it.
fn nal(header: &[u8], message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(header);
    // Below 255 bytes: payload_size has one byte.
    let payload = [&[REGISTERED_SEI, message.len() as u8], message, &[0x80]].concat();
    let mut zeros = 0;
    for byte in payload {
        if zeros >= 2 && byte <= 3 {
            out.push(3); // emulation_prevention_three_byte
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    let length = (out.len() - 4) as u32; // a few hundred at most
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The metadata OBU, with obu_size.
fn metadata(message: &[u8]) -> Vec<u8> {
    let size = message.len() + 2; // metadata_type, trailing bits
    let mut out = vec![av1::METADATA << 3 | 2];
    // Below 2^14: at most two digits of leb128 (§4.10.5).
    if size >= 0x80 {
        out.extend([(size & 0x7f) as u8 | 0x80, (size >> 7) as u8])
    } else {
        out.push(size as u8)
    }
    out.push(REGISTERED_OBU);
    out.extend(message);
    out.push(0x80);
    out
}

/// An SEI NAL unit's messages, without its header (ISO/IEC 14496-10 §7.3.2.3.1).
fn in_sei(rbsp: &[u8], found: &mut Vec<Triplet>) {
    let bytes = avc::without_emulation_prevention(rbsp);
    let mut rest = &bytes[..];
    while let Some((kind, after)) = sei_number(rest)
        && let Some((size, after)) = sei_number(after)
        && let Some((payload, after)) = after.split_at_checked(size)
    {
        if kind == usize::from(REGISTERED_SEI) {
            found.extend(in_message(payload));
        }
        rest = after;
    }
}

/// payloadType or payloadSize: 255s, and the first other byte, added up.
fn sei_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|byte| **byte == 0xff).count();
    Some((full * 255 + usize::from(*bytes.get(full)?), &bytes[full + 1..]))
}

/// The triplets of a registered message, if it is one of captions.
fn in_message(message: &[u8]) -> impl Iterator<Item = Triplet> + '_ {
    let data = message.strip_prefix(&HEAD).and_then(|data| data.split_first_chunk::<2>()).filter(|([flags, _], _)| flags & 0x40 != 0);
    let (count, bytes) = data.map_or((0, &[][..]), |([flags, _], bytes)| (usize::from(flags & 0x1f), bytes));
    triplets(bytes).take(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [VideoCodec; 3] = [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1];

    /// Something before the picture, and the picture.
    fn unit(codec: VideoCodec) -> Bytes {
        Bytes::from_static(match codec {
            VideoCodec::H264 => &[0, 0, 0, 2, 9, 0xf0, 0, 0, 0, 3, 0x65, 1, 2],
            VideoCodec::Hevc => &[0, 0, 0, 3, 35 << 1, 1, 0x50, 0, 0, 0, 3, 19 << 1, 1, 2],
            VideoCodec::Av1 => &[0x0a, 2, 0, 0, 0x32, 1, 0x10],
        })
    }

    #[test]
    fn captions_stand_before_the_slices_and_the_picture_stays() {
        let captions: Vec<_> = [[0x94, 0x2c], [0, 0], [0, 1]].map(Triplet::first_field).to_vec();
        for (codec, slice) in CODECS.into_iter().zip([7, 7, 3]) {
            let (plain, full) = (unit(codec), carry(codec, unit(codec), &captions));
            assert_eq!(carried(codec, &full), captions, "{codec:?}");
            let before = plain.len() - slice;
            assert_eq!((&full[..before], &full[full.len() - slice..]), (&plain[..before], &plain[before..]), "{codec:?}");
            assert_eq!(carry(codec, plain.clone(), &[]), plain);
        }
    }

    #[test]
    fn a_unit_without_a_picture_stays_as_it_is() {
        for codec in CODECS {
            for odd in [&b""[..], b"\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff\x65"] {
                assert_eq!(carry(codec, Bytes::from_static(odd), &[Triplet([0xfc, 1, 2])]), odd, "{codec:?}");
            }
        }
    }

    #[test]
    fn messages_of_others_are_passed_over() {
        let sei = [&[5, 2, 1, 1, 4, 3, 0xb5, 0, 0x3c][..], &[4, 13], &HEAD, &[0xc1, 0xff, 0xfc, 0x94, 0x20], &[0x80]].concat();
        let mut found = Vec::new();
        in_sei(&sei, &mut found);
        assert_eq!(found, [Triplet([0xfc, 0x94, 0x20])]);
    }

    proptest! {
        #[test]
        fn what_is_carried_comes_back(bytes in proptest::collection::vec(any::<[u8; 3]>(), 0..40)) {
            let captions: Vec<_> = bytes.into_iter().map(Triplet).collect();
            for codec in CODECS {
                let full = carry(codec, unit(codec), &captions);
                prop_assert_eq!(carried(codec, &full), &captions[..captions.len().min(MOST)]);
            }
        }

        #[test]
        fn noise_carries_no_more_than_it_has_room_for(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in CODECS {
                prop_assert!(carried(codec, &bytes).len() * 3 <= bytes.len());
                let full = carry(codec, Bytes::from(bytes.clone()), &[Triplet([0xfc, 1, 2])]);
                prop_assert!(full.len() >= bytes.len());
            }
        }
    }
}
