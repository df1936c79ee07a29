//! Whether the pod of a silent shard is down.

use crate::context::Error;
use crate::pool::observe::is_ready;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer holds: all streams of a shard ask when it falls silent.
const HOLDS: Duration = Duration::from_secs(1);

/// What the API server said last of the pods that were asked for.
#[derive(Debug, Default)]
pub struct ShardPods(Mutex<HashMap<String, (Instant, bool)>>);

impl ShardPods {
    /// Whether the pod `name` is not there, or not ready.
    pub async fn is_down(&self, name: &str, client: Client, namespace: &str) -> Result<bool, Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if let Some((_, down)) = known.filter(|(at, _)| at.elapsed() < HOLDS) {
            return Ok(down);
        }
        let down = is_down(Api::namespaced(client, namespace).get_opt(name).await?.as_ref());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), (Instant::now(), down));
        Ok(down)
    }
}

/// A node that vanishes takes 40 s to show here: its pods are Ready until the API server's controllers give it up.
fn is_down(pod: Option<&Pod>) -> bool {
    !pod.is_some_and(is_ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_down_when_it_is_not_there_or_not_ready() {
        let pod = |ready: &str| {
            serde_json::from_value::<Pod>(json!({ "status": { "conditions": [{ "type": "Ready", "status": ready }] } })).unwrap()
        };
        assert!(is_down(None));
        assert!(is_down(Some(&Pod::default())));
        assert!(is_down(Some(&pod("False"))));
        assert!(is_down(Some(&pod("Unknown"))));
        assert!(!is_down(Some(&pod("True"))));
    }
}
