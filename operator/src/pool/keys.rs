//! The Secret with a pool's AWS keys. Pods read their environment when they start, so that a change of it has to replace them; a school that changes its keys at AWS has both
//! pairs for a while (IAM User Guide, "Update access keys").

use crate::context::{Context, Error};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lectern_crds::StreamPool;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What tells one version of the Secret's entries from another, and no more; `None` where the pool names none, or it is not there.
pub async fn version(pool: &StreamPool, ctx: &Context) -> Result<Option<String>, Error> {
    let Some(name) = &pool.spec.credentials_secret else { return Ok(None) };
    let secret = Api::<Secret>::namespaced(ctx.client(), &ctx.namespace).get_opt(name).await?;
    Ok(secret.map(|secret| version_of(&secret.data.unwrap_or_default())))
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
    fn other_entries_are_another_version() {
        let versions = [of(&[]), of(&[("id", "a"), ("key", "b")]), of(&[("id", "ak"), ("ey", "b")]), of(&[("id", "a"), ("key", "c")])];
        for (at, version) in versions.iter().enumerate() {
            assert!(version.len() == 16 && !versions[..at].contains(version), "{versions:?}");
        }
        assert_eq!(of(&[("id", "a"), ("key", "b")]), versions[1]);
    }
}
