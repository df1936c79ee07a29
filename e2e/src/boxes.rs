//! A box walker (ISO/IEC 14496-12 §4.2), independent of the writer that it judges.

use anyhow::{Context as _, Result, bail};

/// The boxes of `bytes`: four letters and the body of each.
pub fn boxes(mut bytes: &[u8]) -> Result<Vec<([u8; 4], &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, _) = bytes.split_first_chunk::<8>().context("a box is cut in its head")?;
        let kind = [head[4], head[5], head[6], head[7]];
        let (size, start) = match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
            0 => (bytes.len(), 8),
            1 => (usize::try_from(number(bytes, 8, 8)?)?, 16),
            size => (size as usize, 8),
        };
        if size < start || size > bytes.len() {
            bail!("box {} claims {size} of {} bytes", String::from_utf8_lossy(&kind), bytes.len());
        }
        found.push((kind, &bytes[start..size]));
        bytes = &bytes[size..];
    }
    Ok(found)
}

/// The body of the box at a path like `moof/traf/tfdt`, the first of each kind.
pub fn at<'a>(bytes: &'a [u8], path: &str) -> Result<&'a [u8]> {
    path.split('/').try_fold(bytes, |inside, kind| {
        let found = boxes(inside)?.into_iter().find(|(letters, _)| letters == kind.as_bytes());
        found.map(|(_, body)| body).with_context(|| format!("no {kind} of {path}"))
    })
}

fn number(bytes: &[u8], from: usize, length: usize) -> Result<u64> {
    let field = bytes.get(from..from + length).context("a box is too short for its fields")?;
    Ok(field.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// Ticks a second of an init section's first track (`mdhd`).
pub fn timescale(init: &[u8]) -> Result<u64> {
    let mdhd = at(init, "moov/trak/mdia/mdhd")?;
    number(mdhd, if mdhd.first() == Some(&1) { 20 } else { 12 }, 4)
}

/// True if an init section's first track has a picture (`hdlr`).
pub fn is_video(init: &[u8]) -> Result<bool> {
    Ok(at(init, "moov/trak/mdia/hdlr")?.get(8..12) == Some(b"vide".as_slice()))
}

/// The decode time that a segment starts at: `tfdt` of its first `moof`.
pub fn decode_time(segment: &[u8]) -> Result<u64> {
    let tfdt = at(segment, "moof/traf/tfdt")?;
    number(tfdt, 4, if tfdt.first() == Some(&1) { 8 } else { 4 })
}

/// The first composition time offset of a segment (`trun`), which presentation starts after decoding by.
pub fn first_composition_offset(segment: &[u8]) -> Result<i64> {
    let trun = at(segment, "moof/traf/trun")?;
    let flags = number(trun, 1, 3)?;
    if flags & 0x800 == 0 {
        return Ok(0);
    }
    let fields = |mask: u64| 4 * (flags & mask).count_ones() as usize;
    Ok(i64::from(number(trun, 8 + fields(0x005) + fields(0x700), 4)? as u32 as i32)) // signed in version 1, small in version 0
}

/// How a video track is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `avc1`.
    Avc,
    /// `hvc1`.
    Hevc,
    /// `av01`.
    Av1,
}

/// The coding that an init section's sample entry names (`stsd`).
pub fn coding(init: &[u8]) -> Result<Coding> {
    let entries = at(init, "moov/trak/mdia/minf/stbl/stsd")?.get(8..).context("an empty stsd")?;
    match boxes(entries)?.first().map(|(kind, _)| kind) {
        Some(b"avc1") => Ok(Coding::Avc),
        Some(b"hvc1") => Ok(Coding::Hevc),
        Some(b"av01") => Ok(Coding::Av1),
        other => bail!("no coding that is known: {other:?}"),
    }
}

/// True if decoding can start with a segment's first picture, parameter sets and SEI before it allowed.
pub fn starts_with_keyframe(segment: &[u8], coding: Coding) -> Result<bool> {
    let data = at(segment, "mdat")?;
    match coding {
        // ITU-T H.264 §7.4.1: a picture's NAL units have the types 1 to 5, 5 is IDR.
        Coding::Avc => first_picture(data, |head| Some(head & 0x1f).filter(|kind| (1..=5).contains(kind)).map(|kind| kind == 5)),
        // ITU-T H.265 table 7-1: up to 31, and 19 and 20 are IDR.
        Coding::Hevc => first_picture(data, |head| Some(head >> 1 & 0x3f).filter(|kind| *kind < 32).map(|kind| matches!(kind, 19 | 20))),
        Coding::Av1 => first_frame(data),
    }
}

/// What `is_key` says of the first NAL unit that it says something of, by the first byte of its header.
fn first_picture(mut data: &[u8], is_key: impl Fn(u8) -> Option<bool>) -> Result<bool> {
    while !data.is_empty() {
        let length = usize::try_from(number(data, 0, 4)?)?;
        if let Some(key) = is_key(*data.get(4).context("an empty NAL unit")?) {
            return Ok(key);
        }
        data = data.get(4 + length..).context("a NAL unit is longer than its mdat")?;
    }
    Ok(false)
}

/// Whether the first frame is a shown or hidden KEY_FRAME after a sequence header (AV1 §5.3, §5.9.2). Every unit has its size.
fn first_frame(mut data: &[u8]) -> Result<bool> {
    let mut sequence = false;
    while let Some(header) = data.first() {
        let mut at = 1 + usize::from(header >> 2 & 1);
        let (mut size, mut shift) = (0usize, 0);
        loop {
            let byte = *data.get(at).context("an OBU is cut")?;
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift > 28 {
                break;
            }
        }
        let payload = data.get(at..at + size).context("an OBU is longer than its mdat")?;
        match header >> 3 & 0xf {
            1 => sequence = true,
            3 | 6 => return Ok(sequence && payload.first().is_some_and(|first| first & 0b1110_0000 == 0)),
            _ => {}
        }
        data = &data[at + size..];
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_box_that_claims_too_much_is_an_error() {
        assert!(boxes(&[0, 0, 0, 9, b'm', b'o', b'o', b'f']).is_err());
        assert!(boxes(&[0, 0, 0, 7, b'm', b'o', b'o', b'f']).is_err());
        assert_eq!(boxes(&[0, 0, 0, 8, b'm', b'o', b'o', b'f']).unwrap(), vec![(*b"moof", &[][..])]);
    }

    #[test]
    fn parameter_sets_before_the_idr_picture_are_no_picture() {
        let mdat = |types: &[u8]| {
            let body: Vec<u8> = types.iter().flat_map(|kind| [0, 0, 0, 1, *kind]).collect();
            [&(8 + body.len() as u32).to_be_bytes()[..], b"mdat", &body].concat()
        };
        assert!(starts_with_keyframe(&mdat(&[7, 8, 6, 0x65, 0x41]), Coding::Avc).unwrap());
        assert!(!starts_with_keyframe(&mdat(&[7, 8, 0x41, 0x65]), Coding::Avc).unwrap());
        assert!(starts_with_keyframe(&mdat(&[39 << 1, 20 << 1, 1 << 1]), Coding::Hevc).unwrap());
        assert!(!starts_with_keyframe(&mdat(&[39 << 1, 1 << 1, 20 << 1]), Coding::Hevc).unwrap());
    }

    #[test]
    fn an_av1_segment_starts_with_its_sequence_header() {
        let mdat = |body: &[u8]| [&(8 + body.len() as u32).to_be_bytes()[..], b"mdat", body].concat();
        let (sequence, key, inter) = ([0x0a, 1, 0], [0x32, 1, 0x10], [0x32, 1, 0x30]);
        assert!(starts_with_keyframe(&mdat(&[sequence, key].concat()), Coding::Av1).unwrap());
        assert!(!starts_with_keyframe(&mdat(&[sequence, inter].concat()), Coding::Av1).unwrap());
        assert!(!starts_with_keyframe(&mdat(&key), Coding::Av1).unwrap());
        assert!(starts_with_keyframe(&mdat(&[0x0a, 9, 0]), Coding::Av1).is_err());
    }
}
