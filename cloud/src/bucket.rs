//! The bucket itself: that it is there, and that it tells the Lambda.

mod settings;
mod wanted;

pub use settings::{BucketSetting, Upkeep};

use crate::Pending;
use crate::failure::{FailureKind, StorageError, status_of};
use crate::objects::Objects;
use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Event, FilterRule, FilterRuleName, LambdaFunctionConfiguration,
    NotificationConfiguration, NotificationConfigurationFilter, S3KeyFilter,
};

/// AWS wants no location constraint in its first region.
const FIRST_REGION: &str = "us-east-1";
/// Our notifications, by id, and the end of the keys that they are for.
const NOTIFICATIONS: [(&str, &str); 2] = [("lectern-ended", "ended.json"), ("lectern-ledger", ".ledger.json")];

impl Objects {
    /// Makes sure that the bucket is there, creating it if `create` says so. Safe to repeat and to race. True where it was made.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`] where the bucket is missing and may not be created.
    pub fn ensure_bucket(&self, create: bool) -> Pending<'_, Result<bool, StorageError>> {
        Box::pin(async move {
            match self.client.head_bucket().bucket(&self.at.name).send().await {
                Ok(_) => return Ok(false),
                Err(error) if create && status_of(&error) == Some(404) => {}
                Err(error) => return Err(StorageError::of(format!("look for {}", self.at), error)),
            }
            let place = (self.at.region != FIRST_REGION).then(|| {
                let constraint = BucketLocationConstraint::from(self.at.region.as_str());
                CreateBucketConfiguration::builder().location_constraint(constraint).build()
            });
            match self.client.create_bucket().bucket(&self.at.name).set_create_bucket_configuration(place).send().await {
                Ok(_) => {
                    tracing::info!(bucket = %self.at, "made the bucket");
                    Ok(true)
                }
                Err(error) if error.as_service_error().is_some_and(|said| said.is_bucket_already_owned_by_you()) => Ok(false),
                Err(error) => Err(StorageError::of(format!("creation of {}", self.at), error)),
            }
        })
    }

    /// Makes the bucket call the Lambda `function_arn` for every `ended.json` and `*.ledger.json` that is written.
    /// Notifications of others are kept; nothing is written where all is as it should be. True where it wrote.
    ///
    /// # Errors
    /// AWS refuses (as [`FailureKind::Other`]) where the function does not allow S3 to call it; `manifest-lambda/deploy`
    /// grants that.
    pub fn ensure_notification<'a>(&'a self, function_arn: &'a str) -> Pending<'a, Result<bool, StorageError>> {
        Box::pin(async move {
            let what = || format!("notifications of {}", self.at);
            let now = self
                .client
                .get_bucket_notification_configuration()
                .bucket(&self.at.name)
                .send()
                .await
                .map_err(|error| StorageError::of(what(), error))?;
            let ours = NOTIFICATIONS
                .iter()
                .map(|(id, suffix)| notification(id, suffix, function_arn))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| StorageError::new(FailureKind::Other, what(), error))?;
            let there = now.lambda_function_configurations();
            if ours.iter().all(|wanted| there.iter().any(|one| same(one, wanted))) {
                return Ok(false);
            }
            let others = there.iter().filter(|one| !NOTIFICATIONS.iter().any(|(id, _)| one.id() == Some(id))).cloned();
            let wanted = NotificationConfiguration::builder()
                .set_lambda_function_configurations(Some(others.chain(ours).collect()))
                .set_queue_configurations(now.queue_configurations.clone())
                .set_topic_configurations(now.topic_configurations.clone())
                .set_event_bridge_configuration(now.event_bridge_configuration.clone())
                .build();
            self.client
                .put_bucket_notification_configuration()
                .bucket(&self.at.name)
                .notification_configuration(wanted)
                .send()
                .await
                .map_err(|error| StorageError::of(what(), error))?;
            tracing::info!(bucket = %self.at, function_arn, "set the bucket's notifications");
            Ok(true)
        })
    }
}

fn notification(id: &str, suffix: &str, function_arn: &str) -> Result<LambdaFunctionConfiguration, BuildError> {
    let rule = FilterRule::builder().name(FilterRuleName::Suffix).value(suffix).build();
    let filter = NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(rule).build()).build();
    LambdaFunctionConfiguration::builder()
        .id(id)
        .lambda_function_arn(function_arn)
        .events(Event::from("s3:ObjectCreated:*"))
        .filter(filter)
        .build()
}

/// Whether two notifications do the same. A server may write the filter's name in other letters (AWS: `Suffix`).
fn same(one: &LambdaFunctionConfiguration, other: &LambdaFunctionConfiguration) -> bool {
    let essence = |of: &LambdaFunctionConfiguration| {
        let rules = of.filter().and_then(|filter| filter.key()).map(S3KeyFilter::filter_rules).unwrap_or_default();
        let rules: Vec<_> =
            rules.iter().map(|rule| (rule.name().map(|name| name.as_str().to_lowercase()), rule.value().map(str::to_owned))).collect();
        (of.id().map(str::to_owned), of.lambda_function_arn().to_owned(), of.events().to_vec(), rules)
    };
    essence(one) == essence(other)
}
