//! Sources of every shape end in what the ladder says.
#![allow(clippy::unwrap_used)]

mod common;

use common::engine::{Made, inputs, likeness, number_after, transcode, transcode_inputs, write};
use common::lift::made;
use common::{folder, ladder, tool};
use lectern_contract::Ticks;
use lectern_contract::feed::{Codec, FeedFrame};

const START: Ticks = Ticks(90_000);
const X264: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 30";

/// What becomes of an H.264 source: the rendition of 320x180, as a file.
fn shown(name: &str, source: &str, arguments: &str) -> (Made, String) {
    shown_as(name, made(name, source, &format!("{arguments} {X264}"), Codec::H264, START))
}

fn shown_as(name: &str, frames: Vec<FeedFrame>) -> (Made, String) {
    let mut all = transcode(frames, Ticks(0));
    let made = all.remove(&1).unwrap();
    let path = write(&folder(&format!("{name}-out")), "180p", &made.init[0], &made.segments);
    let complaints = tool("ffmpeg", &["-v", "warning", "-xerror", "-i", &path, "-f", "null", "-"]);
    assert_eq!(complaints.trim(), "", "{name}");
    (made, path)
}

/// Every slot of the grid is filled once.
fn steady(name: &str, made: &Made) {
    assert!(made.samples.windows(2).all(|pair| pair[0].0 + 3000 == pair[1].0), "{name}: a picture is missing or doubled");
    assert_eq!(made.init.len(), 1, "{name}");
}

/// The mean luma of a rectangle: `width:height:x:y`.
fn luma(path: &str, rectangle: &str) -> f64 {
    let filter = format!("crop={rectangle},signalstats,metadata=print");
    number_after(&tool("ffmpeg", &["-v", "info", "-i", path, "-vf", &filter, "-f", "null", "-"]), "lavfi.signalstats.YAVG=")
}

#[test]
fn a_picture_keeps_its_shape() {
    let white = |size: &str| format!("color=white:size={size}:rate=30:duration=0.5");
    for (name, source, arguments, bar) in [
        ("4-3", white("320x240"), "-pix_fmt yuv420p", Some("36:180:0:0")),
        ("upright", white("180x320"), "-pix_fmt yuv420p", Some("100:180:0:0")),
        ("wide", white("640x270"), "-pix_fmt yuv420p", Some("320:18:0:0")),
        ("pal", white("720x576"), "-vf setsar=16/15 -pix_fmt yuv420p", Some("36:180:284:0")),
        ("pal-wide", white("720x576"), "-vf setsar=64/45 -pix_fmt yuv420p", None),
        ("odd", white("321x181"), "-pix_fmt yuv444p", None),
        ("small", white("32x18"), "-pix_fmt yuv420p", None),
    ] {
        let (made, path) = shown(name, &source, arguments);
        steady(name, &made);
        assert!(luma(&path, "60:100:130:40") > 225.0, "{name}: the middle is not the picture");
        match bar {
            Some(bar) => assert!(luma(&path, bar) < 20.0, "{name}: there is no bar at {bar}"),
            None => assert!(luma(&path, "320:180:0:0") > 225.0, "{name}: the picture does not fill all"),
        }
    }
}

#[test]
fn samples_of_any_format_become_eight_bits_of_4_2_0() {
    let original = "testsrc2=size=320x180:rate=30:duration=1";
    for format in ["yuv422p10le", "yuv444p", "yuvj420p", "yuv420p10le"] {
        let (made, path) = shown(format, original, &format!("-pix_fmt {format}"));
        steady(format, &made);
        let likeness = likeness(&path, original);
        assert!(likeness > 27.0, "{format}: {likeness} dB is not the picture that was sent");
    }
}

#[test]
fn an_interlaced_source_becomes_progressive() {
    let source = "testsrc2=size=640x360:rate=60:duration=2,scroll=horizontal=0.01,tinterlace=interleave_top";
    let (made, path) = shown("interlaced", source, "-pix_fmt yuv420p -flags +ildct+ilme -x264-params tff=1");
    steady("interlaced", &made);
    let said = tool("ffmpeg", &["-v", "info", "-i", &path, "-vf", "idet", "-f", "null", "-"]);
    let (_, counts) = said.rsplit_once("Multi frame detection:").unwrap();
    let (combed, progressive) = (number_after(counts, "TFF:"), number_after(counts, "Progressive:"));
    assert!(combed < progressive / 10.0, "{counts}");
}

#[test]
fn sources_of_every_rate_fill_the_grid() {
    for (name, source, arguments) in [
        ("ntsc", "testsrc2=size=320x180:rate=30000/1001:duration=3", "-pix_fmt yuv420p"),
        ("film", "testsrc2=size=320x180:rate=24:duration=3", "-pix_fmt yuv420p"),
        ("slow", "testsrc2=size=320x180:rate=5:duration=3", "-pix_fmt yuv420p"),
        ("fast", "testsrc2=size=320x180:rate=60:duration=3", "-pix_fmt yuv420p"),
        ("wavering", "testsrc2=size=320x180:rate=30:duration=3", "-vf select='gt(mod(n*7,11),3)' -fps_mode vfr -pix_fmt yuv420p"),
    ] {
        let (made, _) = shown(name, source, arguments);
        steady(name, &made);
        assert!(made.samples.len() >= 84, "{name}: {} pictures", made.samples.len());
    }
}

#[test]
fn a_source_that_changes_its_size_goes_on() {
    let mut frames = made("size-a", "color=white:size=320x180:rate=30:duration=1", &format!("-pix_fmt yuv420p {X264}"), Codec::H264, START);
    let second = Ticks(START.0 + 90_000);
    frames.extend(made("size-b", "color=white:size=640x480:rate=30:duration=1", &format!("-pix_fmt yuv420p {X264}"), Codec::H264, second));
    let (made, path) = shown_as("size", frames);
    steady("size", &made);
    assert_eq!(made.samples.len(), 60);
    assert!(luma(&path, "36:180:0:0") < 20.0, "the last picture is of 4:3");
}

#[test]
fn high_dynamic_range_is_refused_by_name() {
    for (name, transfer) in [("pq", "smpte2084"), ("hlg", "arib-std-b67")] {
        let arguments = format!(
            "-pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=0:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
        );
        let frames = made(name, "color=white:size=320x180:rate=30:duration=0.5", &arguments, Codec::Hevc, START);
        let (made, path) = shown_as(name, frames);
        steady(name, &made);
        let card = luma(&path, "320:180:0:0");
        assert!((34.0..60.0).contains(&card), "{name}: {card} is not the card's luma");
    }
}

#[test]
fn a_hole_of_a_minute_and_a_half_costs_nothing_but_the_hole() {
    let cut = |name: &str, start: Ticks| {
        made(name, "testsrc2=size=320x180:rate=30:duration=1", &format!("-pix_fmt yuv420p {X264}"), Codec::H264, start)
    };
    let mut frames = cut("hole-a", START);
    frames.extend(cut("hole-b", Ticks(START.0 + 91 * 90_000)));
    let made = transcode_inputs(ladder(), inputs(frames), Ticks(0)).remove(&1).unwrap();
    let numbers: Vec<u64> = made.segments.iter().map(|segment| segment.number.0).collect();
    assert_eq!(numbers, [0, 46], "1 s to 2 s, and 92 s to 93 s");
    assert_eq!(made.samples.len(), 60);
}
