//! A transcoder on a machine whose clock steps, by libfaketime; S3 is SeaweedFS, which refuses requests that are signed for another time as AWS does (the SDK then
//! signs for the server's time).
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stage.rs"]
mod stage;

use common::{folder, lecture};
use lectern_cloud::testing::Backend;
use lectern_contract::{Epoch, Ticks};
use stage::{Pod, Stage};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The wall clock of processes that are started with it; timers run by another one, which no step moves (clock_gettime(2), CLOCK_MONOTONIC).
struct Clock(PathBuf);

impl Clock {
    fn new() -> Self {
        let clock = Self(folder("clock").join("clock"));
        clock.steps_to("+0");
        clock
    }

    /// So far from the true time, as `date -d` writes it.
    fn steps_to(&self, offset: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, &self.0).unwrap(); // nobody reads half of it
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let library = std::fs::read_dir("/usr/lib").unwrap().filter_map(|entry| {
            let path = entry.unwrap().path().join("faketime/libfaketimeMT.so.1");
            path.exists().then_some(path)
        });
        let library = library.last().expect("libfaketime; scripts/install test");
        vec![
            ("LD_PRELOAD", library.to_str().unwrap().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.to_str().unwrap().to_owned()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

#[tokio::test]
async fn a_clock_that_steps_an_hour_ahead_and_back_under_a_lecture_moves_nothing() {
    let store = Backend::seaweedfs().await.unwrap();
    let objects = store.objects("lectures").await.unwrap();
    let stage = Stage::set_with(lecture("clock", 18, Ticks(90_000), &[]), Backend::ministack().await.unwrap(), objects).await;
    let clock = Clock::new();
    let mut command = Pod::command("pod-a", [&store.endpoint(), &stage.backend.endpoint()], &store);
    command.envs(clock.environment());
    let _pod = Pod::spawn(command);
    for (offset, segments) in [("+3600", 2), ("+0", 4), ("-3600", 6), ("+0", 8)] {
        stage.until("segments", Duration::from_secs(60), |head| head.next_segment.0 >= segments).await;
        clock.steps_to(offset);
    }
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert_eq!(head.epoch, Epoch(1), "the run changed hands");
    stage.has_all(0..10).await;
    stage.play("clock-play").await;
    let _ = std::fs::remove_dir_all(clock.0.parent().unwrap_or(Path::new("/nowhere")));
}
