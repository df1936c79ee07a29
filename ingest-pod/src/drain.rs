//! How a shard goes: asked to stop, it accepts nobody any more and says so, in its readiness and in its reports, so that its
//! streams get other owners at once; it hands its publishers' media on to these until the publishers have left by
//! themselves, or the time for that is over. A lecture is not cut for a rollout.

use crate::gate::Gate;
use crate::net::Open;
use crate::shard::Shard;
use lectern_podkit::Task;
use lectern_podkit::health::Readiness;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long the operator may take to give a stream another owner: with that, the last reader knows where to go.
const ROUTED_WITHIN: Duration = Duration::from_secs(5);
/// How long those may take that are told where their streams have gone: transcoders, and shards that relay.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Waits for `asked`, drains, and then cancels `stop`. `grace`: how long publishers may stay; `peers`: who reads from this shard or relays to it.
pub fn run(
    shard: Arc<Shard>,
    (gate, peers): (Gate, Open),
    readiness: Readiness,
    grace: Duration,
    asked: CancellationToken,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        asked.cancelled().await;
        let until = Instant::now() + grace;
        readiness.not_ready("draining: publishers are handed on to other shards");
        shard.drain();
        let mut connections = gate.connections();
        tracing::info!(connections = *connections.borrow(), ?grace, "draining");
        let routed = timeout_at(until.min(Instant::now() + ROUTED_WITHIN), shard.owns_nothing()).await.is_ok();
        let left = timeout_at(until, connections.wait_for(|count| *count == 0)).await.is_ok();
        // Where a stream has no other owner, its readers stay to the end.
        let told = routed && timeout_at(Instant::now() + TOLD_WITHIN, peers.none()).await.is_ok();
        tracing::info!(routed, left, told, "drained");
        stop.cancel();
        Ok(())
    })
}
