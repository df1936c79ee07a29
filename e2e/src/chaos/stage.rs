//! A lecture that is to suffer, and all that it takes.

use super::fault::{Door, Fault, OnNode, Way};
use super::ground::Ground;
use super::upgrade::Upgrade;
use super::{MOVE, strike};
use crate::lab::{Lab, Lecture, STEP};
use crate::network::address_of;
use crate::nodes::node_of;
use crate::pattern::FRAME_RATE;
use crate::shards::{is_ready, placement};
use crate::toxiproxy::Toxiproxy;
use crate::wait::{Look, eventually};
use crate::{PortForward, Publisher, Shot};
use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use kube::ResourceExt as _;
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_crds::LiveStream;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// Where a publisher that returns begins to count.
const RETURNED: u32 = 9_000;
/// How long a publisher waits for an answer.
pub(super) const ANSWERED: Duration = Duration::from_secs(10);
/// One that still runs after so long is heard.
const ACCEPTED: Duration = Duration::from_secs(2);
/// The port at which a shard is read.
const FEED: u16 = 7000;

/// What a fault may touch.
pub(super) struct Stage<'a> {
    pub lab: &'a Lab,
    pub ground: &'a Ground,
    pub lecture: Lecture<'a>,
    /// Who publishes it now.
    pub publisher: Option<Publisher>,
    /// What those before have drawn.
    pub published: Vec<Range<u32>>,
    /// The shard that the publisher is to come to, where it may not be any.
    pub door: Option<PortForward>,
    /// Those that are to suffer.
    pub links: Vec<(Way, Toxiproxy)>,
    /// What is to come, where it is an upgrade.
    pub upgrade: Option<Upgrade<'a>>,
}

impl<'a> Stage<'a> {
    /// Nobody publishes yet.
    pub fn new(lab: &'a Lab, ground: &'a Ground, lecture: Lecture<'a>) -> Self {
        Self { lab, ground, lecture, publisher: None, published: Vec::new(), door: None, links: Vec::new(), upgrade: None }
    }

    pub async fn publishes(&self, shot: Shot) -> Result<Publisher> {
        let (url, key) = self.lecture.credentials().await?;
        let url = match &self.door {
            Some(door) => url.replace(server_of(&url)?, &format!("127.0.0.1:{}", door.port)),
            None => self.by_its_link(Way::Publisher, url)?,
        };
        self.lab.publish(&url, &key, shot)
    }

    /// The way to the shard that this is the door of.
    pub async fn opened(&self, door: Door) -> Result<PortForward> {
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
    pub async fn may_suffer(&mut self, faults: &[Fault], way: Way, url: &str) -> Result<()> {
        if faults.iter().filter_map(|fault| fault.link()).any(|(which, _)| which == way) {
            self.links.push((way, Toxiproxy::to(server_of(url)?).await?));
        }
        Ok(())
    }

    /// `url` by the link that is to suffer, if there is one.
    pub fn by_its_link(&self, way: Way, url: String) -> Result<String> {
        Ok(match self.link(way) {
            Ok(link) => url.replace(server_of(&url)?, &link.address.to_string()),
            Err(_) => url,
        })
    }

    fn link(&self, way: Way) -> Result<&Toxiproxy> {
        self.links(way)?.into_iter().next().with_context(|| format!("no link of {way:?}"))
    }

    /// All that are this way.
    pub fn links(&self, way: Way) -> Result<Vec<&Toxiproxy>> {
        Ok(match way {
            Way::Store => vec![&self.ground.ways()?.to_s3],
            Way::Queue => vec![&self.ground.ways()?.to_sqs],
            _ => self.links.iter().filter(|(which, _)| *which == way).map(|(_, link)| link).collect(),
        })
    }

    /// Between pods, too, stand links where one of the faults is to make them bad.
    pub async fn is_led_by_links(&mut self, faults: &[Fault], prefix: &RunPrefix) -> Result<()> {
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
    pub async fn publisher_returns(&mut self) -> Result<Publisher> {
        eventually("a publisher that is accepted", STEP, async || {
            let mut publisher = self.publishes(Shot { first: RETURNED, ..Shot::default() }).await?;
            // Where it was led to may not be there any more: encoders, too, give that up after a while.
            let answers = async || match (publisher.accepted(Duration::ZERO), publisher.is_running()) {
                (Err(not), true) => Ok(Look::NotYet(not.to_string())),
                _ => Ok(Look::Found(())),
            };
            eventually("an answer", ANSWERED, answers).await?;
            tokio::time::sleep(ACCEPTED).await; // who is refused has ended by then
            Ok(if publisher.is_running() { Look::Found(publisher) } else { Look::NotYet(publisher.words()) })
        })
        .await
    }

    /// The first one is told to go when another is heard.
    pub async fn publisher_is_doubled(&mut self) -> Result<()> {
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
    pub async fn leader_is_there(&self, wanted: bool) -> Result<()> {
        let Some((node, _)) = &self.ground.node else { return Ok(()) };
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

    /// Moves pods until what has to be on the node that is struck is there.
    pub async fn is_on_its_node(&self, prefix: &RunPrefix) -> Result<()> {
        let Some((node, what)) = &self.ground.node else { return Ok(()) };
        if let OnNode::All | OnNode::Origin = what {
            self.is_spread("origin", node).await?;
        }
        if let OnNode::All = what {
            self.is_spread("ingest", node).await?;
            self.shard_is_on(node).await?;
        }
        if let OnNode::All | OnNode::Transcoder = what {
            self.transcoder_is_on(node, prefix).await?;
        }
        Ok(())
    }

    /// Moves the lecture until its transcoder is on `node`. Whose it is, S3 knows first: a stream's status lags behind, and who believed it would move the lecture back.
    async fn transcoder_is_on(&self, node: &str, prefix: &RunPrefix) -> Result<()> {
        let mut moved_from = None;
        eventually(&format!("a transcoder on {node}"), STEP, async || {
            let head: Head = self.lab.storage.json(prefix, &ObjectName::Head).await?;
            let owner = head.owner.0.split('/').next().unwrap_or_default();
            let at = node_of(&self.lab.pods().get(owner).await?)?;
            let moves = self.lecture.api().get(&self.lecture.name).await?.annotations().contains_key(MOVE);
            if at == node && !moves {
                return Ok(Look::Found(()));
            }
            if at != node && !moves && moved_from != Some(head.epoch) {
                self.lecture.annotate(MOVE, "now").await?;
                moved_from = Some(head.epoch);
            }
            Ok(Look::NotYet(format!("{owner} on {at} has it")))
        })
        .await
    }

    /// Of a component's two pods one is on `node` and one elsewhere, as the scheduler likes it.
    async fn is_spread(&self, component: &str, node: &str) -> Result<()> {
        eventually(&format!("one {component} of two on {node}"), STEP, async || {
            let names = strike::pods(self.lab, component, Some(&self.ground.pool)).await?;
            let pods = try_join_all(names.iter().map(async |name| self.lab.pods().get(name).await)).await?;
            let (there, elsewhere): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| node_of(pod).is_ok_and(|at| at == node));
            if there.len() == 1 && elsewhere.len() == 1 && pods.iter().all(is_ready) {
                return Ok(Look::Found(()));
            }
            if let ([first, _], []) | ([], [first, _]) = (&there[..], &elsewhere[..])
                && pods.iter().all(is_ready)
            {
                strike::drained(self.lab, &first.name_any()).await?;
            }
            Ok(Look::NotYet(format!("{} there, {} elsewhere", there.len(), elsewhere.len())))
        })
        .await
    }

    /// Drains shards until the lecture's own is on `node`.
    async fn shard_is_on(&self, node: &str) -> Result<()> {
        eventually(&format!("the owning shard on {node}"), STEP, async || {
            let owner = placement(&self.lecture.api().get(&self.lecture.name).await?)?.shard;
            let pod = self.lab.pods().get(&owner).await?;
            let at = node_of(&pod)?;
            if at == node {
                return Ok(Look::Found(()));
            }
            if is_ready(&pod) && pod.metadata.deletion_timestamp.is_none() {
                strike::drained(self.lab, &owner).await?;
            }
            Ok(Look::NotYet(format!("{owner} on {at} has it")))
        })
        .await
    }

    /// The publisher draws pictures beyond this second of its lecture.
    pub async fn publishes_on_after(&self, second: u32) -> Result<()> {
        let wanted = (second + 5) * FRAME_RATE;
        eventually("pictures after the jump", STEP, async || {
            let drawn = self.publisher.as_ref().context("a publisher")?.published().end;
            Ok(if drawn >= wanted { Look::Found(()) } else { Look::NotYet(format!("{drawn} of {wanted} pictures are drawn")) })
        })
        .await
    }

    /// The publisher breaks off.
    pub fn publisher_goes(&mut self) -> Result<()> {
        self.published.push(self.publisher.take().context("a publisher")?.die()?);
        Ok(())
    }
}

/// `host:port` of `rtmp://host:port/live`.
pub(super) fn server_of(url: &str) -> Result<&str> {
    url.split('/').nth(2).with_context(|| format!("{url:?} names no server"))
}
