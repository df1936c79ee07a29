//! `make chaos`: what each fault costs a lecture. Prints a table; fails where a segment was lost, renumbered or published twice.

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum as _};
use lectern_e2e::chaos::{self, Cost, Fault};
use lectern_e2e::table::spread;
use lectern_e2e::{Lab, Share, settings};

/// Faults under a running lecture.
#[derive(Parser)]
struct Args {
    /// Which; all of them unless given.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// How often each.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Of the lecture: Low or Standard.
    #[arg(long, default_value = "Standard")]
    latency: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let faults = if args.faults.is_empty() { Fault::value_variants().to_vec() } else { args.faults };
    std::fs::create_dir_all(settings::out_folder("chaos"))?;
    println!(
        "{:<18} {:>5} {:>10} {:>6} {:>7} {:>24} {:>24}",
        "fault", "lost", "renumbered", "twice", "frames", "stall ms", "playlist late ms"
    );
    let (mut lost, mut renumbered, mut twice) = (0, 0, 0);
    for fault in faults {
        let mut costs: Vec<Cost> = Vec::new();
        for round in 1..=args.rounds {
            eprintln!("{fault:?}, round {round} of {}", args.rounds);
            Lab::run("chaos", Share::Whole, async |lab| {
                costs.push(chaos::suffer(lab, fault, &args.latency).await?);
                Ok(())
            })
            .await?;
        }
        for complaint in costs.iter().flat_map(|cost| &cost.complaints) {
            eprintln!("  {complaint}");
        }
        let sum = |of: fn(&Cost) -> usize| costs.iter().map(of).sum::<usize>();
        let (its_lost, its_renumbered, its_twice) = (sum(|cost| cost.lost), sum(|cost| cost.renumbered), sum(|cost| cost.twice));
        let frames = costs.iter().map(|cost| cost.frames).max().unwrap_or(0);
        let words = |of: fn(&Cost) -> f64| {
            spread(costs.iter().map(of)).map_or_else(String::new, |it| format!("{:.0}/{:.0}/{:.0}", it.min, it.median, it.max))
        };
        let name = fault.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        println!(
            "{name:<18} {its_lost:>5} {its_renumbered:>10} {its_twice:>6} {frames:>7} {:>24} {:>24}",
            words(|cost| cost.stall),
            words(|cost| cost.behind)
        );
        let worst = costs.iter().map(|cost| cost.stall).fold(0.0, f64::max);
        if let Some(bar) = fault.longest_stall().filter(|bar| worst > *bar) {
            println!("{:<18} the player stood still for longer than {bar:.0} ms", "");
        }
        (lost, renumbered, twice) = (lost + its_lost, renumbered + its_renumbered, twice + its_twice);
    }
    println!("result chaos latency={} lost={lost} renumbered={renumbered} twice={twice}", args.latency);
    ensure!(lost + renumbered + twice == 0, "segments were lost, renumbered or published twice");
    Ok(())
}
