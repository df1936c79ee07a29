//! The resilience suite: faults under a lecture that is published, watched and judged; what they cost.

mod cost;
mod fault;
mod ground;
mod pairs;
mod stage;
mod stored;
mod strike;
mod upgrade;
mod watch;

pub use cost::Cost;
pub use fault::{Door, Fault, OnNode, Way};
pub use ground::{Store, seaweedfs};
pub use pairs::{PAIRS, Pair};

use crate::judge::{self, Expected};
use crate::lab::{Lab, STEP, condition, prefix_of, small};
use crate::nodes::can_be_struck;
use crate::release::{Release, restored_after};
use crate::{Share, Shot, Storage};
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use cost::missing;
use ground::Ground;
use lectern_cloud::testing::Backend;
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_crds::LiveStream;
use serde_json::json;
use stage::Stage;
use std::time::{Duration, Instant};
use stored::Stored;
use strike::Target;
use upgrade::Upgrade;
use watch::Watch;

/// When the fault comes: not a wait for anything, but its place in what is watched.
const QUIET: Duration = Duration::from_secs(5);
/// When the clock of a publisher jumps, in seconds of its lecture: while it is watched, whatever the start took.
const JUMPS: u32 = 40;
const MOVE: &str = "lectern.video/move";
/// How long the player is watched once the fault has passed.
const AFTER: Duration = Duration::from_secs(20);
/// And for how many seconds at least, where it took longer than expected.
const SEEN: f64 = 10.0;

/// What this cluster lacks for these faults, if anything.
pub async fn lacks(faults: &[Fault]) -> Result<Option<&'static str>> {
    let strikes_nodes = faults.iter().any(|fault| fault.needs_node().is_some());
    let lacking = strikes_nodes && !can_be_struck(crate::Settings::from_env()?.cluster().await?).await?;
    Ok(lacking.then_some("the cluster's nodes are no containers of this machine, which could be paused and killed"))
}

/// One lecture with these faults, one after the other without a pause.
pub async fn trial(faults: &[Fault], latency: &str, store: Store) -> Result<Cost> {
    let seaweedfs = match store {
        Store::Ministack => None,
        Store::Seaweedfs => Some(seaweedfs().await?),
    };
    let storage = match &seaweedfs {
        Some(backend) => Some(Storage::at(backend.port(), &crate::Settings::from_env()?.bucket)),
        None => None,
    };
    let mut cost = None;
    Lab::run_at(storage, "chaos", Share::Whole, async |lab| {
        let own = seaweedfs.is_some() || faults.iter().any(|fault| fault.needs_a_pool());
        let ground = if own { Ground::of_its_own(lab, seaweedfs.as_ref(), faults).await? } else { Ground::default() };
        // Boxed: the compiler does not go into the depths of it.
        let suffered = async |release: Option<&Release>| Box::pin(suffer(lab, &ground, release, faults, latency, seaweedfs.as_ref())).await;
        cost = Some(match faults.contains(&Fault::ChartUpgraded) {
            true => restored_after(lab, async |release| suffered(Some(release)).await).await?,
            false => suffered(None).await?,
        });
        Ok(())
    })
    .await?;
    cost.context("a cost")
}

async fn suffer(
    lab: &Lab,
    ground: &Ground,
    release: Option<&Release>,
    faults: &[Fault],
    latency: &str,
    seaweedfs: Option<&Backend>,
) -> Result<Cost> {
    let original = faults.contains(&Fault::ShardFromS3);
    let fields = json!({"title": "Chaos", "latency": latency, "poolName": ground.pool, "record": {"original": original}});
    let (fields, shot) = if release.is_some() { (small(fields), Shot::small()) } else { (fields, Shot::default()) };
    if let Some(release) = release {
        Upgrade::makes_room(lab, release).await?;
    }
    let lecture = lab.apply("chaos", fields).await?;
    let mut stage = Stage::new(lab, ground, lecture);
    if let Some(door) = faults.iter().find_map(|fault| fault.needs_a_door()) {
        stage.door = Some(stage.opened(door).await?);
    }
    let (server, _) = stage.lecture.credentials().await?;
    stage.may_suffer(faults, Way::Publisher, &server).await?;
    let jumps = faults.contains(&Fault::PublisherJumps).then_some(JUMPS);
    stage.publisher = Some(stage.publishes(Shot { jumps, ..shot }).await?);
    let playing = |stream: &LiveStream| condition(stream, "Playable").is_some_and(|it| it.status == "True") && transcoder(stream).is_some();
    let stream = stage.lecture.wait_for("Playable=True with a transcoder", STEP, playing).await?;
    let prefix = prefix_of(&stream)?;
    stage.leader_is_there(faults.contains(&Fault::LeadersNodeKilled)).await?;
    stage.is_on_its_node(&prefix).await?;
    if let (Some(release), Some(door)) = (release, &stage.door) {
        stage.upgrade = Some(Box::pin(Upgrade::begins(lab, release, &door.rtmp(), latency)).await?);
    }
    stage.is_led_by_links(faults, &prefix).await?;
    let playback = stream.status.and_then(|status| status.playback).context("status.playback")?;
    let mut browser = lab.browser().await?;
    stage.may_suffer(faults, Way::Player, &playback.player).await?;
    // What hls.js does is in the browser's log, for whoever wonders about a stall.
    browser.open(&format!("{}?debug", stage.by_its_link(Way::Player, playback.player)?), None, STEP).await?;
    browser.playing_about(STEP).await?;

    let watch = Watch::begin(&playback.hls, Stored::new(lab.storage.clone(), prefix.clone()))?;
    let target = Target::of(&stage).await?;
    lab.nodes_are_reached(&target.pods()).await?;
    let lasting = faults.iter().map(|fault| fault.lasts()).max().unwrap_or_default();
    let seconds = u32::try_from((QUIET + lasting + AFTER).as_secs())?;
    let (sample, struck) = tokio::join!(browser.sample(seconds), happen(faults, &mut stage, &target, &prefix));
    let ((struck, over), sample) = (struck.with_context(|| format!("{faults:?}"))?, sample?);
    for wait in &sample.waits {
        eprintln!("  the player had to wait: {wait}");
    }
    if sample.longest_stall() > sample.longest_wait() {
        eprintln!("  with seconds of media in hand the picture stood still for {:.0} ms: the browser had no time", sample.longest_stall());
    }
    let over = (over - struck + QUIET).as_secs_f64();
    ensure!(over + SEEN < sample.seconds, "it was over after {over:.0} s, and the player was watched for {:.0}", sample.seconds);
    for fault in faults {
        fault.is_mended(&stage, &target).await?;
    }
    let newest = stage.lecture.newest_segment(&prefix).await?;
    stage.lecture.segments_resume(&prefix, newest, 2).await?;
    browser.close().await?;
    if let Some(publisher) = stage.publisher.take() {
        stage.published.push(publisher.leave()?);
    }
    let seen = watch.end().await?;
    stage.lecture.end().await?;
    stage.lecture.until("Ended", "True").await?;
    if let Some(seaweedfs) = seaweedfs {
        ground::write_vod(seaweedfs, &lab.settings.bucket, &prefix).await?;
    }
    lab.storage.has_recording(&prefix).await?;
    let beside = match stage.upgrade.take() {
        Some(upgrade) => Box::pin(upgrade.ends()).await?,
        None => Vec::new(),
    };
    let expected = Expected { published: stage.published.clone(), interrupted: release.is_none() };
    let verdict = judge::ended_run(&lab.storage, &prefix, &expected, &lab.out.join("judge")).await?;
    let head: Head = serde_json::from_str(&lab.storage.text(&prefix, &ObjectName::Head).await?)?;
    eprintln!("  {} transcoders had the run, one after the other", head.epoch);
    if ground.spoilt() > 0 {
        eprintln!("  {} requests and connections came to harm", ground.spoilt());
    }
    Ok(Cost {
        lost: verdict.missing.len() + beside.iter().map(|other| other.missing.len()).sum::<usize>(),
        renumbered: seen.back.len(),
        twice: seen.changed.len() + seen.differs_from(&lab.storage, &prefix).await?,
        frames: missing(&verdict.pictures, &stage.published, |pictures| pictures.iter().flatten().copied().collect()),
        sound: missing(&verdict.sounds, &stage.published.iter().map(judge::sounds_of).collect::<Vec<_>>(), Clone::clone),
        stall: sample.longest_wait(),
        waits: sample.stalls(),
        late: seen.late().as_secs_f64() * 1e3,
        recovery: seen.recovery(struck).as_secs_f64() * 1e3,
        complaints: beside.into_iter().flat_map(|other| other.complaints).chain(verdict.complaints).chain(seen.complaints()).collect(),
    })
}

/// Lets the faults strike and pass, each in its time; when the first one struck, and when all of it was over.
async fn happen(faults: &[Fault], stage: &mut Stage<'_>, target: &Target, prefix: &RunPrefix) -> Result<(Instant, Instant)> {
    tokio::time::sleep(QUIET).await;
    let struck = Instant::now();
    for fault in faults {
        fault.strikes(stage, target, prefix).await?;
    }
    let mut passing = faults.to_vec();
    passing.sort_by_key(|fault| fault.lasts());
    for fault in passing {
        tokio::time::sleep_until((struck + fault.lasts()).into()).await;
        fault.passes(stage, target).await?;
    }
    Ok((struck, Instant::now()))
}

/// What faults are called, joined by `+`.
pub fn name(faults: &[Fault]) -> String {
    let names = faults.iter().filter_map(|fault| Some(fault.to_possible_value()?.get_name().to_owned()));
    names.collect::<Vec<_>>().join("+")
}

/// The pod that a stream's status names.
pub fn transcoder(stream: &LiveStream) -> Option<String> {
    Some(stream.status.as_ref()?.live.as_ref()?.transcoder.clone()).filter(|name| !name.is_empty())
}
