//! Sound and picture stay together, measured on flashes and beeps.
#![allow(clippy::unwrap_used)]

mod common;

use common::engine::{Made, transcode, write};
use common::{folder, lecture_of, tool};
use lectern_contract::Ticks;

/// Both begin with every second and last a tenth.
const FLASH: &str = "color=black:size=320x180:rate=30:duration=8,drawbox=color=white:t=fill:enable='lt(mod(t,1),0.1)'";
const BEEP: &str = "aevalsrc=exprs='if(lt(mod(t,1),0.1),0.5*sin(2*PI*1000*t),0)':s=44100:d=8";
/// Seconds; what players and people take for together (issue 5, and ITU-R BT.1359 is laxer).
const TOGETHER: f64 = 0.040;

fn file(name: &str, made: &Made) -> String {
    write(&folder(&format!("together-{name}")), name, &made.init[0], &made.segments)
}

/// What ffmpeg says of `path` through a filter, in times of the run's clock.
fn said(path: &str, kind: &str, filter: &str) -> String {
    tool("ffmpeg", &["-v", "info", "-copyts", "-i", path, kind, filter, "-f", "null", "-"])
}

/// When pictures turn white, in seconds.
fn flashes(path: &str) -> Vec<f64> {
    let said = said(path, "-vf", "signalstats,metadata=print:key=lavfi.signalstats.YAVG");
    let (mut flashes, mut time, mut white) = (Vec::new(), 0.0, true);
    for line in said.lines() {
        if let Some((_, after)) = line.split_once("pts_time:") {
            time = after.split_whitespace().next().unwrap().parse().unwrap();
        }
        if let Some((_, luma)) = line.split_once("YAVG=") {
            let now = luma.trim().parse::<f64>().unwrap() > 128.0;
            if now && !white {
                flashes.push(time);
            }
            white = now;
        }
    }
    flashes
}

/// When silence ends, in seconds.
fn beeps(path: &str) -> Vec<f64> {
    let said = said(path, "-af", "silencedetect=noise=-30dB:duration=0.3");
    let ends = said.split("silence_end: ").skip(1);
    let mut beeps: Vec<f64> = ends.map(|after| after.split_whitespace().next().unwrap().parse().unwrap()).collect();
    beeps.pop(); // the last silence ends with the file
    beeps
}

#[test]
fn a_flash_is_seen_when_its_beep_is_heard() {
    // At an odd time, for grids of pictures and of sound that do not meet the source's.
    let made = transcode(lecture_of("together", FLASH, BEEP, Ticks(90_000 + 1234), &[]), Ticks(0));
    let beeps = beeps(&file("audio", &made[&2]));
    assert!(beeps.len() >= 6, "beeps at {beeps:?}");
    for (rendition, name) in [(0, "360p"), (1, "180p")] {
        let flashes = flashes(&file(name, &made[&rendition]));
        assert!(flashes.len() >= 6, "{name}: flashes at {flashes:?}");
        for beep in &beeps {
            let offset = flashes.iter().map(|flash| flash - beep).min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            println!("{name}: the flash is {:.1} ms after the beep at {beep:.3}", offset * 1000.0);
            assert!(offset.abs() <= TOGETHER, "{name}: {offset} s between flash and beep at {beep}");
        }
    }
}
