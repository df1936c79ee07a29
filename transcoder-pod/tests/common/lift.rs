//! Media of any codec, as the feed would send it. Debian's ffmpeg writes the codecs of enhanced RTMP to MP4 but not to FLV.
#![allow(unsafe_code)]

use super::{fed, folder, tool};
use bytes::Bytes;
use ffmpeg_next::format::{self, stream};
use lectern_contract::feed::{Codec, FeedFrame, Track, pcm_config};
use lectern_contract::{TICKS_PER_SECOND, Ticks};
use lectern_media::source::{TagReader, Taken};

/// ffmpeg's arguments for a picture of 320x180 at 30 frames a second.
fn picture(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "-c:v libx264 -preset veryfast -bf 2 -g 20",
        Codec::Hevc => "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=2:open-gop=1 -g 20",
        Codec::Av1 => "-c:v libsvtav1 -preset 12 -crf 35 -g 20",
        // With hidden frames, which come in one packet with the next one that is shown.
        _ => "-c:v libvpx-vp9 -deadline good -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 10 -b:v 800k -g 20",
    }
}

/// ffmpeg's arguments for a sound, and its shape where the codec has no configuration.
fn sound(codec: Codec) -> (&'static str, [u8; 5]) {
    match codec {
        Codec::Aac => ("-c:a aac -ac 2 -ar 44100", [0; 5]),
        Codec::Mp3 => ("-c:a libmp3lame -ac 1 -ar 44100", pcm_config(44_100, 1)),
        Codec::Opus => ("-c:a libopus -ac 2 -ar 48000", [0; 5]),
        Codec::Ac3 => ("-c:a ac3 -ac 6 -ar 48000", pcm_config(48_000, 6)),
        Codec::Flac => ("-c:a flac -ac 2 -ar 32000", [0; 5]),
        Codec::PcmAlaw => ("-c:a pcm_alaw -ac 1 -ar 8000", pcm_config(8_000, 1)),
        _ => ("-c:a pcm_mulaw -ac 1 -ar 8000", pcm_config(8_000, 1)),
    }
}

/// The picture and the tone that [`encoded`] encodes, as inputs of ffmpeg.
pub fn original(codec: Codec, seconds: f32) -> String {
    match codec.track() {
        Track::Video => format!("testsrc2=size=320x180:rate=30:duration={seconds}"),
        Track::Audio => format!("sine=frequency=440:sample_rate=48000:duration={seconds}"),
    }
}

/// A track in `codec` that ffmpeg makes with `arguments` of lavfi's `source`, the first frame shown at `start` or a little later.
pub fn made(name: &str, source: &str, arguments: &str, codec: Codec, start: Ticks) -> Vec<FeedFrame> {
    let path = folder(name).join("source.mp4");
    let mut all = vec!["-y", "-v", "error", "-f", "lavfi", "-i", source, "-strict", "-2"];
    all.extend(arguments.split_whitespace());
    all.push(path.to_str().unwrap());
    tool("ffmpeg", &all);
    lifted(path.to_str().unwrap(), codec, start)
}

/// `seconds` of one track in `codec`, the first frame shown at `start`.
pub fn encoded(name: &str, codec: Codec, seconds: f32, start: Ticks) -> Vec<FeedFrame> {
    let container = if matches!(codec, Codec::PcmAlaw | Codec::PcmMulaw) { "mov" } else { "mp4" };
    let path = folder(&format!("{name}-{codec:?}")).join(format!("source.{container}"));
    let source = original(codec, seconds);
    let mut arguments = vec!["-y", "-v", "error", "-f", "lavfi", "-i", &source, "-pix_fmt", "yuv420p", "-strict", "-2"];
    arguments.extend(if codec.track() == Track::Video { picture(codec) } else { sound(codec).0 }.split(' '));
    arguments.push(path.to_str().unwrap());
    tool("ffmpeg", &arguments);
    lifted(path.to_str().unwrap(), codec, start)
}

fn lifted(path: &str, codec: Codec, start: Ticks) -> Vec<FeedFrame> {
    ffmpeg_next::init().unwrap();
    let mut file = format::input(path).unwrap();
    let base = file.streams().next().unwrap().time_base();
    let ticks = |stamp: i64| stamp * i64::from(base.0) * TICKS_PER_SECOND as i64 / i64::from(base.1);
    let config = match codec {
        // Main profile, level 1.1, 8 bits of 4:2:0: libav keeps it elsewhere.
        Codec::Vp9 => Bytes::from_static(&[0, 11, 0x82, 2, 2, 2, 0, 0]),
        Codec::Mp3 | Codec::Ac3 | Codec::PcmAlaw | Codec::PcmMulaw => Bytes::copy_from_slice(&sound(codec).1),
        _ => extradata(&file.streams().next().unwrap()),
    };
    let mut reader = TagReader::default();
    let config = reader.config(codec, config).unwrap();
    let mut frames: Vec<FeedFrame> = fed(Taken { config, ..Taken::default() }, start).collect();
    for packet in file.packets().map(|(_, packet)| packet) {
        let (pts, dts) = (packet.pts().unwrap(), packet.dts().unwrap());
        let composition_millis = (ticks(pts) - ticks(dts)) / 90;
        let payload = Bytes::copy_from_slice(packet.data().unwrap());
        let taken = reader.frame(codec.track(), packet.is_key(), composition_millis as i32, payload).unwrap();
        frames.extend(fed(taken, Ticks(start.0.saturating_add_signed(ticks(dts)))));
    }
    frames
}

fn extradata(stream: &stream::Stream<'_>) -> Bytes {
    // SAFETY: the parameters live as long as the stream, which is borrowed; libav keeps `extradata_size` bytes at
    // `extradata`, and they are copied.
    unsafe {
        let raw = stream.parameters().as_ptr();
        Bytes::copy_from_slice(std::slice::from_raw_parts((*raw).extradata, (*raw).extradata_size as usize))
    }
}
