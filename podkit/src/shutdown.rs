//! One watcher for SIGTERM and SIGINT that feeds every task.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT. Call it once, inside the runtime.
pub fn on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        match signal(kind) {
            Ok(mut signals) => {
                let stop = stop.clone();
                tokio::spawn(async move {
                    signals.recv().await;
                    tracing::info!(signal = name, "stopping");
                    stop.cancel();
                });
            }
            Err(error) => tracing::warn!(signal = name, %error, "this signal cannot be watched; only SIGKILL will stop the process"),
        }
    }
    stop
}
