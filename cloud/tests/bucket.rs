//! What Lectern keeps of a bucket of its own, on every S3 that it is tested with.
#![allow(clippy::unwrap_used)]

mod by_hand;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, CorsConfiguration, CorsRule, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
};
use bytes::Bytes;
use lectern_cloud::testing::Backend;
use lectern_cloud::{BucketSetting, Objects, Precondition, Upkeep};

lectern_cloud::on_every_server! {
    what_somebody_changes_of_a_bucket_is_set_again,
    rules_of_others_are_kept,
    objects_are_written_and_read_as_before,
}

const BUCKET: &str = "lectures";

/// What was written; whatever was not must have been as it should be, or unknown to the server.
async fn written(objects: &Objects, days: Option<i32>) -> Vec<BucketSetting> {
    let found = objects.ensure_settings(days).await;
    assert!(found.iter().all(|(_, upkeep)| [Upkeep::Kept, Upkeep::Written, Upkeep::Unknown].contains(upkeep)), "{found:?}");
    found.into_iter().filter(|(_, upkeep)| *upkeep == Upkeep::Written).map(|(setting, _)| setting).collect()
}

async fn what_somebody_changes_of_a_bucket_is_set_again(backend: Backend) {
    let (objects, by_hand) = (backend.objects(BUCKET).await.unwrap(), by_hand::s3(&backend).await);
    let first = written(&objects, Some(30)).await;
    assert!(first.ends_with(&[BucketSetting::Cors, BucketSetting::Lifecycle]), "{first:?}");
    // MiniStack's buckets are encrypted from the start, as AWS's are; SeaweedFS knows nothing of public access.
    assert!(first.contains(&BucketSetting::Encryption) != first.contains(&BucketSetting::PublicAccessBlock), "{first:?}");
    assert_eq!(written(&objects, Some(30)).await, [], "all is as it should be");

    by_hand.delete_bucket_cors().bucket(BUCKET).send().await.unwrap();
    assert_eq!(written(&objects, Some(30)).await, [BucketSetting::Cors]);
    by_hand.delete_bucket_lifecycle().bucket(BUCKET).send().await.unwrap();
    assert_eq!(written(&objects, Some(30)).await, [BucketSetting::Lifecycle]);
    by_hand.delete_bucket_encryption().bucket(BUCKET).send().await.unwrap();
    let _ = by_hand.delete_public_access_block().bucket(BUCKET).send().await; // SeaweedFS does not know it
    assert_eq!(written(&objects, Some(30)).await, first[..1]);

    backend.delete_bucket(BUCKET).await.unwrap();
    assert!(objects.ensure_bucket(true).await.unwrap() && !objects.ensure_bucket(true).await.unwrap(), "made, and made once");
    assert_eq!(written(&objects, None).await, first, "a bucket that was deleted has nothing of what it had");
}

async fn rules_of_others_are_kept(backend: Backend) {
    let (objects, by_hand) = (backend.objects(BUCKET).await.unwrap(), by_hand::s3(&backend).await);
    let their_cors = CorsRule::builder().id("theirs").allowed_origins("https://school.example").allowed_methods("PUT").build().unwrap();
    let cors = CorsConfiguration::builder().cors_rules(their_cors.clone()).build().unwrap();
    by_hand.put_bucket_cors().bucket(BUCKET).cors_configuration(cors).send().await.unwrap();
    let their_rule = LifecycleRule::builder()
        .id("theirs")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("logs/").build())
        .expiration(LifecycleExpiration::builder().days(3).build())
        .build()
        .unwrap();
    let lifecycle = BucketLifecycleConfiguration::builder().rules(their_rule).build().unwrap();
    by_hand.put_bucket_lifecycle_configuration().bucket(BUCKET).lifecycle_configuration(lifecycle).send().await.unwrap();

    let rules = async || by_hand.get_bucket_lifecycle_configuration().bucket(BUCKET).send().await.unwrap().rules.unwrap();
    let days =
        async |id: &str| rules().await.iter().find(|rule| rule.id() == Some(id)).map(|rule| rule.expiration().and_then(|e| e.days()));
    written(&objects, Some(30)).await;
    assert_eq!((days("theirs").await, days("lectern-retention").await), (Some(Some(3)), Some(Some(30))));
    assert_eq!(written(&objects, None).await, [BucketSetting::Lifecycle], "objects are to stay from now on");
    assert_eq!((days("theirs").await, days("lectern-retention").await), (Some(Some(3)), None));
    assert_eq!(rules().await.len(), 2, "ours for unfinished uploads stays");
    let cors = by_hand.get_bucket_cors().bucket(BUCKET).send().await.unwrap().cors_rules.unwrap();
    assert_eq!((cors.len(), cors[0].allowed_origins(), cors[1].id()), (2, their_cors.allowed_origins(), Some("lectern")));
    assert_eq!(cors[1].expose_headers(), ["Date", "ETag", "Content-Length", "Content-Range"]);
}

/// A default encryption must change nothing for who reads and writes, versions and their preconditions least of all.
async fn objects_are_written_and_read_as_before(backend: Backend) {
    let objects = backend.objects(BUCKET).await.unwrap();
    written(&objects, None).await;
    let first = objects.put_if("head.json", Bytes::from_static(b"one"), Precondition::Absent).await.unwrap();
    assert_eq!(objects.get("head.json").await.unwrap().unwrap().etag, first);
    let second = objects.put_if("head.json", Bytes::from_static(b"two"), Precondition::Matches(first.clone())).await.unwrap();
    objects.put_if("head.json", Bytes::from_static(b"three"), Precondition::Matches(first)).await.unwrap_err();
    let there = objects.get("head.json").await.unwrap().unwrap();
    assert_eq!((there.body.as_ref(), there.etag), (b"two".as_ref(), second));
}
