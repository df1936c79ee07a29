//! The resilience suite: a fault under a lecture that is published, watched and judged; what it cost.

mod fault;
mod watch;

pub use fault::Fault;

use crate::judge::{self, Expected, Verdict};
use crate::lab::{Lab, Lecture, STEP, condition, prefix_of};
use crate::{Publisher, Sample, Shot};
use anyhow::{Context as _, Result};
use lectern_crds::LiveStream;
use serde_json::json;
use std::ops::Range;
use std::time::Duration;
use watch::Watch;

/// Seconds of the lecture that the player is watched for, the fault among them.
const WATCHED: u32 = 45;
/// When the fault comes: not a wait for anything, but its place in what is watched.
const QUIET: Duration = Duration::from_secs(5);

/// What a fault cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Segments that are missing in the recording.
    pub lost: usize,
    /// Times that a playlist went back, or named a number twice.
    pub renumbered: usize,
    /// Segments that the origin served with other bytes than S3 holds.
    pub twice: usize,
    /// Pictures of the publisher's that the recording does not show, in the rendition that lacks most.
    pub frames: u32,
    /// The longest time for which the player showed no new picture, in milliseconds.
    pub stall: f64,
    /// The longest time for which the live playlist did not grow, beyond a segment's length, in milliseconds.
    pub behind: f64,
    /// What else the judge found.
    pub complaints: Vec<String>,
}

/// One lecture with one fault.
pub async fn suffer(lab: &Lab, fault: Fault, latency: &str) -> Result<Cost> {
    let lecture = lab.apply("chaos", json!({"title": "Chaos", "latency": latency})).await?;
    let mut stage = Stage { lab, publisher: Some(lecture.publish(Shot::default()).await?), published: Vec::new(), lecture };
    let playing = |stream: &LiveStream| condition(stream, "Playable").is_some_and(|it| it.status == "True") && transcoder(stream).is_some();
    let stream = stage.lecture.wait_for("Playable=True with a transcoder", STEP, playing).await?;
    let prefix = prefix_of(&stream)?;
    let playback = stream.status.and_then(|status| status.playback).context("status.playback")?;
    let mut browser = lab.browser().await?;
    browser.open(&playback.player, None, STEP).await?;
    browser.playing(STEP).await?;

    let watch = Watch::begin(&playback.hls)?;
    let (sample, done) = tokio::join!(browser.sample(WATCHED), async {
        tokio::time::sleep(QUIET).await;
        fault.happens(&mut stage).await
    });
    done.with_context(|| format!("{fault:?}"))?;
    let sample = sample?;
    fault.is_mended(&stage).await?;
    let newest = stage.lecture.newest_segment(&prefix).await?;
    stage.lecture.segments_resume(&prefix, newest, 2).await?;
    browser.close().await?;
    if let Some(publisher) = stage.publisher.take() {
        stage.published.push(publisher.leave()?);
    }
    let seen = watch.end().await?;
    stage.lecture.end().await?;
    stage.lecture.until("Ended", "True").await?;
    let expected = Expected { published: stage.published.clone(), interrupted: true };
    let verdict = judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?;
    let segment = crate::lab::segment_duration(&stage.lecture.api().get(&stage.lecture.name).await?);
    Ok(Cost {
        lost: verdict.missing.len(),
        renumbered: seen.back.len(),
        twice: seen.differs_from(&lab.storage, &prefix).await?,
        frames: missing(&verdict, &stage.published),
        stall: longest_stall(&sample),
        behind: (seen.longest_wait() - f64::from(segment.millis())).max(0.0),
        complaints: verdict.complaints.into_iter().chain(seen.back).collect(),
    })
}

/// What a fault may touch.
pub struct Stage<'a> {
    /// The platform.
    pub lab: &'a Lab,
    /// The lecture.
    pub lecture: Lecture<'a>,
    /// Who publishes it now.
    pub publisher: Option<Publisher>,
    /// What those before have drawn.
    pub published: Vec<Range<u32>>,
}

/// The pod that a stream's status names.
pub fn transcoder(stream: &LiveStream) -> Option<String> {
    Some(stream.status.as_ref()?.live.as_ref()?.transcoder.clone()).filter(|name| !name.is_empty())
}

/// Of what each publisher has drawn, from its first picture that is shown on.
fn missing(verdict: &Verdict, published: &[Range<u32>]) -> u32 {
    let of = |pictures: &Vec<Option<u32>>, range: &Range<u32>| {
        let shown: Vec<u32> = pictures.iter().flatten().copied().filter(|counter| range.contains(counter)).collect();
        shown.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).saturating_sub(1)).sum::<u32>()
    };
    verdict.pictures.values().map(|pictures| published.iter().map(|range| of(pictures, range)).sum()).max().unwrap_or(0)
}

fn longest_stall(sample: &Sample) -> f64 {
    sample.frames.windows(2).map(|pair| pair[1].at - pair[0].at).fold(0.0, f64::max)
}
