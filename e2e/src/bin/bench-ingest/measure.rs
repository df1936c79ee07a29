//! One side under one load: started, warmed up, measured over a window, asked, and ended.

use crate::clip::{Clip, PERIOD_MILLIS, encode};
use crate::nginx::Nginx;
use crate::part::Part;
use anyhow::{Context as _, Result, bail, ensure};
use lectern_contract::feed::Head;
use lectern_e2e::process::{cpu_seconds, own_bytes};
use lectern_ingest_pod::memory::BLOCK_BYTES;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Streams that nobody publishes until a probe does.
const SPARE: usize = 20;
/// The load counts as complete if so much of what was due has been sent and taken.
const COMPLETE: f64 = 0.98;

/// What the publishers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub publishers: usize,
    pub kbit: u32,
    pub chunk: u32,
}

/// Who takes it.
#[derive(Debug, Clone)]
pub enum Side {
    Nginx,
    /// Our shard, with these flags.
    Lectern(Vec<String>),
}

/// How it is measured.
#[derive(Debug, Clone)]
pub struct How {
    pub warm_up: Duration,
    pub window: Duration,
    /// The load is void if one message in a hundred is later than this, in milliseconds.
    pub late_limit: f64,
    pub folder: PathBuf,
}

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    /// CPU milliseconds a second of one stream.
    pub cpu: f64,
    /// Resident bytes a stream.
    pub memory: f64,
    /// Payload bytes a stream that are held on purpose; zero for nginx.
    pub held: f64,
    /// Milliseconds, each.
    pub accepted: Vec<f64>,
    pub joined: Vec<f64>,
    pub delayed: Vec<f64>,
    /// The load's own lateness.
    pub late: f64,
}

enum Server {
    Nginx(Nginx),
    Lectern { part: Part, rtmp: SocketAddr, feed: SocketAddr },
}

impl Server {
    fn start(side: &Side, case: Case, how: &How) -> Result<Self> {
        let flags = match side {
            Side::Nginx => return Ok(Self::Nginx(Nginx::start(&how.folder.join("nginx"))?)),
            Side::Lectern(flags) => flags,
        };
        let mut arguments = ["shard", "--streams"].map(str::to_owned).to_vec();
        arguments.extend([(case.publishers + SPARE).to_string(), "--".to_owned()]);
        arguments.extend(flags.iter().cloned());
        let part = Part::start(&arguments)?;
        let said = part.hear()?;
        let address = |name: &str| said[name].as_str().context("an address")?.parse::<SocketAddr>().context("an address");
        Ok(Self::Lectern { rtmp: address("rtmp")?, feed: address("feed")?, part })
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Nginx(nginx) => nginx.pid(),
            Self::Lectern { part, .. } => part.pid(),
        }
    }

    fn doors(&self) -> (SocketAddr, Option<SocketAddr>) {
        match self {
            Self::Nginx(nginx) => (nginx.rtmp, None),
            Self::Lectern { rtmp, feed, .. } => (*rtmp, Some(*feed)),
        }
    }

    /// What it says of itself; nginx says nothing.
    fn state(&mut self) -> Result<Option<Value>> {
        match self {
            Self::Nginx(_) => Ok(None),
            Self::Lectern { part, .. } => part.ask("state").map(Some),
        }
    }
}

/// The clip of so many kbit/s, encoded if it is not there.
pub fn clip(kbit: u32, how: &How) -> Result<PathBuf> {
    let file = how.folder.join(format!("{kbit}k.flv"));
    if !file.exists() {
        std::fs::create_dir_all(&how.folder)?;
        encode(&file, kbit)?;
    }
    Ok(file)
}

/// Measures. `probe`: asks for times, too.
pub fn measure(side: &Side, case: Case, how: &How, probe: bool) -> Result<Figures> {
    let file = clip(case.kbit, how)?;
    let shape = Clip::read(&file, case.chunk as usize)?;
    let mut server = Server::start(side, case, how)?;
    let idle = own_bytes(server.pid())?;
    let mut load = start_load(&server, case, &file)?;
    ensure!(load.hear()?["publishing"] == case.publishers, "not all publish");
    std::thread::sleep(how.warm_up);

    load.ask("begin")?;
    let (begun, before, state) = (Instant::now(), cpu_seconds(server.pid())?, server.state()?);
    let (mut own, mut held, mut samples) = (0.0, 0.0, 0.0);
    while begun.elapsed() < how.window {
        std::thread::sleep(Duration::from_secs(1).min(how.window.saturating_sub(begun.elapsed())));
        own += own_bytes(server.pid())? - idle;
        held += server.state()?.map_or(0.0, |state| number(&state, "held"));
        samples += 1.0;
    }
    let (seconds, spent) = (begun.elapsed().as_secs_f64(), cpu_seconds(server.pid())? - before);
    let (sent, after) = (load.ask("end")?, server.state()?);
    let due = shape.messages.len() as f64 * case.publishers as f64 * seconds * 1000.0 / f64::from(PERIOD_MILLIS);
    check(&sent, due, how.late_limit)?;
    if let (Some(before), Some(after)) = (state, after) {
        check_taken(&before, &after, &sent, case)?;
    }
    let probes = if probe { load.ask("probe")? } else { Value::Null };
    let streams = case.publishers as f64;
    Ok(Figures {
        cpu: spent * 1000.0 / seconds / streams,
        memory: own / samples / streams,
        // Of a ring's first and last block about half is not used.
        held: (held / samples / streams - BLOCK_BYTES as f64).max(0.0) * payload_part(&shape),
        accepted: numbers(&probes["accepted_ms"]),
        joined: numbers(&probes["joined_ms"]),
        delayed: numbers(&probes["delayed_ms"]),
        late: number(&sent, "late_p99_ms"),
    })
}

fn start_load(server: &Server, case: Case, file: &std::path::Path) -> Result<Part> {
    let (rtmp, feed) = server.doors();
    let mut arguments = vec!["publish".to_owned(), "--clip".to_owned(), file.display().to_string()];
    let numbers = [("--publishers", case.publishers), ("--spare", SPARE), ("--chunk", case.chunk as usize)];
    arguments.extend(numbers.into_iter().flat_map(|(flag, number)| [flag.to_owned(), number.to_string()]));
    arguments.extend(["--rtmp".to_owned(), rtmp.to_string()]);
    arguments.extend(feed.into_iter().flat_map(|feed| ["--feed".to_owned(), feed.to_string()]));
    Part::start(&arguments)
}

/// Figures of a load that could not keep up would flatter the server.
fn check(sent: &Value, due: f64, late_limit: f64) -> Result<()> {
    let (late, messages) = (number(sent, "late_p99_ms"), number(sent, "messages"));
    if late > late_limit || messages < due * COMPLETE {
        bail!(
            "void: the load generator could not keep up: {messages:.0} of {due:.0} messages, one in a hundred later than {late:.1} ms \
             (at most {late_limit:.1}); a quieter machine or fewer publishers (--publishers) are needed"
        );
    }
    Ok(())
}

/// The shard must have taken what was sent, from all.
fn check_taken(before: &Value, after: &Value, sent: &Value, case: Case) -> Result<()> {
    let (received, payload) = (number(after, "received") - number(before, "received"), number(sent, "payload"));
    ensure!(number(after, "panics") == 0.0, "a connection of the shard panicked");
    ensure!(number(after, "publishers") == case.publishers as f64, "the shard has {} publishers", after["publishers"]);
    ensure!(received > payload * COMPLETE * 0.98, "the shard took {received:.0} of {payload:.0} payload bytes");
    Ok(())
}

/// How much of what the history counts is payload.
fn payload_part(clip: &Clip) -> f64 {
    let payload = clip.payload() as f64;
    payload / (payload + (clip.messages.len() * Head::BYTES) as f64)
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(f64::NAN)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}
