use super::*;
use proptest::prelude::*;

fn video_of(body: &'static [u8]) -> Result<VideoTag, FlvError> {
    video(Bytes::from_static(body))
}

fn audio_of(body: &'static [u8]) -> Result<AudioTag, FlvError> {
    audio(Bytes::from_static(body))
}

fn picture(codec: Codec, keyframe: bool, composition_millis: i32, payload: &'static [u8]) -> Result<VideoTag, FlvError> {
    Ok(VideoTag::Frame { codec, keyframe, composition_millis, payload: Bytes::from_static(payload) })
}

#[test]
fn a_sequence_header_is_a_config() {
    let header = |codec, config| Ok(VideoTag::Config { codec, config: Bytes::from_static(config) });
    assert_eq!(video_of(&[0x17, 0, 0, 0, 0, 1, 0x64]), header(Codec::H264, &[1, 0x64]));
    assert_eq!(video_of(&[0x1c, 0, 0, 0, 0, 1, 2]), header(Codec::Hevc, &[1, 2]));
    for (code, codec) in
        [(b"\x90avc1\x01", Codec::H264), (b"\x90hvc1\x01", Codec::Hevc), (b"\x90av01\x01", Codec::Av1), (b"\x90vp09\x01", Codec::Vp9)]
    {
        assert_eq!(video_of(code), header(codec, &[1]));
    }
    let header = |codec, config| Ok(AudioTag::Config { codec, config: Bytes::from_static(config) });
    assert_eq!(audio_of(&[0xaf, 0, 0x12, 0x10]), header(Codec::Aac, &[0x12, 0x10]));
    for (code, codec) in [(b"\x90mp4a\x01", Codec::Aac), (b"\x90Opus\x01", Codec::Opus), (b"\x90fLaC\x01", Codec::Flac)] {
        assert_eq!(audio_of(code), header(codec, &[1]));
    }
}

#[test]
fn an_empty_sequence_header_waits_for_the_real_one() {
    assert_eq!(video_of(b"\x90av01"), Ok(VideoTag::Nothing)); // ffmpeg 9 with libaom
    assert_eq!(audio_of(b"\x90ac-3"), Ok(AudioTag::Nothing)); // ffmpeg 9
}

#[test]
fn a_negative_composition_time_keeps_its_sign() {
    assert_eq!(video_of(&[0x27, 1, 0xff, 0xff, 0xd7, 9]), picture(Codec::H264, false, -41, &[9]));
    assert_eq!(video_of(&[0x2c, 1, 0xff, 0xff, 0xd7, 9]), picture(Codec::Hevc, false, -41, &[9]));
    assert_eq!(video_of(b"\x91hvc1\xff\xff\xd7\x09"), picture(Codec::Hevc, true, -41, &[9]));
}

#[test]
fn only_avc_and_hevc_have_composition_times_and_not_in_coded_frames_x() {
    assert_eq!(video_of(b"\xa3hvc1\x09\x08\x07\x06"), picture(Codec::Hevc, false, 0, &[9, 8, 7, 6]));
    assert_eq!(video_of(b"\x91av01\x09\x08\x07\x06"), picture(Codec::Av1, true, 0, &[9, 8, 7, 6]));
    assert_eq!(video_of(b"\xa1vp09\x09\x08\x07\x06"), picture(Codec::Vp9, false, 0, &[9, 8, 7, 6]));
}

#[test]
fn sound_without_a_sequence_header_is_taken() {
    let sound = |codec, stereo, payload| Ok(AudioTag::Frame { codec, stereo, payload: Bytes::from_static(payload) });
    assert_eq!(audio_of(&[0x2f, 0xff]), sound(Codec::Mp3, true, &[0xff]));
    assert_eq!(audio_of(&[0xe2, 0xff]), sound(Codec::Mp3, false, &[0xff]));
    assert_eq!(audio_of(&[0x72, 1]), sound(Codec::PcmAlaw, false, &[1]));
    assert_eq!(audio_of(&[0x83, 1]), sound(Codec::PcmMulaw, true, &[1]));
    assert_eq!(audio_of(b"\x91.mp3\xff"), sound(Codec::Mp3, false, &[0xff]));
    assert_eq!(audio_of(b"\x91ac-3\x0b"), sound(Codec::Ac3, false, &[0x0b]));
}

#[test]
fn what_is_not_media_is_nothing() {
    for body in [&b""[..], &[0x57, 0], b"\xd4hvc1\x02", b"\x92hvc1", b"\xd1hvc1\x01", &[0x17, 2, 0, 0, 0], &[0x17, 1, 0, 0, 0]] {
        assert_eq!(video(Bytes::from_static(body)), Ok(VideoTag::Nothing), "{body:x?}");
    }
    for body in [&b""[..], &[0xaf, 1], b"\x92Opus", b"\x94Opus\x01\x02\x00\x00\x00\x03", b"\x91fLaC"] {
        assert_eq!(audio(Bytes::from_static(body)), Ok(AudioTag::Nothing), "{body:x?}");
    }
}

#[test]
fn modifiers_before_a_packet_are_skipped() {
    // TimestampOffsetNano: size 3, the offset, and the kind of modifier beside the packet type
    assert_eq!(video_of(b"\x97\x02\x00\x00\x64\x03avc1\x09"), picture(Codec::H264, true, 0, &[9]));
    let sound = Ok(AudioTag::Frame { codec: Codec::Opus, stereo: false, payload: Bytes::from_static(&[9]) });
    assert_eq!(audio_of(b"\x97\x02\x00\x00\x64\x01Opus\x09"), sound);
    // an unknown kind with its size in two bytes, and another behind it
    let mut long = vec![0x97, 0xff, 0x01, 0x00];
    long.extend([0; 257]);
    long.extend(b"\x57\x00\xaa\x01Opus\x09");
    assert_eq!(audio(Bytes::from(long)), sound);
}

#[test]
fn endless_modifiers_are_refused() {
    let body = Bytes::from([&[0x97][..], &[0, 0, 7].repeat(100)].concat());
    assert_eq!(video(body.clone()), Err(FlvError::Modifiers("video")));
    assert_eq!(audio(body), Err(FlvError::Modifiers("audio")));
    assert_eq!(video_of(&[0x97, 0xff, 0xff, 0xff, 0]), Err(FlvError::Short("video")));
}

#[test]
fn what_is_not_taken_is_refused_by_name() {
    let refusal = |body| video_of(body).unwrap_err().to_string();
    assert!(refusal(&[0x12, 0, 0, 0, 0]).contains("Sorenson"));
    assert!(refusal(b"\x90vvc1...").contains("vvc1"));
    assert!(refusal(b"\x95av01\x01").contains("MPEG-2 TS"));
    assert!(refusal(b"\x96\x00av01\x00").contains("multitrack video"));
    assert!(refusal(b"\x9bav01\x00").contains("packet type 11"));
    let refusal = |body| audio_of(body).unwrap_err().to_string();
    assert!(refusal(&[0xb2, 0]).contains("Speex"));
    assert!(refusal(b"\x91ec-3\x0b\x77").contains("ec-3"));
    assert!(refusal(b"\x95\x00Opus\x01").contains("multitrack audio")); // ffmpeg 9's second audio track
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
        let body = Bytes::from(bytes);
        let _ = (video(body.clone()), audio(body));
    }

    #[test]
    fn no_enhanced_bytes_panic(packet_type in 0u8..16, bytes in proptest::collection::vec(0u8..9, 0..24)) {
        let body = Bytes::from([&[0x90 | packet_type], &bytes[..]].concat());
        let _ = (video(body.clone()), audio(body));
    }
}
