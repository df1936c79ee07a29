//! The resilience suite: faults under a lecture that is published, watched and judged; what they cost.

mod fault;
mod ground;
mod stored;
mod strike;
mod upgrade;
mod watch;

pub use fault::{Door, Fault, PAIRS, Pair, Way};
pub use ground::{Store, seaweedfs};

use crate::judge::{self, Expected};
use crate::lab::{Lab, Lecture, STEP, condition, prefix_of, small};
use crate::network::address_of;
use crate::nodes::{can_be_struck, node_of};
use crate::pattern::FRAME_RATE;
use crate::release::{Release, restored_after};
use crate::shards::placement;
use crate::toxiproxy::Toxiproxy;
use crate::wait::{Look, eventually};
use crate::{PortForward, Publisher, Share, Shot, Storage};
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use ground::Ground;
use kube::ResourceExt as _;
use lectern_cloud::testing::Backend;
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_crds::LiveStream;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};
use stored::Stored;
use strike::Target;
use upgrade::Upgrade;
use watch::Watch;

/// When the fault comes: not a wait for anything, but its place in what is watched.
const QUIET: Duration = Duration::from_secs(5);
/// When the clock of a publisher jumps, in seconds of its lecture: while it is watched, whatever the start took.
const JUMPS: u32 = 40;
/// Where a publisher that returns begins to count.
const RETURNED: u32 = 9_000;
/// A publisher that still runs after so long is heard.
const ACCEPTED: Duration = Duration::from_secs(2);
/// The port at which a shard is read.
const FEED: u16 = 7000;
const MOVE: &str = "lectern.video/move";
/// How long the player is watched once the fault has passed.
const AFTER: Duration = Duration::from_secs(20);
/// And for how many seconds at least, where it took longer than expected.
const SEEN: f64 = 10.0;

/// What a fault cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Segments that are missing in the recording.
    pub lost: usize,
    /// Times that a playlist or an MPD, at the origin or in S3, or the head went back, or gave a number again.
    pub renumbered: usize,
    /// Segments and init sections of which the origin served a part, or the whole, with other bytes than S3 holds, or with others than before.
    pub twice: usize,
    /// Pictures of the publisher's that the recording does not show, in the rendition that lacks most.
    pub frames: u32,
    /// Tenths of a second of the publisher's sound that the recording does not sound, in the rendition that lacks most.
    pub sound: u32,
    /// The longest time for which the player showed no new picture, in milliseconds.
    pub stall: f64,
    /// How often the player had nothing left to play.
    pub waits: usize,
    /// The longest time for which a live playlist did not grow, beyond a segment's or a part's length, in milliseconds.
    pub late: f64,
    /// From when the fault struck until all live playlists grew at their pace again, in milliseconds; 0 where they never did not.
    pub recovery: f64,
    /// What else the judge found.
    pub complaints: Vec<String>,
}

impl Cost {
    /// No segment was lost, renumbered or published twice.
    pub fn is_sound(&self) -> bool {
        self.lost + self.renumbered + self.twice == 0
    }
}

/// What this cluster lacks for these faults, if anything.
pub async fn lacks(faults: &[Fault]) -> Result<Option<&'static str>> {
    let strikes_nodes = faults.iter().any(|fault| fault.needs_node());
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
    let mut stage = Stage { lab, ground, publisher: None, published: Vec::new(), lecture, door: None, links: Vec::new(), upgrade: None };
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
        stage.upgrade = Some(Box::pin(Upgrade::begins(lab, release, &door.rtmp())).await?);
    }
    stage.is_led_by_links(faults, &prefix).await?;
    let playback = stream.status.and_then(|status| status.playback).context("status.playback")?;
    let mut browser = lab.browser().await?;
    stage.may_suffer(faults, Way::Player, &playback.player).await?;
    // What hls.js does is in the browser's log, for whoever wonders about a stall.
    browser.open(&format!("{}?debug", stage.by_its_link(Way::Player, playback.player)?), None, STEP).await?;
    browser.playing(STEP).await?;

    let watch = Watch::begin(&playback.hls, Stored::new(lab.storage.clone(), prefix.clone()))?;
    let target = Target::of(&stage).await?;
    lab.nodes_are_reached(&target.pods()).await?;
    let lasting = faults.iter().map(|fault| fault.lasts()).max().unwrap_or_default();
    let seconds = u32::try_from((QUIET + lasting + AFTER).as_secs())?;
    let (sample, struck) = tokio::join!(browser.sample(seconds), happen(faults, &mut stage, &target, &prefix));
    let ((struck, over), sample) = (struck.with_context(|| format!("{faults:?}"))?, sample?);
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
        stall: sample.longest_stall(),
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

/// What a fault may touch.
struct Stage<'a> {
    lab: &'a Lab,
    ground: &'a Ground,
    lecture: Lecture<'a>,
    /// Who publishes it now.
    publisher: Option<Publisher>,
    /// What those before have drawn.
    published: Vec<Range<u32>>,
    /// The shard that the publisher is to come to, where it may not be any.
    door: Option<PortForward>,
    /// Those that are to suffer.
    links: Vec<(Way, Toxiproxy)>,
    /// What is to come, where it is an upgrade.
    upgrade: Option<Upgrade<'a>>,
}

impl Stage<'_> {
    async fn publishes(&self, shot: Shot) -> Result<Publisher> {
        let (url, key) = self.lecture.credentials().await?;
        let url = match &self.door {
            Some(door) => url.replace(server_of(&url)?, &format!("127.0.0.1:{}", door.port)),
            None => self.by_its_link(Way::Publisher, url)?,
        };
        self.lab.publish(&url, &key, shot)
    }

    /// The way to the shard that this is the door of.
    async fn opened(&self, door: Door) -> Result<PortForward> {
        let placed = |stream: &LiveStream| placement(stream).is_ok_and(|placement| !placement.shard.is_empty());
        let owner = placement(&self.lecture.wait_for("a placement", STEP, placed).await?)?.shard;
        let shard = match door {
            Door::Owner => owner,
            Door::First => Upgrade::door(),
            Door::Another => {
                strike::others(self.lab, "ingest", &self.ground.pool, &owner).await?.into_iter().next().context("a second shard")?
            }
        };
        PortForward::to(&self.lab.settings, &shard, 1935).await
    }

    /// Puts a link that can suffer before the server of `url`, if one of the faults is to make it bad.
    async fn may_suffer(&mut self, faults: &[Fault], way: Way, url: &str) -> Result<()> {
        if faults.iter().filter_map(|fault| fault.link()).any(|(which, _)| which == way) {
            self.links.push((way, Toxiproxy::to(server_of(url)?).await?));
        }
        Ok(())
    }

    /// `url` by the link that is to suffer, if there is one.
    fn by_its_link(&self, way: Way, url: String) -> Result<String> {
        Ok(match self.link(way) {
            Ok(link) => url.replace(server_of(&url)?, &link.address.to_string()),
            Err(_) => url,
        })
    }

    fn link(&self, way: Way) -> Result<&Toxiproxy> {
        self.links(way)?.into_iter().next().with_context(|| format!("no link of {way:?}"))
    }

    /// All that are this way.
    fn links(&self, way: Way) -> Result<Vec<&Toxiproxy>> {
        Ok(match way {
            Way::Store => vec![&self.ground.ways()?.to_s3],
            Way::Queue => vec![&self.ground.ways()?.to_sqs],
            _ => self.links.iter().filter(|(which, _)| *which == way).map(|(_, link)| link).collect(),
        })
    }

    /// Between pods, too, stand links where one of the faults is to make them bad.
    async fn is_led_by_links(&mut self, faults: &[Fault], prefix: &RunPrefix) -> Result<()> {
        let ways: Vec<Way> = faults.iter().filter_map(|fault| fault.link()).map(|(way, _)| way).collect();
        let head: Head = self.lab.storage.json(prefix, &ObjectName::Head).await?;
        if ways.contains(&Way::Feed) {
            let transcoder = head.owner.0.split('/').next().unwrap_or_default();
            // To all of them: who loses the owner reads through another.
            for shard in strike::pods(self.lab, "ingest", Some(&self.ground.pool)).await? {
                let server = SocketAddr::new(address_of(&self.lab.pods().get(&shard).await?)?, FEED);
                self.stands_between(Way::Feed, transcoder, server).await?;
            }
        }
        if ways.contains(&Way::Push) {
            let server = head.address.context("an owner's address")?.parse()?;
            for origin in strike::pods(self.lab, "origin", Some(&self.ground.pool)).await? {
                self.stands_between(Way::Push, &origin, server).await?;
            }
        }
        Ok(())
    }

    async fn stands_between(&mut self, way: Way, pod: &str, server: SocketAddr) -> Result<()> {
        let link = Toxiproxy::on_node_of(self.lab, &self.lab.pods().get(pod).await?, server).await?;
        self.lab.is_led(pod, server, link.address).await?;
        self.links.push((way, link));
        Ok(())
    }

    /// The publisher is back, and tries until it is heard, as encoders do.
    async fn publisher_returns(&mut self) -> Result<Publisher> {
        eventually("a publisher that is accepted", STEP, async || {
            let mut publisher = self.publishes(Shot { first: RETURNED, ..Shot::default() }).await?;
            tokio::time::sleep(ACCEPTED).await; // who is refused has ended by then
            Ok(if publisher.is_running() { Look::Found(publisher) } else { Look::NotYet(publisher.words()) })
        })
        .await
    }

    /// The first one is told to go when another is heard.
    async fn publisher_is_doubled(&mut self) -> Result<()> {
        let newest = self.publishes(Shot { first: RETURNED, ..Shot::default() }).await?;
        let mut first = self.publisher.replace(newest).context("a publisher")?;
        eventually("the first publisher's end", STEP, async || {
            Ok(if first.is_running() { Look::NotYet("it runs".to_owned()) } else { Look::Found(()) })
        })
        .await?;
        self.published.push(first.published());
        Ok(())
    }

    /// Lets operators take turns until the leader is on the node that is struck, or is not.
    async fn leader_is_there(&self, wanted: bool) -> Result<()> {
        let Some(node) = &self.ground.node else { return Ok(()) };
        eventually(&format!("a leader on {node}: {wanted}"), STEP, async || {
            let leaders = self.lab.leaders().await?;
            let [leader] = &leaders[..] else { return Ok(Look::NotYet(format!("{} lead", leaders.len()))) };
            let at = node_of(leader)?;
            if (at == *node) == wanted {
                return Ok(Look::Found(()));
            }
            if leader.metadata.deletion_timestamp.is_none() {
                strike::drained(self.lab, &leader.name_any()).await?;
            }
            Ok(Look::NotYet(format!("{} leads on {at}", leader.name_any())))
        })
        .await
    }

    /// Moves the lecture until its transcoder is on the node that is struck. Whose it is, S3 knows first: a stream's status lags behind, and who believed it would move the lecture
    /// back.
    async fn is_on_its_node(&self, prefix: &RunPrefix) -> Result<()> {
        let Some(node) = &self.ground.node else { return Ok(()) };
        let mut moved_from = None;
        eventually(&format!("a transcoder on {node}"), STEP, async || {
            let head: Head = self.lab.storage.json(prefix, &ObjectName::Head).await?;
            let owner = head.owner.0.split('/').next().unwrap_or_default();
            let at = node_of(&self.lab.pods().get(owner).await?)?;
            let moves = self.lecture.api().get(&self.lecture.name).await?.annotations().contains_key(MOVE);
            if at == *node && !moves {
                return Ok(Look::Found(()));
            }
            if at != *node && !moves && moved_from != Some(head.epoch) {
                self.lecture.annotate(MOVE, "now").await?;
                moved_from = Some(head.epoch);
            }
            Ok(Look::NotYet(format!("{owner} on {at} has it")))
        })
        .await
    }

    /// The publisher draws pictures beyond this second of its lecture.
    async fn publishes_on_after(&self, second: u32) -> Result<()> {
        let wanted = (second + 5) * FRAME_RATE;
        eventually("pictures after the jump", STEP, async || {
            let drawn = self.publisher.as_ref().context("a publisher")?.published().end;
            Ok(if drawn >= wanted { Look::Found(()) } else { Look::NotYet(format!("{drawn} of {wanted} pictures are drawn")) })
        })
        .await
    }

    /// The publisher breaks off.
    fn publisher_goes(&mut self) -> Result<()> {
        self.published.push(self.publisher.take().context("a publisher")?.die()?);
        Ok(())
    }
}

/// `host:port` of `rtmp://host:port/live`.
fn server_of(url: &str) -> Result<&str> {
    url.split('/').nth(2).with_context(|| format!("{url:?} names no server"))
}

/// The pod that a stream's status names.
pub fn transcoder(stream: &LiveStream) -> Option<String> {
    Some(stream.status.as_ref()?.live.as_ref()?.transcoder.clone()).filter(|name| !name.is_empty())
}

/// Of what each publisher has sent, from the first that is shown, or heard, on.
fn missing<T>(renditions: &BTreeMap<String, T>, published: &[Range<u32>], shown: impl Fn(&T) -> Vec<u32>) -> u32 {
    let of = |shown: &[u32], range: &Range<u32>| {
        let shown: Vec<u32> = shown.iter().copied().filter(|counter| range.contains(counter)).collect();
        shown.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).saturating_sub(1)).sum::<u32>()
    };
    let of_all = |shown: Vec<u32>| published.iter().map(|range| of(&shown, range)).sum();
    renditions.values().map(|rendition| of_all(shown(rendition))).max().unwrap_or(0)
}
