//! Writing to the cluster: server-side apply under one field manager, and the two patches that apply cannot say.

use crate::MANAGER;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// How everything is applied: as `lectern-operator`, taking fields back from whoever changed them, unknown fields refused.
pub fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force().validation_strict()
}

/// What was applied last, so that what is so already need not be applied again: an apply that changes nothing costs the API server nearly as much
/// as one that does, and pools are looked at every few seconds.
#[derive(Debug, Default)]
pub struct Applied(Mutex<HashMap<At, Stamp>>);

/// Kind and name.
type At = (String, String);

/// What was applied, as a hash, and the version that this made.
type Stamp = (u64, Option<String>);

impl Applied {
    /// [`object`], unless the same was applied before and nobody has written to the object since.
    pub async fn object<K>(&self, api: &Api<K>, object: &K) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let (at, hash) = hashed(object)?;
        if let Some(version) = self.version(&at, hash)
            && api.get_metadata_opt(&at.1).await?.is_some_and(|now| now.resource_version() == Some(version))
        {
            return Ok(());
        }
        self.write(api, object, at, hash).await
    }

    /// [`Self::object`] of one that was made of what `seen` says: a conflict, and nothing is written, where somebody has written to it since that was read
    /// (see [`is_conflict`]).
    pub async fn object_made_of<K>(&self, api: &Api<K>, object: &K, seen: Option<&K>) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let (at, hash) = hashed(object)?;
        let version = seen.and_then(ResourceExt::resource_version);
        if version.is_some() && self.version(&at, hash) == version {
            return Ok(());
        }
        let mut object = object.clone();
        object.meta_mut().resource_version = version;
        self.write(api, &object, at, hash).await
    }

    /// The version that applying the same has made, if it was the last that was applied.
    fn version(&self, at: &At, hash: u64) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(at).filter(|(before, _)| *before == hash).and_then(|(_, version)| version.clone())
    }

    async fn write<K>(&self, api: &Api<K>, object: &K, at: At, hash: u64) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let version = self::object(api, object).await?.resource_version();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(at, (hash, version));
        Ok(())
    }
}

fn hashed<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<(At, u64), kube::Error> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(object).map_err(kube::Error::SerdeError)?.hash(&mut hasher);
    Ok(((K::kind(&()).into_owned(), object.name_any()), hasher.finish()))
}

/// Applies `object`, which holds the fields that the operator owns and no others.
pub async fn object<K>(api: &Api<K>, object: &K) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    api.patch(&object.name_any(), &params(), &Patch::Apply(object)).await
}

/// Applies `status` to `seen`, provided that nobody has written to the object since it was read: a conflict otherwise
/// (see [`is_conflict`]), so that a decision made on an old copy is never written down.
pub async fn status<K, S>(api: &Api<K>, seen: &K, status: &S) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Serialize,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": seen.name_any(), "resourceVersion": seen.resource_version() },
        "status": status,
    });
    api.patch_status(&seen.name_any(), &params(), &Patch::Apply(patch)).await
}

/// Adds `finalizer` to `seen`, unless the object has changed since it was read.
///
/// A JSON patch and not an apply: a finalizer list that was restored from a backup has other owners, and an apply could
/// then never take our entry off.
pub async fn add_finalizer<K>(api: &Api<K>, seen: &K, finalizer: &str) -> Result<K, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let add = match seen.finalizers() {
        [] => json!({ "op": "add", "path": "/metadata/finalizers", "value": [finalizer] }),
        _ => json!({ "op": "add", "path": "/metadata/finalizers/-", "value": finalizer }),
    };
    let unchanged = json!({ "op": "test", "path": "/metadata/resourceVersion", "value": seen.resource_version() });
    match api.patch(&seen.name_any(), &PatchParams::default(), &json_patch(json!([unchanged, add]))?).await {
        // How a test that fails is answered (RFC 5789 §2.2): somebody has written since.
        Err(kube::Error::Api(mut status)) if status.code == 422 => {
            status.code = 409;
            Err(kube::Error::Api(status))
        }
        other => other,
    }
}

/// Takes `finalizer` off `seen`; nothing to do where it is not there.
pub async fn remove_finalizer<K>(api: &Api<K>, seen: &K, finalizer: &str) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let Some(at) = seen.finalizers().iter().position(|name| name == finalizer) else { return Ok(()) };
    let path = format!("/metadata/finalizers/{at}");
    let steps = json!([{ "op": "test", "path": path, "value": finalizer }, { "op": "remove", "path": path }]);
    match api.patch(&seen.name_any(), &PatchParams::default(), &json_patch(steps)?).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes the annotation `name` off `seen`, unless its value is another by now; nothing to do where it is not there.
pub async fn remove_annotation<K>(api: &Api<K>, seen: &K, name: &str) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let Some(value) = seen.annotations().get(name) else { return Ok(()) };
    let path = format!("/metadata/annotations/{}", name.replace('~', "~0").replace('/', "~1")); // RFC 6901 §3
    let steps = json!([{ "op": "test", "path": path, "value": value }, { "op": "remove", "path": path }]);
    match api.patch(&seen.name_any(), &PatchParams::default(), &json_patch(steps)?).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_unprocessable(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes `name`, provided that it is still the object `uid`; one that is already gone is no error.
pub async fn delete<K>(api: &Api<K>, name: &str, uid: Option<String>) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params =
        DeleteParams { preconditions: uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None }), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The object was written by somebody else since it was read, or made by somebody else meanwhile.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// A patch does not fit the object as it is.
fn is_unprocessable(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

/// There is no such object.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn json_patch(steps: serde_json::Value) -> Result<Patch<()>, kube::Error> {
    serde_json::from_value(steps).map(Patch::Json).map_err(kube::Error::SerdeError)
}
