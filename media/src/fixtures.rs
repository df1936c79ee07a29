//! Sequence headers as real encoders and muxers wrote them, for unit tests: those of `media/tests/fixtures/*.flv`.

/// HEVCDecoderConfigurationRecord of x265 through ffmpeg 9.0.2, 96x64.
pub(crate) const HVCC_X265: &str = "0101600000009000000000001ef000fcfdf8f800000f03200001001840010c01ffff01600000030090000003000003001e95940921000100\
    2842010101600000030090000003000003001ea0308105965654a4c2f016808000000300800000050422000100064401c073c189";
/// The same, Main 10 in three temporal layers, 426x238.
pub(crate) const HVCC_X265_THREE_LAYERS: &str = "0102200000009000000000003cf000fcfdfafa00001b03200001001e40010c04ffff022000000300900000\
    03000003003c00009594aca5650240210001003142010402200000030090000003000003003c0000a00d880f1c94d965652b295964932bc05a02000003000200\
    000300141022000100074401c172b46240";
/// AV1CodecConfigurationRecord of libaom through ffmpeg 9.0.2, 96x64.
pub(crate) const AV1C_AOM: &str = "81000c000a0a000000032dffcdaf9004";
/// AV1CodecConfigurationRecord of SVT-AV1 4.2 through ffmpeg 9.0.2, 96x64.
pub(crate) const AV1C_SVT: &str = "81000c000a0b02000005196ffe017c0020";
/// VPCodecConfigurationRecord of ffmpeg 9.0.2's FLV muxer, with version and flags of its box.
pub(crate) const VPCC_FFMPEG: &str = "01000000000a820202020000";
/// The beginning of a keyframe of libvpx, 96x64.
pub(crate) const VP9_KEYFRAME_LIBVPX: &str = "824983420005f003f62438241c19220001f050";
/// `OpusHead` of libopus through ffmpeg 9.0.2, stereo.
pub(crate) const OPUS_HEAD_STEREO: &str = "4f707573486561640102380180bb0000000000";
/// `OpusHead` of libopus through ffmpeg 9.0.2, 5.1.
pub(crate) const OPUS_HEAD_SIX_CHANNELS: &str = "4f707573486561640106380180bb00000000010402000401020305";
/// STREAMINFO of ffmpeg 9.0.2's FLAC encoder, mono.
pub(crate) const STREAM_INFO_FFMPEG: &str = "040004000000000008150bb800f00000000000000000000000000000000000000000";

/// The bytes that hexadecimal digits say.
pub(crate) fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
