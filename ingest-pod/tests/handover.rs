//! A stream that moves to another shard under its publisher: nothing is missing, nothing comes twice, and time goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod common;

use common::*;
use lectern_contract::Epoch;
use lectern_contract::feed::{AccessUnit, FeedFrame, Track};
use lectern_ingest_pod::routes::Route;
use lectern_ingest_pod::stream::Limits;

/// Shards that all know the same routes.
struct Pool(Vec<TestShard>);

impl Pool {
    async fn of(count: usize) -> Self {
        let mut shards = Vec::new();
        for _ in 0..count {
            shards.push(TestShard::start(Limits::default()).await);
        }
        Self(shards)
    }

    /// The stream is on this shard from now on.
    fn place(&self, owner: usize, epoch: u64) {
        for shard in &self.0 {
            shard.route([Route { epoch: Epoch(epoch), ..route_to(&self.0[owner].name) }]);
        }
    }

    /// Reads the stream at its owners, in turn, as a transcoder does: each is asked for what follows what the one before gave.
    async fn read_across(&self, owners: &[usize]) -> Vec<AccessUnit> {
        let mut read: Vec<AccessUnit> = Vec::new();
        for (turn, owner) in owners.iter().enumerate() {
            let newest = |track| read.iter().filter(|unit| unit.track == track).map(|unit| unit.dts).next_back();
            let known = [Track::Video, Track::Audio].map(newest);
            let mut reader = self.0[*owner].read(known.iter().flatten().min().copied()).await;
            let is_new = |unit: &AccessUnit| known[usize::from(unit.track == Track::Audio)].is_none_or(|known| unit.dts > known);
            let mut fresh = 0;
            loop {
                match reader.next().await {
                    FeedFrame::AccessUnit(unit) if is_new(&unit) => {
                        read.push(unit);
                        fresh += 1;
                    }
                    FeedFrame::AccessUnit(_) | FeedFrame::Config { .. } => {}
                    FeedFrame::Moved { .. } => break,
                    other => panic!("{other:?} after {fresh} of owner {turn}"),
                }
                // Somewhere in a group of pictures, and with enough behind it to see that it goes on.
                if fresh == 100 {
                    match owners.get(turn + 1) {
                        Some(next) => self.place(*next, turn as u64 + 2),
                        None => break,
                    }
                }
            }
        }
        read
    }
}

#[tokio::test]
async fn a_publisher_of_the_owner_itself_is_followed_to_the_access_unit() {
    let pool = Pool::of(2).await;
    pool.place(0, 1);
    let _lecturer = publisher(pool.0[0].rtmp, "secret", &[]);
    assert_whole(&pool.read_across(&[0, 1]).await);
}

#[tokio::test]
async fn a_publisher_of_the_next_owner_is_followed_to_the_access_unit() {
    let pool = Pool::of(2).await;
    pool.place(0, 1);
    let _lecturer = publisher(pool.0[1].rtmp, "secret", &[]);
    assert_whole(&pool.read_across(&[0, 1]).await);
}

#[tokio::test]
async fn a_publisher_of_a_third_shard_is_followed_to_the_access_unit_and_back() {
    let pool = Pool::of(3).await;
    pool.place(0, 1);
    let _lecturer = publisher(pool.0[2].rtmp, "secret", &[]);
    assert_whole(&pool.read_across(&[0, 1, 0, 2]).await);
}

/// A transcoder that lags, or that begins just then, finds what came before the move at the next owner.
#[tokio::test]
async fn the_newest_seconds_go_along() {
    let pool = Pool::of(2).await;
    pool.place(0, 1);
    let _lecturer = publisher(pool.0[0].rtmp, "secret", &[]);
    let before = pool.read_across(&[0]).await;
    pool.place(1, 2);
    let mut late = pool.0[1].read(Some(before[0].dts)).await;
    let first = late.next_unit().await;
    assert_eq!((first.dts, first.keyframe), (before[0].dts, true));
}
