//! The objects that the operator makes of a pool, whole, as a reader of a change sees them.
//!
//! `UPDATE_GOLDEN=1 cargo test -p lectern-operator --profile lectern --test golden` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use lectern_crds::StreamPool;
use lectern_operator::pool::plan::{Place, Planned, plan};
use serde::Serialize;
use std::path::PathBuf;
use std::{env, fs};

fn planned() -> Planned {
    let pool: StreamPool = serde_yaml::from_str(include_str!("golden/pool.yaml")).unwrap();
    plan(&pool, &Place { namespace: "lectern".into(), operator_url: "http://lectern-operator.lectern.svc:7100".into() })
}

fn matches(name: &str, object: &impl Serialize) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let now = serde_yaml::to_string(object).unwrap();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, now, "{name} has changed; UPDATE_GOLDEN=1 takes the change over");
}

#[test]
fn shards_are_planned_as_written_down() {
    matches("ingest.yaml", &planned().ingest);
    matches("ingest-budget.yaml", &planned().ingest_budget);
    matches("cameras.yaml", &planned().cameras);
}

#[test]
fn services_are_planned_as_written_down() {
    matches("services.yaml", &planned().services);
}

#[test]
fn origins_are_planned_as_written_down() {
    matches("origin.yaml", &planned().origin);
}

#[test]
fn transcoders_are_planned_as_written_down() {
    matches("transcoder.yaml", &planned().transcoder("abcde"));
}

#[test]
fn a_change_of_the_image_changes_the_transcoders_hash_and_another_pools_size_does_not() {
    let pool: StreamPool = serde_yaml::from_str(include_str!("golden/pool.yaml")).unwrap();
    let place = Place { namespace: "lectern".into(), operator_url: "http://lectern-operator.lectern.svc:7100".into() };
    let (mut newer, mut larger) = (pool.clone(), pool.clone());
    newer.spec.images.transcoder = "lectern/transcoder:2".into();
    larger.spec.transcoder.pods = 9;
    let hash = plan(&pool, &place).transcoder_hash;
    assert_ne!(plan(&newer, &place).transcoder_hash, hash);
    assert_eq!(plan(&larger, &place).transcoder_hash, hash);
}
