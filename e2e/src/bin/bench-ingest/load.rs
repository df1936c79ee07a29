//! The load: publishers whose messages are sent when their time has come, by one thread that does nothing else.

use crate::clip::{Clip, PERIOD_MILLIS};
use crate::message::VIDEO;
use anyhow::{Result, bail};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A server that leaves so much of one publisher's media waiting does not take it.
const MOST_WAITING: usize = 8 << 20;
const PERIOD: Duration = Duration::from_millis(PERIOD_MILLIS as u64);

/// What the load tells while it runs.
#[derive(Debug)]
pub struct Told {
    /// Ends the load.
    pub stop: AtomicBool,
    start: Instant,
    lateness: Mutex<Lateness>,
    written: Vec<(usize, Written)>,
}

/// When the pictures of a watched publisher were written, by their counter.
#[derive(Debug)]
struct Written(Vec<AtomicU64>);

/// How late messages were sent, in slots of a tenth of a millisecond; the last slot is for all that is later.
#[derive(Debug, Clone)]
pub struct Lateness {
    slots: Vec<u64>,
    /// Messages that did not fit into their socket at once.
    pub held_back: u64,
    /// Payload bytes sent.
    pub payload: u64,
    /// Why the load has ended before its time.
    pub failed: Option<String>,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { slots: vec![0; 2_000], held_back: 0, payload: 0, failed: None }
    }
}

impl Lateness {
    fn add(&mut self, late: Duration) {
        let slot = (late.as_micros() / 100) as usize;
        let last = self.slots.len() - 1;
        self.slots[slot.min(last)] += 1;
    }

    /// Messages sent.
    pub fn messages(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// So many milliseconds late was this part of the messages, at most.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.messages() as f64 * part).ceil() as u64;
        let mut seen = 0;
        let slot = self.slots.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        (slot.unwrap_or_default() + 1) as f64 / 10.0
    }
}

impl Told {
    /// For a load in which these publishers are watched.
    pub fn new(watched: &[usize]) -> Self {
        let written = |publisher: &usize| (*publisher, Written((0..4096).map(|_| AtomicU64::new(0)).collect()));
        let written = watched.iter().map(written).collect();
        Self { stop: AtomicBool::new(false), start: Instant::now(), lateness: Mutex::default(), written }
    }

    /// Takes what was counted since the last call.
    pub fn take(&self) -> Lateness {
        let mut lateness = self.lateness.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = lateness.failed.clone();
        std::mem::replace(&mut lateness, Lateness { failed, ..Lateness::default() })
    }

    /// When this watched publisher's picture was written; `None` where it went out in pieces.
    pub fn written(&self, publisher: usize, counter: u64) -> Option<Instant> {
        let (_, Written(slots)) = self.written.iter().find(|(watched, _)| *watched == publisher)?;
        let nanos = slots[counter as usize % slots.len()].load(Ordering::Acquire);
        (nanos > 0).then(|| self.start + Duration::from_nanos(nanos))
    }

    fn note(&self, publisher: usize, counter: u64, whole: bool) {
        if let Some((_, Written(slots))) = self.written.iter().find(|(watched, _)| *watched == publisher) {
            let nanos = if whole { self.start.elapsed().as_nanos() as u64 } else { 0 };
            slots[counter as usize % slots.len()].store(nanos, Ordering::Release);
        }
    }
}

/// A message's place in the period that all publishers repeat.
struct Due {
    offset: Duration,
    publisher: usize,
    message: usize,
    /// It is of the loop that began in the period before.
    wrapped: bool,
}

/// The publishers begin one after the other, evenly over a period, so that their keyframes are spread, too.
fn schedule(clip: &Clip, publishers: usize) -> Vec<Due> {
    let mut all = Vec::with_capacity(publishers * clip.messages.len());
    for publisher in 0..publishers {
        let phase = PERIOD.mul_f64(publisher as f64 / publishers as f64);
        for (message, at) in clip.messages.iter().map(|message| message.at).enumerate() {
            let offset = phase + Duration::from_millis(at.into());
            let wrapped = offset >= PERIOD;
            all.push(Due { offset: if wrapped { offset - PERIOD } else { offset }, publisher, message, wrapped });
        }
    }
    all.sort_by_key(|due| due.offset);
    all
}

/// Sends until it is told to stop. A failure is told, too.
pub fn run(clip: Clip, sockets: Vec<TcpStream>, told: &Told) {
    if let Err(error) = send_all(clip, sockets, told) {
        told.lateness.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(format!("{error:#}"));
    }
}

fn send_all(mut clip: Clip, sockets: Vec<TcpStream>, told: &Told) -> Result<()> {
    let schedule = schedule(&clip, sockets.len());
    let pictures = clip.messages.iter().filter(|message| message.kind == VIDEO).count() as u64;
    // A message's number among the pictures of its loop.
    let numbers: Vec<_> =
        clip.messages.iter().scan(0, |seen, message| Some(std::mem::replace(seen, *seen + u64::from(message.kind == VIDEO)))).collect();
    let mut lines: Vec<_> = sockets.into_iter().map(|socket| Line { socket, waiting: Vec::new() }).collect();
    let start = Instant::now();
    for period in 0u32.. {
        for due in &schedule {
            let Some(lap) = period.checked_sub(due.wrapped.into()) else { continue };
            if told.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (at, line) = (start + PERIOD * period + due.offset, &mut lines[due.publisher]);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let late = at.elapsed();
            if lap == 0 && due.message == 0 {
                for header in &mut clip.headers {
                    line.send(header.stamped(0, 0))?;
                }
            }
            let message = &mut clip.messages[due.message];
            let counter = u64::from(lap) * pictures + numbers[due.message];
            let (kind, keyframe, payload) = (message.kind, message.keyframe, message.payload);
            let whole = line.send(message.stamped(lap * PERIOD_MILLIS + message.at, counter))?;
            if kind == VIDEO {
                told.note(due.publisher, counter, whole);
            }
            if keyframe {
                line.pass_over_answers()?;
            }
            let mut lateness = told.lateness.lock().unwrap_or_else(PoisonError::into_inner);
            lateness.add(late);
            lateness.payload += payload as u64;
            lateness.held_back += u64::from(!whole);
        }
    }
    Ok(())
}

/// A publisher's socket, which does not block.
struct Line {
    socket: TcpStream,
    waiting: Vec<u8>,
}

impl Line {
    /// Sends what fits; the rest waits for the next message. True if nothing waits.
    fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        if !self.waiting.is_empty() {
            let count = written(&mut self.socket, &self.waiting)?;
            self.waiting.drain(..count);
        }
        let count = if self.waiting.is_empty() { written(&mut self.socket, bytes)? } else { 0 };
        self.waiting.extend(&bytes[count..]);
        if self.waiting.len() > MOST_WAITING {
            bail!("the server leaves {} MiB of a publisher's media waiting", self.waiting.len() >> 20);
        }
        Ok(self.waiting.is_empty())
    }

    /// Acknowledgements and pings, so that they do not fill the socket.
    fn pass_over_answers(&mut self) -> Result<()> {
        let mut ignored = [0; 4096];
        loop {
            match self.socket.read(&mut ignored) {
                Ok(0) => bail!("the server closed a publisher's connection"),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn written(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
