//! The benchmark `latency`: how long after a picture was drawn for the publisher a student sees it, beside MediaMTX's Low-Latency HLS, which
//! remuxes and does not transcode. Same publisher, same browser, same player library, one after the other, several times.

mod peer;

use anyhow::{Context as _, Result};
use clap::Parser;
use lectern_e2e::lab::STEP;
use lectern_e2e::table::{Table, row, spread};
use lectern_e2e::{Browser, Lab, Publisher, Sample, Share, Shot, settings};
use serde_json::json;
use std::path::Path;

#[derive(Parser)]
struct Args {
    /// How often each side is watched.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Which side: both, us or peer.
    #[arg(long, default_value = "both")]
    side: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let out = settings::out_folder("bench-latency");
    std::fs::create_dir_all(&out)?;
    let (mut us, mut peer) = (Table::default(), Table::default());
    for round in 1..=args.rounds {
        if args.side != "peer" {
            eprintln!("round {round} of {}: Lectern", args.rounds);
            Lab::run("bench-latency-us", Share::Whole, async |lab| {
                us.add(&lectern(lab, args.seconds).await?);
                Ok(())
            })
            .await?;
        }
        if args.side != "us" {
            eprintln!("round {round} of {}: MediaMTX", args.rounds);
            peer.add(&mediamtx(&out, args.seconds).await?);
        }
    }
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "who", "in milliseconds, of each round's pictures", "min", "median", "max");
    for (step, words) in [("least", "least"), ("median", "median"), ("p95", "95th percentile"), ("greatest", "greatest")] {
        row("lectern", words, us.spread(step), 0);
        row("mediamtx", words, peer.spread(step), 0);
        row("ratio", words, us.ratio(&peer, step), 2);
    }
    println!("result latency rounds={} seconds={}{}{}", args.rounds, args.seconds, us.values(""), peer.values("peer_"));
    Ok(())
}

/// A lecture on the platform, in its own player page.
async fn lectern(lab: &Lab, seconds: u32) -> Result<Vec<(&'static str, f64)>> {
    let lecture = lab.apply("latency", json!({"title": "Latency", "latency": "Low", "record": {"retention": "Delete"}})).await?;
    let publisher = lecture.publish(Shot::default()).await?;
    let player = lecture.until("Playable", "True").await?.status.and_then(|s| s.playback).context("status.playback")?.player;
    let mut browser = lab.browser().await?;
    browser.open(&player, None, STEP).await?;
    let behind = watch(&mut browser, &publisher, seconds).await?;
    browser.close().await?;
    publisher.die()?;
    Ok(behind)
}

/// The same through MediaMTX, with hls.js as it comes.
async fn mediamtx(out: &Path, seconds: u32) -> Result<Vec<(&'static str, f64)>> {
    let server = peer::MediaMtx::start(&out.join("mediamtx"))?;
    let publisher = Publisher::rtmp(out, &server.rtmp(), "latency", Shot::default())?;
    let mut browser = Browser::start(out).await?;
    browser.open_hls(&server.playlist("latency"), STEP).await?;
    let behind = watch(&mut browser, &publisher, seconds).await?;
    browser.close().await?;
    publisher.die()?;
    Ok(behind)
}

async fn watch(browser: &mut Browser, publisher: &Publisher, seconds: u32) -> Result<Vec<(&'static str, f64)>> {
    browser.playing(STEP).await?;
    let sample = browser.sample(seconds).await?;
    eprintln!("  rate {:.3}, {} stalls, {} frames dropped", sample.rate, sample.stalls(), sample.dropped);
    steps(&sample, publisher).context("no picture could be read")
}

/// In milliseconds.
fn steps(sample: &Sample, publisher: &Publisher) -> Option<Vec<(&'static str, f64)>> {
    let mut behind: Vec<f64> = sample.frames.iter().filter_map(|frame| publisher.behind(frame)).map(|seconds| seconds * 1000.0).collect();
    behind.sort_by(f64::total_cmp);
    let all = spread(behind.iter().copied())?;
    let p95 = *behind.get(behind.len() * 95 / 100)?;
    Some(vec![("least", all.min), ("median", all.median), ("p95", p95), ("greatest", all.max)])
}
