//! `lectern-origin`: the binary of an origin pod.

use anyhow::Context;
use clap::Parser;
use lectern_cloud::Objects;
use lectern_contract::report::Role;
use lectern_origin_pod::{args::Args, http, https, metrics::Metrics, pages::Pages, runs::Runs, store::Store, viewing::Viewing};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::report::{self, Collect};
use lectern_podkit::{Tasks, shutdown, telemetry};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

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
    let (plain, tls) = (listen(args.http_listen.0).await?, listen(args.https_listen).await?);
    let (http, https) = (args.http_listen.0, args.https_listen);
    tracing::info!(pod = args.pod.pod_name, ?http, ?https, bucket = %args.bucket_at(), "serving");
    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
    let Some(peers) = stop.run_until_cancelled(args.peer_tls.when_there(&args.pod.pool, &readiness)).await else {
        return tasks.join().await;
    };
    let says: Collect = Arc::new(|_| Role::Origin);
    tasks.spawn("reports", report::run(args.pod, peers.clone(), says, Arc::default(), None, stop.clone()));
    let runs = Runs::new(store, pushed, peers, metrics.clone());
    tasks.spawn("sweep", runs.clone().sweep(stop.clone()));
    let (viewing, reading) = Viewing::follow(args.viewing_keys_dir, stop.clone()).await;
    tasks.spawn("viewing keys", reading);
    let router = http::router(runs, pages, viewing, metrics);
    // One that serves HTTPS alone is ready once it has a certificate to show.
    let waits = plain.is_none().then(|| readiness.clone());
    match plain {
        Some(listener) => {
            readiness.ready();
            tasks.spawn("http", http::serve(listener, router.clone(), stop.clone()));
        }
        None => readiness.not_ready("HTTP is off, and HTTPS not served yet"),
    }
    if let (Some(listener), Some(folder)) = (tls, args.https_tls_dir) {
        tasks.spawn("https", https::serve(listener, folder, router, waits, stop));
    }
    tasks.join().await
}

async fn listen(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).with_context(|| format!("listening on {address}"))
}
