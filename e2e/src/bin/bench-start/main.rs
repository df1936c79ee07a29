//! The benchmark `start`: how long each step takes from a LiveStream's `apply` to a student's first picture, beside nginx-rtmp with HLS, which
//! remuxes and does not transcode. Same publisher, same browser, one after the other, several times.

mod peer;

use anyhow::{Context as _, Result};
use clap::Parser;
use lectern_e2e::lab::{STEP, prefix_of};
use lectern_e2e::table::{Table, row};
use lectern_e2e::wait::{Look, asking_every};
use lectern_e2e::{Browser, Lab, Publisher, Share, Shot, condition, settings};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How finely the arrival of a file or an object is seen.
const FINE: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Args {
    /// How often each side starts.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Which side: both, us or peer.
    #[arg(long, default_value = "both")]
    side: String,
}

/// One start, as wall-clock times.
struct Start {
    applied: Option<(SystemTime, SystemTime)>,
    spawned: SystemTime,
    accepted: SystemTime,
    segment: SystemTime,
    frame: SystemTime,
}

impl Start {
    /// Names of steps and their lengths in milliseconds.
    fn steps(&self) -> Vec<(&'static str, f64)> {
        let between = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default().as_secs_f64() * 1000.0;
        let placed = self.applied.map(|(applied, placed)| ("placed", between(applied, placed)));
        placed
            .into_iter()
            .chain([
                ("accepted", between(self.spawned, self.accepted)),
                ("segment", between(self.accepted, self.segment)),
                ("frame", between(self.accepted, self.frame)),
            ])
            .collect()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let out = settings::out_folder("bench-start");
    std::fs::create_dir_all(&out)?;
    let (mut us, mut peer) = (Table::default(), Table::default());
    for round in 1..=args.repeats {
        if args.side != "peer" {
            eprintln!("round {round} of {}: Lectern", args.repeats);
            Lab::run("bench-start-us", Share::Whole, async |lab| {
                us.add(&lectern(lab).await?.steps());
                Ok(())
            })
            .await?;
        }
        if args.side != "us" {
            eprintln!("round {round} of {}: nginx-rtmp", args.repeats);
            peer.add(&nginx(&out).await?.steps());
        }
    }
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "who", "step (milliseconds)", "min", "median", "max");
    for (step, words) in [
        ("placed", "apply -> Placed"),
        ("accepted", "publisher started -> publish accepted"),
        ("segment", "publish accepted -> first segment stored"),
        ("frame", "publish accepted -> first picture in the browser"),
    ] {
        row("lectern", words, us.spread(step), 0);
        row("nginx", words, peer.spread(step), 0);
        row("ratio", words, us.ratio(&peer, step), 2);
    }
    println!("result start repeats={}{}{}", args.repeats, us.values(""), peer.values("peer_"));
    Ok(())
}

/// One start on the platform: a new LiveStream, the player page opened with the publisher.
async fn lectern(lab: &Lab) -> Result<Start> {
    let mut browser = lab.browser().await?;
    let applied = SystemTime::now();
    let lecture = lab.apply("start", json!({"title": "Start", "latency": "Low", "record": {"retention": "Delete"}})).await?;
    let stream = lecture.wait_for("Placed=True", STEP, |stream| condition(stream, "Placed").is_some_and(|placed| placed.status == "True"));
    let stream = stream.await?;
    let placed = SystemTime::now();
    let player = stream.status.as_ref().and_then(|status| status.playback.as_ref()).context("status.playback")?.player.clone();
    let prefix = prefix_of(&stream)?;
    let (url, key) = lecture.credentials().await?;
    let stored = async || {
        let segments = lab.storage.segments(&prefix).await?;
        Ok(if segments.len() >= 4 { Look::Found(()) } else { Look::NotYet(format!("{segments:?}")) })
    };
    let start = publish(&lab.out, &url, &key, &mut browser, &player, stored).await?;
    browser.close().await?;
    Ok(Start { applied: Some((applied, placed)), ..start })
}

/// One start on nginx-rtmp, fresh as well.
async fn nginx(out: &Path) -> Result<Start> {
    let page = tokio::task::spawn_blocking(lectern_e2e::browser::installed).await??;
    let nginx = peer::Nginx::start(&out.join("nginx"), &page).await?;
    let mut browser = Browser::start(out).await?;
    let playlist = nginx.playlist("start");
    let stored = async || {
        let text = std::fs::read_to_string(&playlist).unwrap_or_default();
        Ok(if text.contains(".ts") { Look::Found(()) } else { Look::NotYet(text) })
    };
    let start = publish(out, &nginx.rtmp(), "start", &mut browser, &nginx.page("start"), stored).await?;
    browser.close().await?;
    Ok(start)
}

/// What both sides share: the page is opened with the publisher, and everything is noted as it comes.
async fn publish(
    out: &Path,
    url: &str,
    key: &str,
    browser: &mut Browser,
    page: &str,
    stored: impl AsyncFnMut() -> Result<Look<()>>,
) -> Result<Start> {
    let spawned = SystemTime::now();
    let publisher = Publisher::rtmp(out, url, key, Shot::default())?;
    let stored = async {
        asking_every(FINE, "the first segment", STEP, stored).await?;
        Ok::<_, anyhow::Error>(SystemTime::now())
    };
    let shown = async {
        browser.open(page, None, STEP).await?;
        let frame = browser.first_frame(STEP).await?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(frame.at / 1000.0))
    };
    let (segment, frame): (SystemTime, SystemTime) = futures::try_join!(stored, shown)?;
    let accepted = publisher.accepted(Duration::ZERO)?; // long past by now
    publisher.die()?;
    Ok(Start { applied: None, spawned, accepted, segment, frame })
}
