//! Two publishers of one stream: with the same key, and with the backup's.

use super::{AGAIN, is_ended, is_shown, judged, received, small};
use anyhow::{Result, ensure};
use lectern_e2e::judge::Expected;
use lectern_e2e::lab::STEP;
use lectern_e2e::{Lab, Share, Shot, condition};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_publisher_follows_takeover() -> Result<()> {
    Lab::run("a_second_publisher_follows_takeover", Share::Half, async |lab| {
        futures::try_join!(the_newest_wins(lab), the_first_wins(lab)).map(drop)
    })
    .await
}

async fn the_newest_wins(lab: &Lab) -> Result<()> {
    let lecture = lab.apply("newest-wins", small(json!({"reconnect": {"takeover": "NewestWins"}}))).await?;
    let mut first = lecture.publish(Shot::small()).await?;
    let prefix = is_shown(&lecture).await?;

    let second = lecture.publish(Shot { first: AGAIN, ..Shot::small() }).await?;
    is_ended(&mut first, "another publisher took over").await?;
    let at = lecture.newest_segment(&prefix).await?;
    lecture.segments_resume(&prefix, at, 4).await?;
    lecture.until("Receiving", "True").await?;

    let published = vec![first.published(), second.leave()?];
    judged(lab, &lecture, &prefix, Expected { published, interrupted: true }).await.map(drop)
}

async fn the_first_wins(lab: &Lab) -> Result<()> {
    let lecture = lab.apply("first-wins", small(json!({"reconnect": {"takeover": "FirstWins"}}))).await?;
    let mut first = lecture.publish(Shot::small()).await?;
    let prefix = is_shown(&lecture).await?;

    let mut second = lecture.publish(Shot { first: AGAIN, ..Shot::small() }).await?;
    is_ended(&mut second, "another publisher has this key in use").await?;
    let at = lecture.newest_segment(&prefix).await?;
    lecture.segments_go_on(&prefix, at, 2).await?;
    ensure!(first.is_running(), "{}", first.words());

    let published = vec![first.leave()?];
    judged(lab, &lecture, &prefix, Expected { published, interrupted: false }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backup_takes_over() -> Result<()> {
    Lab::run("the_backup_takes_over", Share::Quarter, async |lab| {
        let lecture = lab.apply("statics", small(json!({"reconnect": {"backup": true}}))).await?;
        let lecturer = lecture.publish(Shot::small()).await?;
        let prefix = is_shown(&lecture).await?;
        let (url, key) = lecture.credentials_of("backupKey").await?;
        let backup = lab.publish(&url, &key, Shot { first: AGAIN, ..Shot::small() })?;
        let stands_by = lecture.wait_for("the backup stands by", STEP, |stream| {
            received(stream).is_some_and(|received| !received.backup && received.standby.is_some())
        });
        let standby = stands_by.await?.status.and_then(|status| status.received).and_then(|received| received.standby);

        let drawn = lecturer.die()?;
        let heard = lecture.wait_for("the backup is heard", STEP, |stream| {
            received(stream).is_some_and(|received| received.backup && received.standby.is_none())
        });
        let heard = heard.await?;
        ensure!(received(&heard).map(|received| &received.from) == standby.as_ref(), "{standby:?} stood by: {:?}", received(&heard));
        let receiving = condition(&heard, "Receiving").map(|receiving| (receiving.status.as_str(), receiving.message.as_str()));
        ensure!(receiving.is_some_and(|(status, message)| status == "True" && message.ends_with("(backup)")), "{receiving:?}");
        let at = lecture.newest_segment(&prefix).await?;
        lecture.segments_resume(&prefix, at, 4).await?;

        let published = vec![drawn, backup.leave()?];
        judged(lab, &lecture, &prefix, Expected { published, interrupted: true }).await.map(drop)
    })
    .await
}
