//! NVENC, through libav. **Not tried on a GPU that has it**: what runs in our tests is the driver's refusal and the way back to software.

use super::coded::{ENDLESS, prepared};
use ffmpeg_next::codec::encoder;
use ffmpeg_next::{Dictionary, Error};
use lectern_contract::{VideoCodec, VideoRendition};

/// libav's name of the encoder; `None` where NVENC has none for the codec (`av1_nvenc` is not in libav 5.1).
pub const fn encoder_of(codec: VideoCodec) -> Option<&'static str> {
    match codec {
        VideoCodec::H264 => Some("h264_nvenc"),
        VideoCodec::Hevc => Some("hevc_nvenc"),
        VideoCodec::Av1 => None,
    }
}

/// Opens `name` for a rendition: no picture is held back (libav's `delay` is without bound unless told), none is reordered, and keyframes are
/// IDR pictures where they are asked for and nowhere else.
///
/// # Errors
/// There is no driver, no GPU, no session left, or it does not take the rendition's numbers.
pub fn open(name: &str, rendition: &VideoRendition) -> Result<encoder::video::Encoder, Error> {
    let video = prepared(name, rendition, ENDLESS, true)?;
    let mut options = Dictionary::new();
    for (option, value) in [
        ("preset", "p4"),
        ("tune", "ull"),
        ("rc", "cbr"),
        ("forced-idr", "1"),
        ("delay", "0"),
        ("zerolatency", "1"),
        ("rc-lookahead", "0"),
        ("no-scenecut", "1"),
    ] {
        options.set(option, value);
    }
    video.open_with(options)
}
