//! When a reflector's store has been filled, for any number of tasks that wait for it.

use kube::runtime::watcher::{self, Event};
use tokio_util::sync::CancellationToken;

/// Whether a store holds all that was there when its watch began. Clones are one.
///
/// kube's own `Store::wait_until_ready` keeps the waker of its last waiter only (kube-runtime 5.0,
/// `utils/delayed_init.rs`): of two tasks that wait, one sleeps on for ever. The `applier` of a controller is one such
/// waiter, so nobody else may wait that way on a store that a controller reads.
#[derive(Debug, Clone, Default)]
pub struct Filled(CancellationToken);

impl Filled {
    /// Takes note of what the watch says; to be called after the store has taken it.
    pub fn note<K>(&self, event: &Result<Event<K>, watcher::Error>) {
        if matches!(event, Ok(Event::InitDone)) {
            self.0.cancel();
        }
    }

    /// Waits until the store has been filled for the first time.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{WatchStreamExt, reflector};

    #[tokio::test]
    async fn every_waiter_learns_that_the_store_is_filled_and_so_does_kubes_own() {
        let (store, writer) = reflector::store::<ConfigMap>();
        let filled = Filled::default();
        let controller = tokio::spawn(async move { store.wait_until_ready().await });
        let waiters: Vec<_> = (0..3).map(|_| filled.clone()).map(|filled| tokio::spawn(async move { filled.wait().await })).collect();
        tokio::task::yield_now().await; // all of them wait now
        let events = stream::iter([Ok(Event::Init), Ok(Event::InitDone)]);
        events.reflect(writer).inspect(|event| filled.note(event)).for_each(async |_| ()).await;
        for waiter in waiters {
            waiter.await.unwrap();
        }
        controller.await.unwrap().unwrap();
    }
}
