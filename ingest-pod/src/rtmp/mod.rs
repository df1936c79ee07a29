//! RTMP and RTMPS: publishers come in here.
//!
//! A connection is a task while it sets itself up and has its last words; while it publishes to this shard, a thread of the
//! pump reads it together with all others. What it sends is parsed by `lectern_media::rtmp` and judged by [`session`]; neither
//! can panic, recurse without a bound, or be made to allocate what a peer merely claims.

mod connection;
mod handshake;
mod headers;
mod link;
mod peer;
mod pump;
pub mod session;
mod sink;
mod wire;

pub use pump::{Pump, PumpError};

use crate::gate::Gate;
use crate::net::{self, Listening};
use crate::relay::Owners;
use crate::shard::Shard;
use lectern_podkit::Task;
use lectern_podkit::tls::ServerTls;
use std::cell::RefCell;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long a peer may take from connecting to publishing.
pub const SETUP: Duration = Duration::from_secs(10);
/// A publisher of which nothing whole comes for so long is gone.
pub const IDLE: Duration = Duration::from_secs(30);
/// The interval between two reads of a publisher, by default.
pub const BATCH: Duration = Duration::from_millis(10);
/// Bytes of answers that a peer may leave unread.
const MOST_UNSENT: usize = 64 * 1024;
/// Bytes that are read at once outside the pump.
const SCRATCH: usize = 64 * 1024;
/// Bytes that a peer outside the pump is read before others have their turn.
const TURN: usize = 256 * 1024;
/// What publishers are told when the shard goes.
const TOLD_TO_RECONNECT: &str = "this server is going; connect again";

thread_local! {
    /// A buffer for each thread of the runtime, so that a connection that waits has none.
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Lends the thread's buffer. `work` must not lend it again.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_BUFFER.with_borrow_mut(|scratch| work(scratch))
}

/// What all connections share.
#[derive(Debug)]
pub struct Context {
    /// The shard.
    pub shard: Arc<Shard>,
    /// How the owners of other streams are reached.
    pub owners: Owners,
    /// What reads publishers.
    pub pump: Pump,
    /// Who may connect.
    pub gate: Gate,
}

/// Serves publishers over RTMPS, once a certificate is in `folder`, with the newest one that is there for each connection.
pub fn serve_tls(listener: TcpListener, context: Arc<Context>, folder: PathBuf, listening: Listening) -> Task<Infallible> {
    Box::pin(async move {
        let tls = ServerTls::when_there(&folder, |_| {});
        match listening.accepting.clone().run_until_cancelled(tls).await {
            Some(tls) => serve(listener, context, Some(tls), listening).await,
            None => {
                listening.stop.cancelled().await;
                Ok(())
            }
        }
    })
}

/// Serves publishers as long as `listening` says: over RTMPS with `tls`, else over RTMP.
pub fn serve(listener: TcpListener, context: Arc<Context>, tls: Option<ServerTls>, listening: Listening) -> Task<Infallible> {
    Box::pin(async move {
        let metrics = context.shard.metrics().clone();
        let handle = move |socket, remote: std::net::SocketAddr| {
            let (context, tls) = (context.clone(), tls.as_ref().map(ServerTls::newest));
            let admitted = context.gate.admit(remote.ip(), std::time::Instant::now());
            async move {
                match admitted {
                    Ok(pass) => connection::serve(socket, remote, pass, context, tls).await,
                    Err(reason) => {
                        context.shard.metrics().refuse(reason);
                        tracing::debug!(%remote, ?reason, "closed at once");
                    }
                }
            }
        };
        // The gate counts those that count.
        net::serve(listener, net::NO_LIMIT, metrics, (listening, &net::Open::default()), handle).await
    })
}
