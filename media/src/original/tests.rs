//! What is written, read back with mp4-atom. Whether others can read it, `tests/original.rs` asks ffmpeg.
#![allow(clippy::unwrap_used)]

use super::*;
use lectern_contract::feed::{FeedFrame, pcm_config};
use mp4_atom::{Any, Decode};

const AVCC: &[u8] = &[
    1, 0x64, 0, 0x0d, 0xff, 0xe1, 0, 24, 0x67, 0x64, 0x00, 0x0D, 0xAC, 0xD9, 0x41, 0x41, 0xFA, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00,
    0x00, 0x03, 0x03, 0x20, 0xF1, 0x42, 0x99, 0x60, 1, 0, 6, 0x68, 0xEB, 0xE3, 0xCB, 0x22, 0xC0, 0xfd, 0xf8, 0xf8, 0,
];

fn coding(codec: Codec, config: &[u8]) -> FeedFrame {
    FeedFrame::Config { track: codec.track(), codec, config: Bytes::copy_from_slice(config) }
}

fn unit(track: Track, dts: u64, pts: u64, payload: &'static [u8]) -> FeedFrame {
    let (dts, pts) = (Ticks(dts), Ticks(pts));
    FeedFrame::AccessUnit(AccessUnit { track, dts, pts, keyframe: true, payload: Bytes::from_static(payload) })
}

fn piece(frames: impl IntoIterator<Item = FeedFrame>) -> Piece {
    let mut cutter = Cutter::default();
    assert!(frames.into_iter().all(|frame| cutter.push(frame).is_none()));
    cutter.finish().unwrap()
}

fn atoms(mut bytes: &[u8]) -> Vec<Any> {
    let mut atoms = Vec::new();
    while !bytes.is_empty() {
        atoms.push(Any::decode(&mut bytes).expect("every box parses"));
    }
    atoms
}

fn moov(atoms: &[Any]) -> &mp4_atom::Moov {
    let Some(Any::Moov(moov)) = atoms.get(1) else { panic!("{atoms:?}") };
    moov
}

#[test]
fn a_piece_has_both_tracks_on_the_runs_timeline() {
    let start = 1 << 40;
    let bytes = piece([
        coding(Codec::H264, AVCC),
        coding(Codec::Aac, &[0x11, 0x90]),
        unit(Track::Video, start, start + 6_000, b"one"),
        unit(Track::Audio, start + 10, start + 10, b"sound"),
        unit(Track::Video, start + 3_000, start, b"three"),
        unit(Track::Video, start + 90_000, start + 93_000, b"four"),
    ])
    .write()
    .unwrap();
    let atoms = atoms(&bytes);
    let codecs: Vec<_> = moov(&atoms).trak.iter().map(|trak| trak.mdia.minf.stbl.stsd.codecs[0].clone()).collect();
    let [mp4_atom::Codec::Avc1(avc1), mp4_atom::Codec::Mp4a(mp4a)] = &codecs[..] else { panic!("{codecs:?}") };
    assert_eq!((avc1.visual.width, avc1.visual.height), (320, 240));
    assert_eq!(mp4a.esds.es_desc.dec_config.dec_specific.as_ref().unwrap().raw, [0x11, 0x90]);

    let fragments: Vec<_> = atoms
        .iter()
        .filter_map(|atom| match atom {
            Any::Moof(moof) => Some(moof),
            _ => None,
        })
        .collect();
    let about = |moof: &mp4_atom::Moof| (moof.traf[0].tfhd.track_id, moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time - start);
    assert_eq!(fragments.iter().map(|moof| about(moof)).collect::<Vec<_>>(), [(1, 0), (2, 10), (1, 90_000)]);
    assert!(fragments.is_sorted_by_key(|moof| moof.mfhd.sequence_number));
    let first: Vec<_> = fragments[0].traf[0].trun[0].samples.iter().map(|entry| (entry.duration, entry.size, entry.cts)).collect();
    assert_eq!(first, [(Some(3_000), Some(3), Some(6_000)), (Some(87_000), Some(5), Some(-3_000))]);
    let data: Vec<_> = atoms
        .iter()
        .filter_map(|atom| match atom {
            Any::Mdat(mdat) => Some(&mdat.data[..]),
            _ => None,
        })
        .collect();
    assert_eq!(data, [&b"onethree"[..], b"sound", b"four"]);
}

#[test]
fn a_track_that_is_silent_is_described_if_it_can_be() {
    let described = |sound| {
        let frames = [coding(Codec::H264, AVCC), sound, unit(Track::Video, 0, 0, b"one")];
        moov(&atoms(&piece(frames).write().unwrap())).trak.len()
    };
    assert_eq!(described(coding(Codec::Aac, &[0x11, 0x90])), 2);
    assert_eq!(described(coding(Codec::Ac3, &pcm_config(48_000, 2))), 1, "its box is made of its first frame");
}

#[test]
fn sound_that_cannot_be_described_is_an_error() {
    let piece = piece([coding(Codec::Ac3, &pcm_config(48_000, 2)), unit(Track::Audio, 0, 0, b"no syncframe")]);
    assert!(matches!(piece.write(), Err(OriginalError::Undescribed { codec: Codec::Ac3, .. })));
}

#[test]
fn the_pictures_of_a_piece_are_read_back_as_they_came() {
    let start = 1 << 40;
    let frame = |dts: u64, pts: u64, keyframe, payload: &'static [u8]| AccessUnit {
        track: Track::Video,
        dts: Ticks(start + dts),
        pts: Ticks(start + pts),
        keyframe,
        payload: Bytes::from_static(payload),
    };
    let pictures = [
        frame(0, 6_000, true, b"one"),
        frame(3_000, 0, false, b"three"),
        frame(90_000, 93_000, false, b"four"),
        frame(900_000, 900_000, true, b"later"),
    ];
    let units = pictures.iter().cloned().map(FeedFrame::AccessUnit);
    let sound = unit(Track::Audio, start + 10, start + 10, b"sound");
    let file =
        piece([coding(Codec::H264, AVCC), coding(Codec::Aac, &[0x11, 0x90])].into_iter().chain([sound]).chain(units)).write().unwrap();
    let (found, read) = super::pictures(&file).unwrap().unwrap();
    assert_eq!((found.codec, &found.config[..], &read[..]), (Codec::H264, AVCC, &pictures[..]));

    let sound = piece([coding(Codec::Aac, &[0x11, 0x90]), unit(Track::Audio, 0, 0, b"sound")]).write().unwrap();
    assert_eq!(super::pictures(&sound), Ok(None));
}

#[test]
fn every_codec_of_pictures_is_read_back() {
    for codec in Codec::ALL.into_iter().filter(|codec| codec.track() == Track::Video) {
        let file = piece([coding(codec, AVCC), unit(Track::Video, 0, 0, b"picture")]).write().unwrap();
        let (found, _) = super::pictures(&file).unwrap().unwrap();
        assert_eq!((found.codec, &found.config[..]), (codec, AVCC));
    }
}

proptest::proptest! {
    #[test]
    fn a_file_that_is_no_piece_is_told_and_none_panics(cut in 0usize..2_000, at in 0usize..2_000, byte: u8) {
        let units = (0..20).map(|n| unit(Track::Video, n * 30_000, n * 30_000, b"a picture"));
        let whole = piece([coding(Codec::H264, AVCC)].into_iter().chain(units)).write().unwrap();
        let mut file = whole[..cut.min(whole.len())].to_vec();
        if let Some(place) = file.get_mut(at) {
            *place = byte;
        }
        if let Ok(Some((_, units))) = super::pictures(&file.clone().into()) {
            proptest::prop_assert!(units.iter().map(|unit| unit.payload.len()).sum::<usize>() <= file.len());
        }
    }
}
