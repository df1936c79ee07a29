//! The chart is upgraded so that every pod of the default pool is replaced, under six lectures: the one that is watched, and five beside it.

use crate::judge::{self, Expected, Verdict};
use crate::lab::{Lab, Lecture, STEP, prefix_of, small};
use crate::release::Release;
use crate::shards::placement;
use crate::wait::{Look, eventually};
use crate::{Publisher, Shot};
use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use lectern_contract::keys::RunPrefix;
use lectern_crds::{DEFAULT_POOL, POOL_LABEL};
use serde_json::json;
use std::collections::BTreeMap;

/// Room for all six in either transcoder.
const ROOM: &str = "pool.transcoder.slots=6";
/// What the default pool's shards are called, before their number.
const SHARD: &str = "lectern-ingest-default-";
/// The lectures beside.
const BESIDE: [&str; 5] = ["grammar", "logic", "rhetoric", "arithmetic", "geometry"];
/// Segments that each of the six makes afterwards.
const ON: u64 = 12;

/// An upgrade that is to come.
pub(super) struct Upgrade<'a> {
    lab: &'a Lab,
    release: &'a Release,
    beside: Vec<(RunPrefix, Lecture<'a>, Publisher)>,
    /// The pool's pods before it.
    before: BTreeMap<String, (String, i32)>,
}

impl<'a> Upgrade<'a> {
    /// Gives the pool room for six lectures.
    pub async fn makes_room(lab: &Lab, release: &Release) -> Result<()> {
        release.upgrade(&[ROOM]).await?;
        lab.pool_is_ready(DEFAULT_POOL, STEP).await
    }

    /// The shard that all six come by: so nobody holds up the second one, which is replaced at once and takes all streams over as soon as it is back. The first one
    /// goes then.
    pub fn door() -> String {
        format!("{SHARD}0")
    }

    /// Publishes five lectures of this latency by the shard at `rtmp`, and remembers who makes them.
    pub async fn begins(lab: &'a Lab, release: &'a Release, rtmp: &str, latency: &str) -> Result<Self> {
        let mut beside = Vec::new();
        for name in BESIDE {
            let lecture = lab.apply(name, small(json!({ "latency": latency }))).await?;
            let publisher = lab.publish(rtmp, &lecture.credentials().await?.1, Shot::small())?;
            let playable = lecture.until("Playable", "True").await?;
            beside.push((prefix_of(&playable)?, lecture, publisher));
        }
        let before = lab.steady(&of_the_pool()).await?;
        Ok(Self { lab, release, beside, before })
    }

    /// Has every pod of the pool replaced, and waits until the five and the one that is `watched` go on without any but the first shard.
    pub async fn happens(&self, watched: (&RunPrefix, &Lecture<'_>)) -> Result<()> {
        let all = || self.beside.iter().map(|(prefix, lecture, _)| (prefix, lecture)).chain([watched]);
        let starts = try_join_all(all().map(async |(prefix, lecture)| lecture.newest_segment(prefix).await)).await?;
        // True of every node that the pods run on: nothing but the template changes.
        let elsewhere = ["ingest", "transcoder", "origin"].map(|part| format!("pool.{part}.nodeSelector.kubernetes\\.io/os=linux"));
        let values: Vec<&str> = [ROOM].into_iter().chain(elsewhere.iter().map(String::as_str)).collect();
        self.release.upgrade(&values).await?;
        let second = format!("{SHARD}1");
        self.is_replaced("all but the first shard", |name| !name.starts_with(SHARD) || name == second).await?;
        eventually("all streams are the second shard's", 2 * STEP, async || {
            let mut elsewhere = Vec::new();
            for (_, lecture) in all() {
                if placement(&lecture.api().get(&lecture.name).await?)?.shard != second {
                    elsewhere.push(lecture.name.clone());
                }
            }
            Ok(if elsewhere.is_empty() { Look::Found(()) } else { Look::NotYet(format!("{elsewhere:?} are not")) })
        })
        .await?;
        try_join_all(all().zip(starts).map(async |((prefix, lecture), start)| lecture.segments_go_on(prefix, start, ON).await))
            .await
            .map(drop)
    }

    /// Ends the five, and judges each; the first shard stays for its publishers, and is another then.
    pub async fn ends(mut self) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        for (prefix, lecture, publisher) in std::mem::take(&mut self.beside) {
            let published = vec![publisher.leave()?];
            lecture.end().await?;
            lecture.until("Ended", "True").await?;
            self.lab.storage.has_recording(&prefix).await?;
            let (expected, out) = (Expected { published, interrupted: false }, self.lab.out.join(&lecture.name));
            let mut verdict = judge::ended_run(&self.lab.storage, &prefix, &expected, &out).await.with_context(|| lecture.name.clone())?;
            for complaint in &mut verdict.complaints {
                *complaint = format!("{}: {complaint}", lecture.name);
            }
            verdicts.push(verdict);
        }
        self.is_replaced("the shards", |_| true).await?;
        Ok(verdicts)
    }

    /// Waits until the pods that are meant are gone, or are others of their names.
    async fn is_replaced(&self, what: &str, which: impl Fn(&str) -> bool) -> Result<()> {
        eventually(&format!("{what} are others"), 2 * STEP, async || {
            let now = self.lab.lives(&of_the_pool()).await?;
            let left = self.before.iter().filter(|(name, life)| which(name) && now.get(*name) == Some(*life));
            let left: Vec<_> = left.map(|(name, _)| name).collect();
            Ok(if left.is_empty() { Look::Found(()) } else { Look::NotYet(format!("{left:?} are still there")) })
        })
        .await
    }
}

fn of_the_pool() -> String {
    format!("{POOL_LABEL}={DEFAULT_POOL}")
}
