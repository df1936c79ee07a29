use super::*;
use proptest::prelude::*;

/// What x264 wrote through ffmpeg 5.1's FLV muxer, with the picture that it was given.
const RECORDS: [(&str, &str, (u32, u32)); 4] = [
    ("avc1.640028", "01640028ffe1001b67640028acd940780227e5c044000003000400000300f03c60c65801000468ef8fcbfdf8f800", (1920, 1080)),
    ("avc1.64001f", "0164001fffe1001a6764001facd9405005bb0110000003001000000303c0f183196001000468ef8fcbfdf8f800", (1280, 720)),
    ("avc1.64001f", "0164001fffe1001a6764001facd940d83de6f0110000030001000003003c0f18319601000468ef8fcbfdf8f800", (854, 480)),
    ("avc1.64001e", "0164001effe100186764001eacd940b424d8088000000300800000190f8a14cb01000668fba3cb22c0fdf8f800", (720, 576)),
];

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn records_of_a_real_encoder_are_read_and_written_back_byte_for_byte() {
    for (codec, hex, (width, height)) in RECORDS {
        let record = bytes_of(hex);
        let config = AvcConfig::parse(&record).unwrap();
        let picture = config.picture().unwrap();
        assert_eq!((picture.width, picture.height), (width, height));
        assert_eq!(config.codec(), codec);
        assert_eq!(config.encode(), record);
    }
}

#[test]
fn extradata_with_start_codes_becomes_the_same_record() {
    let record = bytes_of(RECORDS[1].1);
    let config = AvcConfig::parse(&record).unwrap();
    let mut extradata = Vec::new();
    for nal in config.sps.iter().chain(&config.pps) {
        extradata.extend_from_slice(&[0, 0, 0, 1]);
        extradata.extend_from_slice(nal);
    }
    assert_eq!(avcc_from_annexb_extradata(&extradata).unwrap(), record);
}

#[test]
fn extradata_without_an_sps_is_refused() {
    assert_eq!(avcc_from_annexb_extradata(&[0, 0, 1, 0x68, 1]), Err(AvcError::Missing("sequence parameter set")));
}

#[test]
fn start_codes_of_both_sizes_become_lengths_and_go_back() {
    let stream = [0, 0, 0, 1, 0x09, 0xf0, 0, 0, 1, 0x65, 1, 2, 0, 0, 0, 0, 1, 0x65, 3];
    let units = annexb_to_length_prefixed(&stream);
    assert_eq!(units[..], [0, 0, 0, 2, 0x09, 0xf0, 0, 0, 0, 3, 0x65, 1, 2, 0, 0, 0, 2, 0x65, 3]);
    let back = length_prefixed_to_annexb(&units, 4).unwrap();
    assert_eq!(annexb_to_length_prefixed(&back), units);
}

#[test]
fn short_length_fields_are_widened() {
    let units = with_four_byte_lengths(Bytes::from_static(&[0, 2, 0x65, 1, 0, 1, 9]), 2).unwrap();
    assert_eq!(units[..], [0, 0, 0, 2, 0x65, 1, 0, 0, 0, 1, 9]);
    assert_eq!(with_four_byte_lengths(Bytes::from_static(&[9, 1]), 1), Err(AvcError::NalLength));
}

#[test]
fn a_keyframe_holds_an_idr_picture_or_a_recovery_point() {
    let idr = [0, 0, 0, 2, 0x09, 0xf0, 0, 0, 0, 2, 0x65, 1];
    let plain = [0, 0, 0, 2, 0x09, 0xf0, 0, 0, 0, 2, 0x41, 1];
    let refresh = [0, 0, 0, 3, 0x06, 6, 1, 0, 0, 0, 2, 0x41, 1];
    assert!(is_keyframe(&idr, true) && is_keyframe(&idr, false));
    assert!(!is_keyframe(&plain, true), "the publisher's word alone is not enough");
    assert!(is_keyframe(&refresh, true) && !is_keyframe(&refresh, false));
    assert!(!is_keyframe(&[0xff, 0xff, 0xff, 0xff, 0x65], true), "a NAL unit that is not there");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
        if let Ok(config) = AvcConfig::parse(&bytes) {
            let _ = (config.picture(), config.encode(), config.codec());
        }
        let _ = Sps::parse(&bytes);
        let _ = annexb_to_length_prefixed(&bytes);
        let _ = is_keyframe(&bytes, true);
        let _ = avcc_from_annexb_extradata(&bytes);
        for size in [1, 2, 4] {
            let _ = length_prefixed_to_annexb(&bytes, size);
            let _ = with_four_byte_lengths(Bytes::copy_from_slice(&bytes), size);
        }
    }

    #[test]
    fn a_damaged_record_does_not_panic(at in 0usize..40, byte in any::<u8>(), cut in 0usize..50) {
        let mut record = bytes_of(RECORDS[0].1);
        record[at] = byte;
        record.truncate(cut);
        if let Ok(config) = AvcConfig::parse(&record) {
            let _ = (config.picture(), config.encode());
        }
    }
}

/// The second of `RECORDS` with other ids: a parameter set's first bits after its fixed ones are the id, `1` for zero.
fn with_id_one(config: &AvcConfig) -> AvcConfig {
    // 010 stands for 1. In front of both sets' next codes there is room: what follows is not looked at.
    let sps = [&config.sps[0][..4], &[0b0101_0000]].concat();
    AvcConfig { sps: vec![sps.into()], pps: vec![vec![0x68, 0b0100_0000].into()], ..config.clone() }
}

#[test]
fn a_record_takes_the_sets_of_another_encoder_if_it_can_tell_them_apart() {
    let [hd, sd] = [0, 1].map(|at| AvcConfig::parse(&bytes_of(RECORDS[at].1)).unwrap());
    assert_eq!(hd.with(&sd), None, "both have the id 0");
    let other = with_id_one(&sd);
    let both = hd.with(&other).unwrap();
    assert_eq!((both.codec(), both.sps.len(), both.pps.len()), (hd.codec(), 2, 2));
    assert!(both.has(&hd) && both.has(&other) && !hd.has(&other));
    assert_eq!(AvcConfig::parse(&both.encode()).unwrap(), both);
    assert_eq!((both.apart_from(0), both.apart_from(1)), (Some(other.clone()), Some(hd.clone())));
    assert_eq!((hd.apart_from(0), hd.apart_from(1)), (None, None), "there is nobody else's");
    assert_eq!(other.with(&hd), None, "level 4.0 is more than 3.1");
    assert_eq!(hd.with(&AvcConfig { profile: 110, ..other }), None);
}

#[test]
fn parameter_sets_are_taken_out_of_access_units_if_they_are_known() {
    let config = AvcConfig::parse(&bytes_of(RECORDS[0].1)).unwrap();
    let unit = |nals: &[&[u8]]| {
        Bytes::from(nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect::<Vec<u8>>())
    };
    let picture: &[u8] = &[0x65, 1, 2];
    let bare = unit(&[picture]);
    assert!(is_idr(&bare) && !is_idr(&unit(&[&[0x41, 1]])));
    assert_eq!(config.without_sets(&bare).unwrap().as_ptr(), bare.as_ptr(), "nothing is copied");
    assert_eq!(config.without_sets(&unit(&[&[9, 1], &config.sps[0], &config.pps[0], picture])).unwrap(), unit(&[&[9, 1], picture]));
    assert_eq!(config.without_sets(&unit(&[&[0x67, 1], picture])), None, "another one");
    assert_eq!(config.without_sets(&Bytes::from_static(&[0, 0, 0, 9, 1])), None);
}

proptest! {
    #[test]
    fn no_bytes_panic_what_looks_for_sets(unit in proptest::collection::vec(any::<u8>(), 0..64)) {
        let config = AvcConfig::parse(&bytes_of(RECORDS[0].1)).unwrap();
        let unit = Bytes::from(unit);
        let other = AvcConfig { sps: vec![unit.clone()], pps: vec![unit.clone()], ..config.clone() };
        let _ = (config.without_sets(&unit), is_idr(&unit), config.with(&other), other.apart_from(31));
    }
}
