//! The CA changes under a running lecture. A binary of its own that `make rotation` runs: it takes eight minutes, because it waits twice for longer than kubelets take
//! to renew files.
#![allow(clippy::unwrap_used)]

use anyhow::{Result, ensure};
use lectern_e2e::rotation::{self, Step, ask, is_asked, issuing, moved, moved_on, plays_through, turned};
use lectern_e2e::{Lab, Share};

/// While one CA takes another's place the lecture is moved from transcoder to transcoder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_rotated_under_a_playing_lecture() -> Result<()> {
    Lab::run("the_ca_is_rotated_under_a_playing_lecture", Share::Whole, async |lab| {
        plays_through(lab, async |lecture| {
            ensure!(rotation::step(lab).await? == Step::Steady, "a rotation is under way");
            let before = issuing(lab).await?;
            ask(lab).await?;
            let moves = turned(lab, async || moved(lecture).await).await? + moved_on(lecture).await?;
            eprintln!("the_ca_is_rotated_under_a_playing_lecture: {moves} moves");
            ensure!(issuing(lab).await? != before, "the CA is the one that it was");
            ensure!(!is_asked(lab).await?, "the wish is granted, and still there");
            Ok(())
        })
        .await
    })
    .await
}
