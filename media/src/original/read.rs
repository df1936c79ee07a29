//! The pictures of a piece, read back from its file: what [`super::Piece::write`] writes, and nothing else of ISO/IEC 14496-12.

use super::Coding;
use bytes::Bytes;
use lectern_contract::Ticks;
use lectern_contract::feed::{AccessUnit, Codec, Track};

/// What a visual sample entry has before its boxes, its own header not counted (ISO/IEC 14496-12 §12.1.3).
const VISUAL: usize = 78;
/// The sample flag of what is no sync sample (ISO/IEC 14496-12 §8.8.3.1).
const NON_SYNC: u32 = 0x0001_0000;
/// The fields of a `trun` (ISO/IEC 14496-12 §8.8.8.1), its version not counted: those of a fragment of several samples, and of one.
const FIELDS: u32 = 0x00ff_ffff;
const EACH: u32 = 0x0000_0f01;
const ALONE: u32 = 0x0000_0b05;

/// The file is no piece of an original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no piece of an original: {0}")]
pub struct Unreadable(&'static str);

/// How the pictures in `file` are coded, and what they are, in the order of decoding; `None` where it has sound alone. Payloads are shared with `file`.
///
/// # Errors
/// [`Unreadable`]; never more is allocated than `file` has bytes.
pub fn pictures(file: &Bytes) -> Result<Option<(Coding, Vec<AccessUnit>)>, Unreadable> {
    let (mut coding, mut units) = (None, Vec::new());
    let mut samples = Vec::new();
    for found in boxes(file) {
        let Found { kind, body } = found?;
        match &kind {
            b"moov" => coding = described(&body)?,
            b"moof" => samples = fragment(&body)?,
            b"mdat" => {
                let mut rest = body;
                for Sample { dts, pts, keyframe, size } in samples.drain(..) {
                    if size > rest.len() {
                        return Err(Unreadable("a sample reaches beyond its data"));
                    }
                    units.push(AccessUnit { track: Track::Video, dts, pts, keyframe, payload: rest.split_to(size) });
                }
            }
            _ => {}
        }
    }
    Ok(coding.map(|coding| (coding, units)))
}

struct Found {
    kind: [u8; 4],
    body: Bytes,
}

/// The boxes in `within`, one after the other.
fn boxes(within: &Bytes) -> impl Iterator<Item = Result<Found, Unreadable>> + use<> {
    let mut rest = within.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(header) = rest.first_chunk::<8>() else {
            rest.clear();
            return Some(Err(Unreadable("a box without a header")));
        };
        let [a, b, c, d, kind @ ..] = *header;
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(8..=rest.len()).contains(&size) {
            rest.clear();
            return Some(Err(Unreadable("a box that is not whole")));
        }
        let body = rest.split_to(size).slice(8..);
        Some(Ok(Found { kind, body }))
    })
}

/// The first box at `path`.
fn descend(within: &Bytes, path: &[&[u8; 4]]) -> Result<Option<Bytes>, Unreadable> {
    let Some((first, deeper)) = path.split_first() else { return Ok(Some(within.clone())) };
    for found in boxes(within) {
        let found = found?;
        if found.kind == **first {
            return descend(&found.body, deeper);
        }
    }
    Ok(None)
}

/// The coding of the first track of pictures.
fn described(moov: &Bytes) -> Result<Option<Coding>, Unreadable> {
    for track in boxes(moov) {
        let track = track?;
        if track.kind != *b"trak" {
            continue;
        }
        let Some(stsd) = descend(&track.body, &[b"mdia", b"minf", b"stbl", b"stsd"])? else { continue };
        // Version, flags and a count, then the entry.
        let Some(entry) = boxes(&stsd.slice(8.min(stsd.len())..)).next().transpose()? else { continue };
        let (codec, of, header) = match &entry.kind {
            b"avc1" => (Codec::H264, b"avcC", 0),
            b"hvc1" => (Codec::Hevc, b"hvcC", 0),
            b"av01" => (Codec::Av1, b"av1C", 0),
            b"vp09" => (Codec::Vp9, b"vpcC", 4), // a full box
            _ => continue,
        };
        let config = descend(&entry.body.slice(VISUAL.min(entry.body.len())..), &[of])?;
        let config = config.filter(|config| config.len() >= header).ok_or(Unreadable("pictures without a config"))?;
        return Ok(Some(Coding { codec, config: config.slice(header..) }));
    }
    Ok(None)
}

struct Sample {
    dts: Ticks,
    pts: Ticks,
    keyframe: bool,
    size: usize,
}

/// The samples of a fragment, if it is one of pictures.
fn fragment(moof: &Bytes) -> Result<Vec<Sample>, Unreadable> {
    let short = Unreadable("a fragment that is not whole");
    let traf = descend(moof, &[b"traf"])?.ok_or(short)?;
    let of = |kind: &[u8; 4]| descend(&traf, &[kind])?.ok_or(short);
    let (tfhd, tfdt, trun) = (of(b"tfhd")?, of(b"tfdt")?, of(b"trun")?);
    if word(&tfhd, 1).ok_or(short)? != super::id(Track::Video) {
        return Ok(Vec::new());
    }
    let mut dts = match tfdt.first().ok_or(short)? {
        0 => word(&tfdt, 1).ok_or(short)?.into(),
        _ => u64::from(word(&tfdt, 1).ok_or(short)?) << 32 | u64::from(word(&tfdt, 2).ok_or(short)?),
    };
    let words: Vec<u32> = trun.as_chunks().0.iter().copied().map(u32::from_be_bytes).collect();
    // Version and flags, a count and the data's offset; then of each sample how long it lasts, its size, its flags and how much later it is shown. A sample that is
    // alone has its flags before the others.
    let samples: Vec<[u32; 4]> = match *words.as_slice() {
        [flags, _, _, ref samples @ ..] if flags & FIELDS == EACH => samples.as_chunks().0.to_vec(),
        [flags, 1, _, kind, duration, size, offset] if flags & FIELDS == ALONE => vec![[duration, size, kind, offset]],
        _ => return Err(Unreadable("a run of samples of another kind")),
    };
    let samples = samples.into_iter().map(|[duration, size, flags, offset]| {
        let pts = Ticks(dts.saturating_add_signed(i64::from(offset.cast_signed())));
        let sample = Sample { dts: Ticks(dts), pts, keyframe: flags & NON_SYNC == 0, size: size as usize };
        dts = dts.saturating_add(duration.into());
        sample
    });
    Ok(samples.collect())
}

/// The `at`th four bytes of a box's body, as a number.
fn word(body: &[u8], at: usize) -> Option<u32> {
    body.get(at * 4..)?.first_chunk().copied().map(u32::from_be_bytes)
}
