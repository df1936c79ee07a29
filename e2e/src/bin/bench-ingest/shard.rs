//! The shard as a process of its own, through the library that the pod is made of: its own settings, streams that are known
//! from the start, and no Kubernetes.

use crate::names::{key, run};
use anyhow::Result;
use clap::Parser as _;
use lectern_contract::{Epoch, KeyHash, ShardName, StreamRef, WallMillis};
use lectern_ingest_pod::{
    args, feed,
    gate::Gate,
    memory::Memory,
    metrics::Metrics,
    net::{Listening, Open},
    routes, rtmp,
    shard::Shard,
};
use lectern_podkit::CancellationToken;
use lectern_podkit::clock::wall_now;
use lectern_podkit::tls::PeerTls;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;

const ME: &str = "bench";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many streams it owns.
    #[arg(long)]
    pub streams: usize,
    /// Flags of `lectern-ingest`, for all that is not to be as it is by default.
    #[arg(last = true)]
    pub settings: Vec<String>,
}

/// Serves until standard input ends. Says where first; each line of standard input is answered with what it holds.
#[tokio::main]
pub async fn run_shard(args: Args) -> Result<()> {
    let program = ["lectern-ingest", "--pod-name", ME].map(str::to_owned);
    let settings = args::Args::try_parse_from(program.into_iter().chain(args.settings))?;
    let (metrics, stop) = (Metrics::default(), CancellationToken::new());
    let (_routes, seen) = watch::channel(Arc::new((0..args.streams).map(route).collect()));
    let shard = Shard::new(ME.into(), seen, settings.limits(), Memory::new(settings.memory_mib << 20), metrics.clone());
    let pump = rtmp::Pump::start(settings.pump_threads, Duration::from_millis(settings.batch_millis), &metrics, &shard.draining())?;
    let (owners, gate) = (settings.owners(PeerTls::plain()), Gate::new(settings.gate()));
    let context = rtmp::Context { shard: shard.clone(), owners: owners.clone(), pump, gate };
    let (publishers, readers) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    println!("{}", json!({"rtmp": publishers.local_addr()?, "feed": readers.local_addr()?}));
    tokio::spawn(shard.clone().follow_routes(stop.clone()));
    tokio::spawn(rtmp::serve(publishers, Arc::new(context), None, Listening::from(stop.clone())));
    tokio::spawn(feed::serve(readers, shard.clone(), owners, Open::default(), stop.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let (held, publishers, panics) = (shard.memory().held(), metrics.publishers.get(), metrics.panics.get());
        println!("{}", json!({"held": held, "publishers": publishers, "panics": panics, "received": metrics.bytes_in.get()}));
    }
    Ok(())
}

fn route(publisher: usize) -> routes::Route {
    routes::Route {
        keys: routes::Keys::only(KeyHash::of(&key(publisher))),
        takeover: Default::default(),
        stream: StreamRef { namespace: "bench".to_owned(), name: key(publisher) },
        run: run(publisher),
        shard: ShardName::from(ME),
        epoch: Epoch(1),
        anchor: WallMillis(wall_now().0.saturating_sub(10_000)),
        ended: false,
        camera: None,
        original: None,
    }
}
