//! A transcoder on a machine whose clock steps, by libfaketime; S3 is SeaweedFS, which refuses requests that are signed for another time as AWS does (the SDK then
//! signs for the server's time).
#![allow(clippy::unwrap_used)]

#[path = "../../podkit/tests/common/clock.rs"]
mod clock;
mod common;
#[path = "common/stage.rs"]
mod stage;

use clock::Clock;
use common::lecture;
use lectern_cloud::testing::Backend;
use lectern_contract::{Epoch, Ticks};
use stage::{Pod, Stage};
use std::time::Duration;

#[tokio::test]
async fn a_clock_that_steps_an_hour_ahead_and_back_under_a_lecture_moves_nothing() {
    let store = Backend::seaweedfs().await.unwrap();
    let objects = store.objects("lectures").await.unwrap();
    let stage = Stage::set_with(lecture("clock", 18, Ticks(90_000), &[]), Backend::ministack().await.unwrap(), objects).await;
    let clock = Clock::new();
    let mut command = Pod::command("pod-a", [&store.endpoint(), &stage.backend.endpoint()], &store);
    command.envs(clock.environment());
    let _pod = Pod::spawn(command);
    for (hours, segments) in [(1, 2), (0, 4), (-1, 6), (0, 8)] {
        stage.until("segments", Duration::from_secs(60), |head| head.next_segment.0 >= segments).await;
        clock.steps_to(hours);
    }
    let head = stage.until("the end", Duration::from_secs(60), |head| head.ended).await;
    assert_eq!(head.epoch, Epoch(1), "the run changed hands");
    stage.has_all(0..10).await;
    stage.play("clock-play").await;
}
