//! What was measured, beside what it should be.

use crate::Args;
use crate::audit::Audit;
use crate::control_plane::ControlPlane;
use crate::load::Sizes;
use crate::operator::Operator;
use crate::watched::{Delays, Watched};
use anyhow::Result;
use lectern_e2e::process;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const MIB: f64 = 1024.0 * 1024.0;

/// All figures of a run.
#[derive(Default)]
pub struct Figures {
    rows: Vec<(String, &'static str, String)>,
    result: String,
    /// How long the operator took to be in sync again.
    pub restarts: Vec<Restart>,
    /// How long streams took to move.
    pub losses: Vec<Loss>,
}

/// CPU seconds so far, and what time it is.
pub struct Spent {
    at: Instant,
    etcd: f64,
    api_server: f64,
    operator: f64,
    us: f64,
    machine: f64,
}

impl Spent {
    /// As of now.
    pub fn now(plane: &ControlPlane, operator: &Operator) -> Result<Self> {
        let [etcd, api_server] = plane.cpu_seconds()?;
        let us = process::cpu_seconds(std::process::id())?;
        Ok(Self { at: Instant::now(), etcd, api_server, operator: operator.cpu_seconds()?, us, machine: process::machine_cpu_seconds()? })
    }

    /// Cores since `before`: etcd, the API server, the operator, this program, and everything on the machine.
    pub fn since(&self, before: &Self) -> [f64; 5] {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let of = |of: fn(&Self) -> f64| (of(self) - of(before)) / seconds;
        [of(|spent| spent.etcd), of(|spent| spent.api_server), of(|spent| spent.operator), of(|spent| spent.us), of(|spent| spent.machine)]
    }
}

/// One restart.
pub struct Restart {
    /// For people.
    pub words: &'static str,
    /// For the result line.
    pub key: &'static str,
    /// From the process's start until every stream was looked at.
    pub took: Duration,
    /// Memory some seconds later, in bytes.
    pub resident: u64,
    /// What was written from then until some seconds later.
    pub writes: Audit,
}

/// One lost shard.
pub struct Loss {
    /// For people.
    pub words: &'static str,
    /// For the result line.
    pub key: &'static str,
    /// How many streams it had.
    pub streams: usize,
    /// Until the last status told of another shard.
    pub status: Duration,
    /// Until the last route told of another shard.
    pub route: Duration,
}

impl Figures {
    fn row(&mut self, what: impl Into<String>, bar: &'static str, is: String) {
        self.rows.push((what.into(), bar, is));
    }

    fn tell(&mut self, key: &str, value: f64, decimals: usize) {
        write!(self.result, " {key}={value:.decimals$}").ok();
    }

    /// How fast streams were planned, and how evenly.
    pub fn planned(&mut self, watched: &Watched, shards: usize) {
        let delays = watched.seen().delays();
        let of = |of: fn(&Delays) -> f64| percentiles(delays.iter().map(of).collect());
        let [p50, p99, max] = of(Delays::planned);
        self.row("create -> planned, ms: p50, p99, max", "p99 250", format!("{p50:.0}, {p99:.0}, {max:.0}"));
        self.tell("planned_p50_ms", p50, 0);
        self.tell("planned_p99_ms", p99, 0);
        self.tell("planned_max_ms", max, 0);
        for (words, part) in [
            ("  the API server has it", (|delays| delays.created) as fn(&Delays) -> f64),
            ("  status with shard and address", |delays| delays.status),
            ("  route", |delays| delays.route),
        ] {
            let [p50, p99, max] = of(part);
            self.row(words, "", format!("{p50:.0}, {p99:.0}, {max:.0}"));
        }
        let ratio = balance(watched, shards);
        self.row("load of shards, peak/mean", "1.05", format!("{ratio:.3}"));
        self.tell("balance", ratio, 3);
    }

    /// Who used the processors meanwhile. What the machine used on top of the four is somebody else's: much of it spoils the figures.
    pub fn cpu(&mut self, [etcd, api_server, operator, us, machine]: &[f64; 5]) {
        let cores = format!("{operator:.2}, {api_server:.2}, {etcd:.2}, {us:.2}, {machine:.2}");
        self.row("  cores: operator, API server, etcd, this program, machine", "", cores);
        self.tell("operator_cores", *operator, 2);
        self.tell("machine_cores", *machine, 2);
    }

    /// The same once shards were lost.
    pub fn left(&mut self, watched: &Watched, shards: usize) {
        let ratio = balance(watched, shards);
        self.row("load of the shards that are left, peak/mean", "1.05", format!("{ratio:.3}"));
        self.tell("balance_after", ratio, 3);
    }

    /// What creating cost.
    pub fn writes(&mut self, writes: &Audit, streams: usize) {
        let each = |resource| writes.of(resource) as f64 / streams as f64;
        self.row("writes per stream, to the LiveStream", "2", format!("{:.3}", each("livestreams")));
        self.tell("writes_per_stream", each("livestreams"), 3);
        for (words, resource, key) in
            [("  its Secret", "secrets", "secrets"), ("  RouteSlices", "routeslices", "slices"), ("  Events", "events", "events")]
        {
            self.row(words, "", format!("{:.3}", each(resource)));
            self.tell(key, each(resource), 3);
        }
        eprintln!("written while streams were created: {writes}");
    }

    /// What happened while nothing did.
    pub fn steady(&mut self, writes: &Audit, cpu: f64) {
        let without = writes.without_leases();
        self.row("writes in steady state, without the Lease", "0", without.total().to_string());
        self.row("  CPU of the operator, cores", "", format!("{cpu:.3}"));
        self.tell("steady_writes", without.total() as f64, 0);
        self.tell("steady_cpu", cpu, 3);
        eprintln!("written in steady state: {without}");
    }

    /// Memory against what is kept in it.
    pub fn memory(&mut self, operator: &Operator, sizes: &Sizes) -> Result<()> {
        let (now, peak) = operator.memory()?;
        let mib = |bytes: u64| bytes as f64 / MIB;
        let (json, slim) = ((sizes.streams + sizes.slices) as f64, (sizes.streams_slim + sizes.slices) as f64);
        self.row("resident memory / JSON of LiveStreams and RouteSlices", "2", format!("{:.2}", now as f64 / json));
        self.row("  resident memory, MiB: now, peak", "", format!("{:.1}, {:.1}", mib(now), mib(peak)));
        let weights = [sizes.streams, sizes.slices].map(|bytes| bytes as f64 / MIB);
        self.row("  JSON, MiB: LiveStreams, RouteSlices", "", format!("{:.1}, {:.1}", weights[0], weights[1]));
        self.row("  resident memory / JSON without managedFields", "", format!("{:.2}", now as f64 / slim));
        self.tell("memory_ratio", now as f64 / json, 2);
        self.tell("memory_ratio_slim", now as f64 / slim, 2);
        self.tell("resident_mib", mib(now), 1);
        self.tell("peak_mib", mib(peak), 1);
        Ok(())
    }

    /// The table and the result line.
    pub fn print(mut self, args: &Args) {
        for Restart { words, key, took, resident, writes } in std::mem::take(&mut self.restarts) {
            let seconds = took.as_secs_f64();
            self.row(format!("restart -> in sync, s: {words}"), "10", format!("{seconds:.2}"));
            self.row("  written since, without the Lease", "", writes.to_string());
            self.row("  resident memory, MiB", "", format!("{:.1}", resident as f64 / MIB));
            self.tell(&format!("restart_{key}_s"), seconds, 2);
        }
        for Loss { words, key, streams, status, route } in std::mem::take(&mut self.losses) {
            let [status, route] = [status, route].map(|time| time.as_secs_f64());
            self.row(format!("{words}: {streams} streams planned anew, s"), "1", format!("{:.2}", status.max(route)));
            self.row("  statuses, routes", "", format!("{status:.2}, {route:.2}"));
            self.tell(&format!("lost_{key}_s"), status.max(route), 2);
        }
        println!("{:<64} {:>8}  is", "what", "bar");
        for (what, bar, is) in &self.rows {
            println!("{what:<64} {bar:>8}  {is}");
        }
        println!("result scale streams={} shards={} rate={} steady_s={}{}", args.streams, args.shards, args.rate, args.steady, self.result);
    }
}

fn balance(watched: &Watched, shards: usize) -> f64 {
    let seen = watched.seen();
    let loads = seen.loads();
    let (most, all) = (loads.values().max().copied().unwrap_or(0), loads.values().sum::<usize>());
    most as f64 * shards as f64 / all as f64
}

/// The middle, the 99th percentile and the greatest.
fn percentiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    [at(50), at(99), at(100)]
}
