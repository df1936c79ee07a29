//! The shard beside nginx-rtmp.

use crate::clip::Clip;
use crate::measure::{Case, Figures, How, Side, clip, measure};
use anyhow::{Result, ensure};
use lectern_e2e::settings::out_folder;
use lectern_e2e::table::{Table, row};
use std::time::Duration;

/// A stream may have this much beside the media that it holds, and a tenth of that.
const BESIDE: f64 = 16.0 * 1024.0;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many publish at once.
    #[arg(long, value_delimiter = ',', default_value = "100,500")]
    publishers: Vec<usize>,
    /// kbit/s of video of each, beside 128 of sound.
    #[arg(long, value_delimiter = ',', default_value = "600,2000")]
    kbit: Vec<u32>,
    /// Bytes in a chunk, 128 or more.
    #[arg(long, value_delimiter = ',', default_value = "128,4096")]
    chunk: Vec<u32>,
    /// How often each side is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10)]
    window: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 7)]
    warm_up: u64,
    /// Seconds of media that the shard keeps in the comparison.
    #[arg(long, default_value_t = 2)]
    history_seconds: u64,
    /// Leaves out the last measurement, of the shard with all settings as they are by default.
    #[arg(long)]
    without_defaults: bool,
    /// The load is void if one message in a hundred is later than this, in milliseconds.
    #[arg(long, default_value_t = 10.0)]
    late_limit: f64,
    /// One small case, once.
    #[arg(long)]
    quick: bool,
}

impl Args {
    fn cases(&self) -> Vec<Case> {
        if self.quick {
            return vec![Case { publishers: 50, kbit: 600, chunk: 4096 }];
        }
        let of = |publishers: &usize, kbit: &u32| {
            let (publishers, kbit) = (*publishers, *kbit);
            self.chunk.iter().map(move |chunk| Case { publishers, kbit, chunk: *chunk })
        };
        self.publishers.iter().flat_map(|publishers| self.kbit.iter().flat_map(move |kbit| of(publishers, kbit))).collect()
    }

    fn how(&self) -> How {
        let (warm_up, window) = (Duration::from_secs(self.warm_up), Duration::from_secs(self.window));
        How { warm_up, window, late_limit: self.late_limit, folder: out_folder("bench-ingest") }
    }
}

/// The worst of all cases, each the median of its rounds.
#[derive(Default)]
struct Worst {
    cpu_ratio: f64,
    memory_of_bar: f64,
    accepted: f64,
    join_ratio: f64,
    delay: f64,
    late: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let (cases, how) = (args.cases(), args.how());
    ensure!(args.chunk.iter().all(|chunk| *chunk >= 128), "a chunk has 128 bytes or more here: the counter must lie in the first");
    let rounds = if args.quick { 1 } else { args.rounds };
    let kept = Side::Lectern(vec!["--history-seconds".to_owned(), args.history_seconds.to_string()]);
    let mut worst = Worst::default();
    for case in &cases {
        let (mut us, mut peer) = (Table::default(), Table::default());
        for round in 1..=rounds {
            eprintln!("{case:?}, round {round} of {rounds}: nginx");
            peer.add(&steps(&measure(&Side::Nginx, *case, &how, true)?));
            eprintln!("{case:?}, round {round} of {rounds}: Lectern");
            us.add(&steps(&measure(&kept, *case, &how, true)?));
        }
        heading(*case, &how)?;
        show(&us, &peer);
        worst.see(&us, &peer);
    }
    if !args.quick && !args.without_defaults {
        whole_history(&how)?;
    }
    let Worst { cpu_ratio, memory_of_bar, accepted, join_ratio, delay, late } = worst;
    println!(
        "result ingest cases={} rounds={rounds} cpu_ratio={cpu_ratio:.2} memory_of_bar={memory_of_bar:.2} accepted_ms={accepted:.2} \
         join_ratio={join_ratio:.3} delay_ms={delay:.1} generator_late_p99_ms={late:.1}",
        cases.len()
    );
    Ok(())
}

/// The shard alone with its defaults, once its history is full.
fn whole_history(how: &How) -> Result<()> {
    let case = Case { publishers: 100, kbit: 600, chunk: 4096 };
    eprintln!("{case:?}: Lectern with all settings as they are by default, after 70 s");
    let how = How { warm_up: Duration::from_secs(70), ..how.clone() };
    let mut us = Table::default();
    us.add(&steps(&measure(&Side::Lectern(Vec::new()), case, &how, false)?));
    println!("\nthe same with a history of a minute, once");
    show(&us, &Table::default());
    Ok(())
}

fn heading(case: Case, how: &How) -> Result<()> {
    let Case { publishers, kbit, chunk } = case;
    let clip = Clip::read(&clip(kbit, how)?, chunk as usize)?;
    let (gop, total) = (clip.payload() / 1024, clip.payload() * 8 / 2000);
    println!("\n{publishers} publishers of {total} kbit/s ({kbit} of video), chunks of {chunk}; a GOP of 2 s has {gop} KiB");
    println!("{:<9} {:<52} {:>9} {:>9} {:>9}", "who", "what", "min", "median", "max");
    Ok(())
}

/// One measurement as rows.
fn steps(figures: &Figures) -> Vec<(&'static str, f64)> {
    let Figures { cpu, memory, held, accepted, joined, delayed, late } = figures;
    let mut steps = vec![("cpu", *cpu), ("memory", memory / 1024.0), ("late", *late)];
    if *held > 0.0 {
        steps.extend([("held", held / 1024.0), ("memory_of_bar", memory / (held * 1.1 + BESIDE))]);
    }
    let middle = |values: &Vec<f64>, part| quantile(values, part);
    let times = [
        ("accepted", middle(accepted, 0.5)),
        ("join", middle(joined, 0.5)),
        ("delay", mean(delayed)),
        ("delay_median", middle(delayed, 0.5)),
        ("delay_p99", middle(delayed, 0.99)),
    ];
    steps.extend(times.into_iter().filter_map(|(step, value)| Some((step, value?))));
    steps
}

fn show(us: &Table, peer: &Table) {
    for (step, words, decimals) in [
        ("cpu", "CPU, ms a second of a stream (ratio: at most 0.5)", 2),
        ("memory", "memory a stream, KiB", 0),
        ("held", "  media held on purpose a stream, KiB", 0),
        ("memory_of_bar", "  memory / (held x 1.1 + 16 KiB) (at most 1)", 2),
        ("accepted", "publish -> accepted, ms (at most 5)", 2),
        ("join", "reader's request -> keyframe, ms (ratio: at most 0.1)", 2),
        ("delay", "added delay, ms, mean (at most 10)", 2),
        ("delay_median", "  median", 2),
        ("delay_p99", "  99 of 100 are below", 2),
        ("late", "generator: 99 of 100 messages are less late, ms", 1),
    ] {
        row("lectern", words, us.spread(step), decimals);
        row("nginx", words, peer.spread(step), decimals);
        if matches!(step, "cpu" | "join") {
            row("ratio", words, us.ratio(peer, step), 3);
        }
    }
}

impl Worst {
    fn see(&mut self, us: &Table, peer: &Table) {
        let median = |table: &Table, step| table.spread(step).map_or(f64::NAN, |spread| spread.median);
        let ratio = |step| us.ratio(peer, step).map_or(f64::NAN, |spread| spread.median);
        let late = median(us, "late").max(median(peer, "late"));
        for (worst, seen) in [
            (&mut self.cpu_ratio, ratio("cpu")),
            (&mut self.memory_of_bar, median(us, "memory_of_bar")),
            (&mut self.accepted, median(us, "accepted")),
            (&mut self.join_ratio, ratio("join")),
            (&mut self.delay, median(us, "delay")),
            (&mut self.late, late),
        ] {
            *worst = worst.max(seen);
        }
    }
}

/// The value that this part of all is at or below.
pub fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1))).copied()
}

pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
