//! What a person does with a console: the SDK's own clients on a server that a test has started.
#![allow(dead_code)] // each test file uses some of it

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use lectern_cloud::testing::{Backend, REGION};

pub async fn s3(backend: &Backend) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(&settings(backend).await).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config)
}

pub async fn sqs(backend: &Backend) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&settings(backend).await)
}

async fn settings(backend: &Backend) -> SdkConfig {
    let keys = backend.keys();
    let config = aws_config::from_env().region(Region::new(REGION)).endpoint_url(backend.endpoint());
    config.credentials_provider(Credentials::new(keys.id, keys.secret, None, None, "test")).load().await
}
