//! The benchmark `packaging`: what it costs to make CMAF segments with parts, playlists and MPD of coded media, and to hand them to an
//! origin, beside ffmpeg's DASH muxer, which writes the same (CMAF fragments of the same length, an MPD and HLS playlists) to files in memory.
//! Both get the same pictures and sound, already coded.

use anyhow::{Context as _, Result, ensure};
use bytes::Buf as _;
use clap::Parser;
use lectern_contract::{AudioRendition, Ladder, SegmentNumber, VideoCodec, VideoRendition};
use lectern_e2e::coded::{RATE, Shape, Source, job};
use lectern_e2e::process::children_cpu_seconds;
use lectern_e2e::settings;
use lectern_e2e::table::{median, row, spread};
use lectern_transcoder_pod::publish::{Live, Restored};
use lectern_transcoder_pod::status::Status;
use lectern_transcoder_pod::studio::Studio;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::sync::mpsc;

const MINUTE: Shape = Shape { width: 1280, height: 720, seconds: 60, kbit: 2_800 };

#[derive(Parser)]
struct Args {
    /// How often each side packages the minute, in a round.
    #[arg(long, default_value_t = 10)]
    repeats: u32,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let out = settings::out_folder("bench-packaging");
    std::fs::create_dir_all(&out)?;
    eprintln!("encoding a minute of 1280x720 at 2.8 Mbit/s and of sound at 128 kbit/s");
    let source = Source::encode(&out, MINUTE)?;
    let memory = Path::new("/dev/shm").join(format!("lectern-packaging-{}", std::process::id()));
    let (mut us, mut peer) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        us.push(ours(&source, args.repeats)?);
        peer.push(ffmpeg(&source, &memory, args.repeats)?);
    }
    std::fs::remove_dir_all(&memory).ok();
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "who", "CPU milliseconds for a minute of both tracks", "min", "median", "max");
    let all = |values: &[f64]| spread(values.iter().copied());
    let ratio = spread(us.iter().zip(&peer).map(|(ours, theirs)| ours / theirs));
    row("lectern", "CMAF in parts, playlists, MPD, pushed", all(&us), 2);
    row("ffmpeg", "CMAF in fragments, playlists, MPD, to memory", all(&peer), 2);
    row("ratio", "", ratio, 3);
    println!("result packaging ms={:.2} peer_ms={:.2} ratio={:.3}", median(all(&us)), median(all(&peer)), median(ratio));
    Ok(())
}

/// CPU milliseconds that a studio takes for the minute, with one origin that listens.
fn ours(source: &Source, repeats: u32) -> Result<f64> {
    let before = own_cpu()?;
    for _ in 0..repeats {
        let (keeper, _events) = mpsc::unbounded_channel();
        let job = job("packaging", ladder());
        let live = Live::new(job.run.clone());
        let (_, pushed) = live.subscribe(&job.run);
        let mut pushed = pushed.context("the live objects are closed")?;
        let mut studio = Studio::new(job, &Restored::default(), SegmentNumber(0), live, Status::default(), keeper);
        studio.holds_for_s3(4 << 20); // nobody takes them
        let mut bytes = 0;
        for output in source.outputs() {
            studio.take(output)?;
            while let Ok(frame) = pushed.try_recv() {
                bytes += frame.remaining();
            }
        }
        studio.close(true);
        ensure!(bytes > source.bytes(), "of {} bytes {bytes} were pushed", source.bytes());
    }
    Ok((own_cpu()? - before) / f64::from(repeats))
}

fn ladder() -> Ladder {
    let video = VideoRendition {
        name: "720p".into(),
        width: MINUTE.width,
        height: MINUTE.height,
        frame_rate: RATE,
        codec: VideoCodec::H264,
        bitrate: 2_800_000,
    };
    Ladder { video: vec![video], audio: vec![AudioRendition { name: "audio".into(), bitrate: 128_000 }] }
}

/// CPU milliseconds that ffmpeg takes to copy the minute through its muxer, less what it takes to copy it to nowhere.
fn ffmpeg(source: &Source, memory: &Path, repeats: u32) -> Result<f64> {
    let run = |output: &[&str]| -> Result<f64> {
        let before = children_cpu_seconds(std::process::id())?;
        for _ in 0..repeats {
            std::fs::remove_dir_all(memory).ok();
            std::fs::create_dir_all(memory)?;
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg.args(["-v", "error", "-nostdin", "-i"]).arg(source.file()).args(["-c", "copy"]).args(output);
            let status = ffmpeg.current_dir(memory).stdin(Stdio::null()).status().context("ffmpeg; scripts/install bench")?;
            ensure!(status.success(), "ffmpeg ended with {status}");
        }
        Ok((children_cpu_seconds(std::process::id())? - before) * 1000.0 / f64::from(repeats))
    };
    let muxed = run(&[
        "-f",
        "dash",
        "-seg_duration",
        "2",
        "-frag_type",
        "duration",
        "-frag_duration",
        "0.333",
        "-window_size",
        "10",
        "-hls_playlist",
        "1",
        "live.mpd",
    ])?;
    Ok(muxed - run(&["-f", "null", "-"])?)
}

/// CPU milliseconds of this process so far (`/proc/self/schedstat` counts nanoseconds; this process has one thread).
fn own_cpu() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanos: f64 = text.split_whitespace().next().context("schedstat")?.parse()?;
    Ok(nanos / 1e6)
}
