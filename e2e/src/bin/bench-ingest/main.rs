//! The benchmark `ingest`: what the ingest shard costs, beside nginx-rtmp under the same load, one after the other, several
//! times; and `ingest-batch`: what the interval between two reads costs and brings. Every process is this program or nginx, on
//! the loopback network, and ends with it.

mod batch;
mod client;
mod clip;
mod compare;
mod load;
mod measure;
mod message;
mod names;
mod nginx;
mod part;
mod probe;
mod publish;
mod shard;

use anyhow::Result;
use clap::Parser as _;

#[derive(clap::Parser)]
enum Args {
    /// The shard beside nginx-rtmp.
    Run(compare::Args),
    /// The shard at several intervals.
    Batch(batch::Args),
    /// The load of one measurement (used by the others).
    Publish(publish::Args),
    /// The shard of one measurement (used by the others).
    Shard(shard::Args),
}

fn main() -> Result<()> {
    match Args::parse() {
        Args::Run(args) => compare::run(&args),
        Args::Batch(args) => batch::run(&args),
        Args::Publish(args) => publish::run(&args),
        Args::Shard(args) => shard::run_shard(args),
    }
}
