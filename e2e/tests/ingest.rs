//! What comes in: publishers of every kind, cameras, certificates, and the shards that take them.

mod cameras;
mod publishers;
mod rtmps;
mod seats;
mod shards;

use crate::lecture_plays_in_a_browser::recorded;
use anyhow::{Context as _, Result, ensure};
use lectern_contract::keys::RunPrefix;
use lectern_crds::{LiveStream, ReceivedStatus};
use lectern_e2e::judge::{self, Expected, Verdict};
pub use lectern_e2e::lab::small;
use lectern_e2e::lab::{Lecture, prefix_of};
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, Publisher, Shot};
use serde_json::json;

/// Far from the counters of a first publisher.
const AGAIN: u32 = 1_000_000;

/// A small lecture of a pool of the test's own, published at `url` and watched.
pub async fn begun<'a>(lab: &'a Lab, pool: &str, url: &str, name: &str) -> Result<(RunPrefix, Lecture<'a>, Publisher)> {
    let lecture = lab.apply(name, small(json!({"poolName": pool}))).await?;
    let publisher = lab.publish(url, &lecture.credentials().await?.1, Shot::small())?;
    Ok((prefix_of(&lecture.until("Playable", "True").await?)?, lecture, publisher))
}

/// What the shard receives, as the status has it.
pub fn received(stream: &LiveStream) -> Option<&ReceivedStatus> {
    stream.status.as_ref()?.received.as_ref()
}

/// The address of the publisher that is heard: another connection has another one.
fn from(stream: &LiveStream) -> Result<&str> {
    Ok(&received(stream).context("status.received")?.from)
}

/// Waits until the lecture is received, which it has to be from the same connection as `before`.
async fn is_received_as(lecture: &Lecture<'_>, before: &LiveStream) -> Result<()> {
    let after = lecture.until("Receiving", "True").await?;
    ensure!(from(&after)? == from(before)?, "it came from {}, and now from {}", from(before)?, from(&after)?);
    Ok(())
}

/// Waits until there is enough of a publisher to judge it by.
async fn is_shown(lecture: &Lecture<'_>) -> Result<RunPrefix> {
    let prefix = prefix_of(&lecture.until("Playable", "True").await?)?;
    let at = lecture.newest_segment(&prefix).await?;
    lecture.segments_go_on(&prefix, at, 2).await?;
    Ok(prefix)
}

/// Waits until a publisher's ffmpeg has ended by itself; it must have been told `why`.
async fn is_ended(publisher: &mut Publisher, why: &str) -> Result<()> {
    eventually("the publisher is ended", lectern_e2e::lab::STEP, async || {
        Ok(if publisher.is_running() { Look::NotYet(publisher.words()) } else { Look::Found(()) })
    })
    .await?;
    ensure!(publisher.said().contains(&format!("Server error: {why}")), "{}", publisher.said());
    Ok(())
}

/// Ends a lecture that nobody publishes any more, and judges what is kept of it: of every publisher two seconds at least.
pub async fn judged(lab: &Lab, lecture: &Lecture<'_>, prefix: &RunPrefix, expected: Expected) -> Result<Verdict> {
    lecture.end().await?;
    lecture.until("Ended", "True").await?;
    recorded(lab, lecture).await?;
    let scratch = lab.out.join(format!("judge-{}", lecture.name));
    let verdict = judge::ended_run(&lab.storage, prefix, &expected, &scratch).await?.sound()?;
    for (rendition, pictures) in &verdict.pictures {
        let shown: Vec<u32> = pictures.iter().flatten().copied().collect();
        for published in &expected.published {
            let of = shown.iter().filter(|counter| published.contains(counter)).count();
            ensure!(of >= 60, "{rendition} shows {of} pictures of those that drew {published:?}");
        }
        let of_one_publisher = shown.windows(2).filter(|two| (two[0] < AGAIN) == (two[1] < AGAIN));
        let lost = of_one_publisher.map(|two| two[1].saturating_sub(two[0]).saturating_sub(1)).max();
        eprintln!("{}/{}: {rendition}: numbers missing {:?}, longest loss {lost:?} pictures", lab.test, lecture.name, verdict.missing);
    }
    Ok(verdict)
}
