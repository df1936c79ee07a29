//! A camera that is pulled.

use super::small;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use lectern_e2e::lab::prefix_of;
use lectern_e2e::{Camera, Lab, Share, condition};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_freezes_and_returns() -> Result<()> {
    Lab::run("a_camera_freezes_and_returns", Share::Quarter, async |lab| {
        let camera = Camera::start(lab, "viewer", "s3cret").await?;
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "camera"}, "stringData": {"username": "viewer", "password": "s3cret"},
        }))?;
        lab.secrets(&lab.namespace).create(&PostParams::default(), &secret).await?;
        let source = json!({"rtsp": {"url": camera.url, "secretRef": {"name": "camera"}}});
        let lecture = lab.apply("botany", small(json!({"source": source}))).await?;
        let before = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&before)?;
        let at = lecture.newest_segment(&prefix).await?;
        lecture.segments_go_on(&prefix, at, 2).await?;

        camera.freezes().await?;
        let frozen = lecture.until("Receiving", "False").await?;
        let told = condition(&frozen, "Receiving").context("Receiving")?;
        ensure!(told.reason == "PublisherGone" && ["neither picture nor sound", "answer"].iter().any(|w| told.message.contains(w)), "{told:?}");
        let at = lecture.newest_segment(&prefix).await?;

        camera.returns().await?;
        let back = lecture.until("Receiving", "True").await?;
        ensure!(prefix_of(&back)? == prefix, "the run changed");
        lecture.segments_resume(&prefix, at, 5).await.map(drop)
    })
    .await
}
