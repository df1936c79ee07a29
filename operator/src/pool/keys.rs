//! The Secret with a pool's AWS keys. Pods read their environment when they start, so that a change of it has to replace them; a school that changes its keys at AWS has both
//! pairs for a while (IAM User Guide, "Update access keys").

use super::plan::ingest_name;
use crate::context::{Context, Error};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use lectern_crds::StreamPool;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The variable of a pod's environment that says which version its keys are. Nobody reads it: a pod whose keys are another version is another pod.
pub const VARIABLE: &str = "LECTERN_KEYS_VERSION";

/// What tells one version of the Secret's entries from another, and no more; `None` where the pool names none. While it is not there pods keep what they have: others
/// would have no keys at all.
pub async fn version(pool: &StreamPool, ctx: &Context) -> Result<Option<String>, Error> {
    let Some(name) = &pool.spec.credentials_secret else { return Ok(None) };
    if let Some(secret) = Api::<Secret>::namespaced(ctx.client(), &ctx.namespace).get_opt(name).await? {
        return Ok(Some(version_of(&secret.data.unwrap_or_default())));
    }
    let shards = Api::<StatefulSet>::namespaced(ctx.client(), &ctx.namespace).get_opt(&ingest_name(&pool.name_any())).await?;
    Ok(shards.as_ref().and_then(held))
}

/// The version that a pool's shards have.
fn held(shards: &StatefulSet) -> Option<String> {
    let containers = &shards.spec.as_ref()?.template.spec.as_ref()?.containers;
    let mut variables = containers.iter().flat_map(|container| container.env.iter().flatten());
    variables.find(|variable| variable.name == VARIABLE)?.value.clone()
}

fn version_of(entries: &BTreeMap<String, ByteString>) -> String {
    let mut hash = Sha256::new();
    for bytes in entries.iter().flat_map(|(name, value)| [name.as_bytes(), value.0.as_slice()]) {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(&str, &str)]) -> String {
        version_of(&entries.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.as_bytes().to_vec()))).collect())
    }

    #[test]
    fn shards_say_which_version_they_have() {
        let of = |env: serde_json::Value| {
            let template = serde_json::json!({ "spec": { "containers": [{ "name": "ingest", "env": env }] } });
            let spec = serde_json::json!({ "selector": {}, "serviceName": "ingest", "template": template });
            held(&serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap())
        };
        assert_eq!(of(serde_json::json!([{ "name": "A", "value": "b" }, { "name": VARIABLE, "value": "0123" }])), Some("0123".to_owned()));
        assert_eq!(of(serde_json::json!([])), None);
    }

    #[test]
    fn other_entries_are_another_version() {
        let versions = [of(&[]), of(&[("id", "a"), ("key", "b")]), of(&[("id", "ak"), ("ey", "b")]), of(&[("id", "a"), ("key", "c")])];
        for (at, version) in versions.iter().enumerate() {
            assert!(version.len() == 16 && !versions[..at].contains(version), "{versions:?}");
        }
        assert_eq!(of(&[("id", "a"), ("key", "b")]), versions[1]);
    }
}
