//! The IAM policies in `docs/iam/` are what Lectern needs, no more and no less: every function of this crate is called and what it asks of S3
//! and SQS written down, and every component's sources are read for the functions that it calls.
#![allow(clippy::unwrap_used)]

mod by_hand;
mod sources;

use bytes::Bytes;
use lectern_cloud::testing::{Backend, Calls};
use lectern_cloud::{Objects, Precondition, Queue};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each policy and the sources that it is for.
const COMPONENTS: [(&str, &str); 5] = [
    ("operator", "operator/src"),
    ("ingest", "ingest-pod/src"),
    ("transcoder", "transcoder-pod/src"),
    ("origin", "origin-pod/src"),
    ("manifest-lambda", "manifest-lambda/src"),
];

/// What AWS wants to have allowed for an operation, and of what ("Service Authorization Reference": actions of Amazon S3 and of Amazon SQS).
const ACTIONS: &[(&str, &[(&str, Of)])] = &[
    ("S3.HeadBucket", &[("s3:ListBucket", Of::Bucket)]),
    ("S3.CreateBucket", &[("s3:CreateBucket", Of::Bucket)]),
    ("S3.GetBucketEncryption", &[("s3:GetEncryptionConfiguration", Of::Bucket)]),
    ("S3.PutBucketEncryption", &[("s3:PutEncryptionConfiguration", Of::Bucket)]),
    ("S3.GetPublicAccessBlock", &[("s3:GetBucketPublicAccessBlock", Of::Bucket)]),
    ("S3.PutPublicAccessBlock", &[("s3:PutBucketPublicAccessBlock", Of::Bucket)]),
    ("S3.GetBucketCors", &[("s3:GetBucketCORS", Of::Bucket)]),
    ("S3.PutBucketCors", &[("s3:PutBucketCORS", Of::Bucket)]),
    ("S3.GetBucketLifecycleConfiguration", &[("s3:GetLifecycleConfiguration", Of::Bucket)]),
    ("S3.PutBucketLifecycleConfiguration", &[("s3:PutLifecycleConfiguration", Of::Bucket)]),
    ("S3.GetBucketNotificationConfiguration", &[("s3:GetBucketNotification", Of::Bucket)]),
    ("S3.PutBucketNotificationConfiguration", &[("s3:PutBucketNotification", Of::Bucket)]),
    ("S3.ListObjectsV2", &[("s3:ListBucket", Of::Bucket)]),
    // Who may not list is told 403 of an object that is not there, and not 404 (S3 API reference, GetObject).
    ("S3.GetObject", &[("s3:GetObject", Of::Objects), ("s3:ListBucket", Of::Bucket)]),
    ("S3.PutObject", &[("s3:PutObject", Of::Objects)]),
    ("S3.DeleteObjects", &[("s3:DeleteObject", Of::Objects)]),
    ("SQS.GetQueueUrl", &[("sqs:GetQueueUrl", Of::Queue)]),
    ("SQS.GetQueueAttributes", &[("sqs:GetQueueAttributes", Of::Queue)]),
    ("SQS.SetQueueAttributes", &[("sqs:SetQueueAttributes", Of::Queue)]),
    ("SQS.CreateQueue", &[("sqs:CreateQueue", Of::Queue)]),
    ("SQS.SendMessage", &[("sqs:SendMessage", Of::Queue)]),
    ("SQS.ReceiveMessage", &[("sqs:ReceiveMessage", Of::Queue)]),
    ("SQS.ChangeMessageVisibility", &[("sqs:ChangeMessageVisibility", Of::Queue)]),
    ("SQS.DeleteMessage", &[("sqs:DeleteMessage", Of::Queue)]),
];

#[derive(Clone, Copy)]
enum Of {
    Bucket,
    Objects,
    /// Which one, the caller's variable says.
    Queue,
}

/// The names that policies have for what they are about.
const BUCKET: &str = "arn:aws:s3:::BUCKET";
const OBJECTS: &str = "arn:aws:s3:::BUCKET/*";
const QUEUE: &str = "arn:aws:sqs:REGION:ACCOUNT:QUEUE";
const DEAD: &str = "arn:aws:sqs:REGION:ACCOUNT:QUEUE-dead";
const ARCHIVE: &str = "arn:aws:sqs:REGION:ACCOUNT:QUEUE-archive";
const ARCHIVE_DEAD: &str = "arn:aws:sqs:REGION:ACCOUNT:QUEUE-archive-dead";

/// An action and what it is done to.
type Grants = BTreeSet<(String, String)>;

#[tokio::test]
async fn each_policy_allows_what_its_component_asks_for_and_nothing_else() {
    let asked = operations_of_every_function().await;
    for (component, folder) in COMPONENTS {
        let calls = sources::calls(&root().join(folder), &asked.keys().copied().collect());
        assert!(!calls.is_empty(), "{component} calls nothing");
        let needed: Grants = calls.iter().flat_map(|(on, function)| grants(on, function, &asked)).collect();
        let allowed = policy(component);
        let (missing, idle): (Vec<_>, Vec<_>) = (needed.difference(&allowed).collect(), allowed.difference(&needed).collect());
        assert!(
            missing.is_empty() && idle.is_empty(),
            "docs/iam/{component}.json lacks {missing:?} and allows {idle:?} for nothing: {calls:?}"
        );
    }
}

#[test]
fn a_call_is_found_in_a_chain_and_not_in_a_test() {
    let source = "use lectern_cloud::Objects;\nfn f(objects: &Objects) {\n    self.objects\n        .put(key)\n        .await;\n    // objects.list()\n    map.get(1);\n}\n#[cfg(test)]\nmod tests {\n    fn g() { objects.list() }\n}\n";
    assert_eq!(sources::calls_in(source, &["put", "list", "get"].into()), [("objects".to_owned(), "put".to_owned())].into());
    let renamed = source.replace("objects: &", "store: &");
    assert!(std::panic::catch_unwind(|| sources::calls_in(&renamed, &["put"].into())).is_err(), "a handle by another name was taken");
}

#[test]
fn whoever_speaks_to_aws_has_a_policy_and_the_docs_name_it() {
    let docs = fs::read_to_string(root().join("docs/aws.md")).unwrap();
    for (component, _) in COMPONENTS {
        assert!(docs.contains(&format!("(iam/{component}.json)")), "docs/aws.md does not link to {component}'s policy");
    }
    let depends = |folder: &Path| fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("lectern-cloud.workspace"));
    let crates = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).filter(|folder| depends(folder));
    let mut speaking: Vec<_> = crates.map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned()).collect();
    speaking.sort();
    assert_eq!(speaking, ["e2e", "ingest-pod", "manifest-lambda", "operator", "origin-pod", "transcoder-pod"]);
}

#[tokio::test]
async fn no_function_of_this_crate_is_missing_here() {
    let here: BTreeSet<_> = operations_of_every_function().await.into_keys().map(str::to_owned).collect();
    assert_eq!(sources::pending_functions(&root().join("cloud/src")), here);
}

/// What each function asks, of real servers, on every way through it: missing, there, changed, lost.
async fn operations_of_every_function() -> BTreeMap<&'static str, BTreeSet<String>> {
    let ministack = Backend::ministack().await.unwrap();
    let mut asked = objects(&ministack).await;
    asked.extend(queue(&ministack).await);
    // MiniStack's buckets are encrypted from the start, SeaweedFS's are not; nor does it know what a public access block is.
    let settings = settings(&Backend::seaweedfs().await.unwrap()).await;
    asked.entry("ensure_settings").or_default().extend(settings);
    asked
}

async fn settings(backend: &Backend) -> BTreeSet<String> {
    let calls = Calls::default();
    backend.objects("lectures").await.unwrap().watched_by(&calls).ensure_settings(Some(30)).await;
    calls.take()
}

async fn objects(backend: &Backend) -> BTreeMap<&'static str, BTreeSet<String>> {
    let calls = Calls::default();
    let objects = Objects::connect_with(&backend.bucket_at("lectures"), &backend.keys()).await.watched_by(&calls);
    let mut asked = BTreeMap::new();
    assert!(objects.ensure_bucket(true).await.unwrap());
    asked.insert("ensure_bucket", calls.take());
    asked.insert("ensure_settings", settings(backend).await);
    objects.ensure_notification("arn:aws:lambda:us-east-1:000000000000:function:f").await.unwrap();
    asked.insert("ensure_notification", calls.take());
    objects.put("run/a", Bytes::from_static(b"a")).await.unwrap();
    asked.insert("put", calls.take());
    let first = objects.put_if("run/b", Bytes::from_static(b"b"), Precondition::Absent).await.unwrap();
    objects.put_if("run/b", Bytes::from_static(b"c"), Precondition::Matches(first)).await.unwrap();
    // After an answer that was lost it also reads what it may have written, which no server here can be made to need.
    asked.insert("put_if", calls.take().into_iter().chain(["S3.GetObject".to_owned()]).collect());
    objects.put_new("run/c", Bytes::from_static(b"c"), Some("a note")).await.unwrap();
    asked.insert("put_new", calls.take().into_iter().chain(["S3.GetObject".to_owned()]).collect());
    objects.get("run/a").await.unwrap().unwrap();
    assert_eq!(objects.get("run/nothing").await.unwrap(), None);
    asked.insert("get", calls.take());
    objects.probe("run/a").await.unwrap();
    asked.insert("probe", calls.take());
    assert_eq!(objects.list("run/").await.unwrap().len(), 3);
    asked.insert("list", calls.take());
    assert_eq!(objects.delete_prefix("run/").await.unwrap(), 3);
    asked.insert("delete_prefix", calls.take());
    asked
}

async fn queue(backend: &Backend) -> BTreeMap<&'static str, BTreeSet<String>> {
    const HELD: Duration = Duration::from_secs(60);
    const WAIT: Duration = Duration::from_secs(1);
    let calls = Calls::default();
    // A new one each time: the first question of each is where the queue is.
    let fresh = async || Queue::connect_with(&backend.queue_at("jobs"), &backend.keys()).await.watched_by(&calls);
    let mut asked = BTreeMap::new();
    // A queue without anywhere for its dead letters: one is to be made and the other to be repaired.
    by_hand::sqs(backend).await.create_queue().queue_name("jobs").send().await.unwrap();
    fresh().await.ensure(true).await.unwrap();
    asked.insert("ensure", calls.take());
    fresh().await.depth().await.unwrap();
    asked.insert("depth", calls.take());
    fresh().await.send("work").await.unwrap();
    asked.insert("send", calls.take());
    fresh().await.send_after("work", Duration::ZERO).await.unwrap();
    asked.insert("send_after", calls.take());
    let delivery = fresh().await.receive(HELD).await.unwrap().unwrap();
    calls.take();
    // Nobody waits for this one, and it is given back.
    let unwanted = tokio::time::timeout(Duration::ZERO, fresh().await.receive_within(HELD, WAIT)).await;
    assert!(unwanted.is_err(), "it had no time to come");
    let given_back = async {
        while !calls.seen().contains("SQS.ChangeMessageVisibility") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HELD, given_back).await.unwrap();
    let received = calls.take();
    asked.insert("receive", received.clone());
    asked.insert("receive_within", received);
    fresh().await.extend(&delivery.receipt, HELD).await.unwrap();
    asked.insert("extend", calls.take());
    fresh().await.delete(&delivery.receipt).await.unwrap();
    asked.insert("delete", calls.take());
    let no_job = fresh().await.receive(HELD).await.unwrap().unwrap();
    calls.take();
    fresh().await.bury(&no_job, "it is no job").await.unwrap();
    asked.insert("bury", calls.take());
    assert_eq!(asked["bury"], &asked["send"] | &asked["delete"], "as `grants` has it");
    asked
}

/// What must be allowed for a call of `function` on the variable `on`.
fn grants(on: &str, function: &str, asked: &BTreeMap<&str, BTreeSet<String>>) -> Vec<(String, String)> {
    // Of two queues not the same is asked: the message is sent to the one, and deleted in the other.
    if function == "bury" {
        return [grants("dead", "send", asked), grants(on, "delete", asked)].concat();
    }
    let queues: &[&str] = match (on, function) {
        ("queue", "ensure") => &[QUEUE, DEAD],
        ("queue", _) => &[QUEUE],
        ("archive", "ensure") => &[ARCHIVE, ARCHIVE_DEAD],
        ("archive", _) => &[ARCHIVE],
        // Of either, as the caller is asked.
        ("dead", _) => &[DEAD, ARCHIVE_DEAD],
        _ => &[],
    };
    let actions = asked[function].iter().flat_map(|operation| {
        let known = ACTIONS.iter().find(|(name, _)| name == operation);
        known.unwrap_or_else(|| panic!("nobody has said what {operation} needs")).1
    });
    let places = |of: Of| match of {
        Of::Bucket => vec![BUCKET],
        Of::Objects => vec![OBJECTS],
        Of::Queue => queues.to_vec(),
    };
    actions.flat_map(|&(action, of)| places(of).into_iter().map(move |place| (action.to_owned(), place.to_owned()))).collect()
}

/// What the component's policy allows.
fn policy(component: &str) -> Grants {
    let text = fs::read_to_string(root().join(format!("docs/iam/{component}.json"))).unwrap();
    let policy: Value = serde_json::from_str(&text).unwrap();
    let list = |value: &Value| match value {
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
        one => vec![one.as_str().unwrap().to_owned()],
    };
    let statements = policy["Statement"].as_array().unwrap();
    assert!(statements.iter().all(|statement| statement["Effect"] == "Allow"), "{text}");
    let pairs = |statement: &Value| {
        let places = list(&statement["Resource"]);
        let both = |action: &String| places.iter().map(|place| (action.clone(), place.clone())).collect::<Vec<_>>();
        list(&statement["Action"]).iter().flat_map(both).collect::<Vec<_>>()
    };
    let all: Vec<_> = statements.iter().flat_map(pairs).collect();
    let once: Grants = all.iter().cloned().collect();
    assert_eq!(all.len(), once.len(), "docs/iam/{component}.json says something twice");
    once
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
