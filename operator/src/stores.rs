//! Waiting for a reflector's store, by more than one task.

use kube::Resource;
use kube::runtime::reflector::{Lookup, Store, store::WriterDropped};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::timeout;

/// How often a waiter looks again.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `store` has been filled for the first time.
///
/// kube's `Store::wait_until_ready` keeps the waker of its last waiter only: of two tasks that wait, one sleeps on for
/// ever (kube-runtime 5.0, `utils/delayed_init.rs`). So every waiter of ours looks again by itself.
///
/// # Errors
/// The store's writer is gone, so it never will be filled.
pub async fn ready<K>(store: &Store<K>) -> Result<(), WriterDropped>
where
    K: Resource + Lookup + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    loop {
        if let Ok(ready) = timeout(LOOK, store.wait_until_ready()).await {
            return ready;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{reflector, watcher::Event};

    #[tokio::test(start_paused = true)]
    async fn every_waiter_learns_that_the_store_is_filled() {
        let (store, mut writer) = reflector::store::<ConfigMap>();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let store = store.clone();
                    async move { ready(&store).await }
                })
            })
            .collect();
        tokio::task::yield_now().await; // all of them wait now
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        for waiter in waiters {
            waiter.await.unwrap().unwrap();
        }
    }
}
