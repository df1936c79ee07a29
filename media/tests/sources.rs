//! What a real publisher sends (`fixtures/`) becomes what the feed promises.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lectern_contract::feed::{Codec, Track, pcm_config};
use lectern_media::source::{Config, TagReader, Taken, Unit};
use proptest::prelude::*;

struct Tag {
    kind: u8,
    body: Bytes,
}

/// The tags of a fixture: FLV 10.1 §E.2 to §E.4.1.
fn tags(name: &str) -> Vec<Tag> {
    let path = format!("tests/fixtures/ffmpeg-9.0-{name}.flv");
    let file = Bytes::from(std::fs::read(path).unwrap());
    let (mut at, mut tags) = (13, Vec::new());
    while at + 11 < file.len() {
        let size = usize::from(file[at + 1]) << 16 | usize::from(file[at + 2]) << 8 | usize::from(file[at + 3]);
        tags.push(Tag { kind: file[at], body: file.slice(at + 11..at + 11 + size) });
        at += 11 + size + 4;
    }
    tags
}

fn read(name: &str) -> (Vec<Config>, Vec<Unit>) {
    let mut reader = TagReader::default();
    let taken: Vec<Taken> = tags(name).into_iter().map(|tag| reader.tag(tag.kind, tag.body).unwrap()).collect();
    let configs = taken.iter().filter_map(|taken| taken.config.clone()).collect();
    (configs, taken.into_iter().filter_map(|taken| taken.unit).collect())
}

/// The NAL units' lengths add up.
fn is_length_prefixed(mut unit: &[u8]) -> bool {
    while let Some((length, rest)) = unit.split_first_chunk::<4>() {
        let Some(rest) = rest.get(u32::from_be_bytes(*length) as usize..) else { return false };
        unit = rest;
    }
    unit.is_empty()
}

#[test]
fn every_video_codec_is_named_measured_and_starts_at_its_keyframes() {
    for (file, codec, name) in [
        ("avc", Codec::H264, "avc1.64000a"),
        ("hevc", Codec::Hevc, "hvc1.1.6.L30.90"),
        ("av1-aom", Codec::Av1, "av01.0.00M.08"),
        ("av1-svt", Codec::Av1, "av01.0.00M.08"),
        ("vp9", Codec::Vp9, "vp09.00.10.08"),
    ] {
        let (configs, units) = read(file);
        let last = configs.last().unwrap();
        assert_eq!((last.codec, last.name.as_str(), last.picture), (codec, name, Some((96, 64))), "{file}");
        assert!(configs.iter().all(|config| config.config == last.config), "{file}: the same stream all along");
        assert_eq!(units.len(), 6, "{file}");
        let keys: Vec<bool> = units.iter().map(|unit| unit.keyframe).collect();
        // x265 refers across its second keyframe, which is why that comes second in the order of decoding.
        let wanted = if file == "hevc" { [true, true, false, false, false, false] } else { [true, false, false, true, false, false] };
        assert_eq!(keys, wanted, "{file}");
        assert!(units.iter().all(|unit| unit.track == Track::Video && !unit.payload.is_empty()));
    }
}

#[test]
fn payloads_are_framed_as_the_feed_promises() {
    for file in ["avc", "hevc"] {
        let (_, units) = read(file);
        assert!(units.iter().all(|unit| is_length_prefixed(&unit.payload)), "{file}");
        assert!(units.iter().any(|unit| unit.composition_millis > 0), "{file} was encoded with B-frames");
    }
    for file in ["av1-aom", "av1-svt"] {
        let (_, units) = read(file);
        assert!(units.iter().all(|unit| unit.payload[0] != 0x12), "{file}: a temporal delimiter is left");
    }
    let (configs, _) = read("vp9");
    assert_eq!(configs[0].config[..], [0, 10, 0x82, 2, 2, 2, 0, 0], "without the header of its box");
}

#[test]
fn every_sound_codec_is_named_and_configured() {
    for (file, codec, name, config, frames) in [
        ("aac", Codec::Aac, "mp4a.40.2", &b"\x11\x88\x56\xe5\x00"[..], 6),
        ("mp3", Codec::Mp3, "mp4a.40.34", &pcm_config(44_100, 1), 5),
        ("opus", Codec::Opus, "Opus", b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0", 6),
        ("ac3", Codec::Ac3, "ac-3", &pcm_config(48_000, 2), 4),
        ("alaw", Codec::PcmAlaw, "alaw", &pcm_config(8_000, 1), 1),
        ("mulaw", Codec::PcmMulaw, "ulaw", &pcm_config(8_000, 1), 1),
    ] {
        let (configs, units) = read(file);
        let told = Config { codec, config: Bytes::copy_from_slice(config), name: name.to_owned(), picture: None };
        assert_eq!(configs, [told], "{file}");
        assert_eq!(units.len(), frames, "{file}");
        assert!(units.iter().all(|unit| unit.track == Track::Audio && unit.keyframe), "{file}");
    }
}

#[test]
fn flac_is_told_again_what_its_encoder_knows_at_the_end() {
    let (configs, units) = read("flac");
    assert_eq!(configs.iter().map(|config| (config.codec, config.config.len())).collect::<Vec<_>>(), [(Codec::Flac, 34); 2]);
    assert_eq!(units.len(), 5);
    assert!(units.iter().all(|unit| unit.payload.starts_with(&[0xff, 0xf8])));
}

#[test]
fn payloads_are_views_of_the_tags() {
    for (file, header) in [("avc", 5), ("hevc", 8), ("av1-svt", 5 + 2), ("vp9", 5), ("aac", 2), ("opus", 5), ("mp3", 1)] {
        let mut reader = TagReader::default();
        let mut seen = 0;
        for tag in tags(file) {
            let (body, coded_frames_x) = (tag.body.clone(), tag.body.first().is_some_and(|head| head & 0x8f == 0x83));
            if let Some(unit) = reader.tag(tag.kind, tag.body).unwrap().unit {
                let header = if coded_frames_x { header - 3 } else { header };
                assert_eq!(unit.payload.as_ptr(), body[header..].as_ptr(), "{file}");
                seen += 1;
            }
        }
        assert!(seen > 0, "{file}");
    }
}

proptest! {
    #[test]
    fn damaged_tags_do_not_panic(
        file in prop::sample::select(vec!["avc", "hevc", "av1-aom", "av1-svt", "vp9", "opus", "flac", "ac3", "mp3"]),
        damage in prop::collection::vec((0usize..8, 0usize..48, any::<u8>()), 1..6),
        cut in 0usize..400,
    ) {
        let mut tags = tags(file);
        for (tag, at, byte) in damage {
            let tag = tag % tags.len();
            let mut body = tags[tag].body.to_vec();
            if let Some(old) = body.get_mut(at) {
                *old = byte;
            }
            body.truncate(body.len().min(cut + 5));
            tags[tag].body = body.into();
        }
        let mut reader = TagReader::default();
        for tag in tags {
            let _ = reader.tag(tag.kind, tag.body);
        }
    }
}
