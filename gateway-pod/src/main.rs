//! The gateway's binary.

use clap::Parser;
use lectern_gateway_pod::api::{self, Gateway};
use lectern_gateway_pod::args::Args;
use lectern_gateway_pod::metrics::Metrics;
use lectern_gateway_pod::streams::Streams;
use lectern_gateway_pod::{https, keys};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::{Tasks, shutdown, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    https::install_crypto();
    let stop = shutdown::on_signal();
    let client = kube::Client::try_default().await?;
    let readiness = Readiness::default();
    let (metrics, registry) = Metrics::registered();
    let (keys, keeping) = keys::keep(args.keys_dir, stop.clone());
    let gateway = Gateway::new(Streams::new(client, &args.stream_namespace, &args.operator_namespace), keys, metrics);

    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
    tasks.spawn("keys", keeping);
    tasks.spawn("https", https::serve(args.listen, args.tls_dir, api::router(gateway), readiness, stop));
    tasks.join().await
}
