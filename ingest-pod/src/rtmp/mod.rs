//! RTMP: publishers come in here.
//!
//! Handshake and session are `rml_rtmp`'s for now. Its inbound layers panic on some hostile input: every connection has a
//! task of its own, so a panic costs that connection only. Deeply nested AMF0 before `connect` can still overflow the
//! stack and abort the process; a parser of our own replaces them.

mod connection;
mod handshake;
pub mod session;
mod sink;
mod status;

use crate::net;
use crate::relay::Owners;
use crate::shard::Shard;
use connection::Connection;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a peer may take from connecting to publishing.
pub const SETUP: Duration = Duration::from_secs(10);
/// A publisher that sends nothing for so long is gone.
pub const IDLE: Duration = Duration::from_secs(30);

/// Serves publishers until `stop`, at most `limit` at once.
pub async fn serve(
    listener: TcpListener,
    limit: usize,
    shard: Arc<Shard>,
    owners: Owners,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let metrics = shard.metrics().clone();
    let owners = Arc::new(owners);
    let handle = move |socket, remote| {
        let (shard, owners) = (shard.clone(), owners.clone());
        async move {
            match Connection::open(socket, remote, shard, owners).await {
                Ok(connection) => connection.run().await,
                Err(error) => tracing::debug!(%remote, %error, "no RTMP handshake"),
            }
        }
    };
    net::serve(listener, limit, metrics, stop, handle).await
}
