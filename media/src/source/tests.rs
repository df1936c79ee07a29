use super::*;
use crate::fixtures::{AV1C_AOM, HVCC_X265, STREAM_INFO_FFMPEG, VP9_KEYFRAME_LIBVPX, VPCC_FFMPEG, bytes_of};
use lectern_contract::feed::pcm_config;

fn tag(head: &[u8], rest: &[u8]) -> Bytes {
    Bytes::from([head, rest].concat())
}

fn hevc_reader() -> TagReader {
    let mut reader = TagReader::default();
    reader.tag(VIDEO, tag(b"\x90hvc1", &bytes_of(HVCC_X265))).unwrap().config.unwrap();
    reader
}

#[test]
fn vendors_hevc_is_hevc() {
    let mut reader = TagReader::default();
    let config = reader.tag(VIDEO, tag(&[0x1c, 0, 0, 0, 0], &bytes_of(HVCC_X265))).unwrap().config.unwrap();
    assert_eq!((config.codec, config.name.as_str(), config.picture), (Codec::Hevc, "hvc1.1.6.L30.90", Some((96, 64))));
    let unit = reader.tag(VIDEO, tag(&[0x1c, 1, 0, 0, 40], &[0, 0, 0, 3, 19 << 1, 1, 9])).unwrap().unit.unwrap();
    assert_eq!((unit.keyframe, unit.composition_millis, &unit.payload[..]), (true, 40, &[0, 0, 0, 3, 19 << 1, 1, 9][..]));
}

#[test]
fn parameters_are_told_once_and_when_they_change() {
    let mut reader = hevc_reader();
    assert_eq!(reader.tag(VIDEO, tag(b"\x90hvc1", &bytes_of(HVCC_X265))).unwrap(), Taken::default());
    let changed = reader.tag(VIDEO, tag(b"\x90av01", &bytes_of(AV1C_AOM))).unwrap().config.unwrap();
    assert_eq!(changed.codec, Codec::Av1);
    let back = reader.tag(VIDEO, tag(b"\x90hvc1", &bytes_of(HVCC_X265))).unwrap().config.unwrap();
    assert_eq!(back.codec, Codec::Hevc);
}

#[test]
fn pictures_of_another_codec_than_the_configured_one_wait_for_its_parameters() {
    let mut reader = hevc_reader();
    assert_eq!(reader.tag(VIDEO, tag(b"\x91av01", &[0x32, 1, 0x10])).unwrap(), Taken::default());
    assert_eq!(TagReader::default().tag(AUDIO, tag(b"\x91Opus", &[9])).unwrap(), Taken::default());
}

#[test]
fn a_keyframe_that_is_none_is_not_believed() {
    let mut reader = hevc_reader();
    let mut keyframe = |nal: u8| reader.tag(VIDEO, tag(b"\x93hvc1", &[0, 0, 0, 3, nal << 1, 1, 9])).unwrap().unit.unwrap().keyframe;
    assert!(keyframe(19));
    assert!(!keyframe(1));
}

#[test]
fn short_nal_lengths_are_widened_in_configuration_and_pictures() {
    let mut record = bytes_of(HVCC_X265);
    record[21] &= !2; // lengths of two bytes
    let mut reader = TagReader::default();
    let config = reader.config(Codec::Hevc, record.into()).unwrap().unwrap();
    assert_eq!(config.config, bytes_of(HVCC_X265));
    let unit = reader.frame(Track::Video, true, 0, Bytes::from_static(&[0, 3, 19 << 1, 1, 9])).unwrap().unit.unwrap();
    assert_eq!(unit.payload[..], [0, 0, 0, 3, 19 << 1, 1, 9]);
    assert!(reader.frame(Track::Video, true, 0, Bytes::from_static(&[9, 3, 19])).is_err());
}

#[test]
fn a_size_that_only_a_keyframe_says_is_told_with_it_once() {
    let mut reader = TagReader::default();
    let config = reader.tag(VIDEO, tag(b"\x90vp09", &bytes_of(VPCC_FFMPEG))).unwrap().config.unwrap();
    assert_eq!(config.picture, None);
    let key = tag(b"\x91vp09", &bytes_of(VP9_KEYFRAME_LIBVPX));
    let taken = reader.tag(VIDEO, key.clone()).unwrap();
    assert_eq!(taken.config, Some(Config { picture: Some((96, 64)), ..config }));
    assert!(taken.unit.unwrap().keyframe);
    assert_eq!(reader.tag(VIDEO, key).unwrap().config, None);
}

#[test]
fn sound_without_a_sequence_header_tells_its_shape_with_the_first_frame_and_when_it_changes() {
    let mut reader = TagReader::default();
    let (mono, stereo) = (tag(&[0x2e], &[0xff, 0xfb, 0x10, 0xc4]), tag(&[0x2e], &[0xff, 0xfb, 0x94, 0x64]));
    let mut shape = |body: &Bytes| {
        let taken = reader.tag(AUDIO, body.clone()).unwrap();
        assert!(taken.unit.is_some());
        taken.config.map(|config| config.config)
    };
    assert_eq!(shape(&mono).unwrap()[..], pcm_config(44_100, 1));
    assert_eq!(shape(&mono), None);
    assert_eq!(shape(&tag(&[0x2e], b"noise")), None, "one broken frame is the decoder's");
    assert_eq!(shape(&stereo).unwrap()[..], pcm_config(48_000, 2));
    assert_eq!(TagReader::default().tag(AUDIO, tag(&[0x2e], b"noise")), Err(MediaError::Mp3(Mp3Error::Sync)));
    assert_eq!(TagReader::default().tag(AUDIO, tag(b"\x91ac-3", b"noise")), Err(MediaError::Ac3(Ac3Error::Sync)));
}

#[test]
fn a_camera_says_codec_and_config_itself() {
    let mut reader = TagReader::default();
    assert_eq!(reader.frame(Track::Audio, true, 0, Bytes::from_static(b"early")).unwrap(), Taken::default());
    let config = reader.config(Codec::PcmMulaw, Bytes::copy_from_slice(&pcm_config(16_000, 2))).unwrap().unwrap();
    assert_eq!((config.name.as_str(), config.picture), ("ulaw", None));
    let unit = reader.frame(Track::Audio, false, 0, Bytes::from_static(b"sound")).unwrap().unit.unwrap();
    assert!(unit.keyframe && unit.track == Track::Audio);
}

#[test]
fn what_is_no_configuration_of_its_codec_is_refused() {
    for codec in Codec::ALL {
        assert!(TagReader::default().config(codec, Bytes::from_static(b"noise!")).is_err(), "{codec:?}");
        assert!(TagReader::default().config(codec, Bytes::new()).is_err(), "{codec:?}");
    }
    let huge = [&bytes_of(STREAM_INFO_FFMPEG)[..], &vec![0; MAX_CONFIG]].concat();
    assert_eq!(TagReader::default().config(Codec::Flac, huge.into()), Err(MediaError::ConfigSize(MAX_CONFIG + 34)));
}
