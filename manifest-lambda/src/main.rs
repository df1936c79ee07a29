//! `lectern-manifest`: the `bootstrap` of the Lambda (runtime `provided.al2023`).

use lambda_runtime::{Error, LambdaEvent, service_fn};
use lectern_manifest_lambda::{event, handler};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_env("LECTERN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).without_time().init(); // CloudWatch adds the time
    let handler = handler::Handler::from_env();
    let answer = async |invocation: LambdaEvent<serde_json::Value>| {
        let ready = event::changed_runs(&invocation.payload)?;
        handler.handle(ready).await.map_err(Error::from)
    };
    lambda_runtime::run(service_fn(answer)).await
}
