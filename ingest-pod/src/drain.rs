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
        // Where a stream has no other owner yet, those stay that read it here, and its publisher, who may come by way of another shard.
        let routed = routed || timeout_at(until, has_another_owner(&shard, &peers)).await.is_ok_and(|routed| routed);
        let told = routed && timeout_at(Instant::now() + TOLD_WITHIN, peers.none()).await.is_ok();
        tracing::info!(routed, left, told, "drained");
        stop.cancel();
        Ok(())
    })
}

/// Waits until no route names the shard, or nobody has any use for it; whether it is the former.
async fn has_another_owner(shard: &Shard, peers: &Open) -> bool {
    tokio::select! {
        () = shard.owns_nothing() => true,
        () = peers.none() => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::GateLimits;
    use crate::memory::Memory;
    use crate::metrics::Metrics;
    use crate::routes::tests::route;
    use crate::routes::{Route, RouteTable};
    use crate::stream::Limits;
    use lectern_contract::ShardName;
    use tokio::sync::watch;

    const GRACE: Duration = Duration::from_secs(600);

    fn routed_to(shard: &str) -> Arc<RouteTable> {
        let route = Route { shard: ShardName(shard.into()), ..route("r1", 1) };
        Arc::new([route].into_iter().collect())
    }

    /// Somebody relays a publisher to a shard that goes while there is no operator: who goes on is told of the stream's next owner, however late it is named.
    #[tokio::test(start_paused = true)]
    async fn a_shard_stays_for_those_whose_stream_has_no_other_owner() {
        let (routes, seen) = watch::channel(routed_to("me"));
        let shard = Shard::new(ShardName("me".into()), seen, Limits::default(), Memory::new(1 << 20), Metrics::default());
        let (asked, stop, peers) = (CancellationToken::new(), CancellationToken::new(), Open::default());
        let relayed = peers.one();
        let gate = Gate::new(GateLimits::default());
        let drained = tokio::spawn(run(shard, (gate, peers.clone()), Readiness::default(), GRACE, asked.clone(), stop.clone()));
        asked.cancel();
        tokio::time::sleep(GRACE / 2).await;
        assert!(!stop.is_cancelled(), "nobody else has the stream");
        routes.send_replace(routed_to("another"));
        tokio::time::sleep(TOLD_WITHIN / 2).await;
        assert!(!stop.is_cancelled(), "who relays has not been told yet");
        drop(relayed);
        drained.await.unwrap().unwrap();
        assert!(stop.is_cancelled());
    }

    /// Nor does it stay for nobody.
    #[tokio::test(start_paused = true)]
    async fn a_shard_that_nobody_reads_goes() {
        let (_routes, seen) = watch::channel(routed_to("me"));
        let shard = Shard::new(ShardName("me".into()), seen, Limits::default(), Memory::new(1 << 20), Metrics::default());
        let (asked, stop, began) = (CancellationToken::new(), CancellationToken::new(), Instant::now());
        asked.cancel();
        run(shard, (Gate::new(GateLimits::default()), Open::default()), Readiness::default(), GRACE, asked, stop).await.unwrap();
        assert!(began.elapsed() < GRACE / 2, "{:?}", began.elapsed());
    }
}
