//! How soon a lecture goes on when something of it dies or is moved, and what a player sees of it.

use anyhow::{Result, ensure};
use clap::Parser;
use lectern_e2e::chaos::{self, Cost, Fault, Store};
use lectern_e2e::settings;
use lectern_e2e::table::{median, row, spread};
use std::fmt::Write as _;

/// A process, a planned move, a transcoder's machine, a shard's machine.
const FAULTS: [Fault; 4] = [Fault::ChildKilled, Fault::Drain, Fault::TranscoderLost, Fault::ShardLost];

/// Fail-over times.
#[derive(Parser)]
struct Args {
    /// How often each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of the lecture: with Low times are told to a part, with Standard to a segment.
    #[arg(long, default_value = "Low")]
    latency: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(settings::out_folder("chaos"))?;
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "", "milliseconds", "least", "median", "greatest");
    let (mut result, mut broken) = (String::new(), 0);
    for fault in FAULTS {
        let mut costs: Vec<Cost> = Vec::new();
        let name = chaos::name(&[fault]);
        for round in 1..=args.rounds {
            eprintln!("{name}, round {round} of {}", args.rounds);
            let cost = chaos::trial(&[fault], &args.latency, Store::Ministack).await?;
            if !cost.is_sound() {
                eprintln!("  {} lost, {} renumbered, {} twice: {:#?}", cost.lost, cost.renumbered, cost.twice, cost.complaints);
            }
            costs.push(cost);
        }
        broken += costs.iter().filter(|cost| !cost.is_sound()).count();
        let key = name.replace('-', "_");
        for (words, short, of) in [
            ("until playlists grow at their pace again", "recovery", (|cost| cost.recovery) as fn(&Cost) -> f64),
            ("longest that a playlist was late by", "late", |cost| cost.late),
            ("longest that the player showed no new picture", "stall", |cost| cost.stall),
        ] {
            let spread = spread(costs.iter().map(of));
            row("", &format!("{name}: {words}"), spread, 0);
            write!(result, " {key}_{short}_ms={:.0}", median(spread))?;
        }
    }
    println!("result failover latency={} rounds={}{result} broken={broken}", args.latency, args.rounds);
    ensure!(broken == 0, "in {broken} trials segments were lost, renumbered or published twice");
    Ok(())
}
