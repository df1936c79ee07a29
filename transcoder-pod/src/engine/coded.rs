//! What all video encoders have in common, whatever they run on: how they are asked, and what comes out of them.

use super::ff;
use bytes::Bytes;
use ffmpeg_next::codec::{Context, Flags as CodecFlags, encoder};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Error, Rational};
use lectern_contract::{VideoCodec, VideoRendition};
use lectern_media::{av1, avc, hevc};

/// A GOP without end: keyframes come where they are asked for, and nowhere else.
pub const ENDLESS: u32 = 1 << 20;

/// The encoder that libav calls `name`, with all that a rendition says, before it is opened: 4:2:0 of 8 bits, nothing
/// reordered, parameter sets in the init section and not before every keyframe.
///
/// `bounded`: with one second of buffer, so that a segment cannot be more than half again its average, as BANDWIDTH in the playlist says.
///
/// # Errors
/// libav has none of that name, or a number is too large for it.
pub fn prepared(name: &str, rendition: &VideoRendition, gop: u32, bounded: bool) -> Result<encoder::video::Video, Error> {
    let codec = encoder::find_by_name(name).ok_or(Error::EncoderNotFound)?;
    let rate = i32::try_from(rendition.frame_rate).map_err(|_| Error::InvalidData)?;
    let mut context = Context::new_with_codec(codec);
    context.set_flags(CodecFlags::GLOBAL_HEADER);
    if bounded {
        ff::set_rate_control(&mut context, rendition.bitrate, rendition.bitrate);
    }
    let mut video = context.encoder().video()?;
    video.set_width(rendition.width);
    video.set_height(rendition.height);
    video.set_format(Pixel::YUV420P);
    video.set_time_base(Rational(1, rate));
    video.set_frame_rate(Some(Rational(rate, 1)));
    video.set_bit_rate(usize::try_from(rendition.bitrate).map_err(|_| Error::InvalidData)?);
    video.set_max_b_frames(0);
    video.set_gop(gop);
    Ok(video)
}

/// The configuration record of an open encoder, from its out-of-band parameters.
///
/// # Errors
/// What is wrong with them.
pub fn record(codec: VideoCodec, extradata: &[u8]) -> Result<Bytes, String> {
    match codec {
        VideoCodec::H264 => avc::avcc_from_annexb_extradata(extradata).map_err(|error| error.to_string()),
        VideoCodec::Hevc => hevc::hvcc_from_annexb_extradata(extradata).map_err(|error| error.to_string()),
        VideoCodec::Av1 => av1::av1c_from_sequence_header(extradata).map_err(|error| error.to_string()),
    }
}

/// A packet as CMAF wants it.
pub fn access_unit(codec: VideoCodec, packet: &[u8]) -> Bytes {
    match codec {
        VideoCodec::H264 | VideoCodec::Hevc => avc::annexb_to_length_prefixed(packet),
        VideoCodec::Av1 => av1::without_temporal_delimiters(Bytes::copy_from_slice(packet)),
    }
}
