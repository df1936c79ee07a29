//! The header of a piece. Its leaves are mp4-atom's; what holds sample entries is put together here, because those take
//! configs as they came and codecs that mp4-atom does not know.

use super::entry::sample_entry;
use super::{Coding, OriginalError, TIMESCALE, picture};
use lectern_contract::feed::{AccessUnit, Track};
use mp4_atom::{Dinf, Dref, Encode, Ftyp, Hdlr, Mdhd, Mvex, Mvhd, Smhd, Stco, Stsc, Stsz, Stts, Tkhd, Trex, Url, Vmhd};

/// A track to describe.
pub(super) struct Described<'a> {
    pub(super) id: u32,
    pub(super) coding: &'a Coding,
    /// Its first access unit, which tells what some configs do not.
    pub(super) first: Option<&'a AccessUnit>,
}

/// Appends `ftyp` and `moov`. A track that has neither access units nor a description is left out.
pub(super) fn header(tracks: &[Described<'_>], out: &mut Vec<u8>) -> Result<(), OriginalError> {
    let brands = [b"iso6", b"mp41"].map(Into::into).to_vec();
    Ftyp { major_brand: b"iso6".into(), minor_version: 0, compatible_brands: brands }.encode(out)?;
    let mut parts = Vec::new();
    let mut trex = Vec::new();
    for track in tracks {
        match trak(track) {
            Ok(written) => {
                parts.push(written);
                trex.push(Trex { track_id: track.id, default_sample_description_index: 1, ..Default::default() });
            }
            Err(_) if track.first.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    parts.insert(0, leaf(&Mvhd { timescale: TIMESCALE, rate: 1.into(), volume: 1.into(), next_track_id: 3, ..Default::default() })?);
    parts.push(leaf(&Mvex { mehd: None, trex })?);
    out.extend_from_slice(&boxed(b"moov", &parts));
    Ok(())
}

fn trak(track: &Described<'_>) -> Result<Vec<u8>, OriginalError> {
    let entry = sample_entry(track.coding, track.first)?;
    let stsd = boxed(b"stsd", &[vec![0, 0, 0, 0, 0, 0, 0, 1], entry]); // version and flags, then one entry
    let nothing = [leaf(&Stts::default())?, leaf(&Stsc::default())?, leaf(&Stsz::default())?, leaf(&Stco::default())?].concat();
    let stbl = boxed(b"stbl", &[stsd, nothing]);
    let dinf = leaf(&Dinf { dref: Dref { entries: vec![Url::default().into()] } })?;
    let common = Tkhd { track_id: track.id, enabled: true, in_movie: true, ..Default::default() };
    let (handler, name, media, tkhd) = match track.coding.codec.track() {
        Track::Video => {
            let (width, height) = picture::size(track.coding, track.first).unwrap_or_default();
            (b"vide", "video", leaf(&Vmhd::default())?, Tkhd { width: width.into(), height: height.into(), ..common })
        }
        Track::Audio => (b"soun", "audio", leaf(&Smhd::default())?, Tkhd { volume: 1.into(), alternate_group: 1, ..common }),
    };
    let minf = boxed(b"minf", &[media, dinf, stbl]);
    let mdhd = leaf(&Mdhd { timescale: TIMESCALE, language: "und".to_owned(), ..Default::default() })?;
    let hdlr = leaf(&Hdlr { handler: handler.into(), name: name.to_owned() })?;
    Ok(boxed(b"trak", &[leaf(&tkhd)?, boxed(b"mdia", &[mdhd, hdlr, minf])]))
}

/// A box of these parts. Headers are some kilobytes long, far from the 4 GiB that the size field reaches.
pub(super) fn boxed<P: AsRef<[u8]>>(kind: &[u8; 4], parts: &[P]) -> Vec<u8> {
    let size = 8 + parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&(size as u32).to_be_bytes());
    out.extend_from_slice(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part.as_ref()));
    out
}

/// What mp4-atom writes.
pub(super) fn leaf(atom: &impl Encode) -> Result<Vec<u8>, OriginalError> {
    let mut out = Vec::new();
    atom.encode(&mut out)?;
    Ok(out)
}
