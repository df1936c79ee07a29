//! How a bucket of the operator's own is to be set, beside what others have set in it.

use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, CorsConfiguration, CorsRule, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};
use std::collections::BTreeSet;

/// The id of our CORS rule.
const CORS: &str = "lectern";
/// The ids of our lifecycle rules.
const UPLOADS: &str = "lectern-uploads";
const RETENTION: &str = "lectern-retention";

/// What a player in a browser reads beside the body: the time that DASH goes by, the version, and how much there is.
const EXPOSED: [&str; 4] = ["Date", "ETag", "Content-Length", "Content-Range"];
/// For how long a browser need not ask again, in seconds.
const ASK_AGAIN: i32 = 3600;
/// Uploads in parts that nobody finished. Lectern makes none; what fails of somebody's copying into the bucket costs as if it were stored.
const UNFINISHED_DAYS: i32 = 1;

/// Whether new objects are encrypted, by whatever key.
pub(super) fn is_encrypted(now: &ServerSideEncryptionConfiguration) -> bool {
    now.rules().iter().any(|rule| rule.apply_server_side_encryption_by_default().is_some())
}

/// With keys of S3's own.
pub(super) fn encryption() -> Result<ServerSideEncryptionConfiguration, BuildError> {
    let by_default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256).build()?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(by_default).build();
    ServerSideEncryptionConfiguration::builder().rules(rule).build()
}

/// Whether the bucket can be opened to nobody at large.
pub(super) fn is_private(now: &PublicAccessBlockConfiguration) -> bool {
    [now.block_public_acls(), now.ignore_public_acls(), now.block_public_policy(), now.restrict_public_buckets()] == [Some(true); 4]
}

/// All four blocks.
pub(super) fn private() -> PublicAccessBlockConfiguration {
    let all = PublicAccessBlockConfiguration::builder().block_public_acls(true).ignore_public_acls(true);
    all.block_public_policy(true).restrict_public_buckets(true).build()
}

/// What is to be written so that pages of any origin may read; `None` where nothing is. The first rule that matches a request counts, so
/// that a rule of somebody else's stands before ours.
pub(super) fn cors(now: &[CorsRule]) -> Result<Option<CorsConfiguration>, BuildError> {
    let ours = CorsRule::builder()
        .id(CORS)
        .allowed_origins("*")
        .set_allowed_methods(Some(vec!["GET".into(), "HEAD".into()]))
        .allowed_headers("*")
        .set_expose_headers(Some(EXPOSED.map(str::to_owned).into()))
        .max_age_seconds(ASK_AGAIN)
        .build()?;
    // A server that does not keep ids must not get one more of them each time.
    let (same, others): (Vec<_>, Vec<_>) = now.iter().partition(|rule| essence(rule) == essence(&ours));
    if same.len() == 1 && others.iter().all(|rule| rule.id() != Some(CORS)) {
        return Ok(None);
    }
    let others = others.into_iter().filter(|rule| rule.id() != Some(CORS)).cloned();
    CorsConfiguration::builder().set_cors_rules(Some(others.chain([ours]).collect())).build().map(Some)
}

type CorsEssence = ([BTreeSet<String>; 4], Option<i32>);

/// What a CORS rule does; servers keep its lists in an order of their own.
fn essence(rule: &CorsRule) -> CorsEssence {
    let set = |of: &[String]| of.iter().map(|word| word.to_lowercase()).collect();
    let lists = [rule.allowed_origins(), rule.allowed_methods(), rule.allowed_headers(), rule.expose_headers()];
    (lists.map(set), rule.max_age_seconds())
}

/// The rules to be written, others' first; `None` where nothing is. Without `retention_days` no rule of ours deletes objects.
pub(super) fn lifecycle(now: &[LifecycleRule], retention_days: Option<i32>) -> Result<Option<Vec<LifecycleRule>>, BuildError> {
    let rule = |id| {
        let everything = LifecycleRuleFilter::builder().prefix("").build();
        LifecycleRule::builder().id(id).status(ExpirationStatus::Enabled).filter(everything)
    };
    let unfinished = AbortIncompleteMultipartUpload::builder().days_after_initiation(UNFINISHED_DAYS).build();
    let mut ours = vec![rule(UPLOADS).abort_incomplete_multipart_upload(unfinished).build()?];
    if let Some(days) = retention_days {
        ours.push(rule(RETENTION).expiration(LifecycleExpiration::builder().days(days).build()).build()?);
    }
    let is_ours = |rule: &LifecycleRule| [UPLOADS, RETENTION].map(Some).contains(&rule.id());
    let there = now.iter().filter(|rule| is_ours(rule));
    let ours_by_deed: BTreeSet<_> = ours.iter().map(deed).collect();
    if there.clone().count() == ours.len() && there.map(deed).collect::<BTreeSet<_>>() == ours_by_deed {
        return Ok(None);
    }
    Ok(Some(now.iter().filter(|rule| !is_ours(rule)).cloned().chain(ours).collect()))
}

/// What a rule does in a whole bucket: its id, the days of objects, and of uploads; `None` where it does anything else.
#[expect(deprecated, reason = "a server may tell of a rule as it was written before there were filters")]
fn deed(rule: &LifecycleRule) -> Option<(Option<&str>, Option<i32>, Option<i32>)> {
    let is_everything = match rule.filter() {
        None => rule.prefix().is_none_or(str::is_empty),
        Some(filter) => *filter == LifecycleRuleFilter::builder().set_prefix(filter.prefix.clone().filter(String::is_empty)).build(),
    };
    let is_more = !rule.transitions().is_empty()
        || !rule.noncurrent_version_transitions().is_empty()
        || rule.noncurrent_version_expiration().is_some();
    let of_objects = rule.expiration().and_then(LifecycleExpiration::days);
    let of_uploads = rule.abort_incomplete_multipart_upload().and_then(AbortIncompleteMultipartUpload::days_after_initiation);
    (rule.status() == &ExpirationStatus::Enabled && is_everything && !is_more).then(|| (rule.id(), of_objects, of_uploads))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theirs() -> LifecycleRule {
        let filter = LifecycleRuleFilter::builder().prefix("logs/").build();
        LifecycleRule::builder().id("theirs").status(ExpirationStatus::Disabled).filter(filter).build().unwrap()
    }

    fn ids(rules: &[LifecycleRule]) -> Vec<&str> {
        rules.iter().map(|rule| rule.id().unwrap()).collect()
    }

    #[test]
    fn our_lifecycle_rules_stand_beside_those_of_others_and_go_when_they_are_not_wanted() {
        let made = lifecycle(&[theirs()], Some(30)).unwrap().unwrap();
        assert_eq!(ids(&made), ["theirs", UPLOADS, RETENTION]);
        assert_eq!((&made[0], made[2].expiration().unwrap().days()), (&theirs(), Some(30)));
        assert_eq!(lifecycle(&made, Some(30)).unwrap(), None, "nothing to write");
        assert_eq!(lifecycle(&made, Some(31)).unwrap().unwrap()[2].expiration().unwrap().days(), Some(31));
        let without = lifecycle(&made, None).unwrap().unwrap();
        assert_eq!(ids(&without), ["theirs", UPLOADS]);
        assert_eq!(lifecycle(&without, None).unwrap(), None);
    }

    #[test]
    fn a_lifecycle_rule_of_ours_that_was_changed_is_set_again() {
        let made = lifecycle(&[], Some(30)).unwrap().unwrap();
        let changed = |change: fn(&mut LifecycleRule)| {
            let mut rules = made.clone();
            change(&mut rules[1]);
            lifecycle(&rules, Some(30)).unwrap()
        };
        assert_eq!(changed(|rule| rule.status = ExpirationStatus::Disabled).as_ref(), Some(&made));
        assert_eq!(changed(|rule| rule.filter = Some(LifecycleRuleFilter::builder().prefix("a").build())).as_ref(), Some(&made));
        assert_eq!(changed(|rule| rule.filter = Some(LifecycleRuleFilter::builder().build())), None, "that is everything, too");
        assert_eq!(changed(|rule| rule.filter = None), None, "and so is that");
    }

    #[test]
    fn a_cors_rule_of_others_stands_before_ours() {
        let theirs = CorsRule::builder().allowed_origins("https://school.example").allowed_methods("GET").build().unwrap();
        let made = cors(std::slice::from_ref(&theirs)).unwrap().unwrap();
        assert_eq!((made.cors_rules().len(), &made.cors_rules()[0]), (2, &theirs));
        assert_eq!(cors(made.cors_rules()).unwrap(), None, "nothing to write");
        let mut renamed = made.cors_rules().to_vec();
        renamed[1].id = None;
        renamed[1].expose_headers.as_mut().unwrap().reverse();
        assert_eq!(cors(&renamed).unwrap(), None, "a server that keeps neither ids nor order has it all the same");
        renamed[1].allowed_origins = vec!["https://school.example".into()];
        renamed[1].id = Some(CORS.into());
        assert_eq!(cors(&renamed).unwrap().as_ref(), Some(&made), "ours was changed");
    }

    #[test]
    fn a_key_of_ones_own_is_left_and_half_a_block_is_not() {
        let by_default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms).build().unwrap();
        let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(by_default).build();
        assert!(is_encrypted(&ServerSideEncryptionConfiguration::builder().rules(rule).build().unwrap()));
        assert!(is_encrypted(&encryption().unwrap()) && is_private(&private()));
        assert!(!is_private(&PublicAccessBlockConfiguration::builder().block_public_acls(true).build()));
    }
}
