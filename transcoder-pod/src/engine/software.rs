//! The video encoders that run on a CPU: x264, x265 and SVT-AV1, all on one thread, without reordering.
//!
//! The first two put keyframes where they are asked for and nowhere else. SVT-AV1 1.4 takes no wishes: it puts one where it begins
//! and at each GOP's length from there, so who wants one elsewhere opens it anew ([`Keyframes`]).

use super::coded::{ENDLESS, prepared};
use ffmpeg_next::codec::{encoder, threading};
use ffmpeg_next::{Dictionary, Error};
use lectern_contract::{SegmentDuration, VideoCodec, VideoRendition};

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

/// Opens the encoder of a rendition. `set_id`: that of H.264's parameter sets, 0 to 31.
///
/// # Errors
/// libav has none of that name, or it does not take the rendition's numbers.
pub fn open(rendition: &VideoRendition, keyframes: Keyframes, set_id: u8) -> Result<encoder::video::Encoder, Error> {
    let gop = match keyframes {
        Keyframes::Asked => ENDLESS,
        Keyframes::Every(pictures) => u32::try_from(pictures).map_err(|_| Error::InvalidData)?,
    };
    // SVT-AV1 takes a bound without a bit rate only, and is held to a constant one.
    let bounded = rendition.codec != VideoCodec::Av1;
    let mut video = prepared(encoder_of(rendition.codec), rendition, gop, bounded)?;
    video.set_threading(threading::Config { kind: threading::Type::None, count: 1, ..Default::default() });
    video.open_with(options(rendition.codec, set_id))
}

fn options(codec: VideoCodec, set_id: u8) -> Dictionary<'static> {
    let mut options = Dictionary::new();
    match codec {
        VideoCodec::H264 => {
            options.set("preset", "veryfast");
            options.set("tune", "zerolatency");
            options.set("forced-idr", "1");
            // force-cfr=0: else the init section depends on when the encoder was started (facts/media.md).
            options.set("x264-params", &format!("force-cfr=0:scenecut=0:sliced-threads=0:open-gop=0:sps-id={set_id}"));
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
