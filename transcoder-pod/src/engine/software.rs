//! The video encoders that run on a CPU: x264, x265 and SVT-AV1, all on one thread, without reordering.
//!
//! The first two put keyframes where they are asked for and nowhere else. SVT-AV1 1.4 takes no wishes: it puts one where it begins
//! and at each GOP's length from there, so who wants one elsewhere opens it anew ([`Keyframes`]).

use super::ff;
use bytes::Bytes;
use ffmpeg_next::codec::{Context, Flags as CodecFlags, encoder, threading};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Dictionary, Error, Rational};
use lectern_contract::{SegmentDuration, VideoCodec, VideoRendition};
use lectern_media::{av1, avc, hevc};

/// libav's name of the encoder.
pub const fn encoder_of(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::H264 => "libx264",
        VideoCodec::Hevc => "libx265",
        VideoCodec::Av1 => "libsvtav1",
    }
}

/// How an encoder comes to its keyframes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyframes {
    /// Where a picture asks for one.
    Asked,
    /// At the first picture, and after every so many.
    Every(u64),
}

/// See [`Keyframes`].
pub fn keyframes(rendition: &VideoRendition, segment_duration: SegmentDuration) -> Keyframes {
    match rendition.codec {
        VideoCodec::H264 | VideoCodec::Hevc => Keyframes::Asked,
        // A segment has whole pictures: rates are whole numbers, and durations whole seconds.
        VideoCodec::Av1 => Keyframes::Every((u64::from(rendition.frame_rate) * u64::from(segment_duration.millis()) / 1000).max(1)),
    }
}

/// Opens the encoder of a rendition.
///
/// # Errors
/// libav has none of that name, or it does not take the rendition's numbers.
pub fn open(rendition: &VideoRendition, keyframes: Keyframes) -> Result<encoder::video::Encoder, Error> {
    let codec = encoder::find_by_name(encoder_of(rendition.codec)).ok_or(Error::EncoderNotFound)?;
    let rate = i32::try_from(rendition.frame_rate).map_err(|_| Error::InvalidData)?;
    let mut context = Context::new_with_codec(codec);
    context.set_threading(threading::Config { kind: threading::Type::None, count: 1, ..Default::default() });
    context.set_flags(CodecFlags::GLOBAL_HEADER); // parameter sets go to the init section, not before every keyframe
    if rendition.codec != VideoCodec::Av1 {
        // One second of buffer: a segment cannot be more than half again its average, as BANDWIDTH in the playlist says. SVT-AV1
        // takes such a bound without a bit rate only, and is held to a constant one.
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
    // Keyframes are where segments begin, and nowhere else.
    video.set_gop(match keyframes {
        Keyframes::Asked => 1 << 20,
        Keyframes::Every(pictures) => u32::try_from(pictures).map_err(|_| Error::InvalidData)?,
    });
    video.open_with(options(rendition.codec))
}

fn options(codec: VideoCodec) -> Dictionary<'static> {
    let mut options = Dictionary::new();
    match codec {
        VideoCodec::H264 => {
            options.set("preset", "veryfast");
            options.set("tune", "zerolatency");
            options.set("forced-idr", "1");
            // force-cfr=0: else the init section depends on when the encoder was started (facts/media.md).
            options.set("x264-params", "force-cfr=0:scenecut=0:sliced-threads=0:open-gop=0");
        }
        VideoCodec::Hevc => {
            options.set("preset", "superfast");
            options.set("tune", "zerolatency");
            options.set("forced-idr", "1");
            options.set("x265-params", "scenecut=0:open-gop=0:repeat-headers=0:info=0:pools=none:frame-threads=1:log-level=error");
        }
        VideoCodec::Av1 => {
            options.set("preset", "10");
            options.set("svtav1-params", "pred-struct=1:rc=2:lp=1:scd=0:irefresh-type=2");
        }
    }
    options
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
