//! A camera's user name and password, carried from the Secret that the stream names to its pool's Secret of cameras.
//!
//! Shards may read one Secret and no other. It has two writers that never touch each other's fields: the pool's controller
//! applies its name, labels and owner, and each stream's reconcile merges one entry of `data`, under its run's name. A merge
//! of one entry leaves the others alone, so streams need not know of each other. An entry has some 150 bytes and a Secret
//! room for 1 MiB: several thousand cameras a pool.

use super::observe::Seen;
use super::validate::{Refusal, RefusalReason};
use super::{REFRESH, status_of};
use crate::MANAGER;
use crate::apply;
use crate::context::{Context, Error};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use lectern_crds::{LiveStream, cameras_secret};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long credentials that were carried over count as up to date.
const REMEMBERED: Duration = Duration::from_secs(50);
/// No camera has longer ones, and no entry may crowd the others out.
const MAX_LENGTH: usize = 512;

/// When each run's credentials were carried over last, and from which Secret.
#[derive(Debug, Default)]
pub struct CameraBook(Mutex<HashMap<String, (String, Instant)>>);

impl CameraBook {
    fn is_fresh(&self, run: &str, secret: &str) -> bool {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.get(run).is_some_and(|(from, at)| from == secret && at.elapsed() < REMEMBERED)
    }

    fn note(&self, run: &str, secret: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(run.to_owned(), (secret.to_owned(), Instant::now()));
    }

    fn forget(&self, run: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }
}

/// Carries the credentials over and returns the name of their entry; `None` where the camera is open, or the run has no name
/// yet: that is written to the status first, and the route waits for both.
pub async fn ensure(stream: &LiveStream, seen: &Seen, ctx: &Context) -> Result<Result<Option<String>, Refusal>, Error> {
    let status = status_of(stream);
    let held = status.ingest.and_then(|ingest| ingest.camera_credentials);
    if seen.ending {
        // Nobody pulls any more, so that nobody may be held up by a Secret; the entry goes when the stream has ended.
        return Ok(Ok(held));
    }
    let Some(secret) = stream.spec.source.rtsp.as_ref().and_then(|rtsp| rtsp.secret_ref.as_ref()) else {
        if let Some(entry) = held {
            remove(&entry, &stream.spec.pool_name, ctx).await?;
        }
        return Ok(Ok(None));
    };
    if let Some(run) = held.filter(|run| ctx.cameras.is_fresh(run, &secret.name)) {
        return Ok(Ok(Some(run)));
    }
    let namespace = stream.namespace().unwrap_or_default();
    let found = Api::<Secret>::namespaced(ctx.client(), &namespace).get_opt(&secret.name).await?;
    let entry = match entry(found.as_ref()) {
        Ok(entry) => entry,
        Err(why) => return Ok(Err(refusal(&secret.name, &namespace, &why))),
    };
    let Some(run) = status.run_id else { return Ok(Ok(None)) };
    put(&run, json!(ByteString(entry.to_string().into_bytes())), &stream.spec.pool_name, ctx).await?;
    ctx.cameras.note(&run, &secret.name);
    Ok(Ok(Some(run)))
}

/// Takes an entry back; one that is not there is no error.
pub async fn remove(entry: &str, pool: &str, ctx: &Context) -> Result<(), Error> {
    ctx.cameras.forget(entry);
    match put(entry, Value::Null, pool, ctx).await {
        Err(Error::Kube(error)) if apply::is_not_found(&error) => Ok(()),
        done => done,
    }
}

/// How soon to look at the camera's Secret again.
pub fn next_look(stream: &LiveStream) -> Option<Duration> {
    stream.spec.source.rtsp.as_ref()?.secret_ref.as_ref().map(|_| REFRESH)
}

/// Merges one entry into the pool's Secret.
async fn put(entry: &str, value: Value, pool: &str, ctx: &Context) -> Result<(), Error> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "data": { entry: value } }));
    Api::<Secret>::namespaced(ctx.client(), &ctx.namespace).patch(&cameras_secret(pool), &params, &patch).await?;
    Ok(())
}

/// Why a Secret holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unusable {
    Absent,
    Missing(&'static str),
    Bad(&'static str),
}

/// What the shard is to read: `{"username": …, "password": …}`.
fn entry(secret: Option<&Secret>) -> Result<Value, Unusable> {
    let data = secret.ok_or(Unusable::Absent)?.data.as_ref();
    let text = |name: &'static str| {
        let bytes = data.and_then(|data| data.get(name)).ok_or(Unusable::Missing(name))?;
        let text = std::str::from_utf8(&bytes.0).map_err(|_| Unusable::Bad(name))?;
        if text.len() > MAX_LENGTH || text.chars().any(char::is_control) { Err(Unusable::Bad(name)) } else { Ok(text.to_owned()) }
    };
    Ok(json!({ "username": text("username")?, "password": text("password")? }))
}

fn refusal(secret: &str, namespace: &str, why: &Unusable) -> Refusal {
    let fix = "or take spec.source.rtsp.secretRef out if the camera is open; the stream waits for it";
    let message = match why {
        Unusable::Absent => format!(
            "there is no Secret {secret:?} in namespace {namespace:?}; create it with the camera's `username` and `password`, {fix}"
        ),
        Unusable::Missing(name) => format!("the Secret {secret:?} has no `{name}`; add it, {fix}"),
        Unusable::Bad(name) => format!(
            "`{name}` in the Secret {secret:?} is not text of one line and at most {MAX_LENGTH} bytes (a line break at its end is a \
             usual mistake: write it with `printf` instead of `echo`, or in stringData); correct it, {fix}"
        ),
    };
    Refusal { reason: RefusalReason::BadCameraSecret, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let data = entries.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn user_name_and_password_are_carried_as_they_are() {
        let found = secret(&[("username", "viewer"), ("password", "p\"ä s/@:"), ("note", "room 7")]);
        assert_eq!(entry(Some(&found)), Ok(json!({ "username": "viewer", "password": "p\"ä s/@:" })));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_fix() {
        let said = |found: Option<&Secret>| refusal("cam", "school", &entry(found).unwrap_err()).message;
        assert!(said(None).contains(r#"no Secret "cam" in namespace "school"; create it"#));
        assert!(said(Some(&secret(&[("username", "viewer")]))).contains("has no `password`; add it"));
        let echoed = secret(&[("username", "viewer"), ("password", "secret\n")]);
        assert!(said(Some(&echoed)).starts_with("`password` in the Secret"), "{}", said(Some(&echoed)));
        assert!(!said(Some(&echoed)).contains("secret\n"), "the password is not shown");
    }
}
