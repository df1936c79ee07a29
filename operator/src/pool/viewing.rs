//! The keys that sign links to a pool's signed lectures: a Secret with two entries, which its origins mount.
//!
//! A new key is made when the pool's annotation `lectern.video/rotate-viewing-key` gets another value. The value stands in the Secret, in the same
//! write as the key, so that no crash makes a second one; what is there in the pool needs no right to write to pools.

use super::plan::{ORIGIN, Place, meta};
use crate::MANAGER;
use crate::apply;
use crate::context::{Context, Error};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use lectern_contract::viewing::{CURRENT, PREVIOUS, ViewingKey};
use lectern_crds::{ROTATE_VIEWING_KEY, StreamPool, viewing_secret};
use serde_json::json;

/// What becomes of the Secret.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Leave,
    Create(Box<Secret>),
    /// Merged into the version that was looked at.
    Change(serde_json::Value),
}

/// Makes the pool's keys where there are none, and another where one is asked for.
pub async fn ensure(pool: &StreamPool, place: &Place, ctx: &Context) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client(), &place.namespace);
    let name = viewing_secret(&pool.name_any());
    let held = secrets.get_opt(&name).await?;
    match next(pool, place, held.as_ref(), rand::random()) {
        Step::Leave => return Ok(()),
        Step::Create(secret) => {
            secrets.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }, &secret).await?;
        }
        Step::Change(patch) => {
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            match secrets.patch(&name, &params, &Patch::Merge(patch)).await {
                // Somebody else has written since; the next look decides anew.
                Err(error) if apply::is_conflict(&error) => return Ok(()),
                written => drop(written?),
            }
        }
    }
    tracing::info!(secret = name, "made a viewing key");
    Ok(())
}

/// Pure; `fresh` is the key that is made if one is needed.
fn next(pool: &StreamPool, place: &Place, held: Option<&Secret>, fresh: [u8; 32]) -> Step {
    let asked = pool.annotations().get(ROTATE_VIEWING_KEY);
    let fresh = ByteString(fresh.to_vec());
    let Some(held) = held else {
        let mut metadata = meta(pool, place, ORIGIN, viewing_secret(&pool.name_any()));
        metadata.annotations = asked.map(|asked| [(ROTATE_VIEWING_KEY.to_owned(), asked.clone())].into());
        return Step::Create(Box::new(Secret { metadata, data: Some([(CURRENT.to_owned(), fresh)].into()), ..Secret::default() }));
    };
    let current = held.data.as_ref().and_then(|data| data.get(CURRENT)).filter(|bytes| ViewingKey::try_from(bytes.0.as_slice()).is_ok());
    let metadata = json!({ "resourceVersion": held.resource_version(), "annotations": { ROTATE_VIEWING_KEY: asked } });
    match current {
        // An annotation that is taken away asks for nothing.
        Some(_) if asked.is_none() || held.annotations().get(ROTATE_VIEWING_KEY) == asked => Step::Leave,
        Some(current) => Step::Change(json!({ "metadata": metadata, "data": { CURRENT: fresh, PREVIOUS: current } })),
        // What was there signs nothing; the one before it, if it is one, goes on.
        None => Step::Change(json!({ "metadata": metadata, "data": { CURRENT: fresh } })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pool(asked: Option<&str>) -> StreamPool {
        let spec = json!({
            "images": {"ingest": "i", "transcoder": "t", "origin": "o"},
            "ingest": {"shards": 1, "publicUrl": "rtmp://ingest.example/live"},
            "transcoder": {"pods": 1, "slots": 1},
            "origin": {"replicas": 1, "publicUrl": "https://lectures.example"},
            "queue": {"name": "q", "region": "us-east-1"}, "bucket": {"name": "b", "region": "us-east-1"},
        });
        let mut pool = StreamPool::new("default", serde_json::from_value(spec).unwrap());
        pool.annotations_mut().extend(asked.map(|value| (ROTATE_VIEWING_KEY.to_owned(), value.to_owned())));
        pool
    }

    fn next_of(asked: Option<&str>, held: Option<&Secret>, fill: u8) -> Step {
        next(&pool(asked), &Place { namespace: "lectern".into(), operator_url: String::new(), keys: None }, held, [fill; 32])
    }

    fn created(asked: Option<&str>) -> Secret {
        let Step::Create(secret) = next_of(asked, None, 1) else { panic!("there was none") };
        *secret
    }

    /// What the API server makes of a merge.
    fn merged(held: &Secret, patch: &Value) -> Secret {
        fn merge(into: &mut Value, patch: &Value) {
            match patch {
                Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                    Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
                    value => merge(into.as_object_mut().unwrap().entry(name).or_insert_with(|| json!({})), value),
                }),
                other => *into = other.clone(),
            }
        }
        let mut object = serde_json::to_value(held).unwrap();
        merge(&mut object, patch);
        serde_json::from_value(object).unwrap()
    }

    fn keys(secret: &Secret) -> [Option<u8>; 2] {
        let fill = |entry: &str| secret.data.as_ref().unwrap().get(entry).map(|bytes| (bytes.0.len() == 32).then_some(bytes.0[0]).unwrap());
        [fill(CURRENT), fill(PREVIOUS)]
    }

    fn changed(asked: Option<&str>, held: &Secret, fill: u8) -> Secret {
        match next_of(asked, Some(held), fill) {
            Step::Change(patch) => merged(held, &patch),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_pool_has_one_key_also_where_the_annotation_is_there_already() {
        for asked in [None, Some("monday")] {
            let secret = created(asked);
            assert_eq!((secret.name_any().as_str(), keys(&secret)), ("lectern-viewing-default", [Some(1), None]));
            assert_eq!(next_of(asked, Some(&secret), 2), Step::Leave);
        }
    }

    #[test]
    fn each_new_value_of_the_annotation_makes_one_key_and_keeps_the_one_before() {
        let first = created(None);
        let second = changed(Some("monday"), &first, 2);
        assert_eq!(keys(&second), [Some(2), Some(1)]);
        assert_eq!(next_of(Some("monday"), Some(&second), 3), Step::Leave, "also after a crash");
        assert_eq!(next_of(None, Some(&second), 3), Step::Leave);
        assert_eq!(keys(&changed(Some("tuesday"), &second, 3)), [Some(3), Some(2)]);
    }

    #[test]
    fn a_key_that_is_none_is_made_anew() {
        let mut secret = changed(Some("monday"), &created(None), 2);
        secret.data.as_mut().unwrap().insert(CURRENT.to_owned(), ByteString(b"by hand\n".to_vec()));
        assert_eq!(keys(&changed(Some("monday"), &secret, 3)), [Some(3), Some(1)]);
        secret.data = None;
        assert_eq!(keys(&changed(None, &secret, 4)), [Some(4), None]);
    }

    #[test]
    fn a_change_is_refused_where_somebody_has_written_since() {
        let mut secret = created(None);
        secret.metadata.resource_version = Some("7".into());
        let Step::Change(patch) = next_of(Some("now"), Some(&secret), 2) else { panic!("it was asked for") };
        assert_eq!(patch["metadata"]["resourceVersion"], json!("7"));
    }
}
