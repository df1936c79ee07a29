//! Two benchmarks of encoding. `ladder`: CPU of a whole child (decoding, scaling, encoding, packaging) beside that of bare encoders, ffmpeg's
//! on raw pictures of each rendition with the same settings. `cost`: CPU of a codec's encoder per pixel, which are the weights of
//! `lectern_contract::cost`, and what a core can do.

mod bare;

use anyhow::Result;
use bare::Raw;
use clap::{Parser, Subcommand};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::RunPrefix;
use lectern_contract::{
    AudioRendition, Ladder, PartCount, SegmentDuration, SegmentNumber, StreamRef, Ticks, VideoCodec, VideoRendition, WallMillis,
};
use lectern_e2e::coded::{RATE, Shape, Source};
use lectern_e2e::process::cpu_seconds;
use lectern_e2e::settings;
use lectern_e2e::table::{Spread, row, spread};
use lectern_transcoder_pod::engine::{Backend, Card, Engine as _, Libav, Order, Output};
use lectern_transcoder_pod::publish::{Live, Restored};
use lectern_transcoder_pod::status::Status;
use lectern_transcoder_pod::studio::Studio;
use tokio::sync::mpsc;

/// What the lecturer sends.
const SENT: Shape = Shape { width: 1280, height: 720, seconds: 10, kbit: 2_800 };

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
}

fn main() -> Result<()> {
    let args = Args::parse();
    let out = settings::out_folder("bench-ladder");
    std::fs::create_dir_all(&out)?;
    eprintln!("encoding {} s of {}x{}", SENT.seconds, SENT.width, SENT.height);
    let source = Source::encode(&out, SENT)?;
    match args.what {
        What::Ladder => compare(&source, args.rounds),
        What::Cost => cost(&source, args.rounds),
    }
}

fn video(height: u32, codec: VideoCodec, bitrate: u64) -> VideoRendition {
    let width = height * 16 / 9;
    VideoRendition { name: format!("{height}p-{codec:?}").to_lowercase(), width, height, frame_rate: RATE, codec, bitrate }
}

fn compare(source: &Source, rounds: usize) -> Result<()> {
    let video = [(720, 2_800_000), (480, 1_200_000), (360, 700_000)].map(|(height, bitrate)| video(height, VideoCodec::H264, bitrate));
    let ladder = Ladder { video: video.to_vec(), audio: vec![AudioRendition { name: "audio".into(), bitrate: 128_000 }] };
    let raw = Raw::of(source, &ladder)?;
    let (mut us, mut peer) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        us.push(child(source, &ladder)?);
        peer.push(raw.encode_all(&ladder)?);
    }
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "who", "CPU seconds for a second of 720p30 in three renditions", "min", "median", "max");
    let each = |values: &[f64]| spread(values.iter().map(|all| all / f64::from(SENT.seconds)));
    let ratio = spread(us.iter().zip(&peer).map(|(ours, theirs)| ours / theirs));
    row("lectern", "decode, scale, encode, package", each(&us), 3);
    row("bare", "ffmpeg: encode raw pictures and sound", each(&peer), 3);
    row("ratio", "", ratio, 3);
    println!("result ladder cpu={:.3} bare={:.3} ratio={:.3}", median(each(&us)), median(each(&peer)), median(ratio));
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
    let rest = (0..rounds).map(|_| Ok(child(source, &small)? - small_raw.encode_all(&small)?)).collect::<Result<Vec<f64>>>()?;
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

/// CPU seconds that everything takes which a child does between the feed and its sockets.
fn child(source: &Source, ladder: &Ladder) -> Result<f64> {
    let before = cpu_seconds(std::process::id())?;
    let job = job(ladder);
    let (keeper, _events) = mpsc::unbounded_channel();
    let live = Live::new(job.run.clone());
    let mut studio = Studio::new(job.clone(), &Restored::default(), SegmentNumber(0), live, Status::default(), keeper);
    let (put, mut outputs) = mpsc::channel::<Output>(256);
    let order = Order {
        ladder: job.ladder,
        segment_duration: job.segment_duration,
        from: Ticks(0),
        card: Card::default(),
        encoder: Backend::Software,
        parts: true,
    };
    let inputs: Vec<_> = source.inputs().collect();
    let engine = std::thread::spawn(move || {
        let mut engine = Libav::new(order, put)?;
        inputs.into_iter().try_for_each(|input| engine.push(input))?;
        Box::new(engine).finish()
    });
    let mut samples = 0;
    while let Some(output) = outputs.blocking_recv() {
        samples += usize::from(matches!(output, Output::Sample { .. }));
        studio.take(output)?;
    }
    engine.join().map_err(|_| anyhow::anyhow!("the engine panicked"))??;
    studio.close(true);
    anyhow::ensure!(samples >= (RATE * SENT.seconds) as usize * ladder.video.len(), "only {samples} samples came out");
    Ok(cpu_seconds(std::process::id())? - before)
}

fn job(ladder: &Ladder) -> LiveJob {
    let stream = StreamRef { namespace: "bench".into(), name: "ladder".into() };
    LiveJob {
        title: "Ladder".into(),
        run: "r1".into(),
        attempt: 1,
        anchor: WallMillis(1_700_000_000_000),
        feed: String::new(),
        any_feed: None,
        ladder: ladder.clone(),
        segment_duration: SegmentDuration::LOW_LATENCY,
        parts: Some(PartCount::LOW_LATENCY),
        slate: None,
        prefix: RunPrefix::of(&stream, &"r1".into()),
        idle_after_ms: 1_000,
        stream,
    }
}

fn median(spread: Option<Spread>) -> f64 {
    spread.map_or(f64::NAN, |spread| spread.median)
}
