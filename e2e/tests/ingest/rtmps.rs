//! Publishers over TLS.

use super::{is_received_as, judged, small};
use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use lectern_crds::RtmpsSpec;
use lectern_e2e::certificate::Certificate;
use lectern_e2e::judge::Expected;
use lectern_e2e::lab::{STEP, prefix_of};
use lectern_e2e::shards::placement;
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, PortForward, Share, Shot};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtmps_publishers_survive_a_new_certificate() -> Result<()> {
    Lab::run("rtmps_publishers_survive_a_new_certificate", Share::Quarter, async |lab| {
        let (old, new) = (Certificate::new()?, Certificate::new()?);
        let (pool, mut spec) = lab.small_pool("tls").await?;
        spec.ingest.public_url = "rtmps://localhost:1936/live".to_owned();
        spec.ingest.plain_rtmp = false;
        spec.ingest.rtmps = Some(RtmpsSpec { secret_name: Some(pool.clone()), node_port: None });
        lab.apply_certificate(&pool, &old).await?;
        lab.apply_pool(&pool, &spec).await?;
        lab.pool_is_ready(&pool, STEP).await?;

        let lecture = lab.apply("law", small(json!({"poolName": pool}))).await?;
        let (url, key) = lecture.credentials().await?;
        ensure!(url == spec.ingest.public_url, "publish to {url}");
        let shard = placement(&lecture.until("Placed", "True").await?)?.shard;
        ensure!(!speaks_rtmp(PortForward::to(&lab.settings, &shard, 1935).await?.port).await?, "{shard} listens in the clear, too");
        let rtmps = PortForward::to(&lab.settings, &shard, 1936).await?;
        ensure!(old.is_shown_at(rtmps.port).await?, "{shard} shows another certificate");
        let publisher = lab.publish(&format!("rtmps://127.0.0.1:{}/live", rtmps.port), &key, Shot::small())?;
        let playable = lecture.until("Playable", "True").await?;
        let prefix = prefix_of(&playable)?;

        lab.apply_certificate(&pool, &new).await?;
        // A kubelet looks at a pod's Secrets once a minute, and when the pod changes.
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"lectern.video/e2e": "new certificate"}}}));
        lab.pods().patch(&shard, &PatchParams::default(), &touch).await?;
        eventually("the new certificate is shown", STEP, async || {
            Ok(if new.is_shown_at(rtmps.port).await? { Look::Found(()) } else { Look::NotYet("the old one".to_owned()) })
        })
        .await?;

        // Who came with the old one stays.
        let at = lecture.newest_segment(&prefix).await?;
        lecture.segments_go_on(&prefix, at, 2).await?;
        is_received_as(&lecture, &playable).await?;
        let published = vec![publisher.leave()?];
        judged(lab, &lecture, &prefix, Expected { published, interrupted: false }).await.map(drop)
    })
    .await
}

/// Whether whoever listens at this port of 127.0.0.1 answers an RTMP handshake.
async fn speaks_rtmp(port: u16) -> Result<bool> {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut hello = [0; 1537]; // C0 and C1 (RTMP 5.2)
    hello[0] = 3;
    socket.write_all(&hello).await?;
    // Where nobody listens, kubectl closes the connection.
    Ok(socket.read(&mut [0]).await.is_ok_and(|count| count > 0))
}
