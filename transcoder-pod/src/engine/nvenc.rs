//! NVENC, through libav. **Not tried on a GPU that has it**: what runs in our tests is the driver's refusal and the way back to software.

use super::ff;
use ffmpeg_next::codec::{Context, Flags as CodecFlags, encoder};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Dictionary, Error, Rational};
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
    let codec = encoder::find_by_name(name).ok_or(Error::EncoderNotFound)?;
    let rate = i32::try_from(rendition.frame_rate).map_err(|_| Error::InvalidData)?;
    let mut context = Context::new_with_codec(codec);
    context.set_flags(CodecFlags::GLOBAL_HEADER);
    ff::set_rate_control(&mut context, rendition.bitrate, rendition.bitrate);
    let mut video = context.encoder().video()?;
    video.set_width(rendition.width);
    video.set_height(rendition.height);
    video.set_format(Pixel::YUV420P);
    video.set_time_base(Rational(1, rate));
    video.set_frame_rate(Some(Rational(rate, 1)));
    video.set_bit_rate(usize::try_from(rendition.bitrate).map_err(|_| Error::InvalidData)?);
    video.set_max_b_frames(0);
    video.set_gop(1 << 20);
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
