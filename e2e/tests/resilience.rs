//! The resilience suite in short: a fault of each kind that `make chaos` tries, judged as there.

use anyhow::{Result, ensure};
use lectern_e2e::chaos::{self, Fault, Store};

/// What a child's death, a dead machine's and a move cost: no segment, no number, nothing twice, and a move no picture and no wait either. How long a player stood
/// still is for `make chaos` to say, on a machine with nothing else to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_and_moves_lose_nothing() -> Result<()> {
    for fault in [Fault::ChildKilled, Fault::TranscoderLost, Fault::Move] {
        let cost = chaos::trial(&[fault], "Low", Store::Ministack).await?;
        eprintln!("{fault:?}: {cost:?}");
        ensure!(cost.is_sound() && cost.complaints.is_empty(), "{fault:?}: {cost:?}");
        ensure!(fault != Fault::Move || cost.frames + cost.sound == 0, "a move lost pictures or sound: {cost:?}");
    }
    Ok(())
}
