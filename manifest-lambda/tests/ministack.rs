//! The Lambda where it lives: deployed by its own script, called by its bucket.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lectern_cloud::Objects;
use lectern_cloud::testing::{Backend, REGION};
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{Ended, EndedRendition, Ledger, LedgerSegment};
use lectern_contract::{Epoch, SegmentDuration, SegmentNumber, StreamRef, Ticks, WallMillis};
use lectern_manifest_lambda::handler::publish;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

fn prefix() -> RunPrefix {
    RunPrefix::of(&StreamRef { namespace: "school".into(), name: "algebra".into() }, &"r1".into())
}

fn deploy(backend: &Backend) -> String {
    let output = Command::new("./deploy")
        .arg(env!("CARGO_BIN_EXE_lectern-manifest"))
        .envs(backend.environment())
        .env("ENDPOINT", backend.endpoint())
        .env("REGION", REGION)
        .env("LECTERN_BUCKET_ENDPOINT", backend.endpoint())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn ended(minutes: &[u64]) -> Bytes {
    let audio = EndedRendition { name: "audio".into(), codec: "mp4a.40.2".into(), bitrate: 128_000, picture: None };
    let ended = Ended {
        run: "r1".into(),
        anchor: WallMillis(1_700_000_000_000),
        segment_duration: SegmentDuration::STANDARD,
        minutes: minutes.to_vec(),
        renditions: vec![audio],
    };
    Bytes::from(serde_json::to_vec(&ended).unwrap())
}

fn ledger(minute: u64, numbers: std::ops::Range<u64>) -> Bytes {
    let segment = |number| LedgerSegment { number: SegmentNumber(number), offset: Ticks(0), duration: Ticks(360_000), bytes: 9, init: 0 };
    let segments = BTreeMap::from([("audio".to_owned(), numbers.map(segment).collect())]);
    Bytes::from(serde_json::to_vec(&Ledger { run: "r1".into(), epoch: Epoch(1), minute, segments }).unwrap())
}

async fn eventually_has(objects: &Objects, key: &str, wanted: &str) -> String {
    let since = Instant::now();
    let mut last = String::new();
    while since.elapsed() < Duration::from_secs(60) {
        if let Some(object) = objects.get(key).await.unwrap() {
            last = String::from_utf8(object.body.to_vec()).unwrap();
            if last.contains(wanted) {
                return last;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{key} has no {wanted} after a minute: {last:?}");
}

#[tokio::test]
async fn an_ended_run_gets_its_recording_and_a_late_ledger_is_added() {
    let backend = Backend::ministack().await.unwrap();
    let objects = backend.objects("lectures").await.unwrap();
    let arn = deploy(&backend);
    assert_eq!(deploy(&backend), arn, "deploying again updates");
    assert!(objects.ensure_notification(&arn).await.unwrap(), "it was set");
    assert!(!objects.ensure_notification(&arn).await.unwrap(), "it was set already");

    let key = |name: ObjectName| prefix().key(&name);
    objects.put(&key(ObjectName::Ledger(0)), ledger(0, 0..3)).await.unwrap();
    objects.put(&key(ObjectName::Ended), ended(&[0])).await.unwrap();
    let top = eventually_has(&objects, &key(ObjectName::Vod), "audio/vod.m3u8").await;
    assert!(top.starts_with("#EXTM3U\n"), "{top}");
    eventually_has(&objects, &key(ObjectName::VodMedia("audio".into())), "2.m4s\n#EXT-X-ENDLIST").await;

    let mpd = eventually_has(&objects, &key(ObjectName::VodMpd), " type=\"static\"").await;
    assert!(mpd.contains(" mediaPresentationDuration=\"PT12S\""), "{mpd}");

    objects.put(&key(ObjectName::Ledger(0)), ledger(0, 0..5)).await.unwrap();
    eventually_has(&objects, &key(ObjectName::VodMedia("audio".into())), "4.m4s\n#EXT-X-ENDLIST").await;

    // A minute whose ledger is missing fails the event, and is made good by the ledger's own.
    objects.put(&key(ObjectName::Ended), ended(&[0, 1])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    objects.put(&key(ObjectName::Ledger(1)), ledger(1, 5..6)).await.unwrap();
    eventually_has(&objects, &key(ObjectName::VodMedia("audio".into())), "5.m4s\n#EXT-X-ENDLIST").await;
}

#[tokio::test]
async fn playlists_of_a_run_that_was_deleted_meanwhile_do_not_stay() {
    let backend = Backend::ministack().await.unwrap();
    let objects = backend.objects("lectures").await.unwrap();
    let key = prefix().key(&ObjectName::Vod);
    let files = || vec![(key.clone(), "#EXTM3U".to_owned())];
    assert_eq!(publish(&objects, &prefix(), files()).await.unwrap(), 0);
    assert!(objects.list(prefix().as_str()).await.unwrap().is_empty());

    objects.put(&prefix().key(&ObjectName::Ended), ended(&[])).await.unwrap();
    assert_eq!(publish(&objects, &prefix(), files()).await.unwrap(), 1);
    assert!(objects.get(&key).await.unwrap().is_some());
}
