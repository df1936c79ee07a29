//! A lecture made by the installed ffmpeg, as the feed would send it.
#![allow(dead_code)] // each test binary uses its part

pub mod captions;
pub mod claim;
pub mod engine;
pub mod lift;
pub mod shard;
pub mod way;

use bytes::Bytes;
use lectern_contract::feed::{AccessUnit, FeedFrame};
use lectern_contract::{AudioRendition, Ladder, Ticks, VideoCodec, VideoRendition};
use lectern_media::source::{TagReader, Taken};
use std::path::PathBuf;
use std::process::Command;

/// An empty folder of this test's own.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("lectern-transcoder-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a tool and returns what it says on both outputs; panics where it fails.
pub fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {text}");
    text
}

/// `seconds` of a test picture (30 frames a second, 2 B-frames, a keyframe every 1.5 s) and a tone (44.1 kHz), stamped
/// from `start` on; `tracks` are ffmpeg's arguments that leave a track out, if any.
pub fn lecture(name: &str, seconds: u32, start: Ticks, tracks: &[&str]) -> Vec<FeedFrame> {
    let picture = format!("testsrc2=size=640x360:rate=30:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=44100:duration={seconds}");
    lecture_of(name, &picture, &tone, start, tracks)
}

/// The same of other pictures and sounds: sources of lavfi.
pub fn lecture_of(name: &str, picture: &str, tone: &str, start: Ticks, tracks: &[&str]) -> Vec<FeedFrame> {
    let path = folder(name).join("source.flv");
    let mut arguments = vec!["-y", "-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone];
    arguments.extend("-c:v libx264 -preset veryfast -bf 2 -g 45 -pix_fmt yuv420p -b:v 1M -c:a aac -ac 2 -b:a 96k".split(' '));
    arguments.extend(tracks);
    arguments.push(path.to_str().unwrap());
    tool("ffmpeg", &arguments);
    frames(&std::fs::read(path).unwrap(), start)
}

fn frames(file: &[u8], start: Ticks) -> Vec<FeedFrame> {
    let mut rest = &file[13..]; // header, first back pointer (FLV 10.1 §E.2)
    let (mut reader, mut frames) = (TagReader::default(), Vec::new());
    while rest.len() > 11 {
        let size = usize::from(rest[1]) << 16 | usize::from(rest[2]) << 8 | usize::from(rest[3]);
        let millis = u64::from(rest[7]) << 24 | u64::from(rest[4]) << 16 | u64::from(rest[5]) << 8 | u64::from(rest[6]);
        let dts = start.plus(Ticks::from_millis(millis));
        let body = Bytes::copy_from_slice(&rest[11..11 + size]);
        frames.extend(fed(reader.tag(rest[0] & 0x1f, body).unwrap(), dts));
        rest = &rest[11 + size + 4..];
    }
    frames
}

/// What a shard makes of a publisher's tag that is decoded at `dts`.
pub fn fed(taken: Taken, dts: Ticks) -> impl Iterator<Item = FeedFrame> {
    let config = taken.config.map(|told| FeedFrame::Config { track: told.codec.track(), codec: told.codec, config: told.config });
    let unit = taken.unit.map(|unit| {
        let pts = Ticks(dts.0.saturating_add_signed(i64::from(unit.composition_millis) * 90));
        FeedFrame::AccessUnit(AccessUnit { track: unit.track, dts, pts, keyframe: unit.keyframe, payload: unit.payload })
    });
    config.into_iter().chain(unit)
}

/// `ladder()` in half the size, for tests that run it often.
pub fn small_ladder() -> Ladder {
    let half = |it: VideoRendition| VideoRendition { width: it.width / 2, height: it.height / 2, ..it };
    Ladder { video: ladder().video.into_iter().map(half).collect(), ..ladder() }
}

/// Two pictures and a sound, small enough for a busy machine.
pub fn ladder() -> Ladder {
    let video = |name: &str, width, height, bitrate| VideoRendition {
        name: name.into(),
        width,
        height,
        frame_rate: 30,
        codec: VideoCodec::H264,
        bitrate,
    };
    Ladder {
        video: vec![video("360p", 640, 360, 600_000), video("180p", 320, 180, 200_000)],
        audio: vec![AudioRendition { name: "audio".into(), bitrate: 96_000 }],
    }
}
