//! The process that makes the load. It is told what to do by a line each on standard input, and answers with a line of JSON.

use crate::client::Client;
use crate::clip::Clip;
use crate::load::{self, Told};
use crate::names::key;
use crate::probe::{self, Door};
use anyhow::{Context as _, Result, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Publishers that are set up at the same time, well below what a shard lets wait from one address.
const AT_ONCE: usize = 16;
/// Publishers that come from one address, well below what a shard takes.
const PER_ADDRESS: usize = 50;
/// How long the followed streams are read.
const FOLLOWED: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server.
    #[arg(long)]
    pub rtmp: SocketAddr,
    /// Its feed, where it has one; else it is asked to play.
    #[arg(long)]
    pub feed: Option<SocketAddr>,
    /// How many publish.
    #[arg(long)]
    pub publishers: usize,
    /// Streams beyond these that nobody publishes.
    #[arg(long)]
    pub spare: usize,
    /// Bytes in a chunk.
    #[arg(long)]
    pub chunk: u32,
    /// What they send.
    #[arg(long)]
    pub clip: PathBuf,
}

/// Publishes until standard input ends.
pub fn run(args: &Args) -> Result<()> {
    let clip = Clip::read(&args.clip, args.chunk as usize)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let sockets = runtime.block_on(set_up(args))?;
    let watched: Vec<_> = (0..4.min(args.publishers)).map(|part| part * args.publishers / 4).collect();
    let told = Told::new(&watched);
    std::thread::scope(|threads| {
        threads.spawn(|| load::run(clip, sockets, &told));
        let end = converse(args, &runtime, &watched, &told);
        told.stop.store(true, Ordering::Relaxed);
        end
    })
}

async fn set_up(args: &Args) -> Result<Vec<TcpStream>> {
    let one = |publisher: usize| async move {
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 1)) + (publisher / PER_ADDRESS) as u32);
        let mut client = Client::connect(args.rtmp, from, args.chunk).await?;
        client.publish(&key(publisher)).await?;
        client.into_socket()
    };
    stream::iter(0..args.publishers).map(one).buffered(AT_ONCE).try_collect().await.context("the publishers could not be set up")
}

/// Does what standard input says.
fn converse(args: &Args, runtime: &tokio::runtime::Runtime, watched: &[usize], told: &Told) -> Result<()> {
    println!("{}", json!({"publishing": args.publishers}));
    for line in std::io::stdin().lines() {
        let answer = match line?.as_str() {
            "begin" => {
                told.take();
                json!({})
            }
            "end" => {
                let lateness = told.take();
                if let Some(failed) = lateness.failed {
                    bail!("the load broke off: {failed}");
                }
                json!({
                    "messages": lateness.messages(), "payload": lateness.payload, "held_back": lateness.held_back,
                    "late_p99_ms": lateness.quantile(0.99), "late_max_ms": lateness.quantile(1.0),
                })
            }
            "probe" => runtime.block_on(probes(args, watched, told))?,
            other => bail!("{other:?} is nothing that a load can do"),
        };
        println!("{answer}");
    }
    Ok(())
}

async fn probes(args: &Args, watched: &[usize], told: &Told) -> Result<Value> {
    let door = args.feed.map_or(Door::Play(args.rtmp), Door::Feed);
    let joins = (0..16).map(|part| part * args.publishers / 16).collect();
    let accepted = probe::accepted(args.rtmp, args.publishers..args.publishers + args.spare).await?;
    let joined = probe::joined(door, joins).await?;
    let delayed = probe::delayed(door, watched, FOLLOWED, told).await?;
    Ok(json!({"accepted_ms": accepted, "joined_ms": joined, "delayed_ms": delayed}))
}
