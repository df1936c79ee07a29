//! Parts out of a whole segment: each is one fragment, so that a part that this origin never had is a stretch of what S3 has.

use bytes::Bytes;

/// The `nth` part of `segment`: from the end of the `mdat` before it to the end of its own (ISO/IEC 14496-12 §8.8; what goes before a `moof`,
/// as `styp` and `emsg` do, belongs to it). `None` where it has not so many, or is no segment.
pub fn part(segment: &Bytes, nth: u64) -> Option<Bytes> {
    let (mut at, mut start, mut before) = (0, 0, 0);
    loop {
        let (kind, length) = head(segment.get(at..)?)?;
        let end = at.checked_add(length).filter(|end| *end <= segment.len())?;
        if &kind == b"mdat" {
            if before == nth {
                return Some(segment.slice(start..end));
            }
            (before, start) = (before + 1, end);
        }
        at = end;
    }
}

/// The type and the whole length of the box that begins here (§4.2.2).
fn head(bytes: &[u8]) -> Option<([u8; 4], usize)> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let (length, least) = match u32::from_be_bytes(*size) {
        0 => (bytes.len(), 8),
        1 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk::<8>()?)).ok()?, 16),
        size => (size as usize, 8),
    };
    (length >= least).then_some((*kind, length))
}

#[cfg(test)]
mod tests {
    use super::*;

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
