//! What can never work is refused where it is written, with words that say how to fix it.

use crate::ingest::small;
use anyhow::{Result, ensure};
use lectern_e2e::lab::STEP;
use lectern_e2e::{Lab, Share, Shot, condition, settings};
use serde_json::{Value, json};

/// Applies a spec that must be refused, with all of `words` in the message.
async fn refused(lab: &Lab, name: &str, spec: Value, words: &[&str]) -> Result<()> {
    match lab.apply(name, spec.clone()).await {
        Ok(_) => anyhow::bail!("{name} was taken: {spec}"),
        Err(kube::Error::Api(answer)) => {
            ensure!(answer.code == 422, "{name}: {answer:?}");
            for word in words {
                ensure!(answer.message.contains(word), "{name}: the message does not say {word:?}: {}", answer.message);
            }
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_things_are_refused_at_admission() -> Result<()> {
    Lab::run("wrong_things_are_refused_at_admission", Share::Nothing, async |lab| {
        let video = |width: i32| json!([{"name": "a", "width": width, "height": 180, "bitrate": 200_000}]);
        let audio = json!([{"name": "b", "bitrate": 64_000}]);
        refused(lab, "odd", json!({"ladder": {"video": video(321), "audio": audio}}), &["spec.ladder.video", "even"]).await?;
        refused(lab, "both", json!({"ladder": {"name": "light", "video": video(320), "audio": audio}}), &["spec.ladder", "not both"])
            .await?;
        refused(lab, "neither", json!({"ladder": {}}), &["spec.ladder", "not neither"]).await?;
        refused(lab, "silent", json!({"ladder": {"video": video(320)}}), &["spec.ladder", "video and audio together"]).await?;
        for url in ["http://camera/stream", "rtsp://", "camera", "rtsp://user:secret@camera/stream"] {
            refused(lab, "camera", json!({"source": {"rtsp": {"url": url}}}), &["spec.source.rtsp.url", "rtsp://host"]).await?;
        }
        refused(
            lab,
            "two-sources",
            json!({"source": {"rtmp": {}, "rtsp": {"url": "rtsp://camera/stream"}}}),
            &["spec.source", "exactly one"],
        )
        .await?;
        let camera = json!({"rtsp": {"url": "rtsp://camera/stream"}});
        refused(
            lab,
            "two-cameras",
            json!({"source": camera, "reconnect": {"backup": true}}),
            &["spec.reconnect.backup", "spec.source.rtmp"],
        )
        .await?;
        refused(lab, "long", json!({"dvrWindowSeconds": 3601}), &["spec.dvrWindowSeconds", "latency: Standard"]).await?;
        lab.apply("longer", json!({"dvrWindowSeconds": 7200, "latency": "Standard"})).await?;
        lab.apply("rotated", json!({"streamKey": {"rotation": 2}})).await?;
        refused(lab, "rotated", json!({"streamKey": {"rotation": 1}}), &["spec.streamKey.rotation", "only grow"]).await?;
        refused(lab, "rotated", json!({"viewing": "Signed"}), &["spec.viewing", "create it anew"]).await?;
        refused(lab, &"x".repeat(53), json!({}), &["metadata.name", "52"]).await
    })
    .await
}

/// What a newcomer copies is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_is_admitted() -> Result<()> {
    Lab::run("every_sample_is_admitted", Share::Nothing, async |lab| {
        let samples = settings::e2e_folder().with_file_name("samples");
        let files = std::fs::read_dir(&samples)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let mut ways: Vec<_> =
            files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "yaml")).map(|it| ("-f", it)).collect();
        ensure!(ways.len() > 5, "few samples: {ways:?}");
        ways.push(("-k", samples.join("kustomize")));
        for (how, what) in ways {
            let mut kubectl = tokio::process::Command::new(settings::kubectl()?);
            kubectl.arg("--kubeconfig").arg(&lab.settings.kubeconfig).args(["apply", "--dry-run=server", how]).arg(&what);
            let done = kubectl.output().await?;
            ensure!(done.status.success(), "{}: {}", what.display(), String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_pool_is_a_condition_that_says_the_fix() -> Result<()> {
    Lab::run("an_unknown_pool_is_a_condition", Share::Nothing, async |lab| {
        let lecture = lab.apply("lost", json!({"poolName": "no-such-pool"})).await?;
        let refused = lecture.until("Accepted", "False").await?;
        let told = condition(&refused, "Accepted").cloned();
        ensure!(told.as_ref().is_some_and(|told| told.reason == "UnknownPool" && told.message.contains("no-such-pool")), "{told:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_stream_key_is_refused_and_disturbs_nobody() -> Result<()> {
    Lab::run("a_wrong_stream_key_is_refused", Share::Quarter, async |lab| {
        let lecture = lab.apply("physics", small(json!({}))).await?;
        let (url, key) = lecture.credentials().await?;
        let mut honest = lab.publish(&url, &key, Shot::small())?;
        lecture.until("Playable", "True").await?;
        let prefix = lecture.prefix().await?;
        let before = lecture.newest_segment(&prefix).await?;

        let wrong: String = key.chars().rev().collect();
        for attempt in ["wrong", "", wrong.as_str()] {
            let mut liar = lab.publish(&url, attempt, Shot::small())?;
            let status = liar.wait(STEP)?;
            // ffmpeg prints an onStatus or _error of the server as `Server error: …`.
            ensure!(
                !status.success() && liar.words().contains("Server error"),
                "with the key {attempt:?} ffmpeg ended with {status}: {}",
                liar.words()
            );
        }

        ensure!(honest.is_running(), "the honest publisher was thrown out: {}", honest.words());
        lecture.segments_go_on(&prefix, before, 4).await?;
        let after = lecture.until("Receiving", "True").await?;
        ensure!(condition(&after, "Playable").is_some_and(|playable| playable.status == "True"), "{:?}", after.status);
        Ok(())
    })
    .await
}
