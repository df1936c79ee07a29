//! `make chaos`: what each fault costs a lecture. Prints a table; fails where a segment was lost, renumbered or published twice.

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum as _};
use lectern_e2e::chaos::{self, Cost, Fault, PAIRS, Store};
use lectern_e2e::settings;
use lectern_e2e::table::spread;

/// Faults under a running lecture.
#[derive(Parser)]
struct Args {
    /// Which; all of them unless given.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// They strike one after the other without a pause, in one lecture.
    #[arg(long, requires = "faults")]
    together: bool,
    /// Pairs instead: those that are chosen for what they show (`chaos::PAIRS`).
    #[arg(long, conflicts_with = "faults")]
    pairs: bool,
    /// How often each.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Of the lecture: Low or Standard.
    #[arg(long, default_value = "Standard")]
    latency: String,
    /// Fail, too, where a player stood still for longer than the fault allows: for a machine with nothing else to do.
    #[arg(long)]
    strict: bool,
    /// Who serves S3.
    #[arg(long, value_enum, default_value_t = Store::Ministack)]
    store: Store,
}

impl Args {
    fn trials(&self) -> Vec<Vec<Fault>> {
        let each = |faults: &[Fault]| faults.iter().map(|fault| vec![*fault]).collect();
        match self.faults.as_slice() {
            [] if self.pairs => PAIRS.iter().map(|pair| vec![pair.0, pair.1]).collect(),
            [] => each(Fault::value_variants()),
            faults if self.together => vec![faults.to_vec()],
            faults => each(faults),
        }
    }
}

/// That are printed of a lecture.
const MOST_COMPLAINTS: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(settings::out_folder("chaos"))?;
    println!(
        "{:<34} {:>4} {:>10} {:>5} {:>6} {:>5} {:>18} {:>5} {:>18} {:>18}",
        "fault", "lost", "renumbered", "twice", "frames", "sound", "stall ms", "waits", "playlist late ms", "recovery ms"
    );
    let (mut broken, mut unsound, mut failed, mut over, mut skipped) = (0, 0, 0, 0, 0);
    for faults in args.trials() {
        let (name, mut costs) = (chaos::name(&faults), Vec::new());
        if let Some(lacking) = chaos::lacks(&faults).await? {
            println!("{name:<34} skipped: {lacking}");
            skipped += 1;
            continue;
        }
        for round in 1..=args.rounds {
            eprintln!("{name}, round {round} of {}", args.rounds);
            match chaos::trial(&faults, &args.latency, args.store).await {
                Ok(cost) => costs.push(cost),
                // The other faults are still worth knowing.
                Err(error) => {
                    println!("{name:<34} failed: {error:#}");
                    failed += 1;
                }
            }
        }
        over += usize::from(tell(&name, &faults, &costs));
        broken += costs.iter().map(|cost| cost.lost + cost.renumbered + cost.twice).sum::<usize>();
        unsound += costs.iter().filter(|cost| !cost.complaints.is_empty()).count();
    }
    println!(
        "result chaos latency={} store={:?} broken={broken} unsound={unsound} failed={failed} over={over} skipped={skipped}",
        args.latency, args.store
    );
    ensure!(
        broken + unsound + failed == 0,
        "segments were lost, renumbered or published twice, or a recording is not what was published, or a lecture did not come to its end"
    );
    ensure!(!args.strict || over == 0, "a player stood still for longer than it may");
    Ok(())
}

/// A line of the table, and what is worse than it may be; whether a bar is not held. That is for people to judge: machines are shared, and no run fails for a time.
fn tell(name: &str, faults: &[Fault], costs: &[Cost]) -> bool {
    for cost in costs {
        cost.complaints.iter().take(MOST_COMPLAINTS).for_each(|complaint| eprintln!("  {complaint}"));
        if let Some(more) = cost.complaints.len().checked_sub(MOST_COMPLAINTS).filter(|more| *more > 0) {
            eprintln!("  and {more} more");
        }
    }
    let sum = |of: fn(&Cost) -> usize| costs.iter().map(of).sum::<usize>();
    let words = |of: fn(&Cost) -> f64| match costs {
        [once] => format!("{:.0}", of(once)),
        _ => spread(costs.iter().map(of)).map_or_else(String::new, |it| format!("{:.0}/{:.0}/{:.0}", it.min, it.median, it.max)),
    };
    println!(
        "{name:<34} {:>4} {:>10} {:>5} {:>6} {:>5} {:>18} {:>5} {:>18} {:>18}",
        sum(|cost| cost.lost),
        sum(|cost| cost.renumbered),
        sum(|cost| cost.twice),
        costs.iter().map(|cost| cost.frames).max().unwrap_or(0),
        costs.iter().map(|cost| cost.sound).max().unwrap_or(0),
        words(|cost| cost.stall),
        costs.iter().map(|cost| cost.waits).max().unwrap_or(0),
        words(|cost| cost.late),
        words(|cost| cost.recovery)
    );
    // Two faults may cost what the worse of them may, where both have a bar.
    let bars: Option<Vec<f64>> = faults.iter().map(|fault| fault.longest_stall()).collect();
    let bar = bars.and_then(|bars| bars.into_iter().reduce(f64::max));
    let worst = costs.iter().map(|cost| cost.stall).fold(0.0, f64::max);
    let missed = bar.filter(|bar| worst > *bar);
    if let Some(bar) = missed {
        println!("{:<34} the player stood still for longer than {bar:.0} ms", "");
    }
    missed.is_some()
}
