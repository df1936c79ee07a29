//! Three benchmarks of encoding. `ladder`: CPU of a whole child (decoding, scaling, encoding, packaging) beside that of bare encoders, ffmpeg's
//! on raw pictures of each rendition with the same settings. `cost`: CPU of a codec's encoder per pixel, which are the weights of
//! `lectern_contract::cost`, and what a core can do. `memory`: that of a child over hours of media, faster than they would last.

mod bare;

use anyhow::Result;
use bare::Raw;
use clap::{Parser, Subcommand};
use lectern_contract::job::LiveJob;
use lectern_contract::{AudioRendition, Ladder, SegmentDuration, SegmentNumber, Ticks, VideoCodec, VideoRendition};
use lectern_e2e::coded::{RATE, Shape, Source, job};
use lectern_e2e::process::{cpu_seconds, own_bytes};
use lectern_e2e::settings;
use lectern_e2e::table::{median, row, spread};
use lectern_transcoder_pod::engine::{Backend, Card, Engine as _, Input, Libav, Order, Output, Predecessor};
use lectern_transcoder_pod::publish::{Live, Restored};
use lectern_transcoder_pod::status::Status;
use lectern_transcoder_pod::studio::Studio;
use tokio::sync::mpsc;

/// What the lecturer sends.
const SENT: Shape = Shape { width: 1280, height: 720, seconds: 40, kbit: 2_000 };

/// Sent again and again where it is the hours that count.
const MINUTE: Shape = Shape { width: 320, height: 180, seconds: 60, kbit: 300 };

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Rounds.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
}

#[derive(Subcommand)]
enum What {
    /// The whole child beside bare encoders.
    Ladder,
    /// What a pixel costs in each codec.
    Cost,
    /// What a child's memory does over hours.
    Memory {
        /// Of media.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let out = settings::out_folder("bench-ladder");
    std::fs::create_dir_all(&out)?;
    let sent = if matches!(args.what, What::Memory { .. }) { MINUTE } else { SENT };
    eprintln!("encoding {} s of {}x{}", sent.seconds, sent.width, sent.height);
    let source = Source::encode(&out, sent)?;
    match args.what {
        What::Ladder => compare(&source, args.rounds),
        What::Cost => cost(&source, args.rounds),
        What::Memory { minutes } => memory(source, minutes),
    }
}

fn video(height: u32, codec: VideoCodec, bitrate: u64) -> VideoRendition {
    let width = (height * 16 / 9).next_multiple_of(2);
    VideoRendition { name: format!("{height}p-{codec:?}").to_lowercase(), width, height, frame_rate: RATE, codec, bitrate }
}

fn compare(source: &Source, rounds: usize) -> Result<()> {
    let video = [(720, 2_800_000), (480, 1_200_000), (360, 700_000)].map(|(height, bitrate)| video(height, VideoCodec::H264, bitrate));
    let ladder = Ladder { video: video.to_vec(), audio: vec![AudioRendition { name: "audio".into(), bitrate: 128_000 }] };
    let raw = Raw::of(source, &ladder)?;
    let (mut us, mut passed, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        us.push(child(source, &ladder, false)?);
        passed.push(child(source, &ladder, true)?);
        peer.push(raw.encode_all(&ladder)?);
    }
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "who", "CPU seconds for a second of 720p30 in three renditions", "min", "median", "max");
    let each = |values: &[f64]| spread(values.iter().map(|all| all / f64::from(SENT.seconds)));
    let ratio = |ours: &[f64]| spread(ours.iter().zip(&peer).map(|(ours, theirs)| ours / theirs));
    row("lectern", "decode, scale, encode, package", each(&us), 3);
    row("", "the same, and the source is passed on as 720p", each(&passed), 3);
    row("bare", "ffmpeg: encode raw pictures and sound", each(&peer), 3);
    row("ratio", "", ratio(&us), 3);
    row("", "passed on", ratio(&passed), 3);
    println!(
        "result ladder cpu={:.3} bare={:.3} ratio={:.3} passed_on={:.3}",
        median(each(&us)),
        median(each(&peer)),
        median(ratio(&us)),
        median(ratio(&passed))
    );
    Ok(())
}

fn cost(source: &Source, rounds: usize) -> Result<()> {
    let codecs = [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1].map(|codec| (codec, video(720, codec, 2_000_000)));
    let of = |video: Vec<VideoRendition>| Ladder { video, audio: Vec::new() };
    let raw = Raw::of(source, &of(vec![codecs[0].1.clone()]))?;
    let pixels = f64::from(SENT.width) * f64::from(SENT.height) * f64::from(RATE * SENT.seconds) / 1e6;
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "codec", "CPU milliseconds a megapixel, at 720p", "min", "median", "max");
    let mut medians = Vec::new();
    for (codec, rendition) in &codecs {
        let alone = of(vec![rendition.clone()]);
        let all = (0..rounds).map(|_| raw.encode_all(&alone)).collect::<Result<Vec<f64>>>()?;
        let per = spread(all.iter().map(|seconds| seconds * 1000.0 / pixels));
        row(&format!("{codec:?}").to_lowercase(), "encoding", per, 2);
        medians.push(median(per));
    }
    // A small rendition costs little itself: what it costs more than its encoder is decoding and scaling.
    let small = of(vec![video(180, VideoCodec::H264, 200_000)]);
    let small_raw = Raw::of(source, &small)?;
    let rest = (0..rounds).map(|_| Ok(child(source, &small, false)? - small_raw.encode_all(&small)?)).collect::<Result<Vec<f64>>>()?;
    let rest = spread(rest.iter().map(|seconds| seconds * 1000.0 / pixels));
    row("", "decoding H.264 and scaling it once", rest, 2);
    let weight = |of: f64| of * 100.0 / medians[0];
    println!(
        "result cost hevc={:.0} av1={:.0} decode={:.0} megapixels_per_core={:.0}",
        weight(medians[1]),
        weight(medians[2]),
        weight(median(rest)),
        1000.0 / medians[0]
    );
    Ok(())
}

/// Feeds a child the minute again and again, and looks at its memory after each. S3 does not answer: its backlog is as full as it gets.
fn memory(source: Source, minutes: u32) -> Result<()> {
    let video = [(180, 250_000), (90, 100_000)].map(|(height, bitrate)| video(height, VideoCodec::H264, bitrate));
    let ladder = Ladder { video: video.to_vec(), audio: vec![AudioRendition { name: "audio".into(), bitrate: 96_000 }] };
    let (mut at, mut measured) = (0, Vec::new());
    let inputs = (0..minutes).flat_map(move |minute| source.inputs(Ticks(u64::from(minute) * 60 * 90_000)).collect::<Vec<_>>());
    transcode(job("ladder", ladder), false, inputs, |output| {
        let Output::Sample { rendition: 0, sample } = output else { return Ok(()) };
        if sample.start / (60 * 90_000) > at {
            at = sample.start / (60 * 90_000);
            measured.push(own_bytes(std::process::id())? / f64::from(1 << 20));
            eprintln!("after {at} minutes: {:.1} MiB", measured.last().copied().unwrap_or_default());
        }
        Ok(())
    })?;
    // What a child keeps is as much as it gets after ten minutes: the playlists' window, and what waits for S3.
    let (early, late) = measured.split_at(measured.len() / 2);
    let (early, late) = (spread(early.iter().skip(10).copied()), spread(late.iter().copied()));
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "", "MiB of a child's own", "min", "median", "max");
    row("first", "half of the time, after ten minutes", early, 1);
    row("second", "half of the time", late, 1);
    println!(
        "result memory minutes={minutes} first_mib={:.1} second_mib={:.1} ratio={:.3}",
        median(early),
        median(late),
        median(late) / median(early)
    );
    Ok(())
}

/// CPU seconds that everything takes which a child does between the feed and its sockets; of `latency: Standard`, where a source may be `passed` on.
fn child(source: &Source, ladder: &Ladder, passed: bool) -> Result<f64> {
    let before = cpu_seconds(std::process::id())?;
    let inputs: Vec<_> = source.inputs(Ticks(0)).collect();
    let mut samples = 0;
    let job = if passed { whole_segments(ladder) } else { job("ladder", ladder.clone()) };
    transcode(job, passed, inputs.into_iter(), |output| {
        samples += usize::from(matches!(output, Output::Sample { .. }));
        Ok(())
    })?;
    anyhow::ensure!(samples >= (RATE * SENT.seconds) as usize * ladder.video.len(), "only {samples} samples came out");
    Ok(cpu_seconds(std::process::id())? - before)
}

fn whole_segments(ladder: &Ladder) -> LiveJob {
    LiveJob { segment_duration: SegmentDuration::STANDARD, parts: None, ..job("ladder", ladder.clone()) }
}

/// What a child does between the feed and its sockets; `see` sees what its engine puts out.
fn transcode(
    job: LiveJob,
    passthrough: bool,
    inputs: impl Iterator<Item = Input> + Send + 'static,
    mut see: impl FnMut(&Output) -> Result<()>,
) -> Result<()> {
    let (keeper, mut events) = mpsc::unbounded_channel();
    let live = Live::new(job.run.clone());
    let mut studio = Studio::new(job.clone(), &Restored::default(), SegmentNumber(0), live, Status::default(), keeper);
    studio.holds_for_s3(4 << 20); // nobody takes them
    let (put, mut outputs) = mpsc::channel::<Output>(256);
    let order = Order {
        ladder: job.ladder,
        segment_duration: job.segment_duration,
        from: Ticks(0),
        card: Card::default(),
        encoder: Backend::Software,
        passthrough,
        parts: job.parts,
        joints_until: Ticks(0),
        predecessor: Predecessor::default(),
    };
    let engine = std::thread::spawn(move || {
        let mut engine = Libav::new(order, put)?;
        for input in inputs {
            engine.push(input)?;
        }
        Box::new(engine).finish()
    });
    while let Some(output) = outputs.blocking_recv() {
        see(&output)?;
        studio.take(output)?;
        while events.try_recv().is_ok() {}
    }
    engine.join().map_err(|_| anyhow::anyhow!("the engine panicked"))??;
    studio.close(true);
    Ok(())
}
