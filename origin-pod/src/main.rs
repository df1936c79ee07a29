//! `lectern-origin`: the binary of an origin pod.

use anyhow::Context;
use clap::Parser;
use lectern_cloud::Objects;
use lectern_origin_pod::{args::Args, http, metrics::Metrics, pages::Pages, runs::Runs, store::Store};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::{Tasks, shutdown, telemetry};
use prometheus_client::registry::Registry;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    let stop = shutdown::on_signal();
    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let readiness = Readiness::default();

    let objects = Objects::connect(&args.bucket_at()).await;
    let (pushed, fetched) = args.memory();
    let store = Store::new(objects, fetched, metrics.clone());
    let pages = Pages::load(&args.player_dir);
    let listener = tokio::net::TcpListener::bind(args.http_listen).await.with_context(|| format!("listening on {}", args.http_listen))?;
    tracing::info!(pod = args.pod.pod_name, address = %args.http_listen, bucket = %args.bucket_at(), "serving");
    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
    let Some(peers) = stop.run_until_cancelled(args.peer_tls.when_there(&args.pod.pool, &readiness)).await else {
        return tasks.join().await;
    };
    let runs = Runs::new(store, pushed, peers, metrics.clone());
    readiness.ready();
    tasks.spawn("sweep", runs.clone().sweep(stop.clone()));
    tasks.spawn("http", http::serve(listener, http::router(runs, pages, metrics), stop));
    tasks.join().await
}
