//! A run of which somebody is made the owner.

use lectern_cloud::Objects;
use lectern_contract::job::LiveJob;
use lectern_podkit::tls::PeerTls;
use lectern_transcoder_pod::head::{Claim, Ownership};

/// The ownership of the job's run, for `owner`. Nobody answers at its address, so that whoever comes next finds it dead.
pub async fn claim(objects: &Objects, job: &LiveJob, owner: &str) -> Ownership {
    match try_to_claim(objects, job, owner, "127.0.0.1:1").await {
        Claim::Owned { ownership, .. } => *ownership,
        other => panic!("{other:?}"),
    }
}

/// How a claim of the job's run goes, for `owner` at `address`.
pub async fn try_to_claim(objects: &Objects, job: &LiveJob, owner: &str, address: &str) -> Claim<()> {
    let (list, get_ready) = (async || Ok(()), async |(), _| Ok(()));
    Ownership::claim(objects, &PeerTls::plain(), job, (&owner.into(), address), list, get_ready).await.unwrap()
}

/// A job with this ladder, in segments of 2 s.
pub fn job(ladder: &serde_json::Value) -> LiveJob {
    let fields = serde_json::json!({
        "stream": { "namespace": "school", "name": "algebra" }, "title": "", "run": "r1", "attempt": 1, "anchor": 0, "feed": "",
        "ladder": ladder, "segmentDuration": 2000, "prefix": "0a/school/algebra/r1", "idleAfterMs": 1,
    });
    serde_json::from_value(fields).unwrap()
}
