//! A lecture that is not for everybody.

use crate::ingest::small;
use anyhow::{Context as _, Result, ensure};
use lectern_e2e::lab::STEP;
use lectern_e2e::settings::{PLATFORM, kubectl};
use lectern_e2e::{Lab, Share, Shot};
use serde_json::json;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_lecture_is_watched_by_who_has_the_link_and_by_nobody_else() -> Result<()> {
    Lab::run("a_signed_lecture_is_watched_by_who_has_the_link_and_by_nobody_else", Share::Quarter, async |lab| {
        let lecture = lab.apply("oral-exam", small(json!({"viewing": "Signed"}))).await?;
        let publisher = lecture.publish(Shot::small()).await?;
        let playing = lecture.until("Playable", "True").await?;
        ensure!(lecture.prefix().await?.is_signed(), "the run's name does not say that it is signed");
        let playback = playing.status.and_then(|status| status.playback).context("status.playback")?;
        for url in
            [&playback.player, &playback.hls, &playback.hls.replace("live.m3u8", "180p/live.m3u8"), &format!("{}?token=1.x", playback.hls)]
        {
            let answer = reqwest::get(url).await?;
            ensure!(answer.status() == 403, "{url} answers {} to who has no link", answer.status());
        }

        let player = view_link(lab, &lecture.name, "player").await?;
        ensure!(player.starts_with(&format!("{}?token=", playback.player)), "the link is {player}");
        let hls = view_link(lab, &lecture.name, "hls").await?;
        ensure!(lab.http(&hls).await?.contains("180p/live.m3u8"), "the link opens something else");

        let mut browser = lab.browser().await?;
        browser.open(&player, None, STEP).await?;
        browser.playing_about(STEP).await?;
        browser.first_frame(STEP).await?;
        let sample = browser.sample(4).await?;
        assert_eq!(sample.complaints(&publisher.published()), Vec::<String>::new());
        // Everything behind the link came by the cookie: no playlist names a token.
        let segments = browser.requests("/180p/").await?;
        ensure!(!segments.is_empty() && segments.iter().all(|(url, status)| *status != 403 && !url.contains("token")), "{segments:?}");
        browser.close().await
    })
    .await
}

/// What the operator prints in its own pod, as docs/playback.md has it.
async fn view_link(lab: &Lab, name: &str, what: &str) -> Result<String> {
    let mut command = Command::new(kubectl()?);
    command.arg("--kubeconfig").arg(&lab.settings.kubeconfig).args(["--namespace", PLATFORM, "exec", "deploy/lectern-operator", "--"]);
    command.args(["/usr/local/bin/lectern-operator", "view-link", &format!("{}/{name}", lab.namespace), "--as", what]);
    let output = command.output().await.context("kubectl cannot be started; make cluster")?;
    ensure!(output.status.success(), "view-link: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
