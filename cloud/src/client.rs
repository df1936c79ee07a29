//! One HTTP client and the SDK's settings, shared by every bucket and queue of the process.

use crate::place::Keys;
use aws_config::{BehaviorVersion, Region, SdkConfig, timeout::TimeoutConfig};
use aws_sdk_s3::config::{Credentials, SharedHttpClient, retry::RetryConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use std::sync::LazyLock;
use std::time::Duration;

/// Servers drop idle connections after some 20 s; a request on a connection that is being closed would fail.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// The SDK starts at 1 s, which is half a segment.
const FIRST_BACKOFF: Duration = Duration::from_millis(75);
const LONGEST_BACKOFF: Duration = Duration::from_millis(600);
const CONNECT: Duration = Duration::from_secs(1);

static HTTP: LazyLock<SharedHttpClient> = LazyLock::new(|| {
    aws_smithy_http_client::Builder::new().pool_idle_timeout(POOL_IDLE).tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
});

/// The SDK's settings for one server. Reads the environment and nothing else: credentials are looked up when the first
/// request needs them.
pub(crate) async fn settings(region: &str, endpoint: Option<&str>, keys: Option<&Keys>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(HTTP.clone())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::standard().with_max_attempts(3).with_initial_backoff(FIRST_BACKOFF).with_max_backoff(LONGEST_BACKOFF));
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(keys) = keys {
        loader = loader.credentials_provider(Credentials::new(&keys.id, &keys.secret, None, None, "given"));
    }
    loader.load().await
}

/// Timeouts for one attempt and for all attempts together; the SDK sets none of them.
pub(crate) fn timeouts(attempt: Duration, operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(attempt).operation_timeout(operation).build()
}
