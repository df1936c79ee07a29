//! A segment's fragments. Each of its parts is one, so that a part that an origin never had is a stretch of what S3 has.

use bytes::Bytes;
use std::ops::Range;

/// The fragments of `segment`, one after the other: each from the end of the `mdat` before it to the end of its own (ISO/IEC 14496-12 §8.8; what goes before
/// a `moof`, as `styp` and `emsg` do, belongs to it). Ends where `segment` is no segment any more.
pub fn of(segment: &Bytes) -> impl Iterator<Item = Bytes> {
    let media = boxes(segment).filter(|found| found.kind == *b"mdat");
    media.scan(0, |start, found| Some(segment.slice(std::mem::replace(start, found.body.end)..found.body.end)))
}

/// The `nth` part of `segment`; `None` where it has not so many.
pub fn part(segment: &Bytes, nth: u64) -> Option<Bytes> {
    of(segment).nth(usize::try_from(nth).ok()?)
}

/// When the first sample of `fragment`'s first track is decoded, in the track's timescale (`tfdt`, ISO/IEC 14496-12 §8.8.12). `None` where it does not say so.
pub fn decode_time(fragment: &[u8]) -> Option<u64> {
    let moof = body_of(fragment, b"moof")?;
    let tfdt = body_of(body_of(moof, b"traf")?, b"tfdt")?;
    let (version, time) = (tfdt.first()?, tfdt.get(4..)?); // after the version 24 bits of flags
    match version {
        0 => Some(u32::from_be_bytes(*time.first_chunk()?).into()),
        _ => Some(u64::from_be_bytes(*time.first_chunk()?)),
    }
}

/// What the first box of this kind in `bytes` holds.
fn body_of<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    let found = boxes(bytes).find(|found| found.kind == *wanted)?;
    bytes.get(found.body)
}

struct Found {
    kind: [u8; 4],
    /// Where its body lies; it ends where the box does.
    body: Range<usize>,
}

/// The boxes in `bytes`, one after the other, up to where there is none that is whole.
fn boxes(bytes: &[u8]) -> impl Iterator<Item = Found> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (kind, header, length) = head(bytes.get(at..)?)?;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
        let body = at + header..end;
        at = end;
        Some(Found { kind, body })
    })
}

/// The type, the header's length and the whole length of the box that begins here (§4.2.2).
fn head(bytes: &[u8]) -> Option<([u8; 4], usize, usize)> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let (header, length) = match u32::from_be_bytes(*size) {
        0 => (8, bytes.len()),
        1 => (16, usize::try_from(u64::from_be_bytes(*rest.first_chunk::<8>()?)).ok()?),
        size => (8, size as usize),
    };
    (length >= header).then_some((*kind, header, length))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cmaf::{Sample, segment_head};

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(8 + body.len() as u32).to_be_bytes()[..], kind, body].concat()
    }

    fn fragments() -> Vec<Vec<u8>> {
        let large = [&1u32.to_be_bytes()[..], b"mdat", &19u64.to_be_bytes(), b"abc"].concat();
        vec![
            [boxed(b"styp", b"msdh"), boxed(b"moof", b"1"), boxed(b"mdat", b"one")].concat(),
            [boxed(b"emsg", b"said"), boxed(b"moof", b"2"), boxed(b"mdat", b"")].concat(),
            [boxed(b"moof", b"3"), large].concat(),
            [boxed(b"moof", b"4"), [&0u32.to_be_bytes()[..], b"mdat", b"to the end"].concat()].concat(),
        ]
    }

    #[test]
    fn parts_are_the_segment_cut_behind_its_media() {
        let segment = Bytes::from(fragments().concat());
        for (nth, fragment) in (0..).zip(fragments()) {
            assert_eq!(part(&segment, nth).unwrap(), fragment, "part {nth}");
        }
        assert_eq!(part(&segment, 4), None);
    }

    #[test]
    fn a_fragment_tells_when_it_begins() {
        let sample = Sample { data: Bytes::from_static(b"x"), duration: 1, composition_offset: 0, sync: true };
        for start in [0, 1 << 40] {
            let head = segment_head(1, start, None, &[], std::slice::from_ref(&sample)).unwrap();
            assert_eq!(decode_time(&head), Some(start), "before its data is there");
            assert_eq!(decode_time(&[&head[..], b"x"].concat()), Some(start));
            for end in 0..head.len() {
                let _ = decode_time(&head[..end]); // never a panic
            }
        }
        let short = boxed(b"moof", &boxed(b"traf", &boxed(b"tfdt", &[0, 0, 0, 0, 0, 0, 0, 7])));
        assert_eq!(decode_time(&short), Some(7), "of version 0");
        assert_eq!(decode_time(b"WEBVTT"), None);
    }

    #[test]
    fn what_is_no_segment_has_no_parts() {
        let segment = fragments().concat();
        for end in 0..segment.len() {
            let _ = part(&Bytes::copy_from_slice(&segment[..end]), 3); // never a panic
        }
        for broken in [&b""[..], b"moof", &[0, 0, 0, 7, b'm', b'd', b'a', b't'], &[0xff; 40]] {
            assert_eq!(part(&Bytes::copy_from_slice(broken), 0), None);
        }
    }
}
