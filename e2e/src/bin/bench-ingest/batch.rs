//! The shard at several intervals between two reads: what each costs in CPU, and adds to every frame's way.

use crate::compare::{mean, quantile};
use crate::measure::{Case, How, Side, measure};
use anyhow::{Context as _, Result};
use lectern_e2e::settings::out_folder;
use lectern_e2e::table::{Table, row};
use std::fmt::Write as _;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Milliseconds, each.
    #[arg(long, value_delimiter = ',', default_value = "0,2,5,10,20")]
    intervals: Vec<u64>,
    /// How many publish at once.
    #[arg(long, default_value_t = 200)]
    publishers: usize,
    /// kbit/s of video of each, beside 128 of sound.
    #[arg(long, default_value_t = 2000)]
    kbit: u32,
    /// Bytes in a chunk, 128 or more.
    #[arg(long, default_value_t = 4096)]
    chunk: u32,
    /// How often each interval is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    window: u64,
    /// The load is void if one message in a hundred is later than this, in milliseconds.
    #[arg(long, default_value_t = 10.0)]
    late_limit: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let case = Case { publishers: args.publishers, kbit: args.kbit, chunk: args.chunk };
    let how = How {
        warm_up: Duration::from_secs(7),
        window: Duration::from_secs(args.window),
        late_limit: args.late_limit,
        folder: out_folder("bench-ingest"),
    };
    let mut tables: Vec<_> = args.intervals.iter().map(|interval| (*interval, Table::default())).collect();
    for round in 1..=args.rounds {
        for (interval, table) in &mut tables {
            eprintln!("{case:?}, round {round} of {}: every {interval} ms", args.rounds);
            let flags = ["--history-seconds", "2", "--batch-millis"].map(str::to_owned).into_iter().chain([interval.to_string()]);
            let figures = measure(&Side::Lectern(flags.collect()), case, &how, true)?;
            let delays = &figures.delayed;
            let mean = mean(delays).context("no delays")?;
            let high = quantile(delays, 0.99).context("no delays")?;
            table.add(&[("cpu", figures.cpu), ("delay", mean), ("delay_p99", high)]);
        }
    }
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "interval", "what", "min", "median", "max");
    let mut result = format!("result ingest-batch publishers={} kbit={} chunk={}", case.publishers, case.kbit, case.chunk);
    for (interval, table) in &tables {
        let who = format!("{interval} ms");
        row(&who, "CPU, ms a second of a stream", table.spread("cpu"), 2);
        row(&who, "added delay, ms, mean", table.spread("delay"), 2);
        row(&who, "added delay, ms, 99 of 100 are below", table.spread("delay_p99"), 2);
        for step in ["cpu", "delay"] {
            let median = table.spread(step).map_or(f64::NAN, |spread| spread.median);
            write!(result, " {step}_{interval}={median:.2}").ok();
        }
    }
    println!("{result}");
    Ok(())
}
