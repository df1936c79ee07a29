//! `lectern-ingest`: the ingest shard's process.

use anyhow::Context;
use clap::Parser;
use lectern_cloud::Objects;
use lectern_contract::ShardName;
use lectern_ingest_pod::{args::Args, feed, metrics::Metrics, original, relay, report, routes, rtmp, rtsp, shard::Shard, stream::Limits};
use lectern_podkit::{Tasks, health, shutdown, telemetry};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    let stop = shutdown::on_signal();
    let client = kube::Client::try_default().await.context("no Kubernetes API is configured")?;

    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let readiness = health::Readiness::default();
    let (table, seen) = watch::channel(Default::default());
    let shard = Shard::new(ShardName(args.pod.pod_name.clone()), seen, Limits::default(), metrics);

    let publishers = listen(args.rtmp_listen).await?;
    let readers = listen(args.feed_listen).await?;
    let relayed = listen(args.relay_listen).await?;
    let originals = match args.bucket() {
        Some(bucket) => Some(Objects::connect(&bucket).await),
        None => None,
    };
    let (owners, pod) = (args.owners(), args.pod);
    let collect = {
        let shard = shard.clone();
        move || report::collect(&shard)
    };
    let ready = {
        let readiness = readiness.clone();
        move || readiness.ready()
    };

    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health", health::serve(args.health_listen, readiness, registry, stop.clone()));
    tasks.spawn("routes", routes::follow(client, pod.pod_namespace.clone(), pod.pool.clone(), table, ready, stop.clone()));
    tasks.spawn("runs", shard.clone().follow_routes(stop.clone()));
    tasks.spawn("rtmp", rtmp::serve(publishers, args.max_connections, shard.clone(), owners, stop.clone()));
    tasks.spawn("relay", relay::serve(relayed, shard.clone(), stop.clone()));
    tasks.spawn("rtsp", rtsp::run(shard.clone(), stop.clone()));
    tasks.spawn("original", original::run(shard.clone(), originals, stop.clone()));
    tasks.spawn("feed", feed::serve(readers, shard.clone(), stop.clone()));
    tasks.spawn("reports", lectern_podkit::report::run(pod, collect, shard.changed(), stop));
    tasks.join().await
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
