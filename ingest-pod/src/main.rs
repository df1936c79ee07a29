//! `lectern-ingest`: the ingest shard's process.

use anyhow::Context;
use clap::Parser;
use lectern_cloud::Objects;
use lectern_contract::{RunId, ShardName};
use lectern_ingest_pod::net::{self, Listening, Open};
use lectern_ingest_pod::{
    args::Args, drain, feed, gate::Gate, memory::Memory, metrics::Metrics, original, relay, routes, rtmp, rtsp, shard::Shard,
};
use lectern_podkit::{CancellationToken, Tasks, health, shutdown, telemetry};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    let (asked, stop) = (shutdown::on_signal(), CancellationToken::new());
    let client = kube::Client::try_default().await.context("no Kubernetes API is configured")?;

    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let readiness = health::Readiness::default();
    let (table, seen) = watch::channel(Default::default());
    let shard = Shard::new(ShardName(args.pod.pod_name.clone()), seen, args.limits(), Memory::new(args.memory_mib << 20), metrics.clone());

    let (cameras, credentials) = watch::channel(Default::default());

    let mut tasks = Tasks::new(stop.clone());
    // First, so that the pod is seen to live while it waits for its certificate.
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
    let peers = args.peer_tls.when_there(&args.pod.pool, &readiness);
    let Some(peers) = asked.run_until_cancelled(peers).await else {
        stop.cancel();
        return tasks.join().await;
    };

    let readers = listen(args.feed_listen)?;
    let relayed = listen(args.relay_listen)?;
    let (gate, open) = (Gate::new(args.gate()), Open::default());
    let pump = rtmp::Pump::start(args.pump_threads, Duration::from_millis(args.batch_millis), &metrics, &shard.draining())?;
    let owners = args.owners(peers.clone());
    let context = Arc::new(rtmp::Context { shard: shard.clone(), owners: owners.clone(), pump, gate: gate.clone() });
    let listening = Listening { accepting: asked.clone(), stop: stop.clone() };
    let originals = match args.bucket() {
        Some(bucket) => Some(Objects::connect(&bucket).await),
        None => None,
    };
    let pod = args.pod;
    let collect = {
        let shard = shard.clone();
        Arc::new(move |_: &[RunId]| shard.role())
    };
    let ready = {
        let readiness = readiness.clone();
        Box::new(move || readiness.ready())
    };

    tasks.spawn(
        "drain",
        drain::run(shard.clone(), (gate, open.clone()), readiness, Duration::from_secs(args.drain_seconds), asked, stop.clone()),
    );
    tasks.spawn("cameras", rtsp::follow(client.clone(), pod.pod_namespace.clone(), pod.pool.clone(), cameras, stop.clone()));
    tasks.spawn("routes", routes::follow(client, pod.pod_namespace.clone(), pod.pool.clone(), table, ready, stop.clone()));
    tasks.spawn("runs", shard.clone().follow_routes(stop.clone()));
    if let Some(address) = args.rtmp_listen.0 {
        tasks.spawn("rtmp", rtmp::serve(listen(address)?, context.clone(), None, listening.clone()));
    }
    if let (Some(address), Some(folder)) = (args.rtmps_listen, args.rtmps_tls_dir) {
        tasks.spawn("rtmps", rtmp::serve_tls(listen(address)?, context, folder, listening));
    }
    tasks.spawn("relay", relay::serve(relayed, shard.clone(), peers.clone(), open.clone(), stop.clone()));
    tasks.spawn("rtsp", rtsp::run(shard.clone(), credentials, rtsp::Timing::default(), stop.clone()));
    tasks.spawn("original", original::run(shard.clone(), originals, stop.clone()));
    tasks.spawn("feed", feed::serve(readers, shard.clone(), owners, open, stop.clone()));
    tasks.spawn("reports", lectern_podkit::report::run(pod, peers, collect, shard.changed(), None, stop));
    tasks.join().await
}

fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    net::listen(address).with_context(|| format!("cannot listen on {address}"))
}
