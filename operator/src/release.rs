//! `lectern-operator release`: lets go of all LiveStreams where no operator is left, so that nobody waits for one.

use crate::OPERATORS;
use crate::apply::{is_not_found, remove_finalizer};
use crate::stream::FINALIZER;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use lectern_crds::{LiveStream, StreamPool};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long they have to end: half a minute of grace, and as much for a busy node.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);
/// LiveStreams that are listed at once.
const PAGE: u32 = 500;
/// Patches that are under way at once.
const AT_ONCE: usize = 16;

/// Why LiveStreams may still be held.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The API server.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// They would take hold of the LiveStreams again.
    #[error("operators still run, and would hold the LiveStreams again: {0}")]
    Operators(String),
}

/// What is left in the cluster.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    /// How many LiveStreams each namespace has.
    streams: BTreeMap<String, usize>,
    /// Those that had been deleted and were waiting for the operator: gone now.
    going: Vec<String>,
    /// Name, bucket and queue of each pool.
    pools: Vec<[String; 3]>,
}

/// Waits until no operator runs in `namespace`, takes the finalizer off every LiveStream, and prints what stays.
///
/// # Errors
/// The API server's, and an operator that does not end. Calling it again goes on.
pub async fn run(client: Client, namespace: &str) -> Result<(), ReleaseError> {
    operators_end(Api::namespaced(client.clone(), namespace)).await?;
    let left = Left { pools: pools(client.clone()).await?, ..let_go(client).await? };
    println!("{}", left.words(namespace));
    Ok(())
}

async fn operators_end(pods: Api<Pod>) -> Result<(), ReleaseError> {
    let until = Instant::now() + PATIENCE;
    loop {
        // Pods that are going count: a leader that is told to stop finishes what it is at.
        let left = pods.list_metadata(&ListParams::default().labels(OPERATORS)).await?;
        let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
        match names.as_slice() {
            [] => return Ok(()),
            names if Instant::now() >= until => return Err(ReleaseError::Operators(names.join(", "))),
            _ => sleep(LOOK).await,
        }
    }
}

async fn let_go(client: Client) -> Result<Left, ReleaseError> {
    let mut left = Left::default();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        // Metadata alone: a LiveStream that this version cannot read is let go like any other.
        let found = match Api::<PartialObjectMeta<LiveStream>>::all(client.clone()).list(&page).await {
            Err(error) if is_not_found(&error) => return Ok(left), // nor are there CustomResourceDefinitions
            found => found?,
        };
        let patched = futures::stream::iter(&found.items).map(|stream| {
            let api = Api::namespaced(client.clone(), &stream.namespace().unwrap_or_default());
            async move { remove_finalizer(&api, stream, FINALIZER).await }
        });
        patched.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        for stream in &found.items {
            left.count(stream);
        }
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(left),
        }
    }
}

async fn pools(client: Client) -> Result<Vec<[String; 3]>, ReleaseError> {
    match Api::<StreamPool>::all(client).list(&ListParams::default()).await {
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        found => Ok(found?.into_iter().map(|pool| [pool.name_any(), pool.spec.bucket.name, pool.spec.queue.name]).collect()),
    }
}

impl Left {
    fn count(&mut self, stream: &PartialObjectMeta<LiveStream>) {
        let namespace = stream.namespace().unwrap_or_default();
        match stream.metadata.deletion_timestamp {
            Some(_) => self.going.push(format!("{namespace}/{}", stream.name_any())),
            None => *self.streams.entry(namespace).or_default() += 1,
        }
    }

    /// For people, in the order of how soon they will ask.
    fn words(&self, namespace: &str) -> String {
        let mut words = String::new();
        let mut say = |line: String| writeln!(words, "{line}").unwrap_or_default(); // a String takes whatever is written
        let each: Vec<_> = self.streams.iter().map(|(namespace, count)| format!("{count} in {namespace}")).collect();
        say(match each.as_slice() {
            [] => "no LiveStream is left".to_owned(),
            each => format!(
                "LiveStreams stay, and nothing holds them: {}. Until an operator is there again, deleting one deletes no recording.",
                each.join(", ")
            ),
        });
        if !self.going.is_empty() {
            say(format!("LiveStreams that were being deleted are gone; what they recorded is not looked after: {}", self.going.join(", ")));
        }
        for [pool, bucket, queue] in &self.pools {
            say(format!(
                "StreamPool {pool} stays, with its pods in namespace {namespace} and the lectures that they carry: kubectl delete streampool {pool} \
                 ends them. Its bucket {bucket} and its queue {queue} stay even then."
            ));
        }
        words.push_str(
            "CustomResourceDefinitions, EncodingLadders, the pods' ServiceAccounts, the gateway's keys and namespace, and the Secrets lectern-ca \
             and *-tls stay, too (charts/lectern/README.md)",
        );
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stream(namespace: &str, name: &str, deleted: Option<&str>) -> PartialObjectMeta<LiveStream> {
        let metadata = json!({ "namespace": namespace, "name": name, "deletionTimestamp": deleted });
        serde_json::from_value(json!({ "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream", "metadata": metadata })).unwrap()
    }

    #[test]
    fn what_stays_is_said() {
        let mut left = Left { pools: vec![["default".into(), "recordings".into(), "jobs".into()]], ..Left::default() };
        for found in
            [stream("b", "1", None), stream("a", "1", None), stream("b", "2", None), stream("b", "3", Some("2027-01-15T08:00:00Z"))]
        {
            left.count(&found);
        }
        let words = left.words("lectern");
        for part in [
            "nothing holds them: 1 in a, 2 in b.",
            "not looked after: b/3",
            "its bucket recordings",
            "its queue jobs",
            "in namespace lectern",
        ] {
            assert!(words.to_lowercase().contains(part), "no {part:?} in {words}");
        }
    }

    #[test]
    fn of_nothing_nothing_is_said() {
        let words = Left::default().words("lectern");
        assert!(words.starts_with("no LiveStream is left\nCustomResourceDefinitions"), "{words}");
    }
}
