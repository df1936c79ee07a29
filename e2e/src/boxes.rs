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

/// True if a segment's first picture is an IDR picture (ITU-T H.264 §7.4.1: NAL unit type 5), parameter sets and SEI before it allowed.
pub fn starts_with_idr(segment: &[u8]) -> Result<bool> {
    let mut data = at(segment, "mdat")?;
    while !data.is_empty() {
        let length = usize::try_from(number(data, 0, 4)?)?;
        match data.get(4).context("an empty NAL unit")? & 0x1f {
            5 => return Ok(true),
            1..=4 => return Ok(false),
            _ => data = data.get(4 + length..).context("a NAL unit is longer than its mdat")?,
        }
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
        assert!(starts_with_idr(&mdat(&[7, 8, 6, 0x65, 0x41])).unwrap());
        assert!(!starts_with_idr(&mdat(&[7, 8, 0x41, 0x65])).unwrap());
    }
}
