//! A lecturer: pictures drawn here, coded and sent by an ffmpeg of its own, in real time.

use crate::browser::Frame;
use crate::captioner;
use crate::coding::Coding;
use crate::count;
use crate::pattern::{self, FRAME_RATE, Size};
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The steady tone, in Hertz.
pub const TONE: f64 = 880.0;

/// What is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// Each tenth of a second its number (see [`count`]).
    Counted,
    /// A steady [`TONE`].
    Steady,
    /// The tone in the first tenth of each second: of each picture whose counter is a multiple of [`FRAME_RATE`], and the two after it.
    Beeps,
}

/// What a publisher sends.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The counter of the first picture. A publisher that returns starts far from where it left, to be told apart.
    pub first: u32,
    /// The picture's size.
    pub size: Size,
    /// How it is coded, and by which ffmpeg.
    pub coding: Coding,
    /// Stop by itself after so many frames.
    pub frames: Option<u32>,
    /// Send as fast as it goes, for tests that want a file.
    pub hurry: bool,
    /// What is heard.
    pub sound: Sound,
    /// At each second `n` an `onTextData` says `remark n`.
    pub remarks: bool,
    /// At so many seconds of its own time its clock jumps an hour ahead.
    pub jumps: Option<u32>,
    /// Every [`LASTS`](crate::captioner::LASTS) pictures a caption comes up, `caption N`.
    pub captions: bool,
}

impl Default for Shot {
    fn default() -> Self {
        Self {
            first: 0,
            size: Size { width: 640, height: 360 },
            coding: Coding::LowDelay,
            frames: None,
            hurry: false,
            sound: Sound::Counted,
            remarks: false,
            jumps: None,
            captions: false,
        }
    }
}

impl Shot {
    /// As small as it gets, for tests that have more to do than to encode.
    pub fn small() -> Self {
        Self { size: Size { width: 320, height: 180 }, ..Self::default() }
    }
}

/// A running publisher. Dropping it kills it, and nothing else.
pub struct Publisher {
    child: Child,
    pictures: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU32>,
    started: Arc<OnceLock<SystemTime>>,
    shot: Shot,
    accepted: mpsc::Receiver<SystemTime>,
    /// Where ffmpeg's words are.
    pub log: PathBuf,
}

impl Publisher {
    /// Publishes to `{url}/{key}` over RTMP; ffmpeg's words go to a file in `out`. One with captions has a second ffmpeg that sends: it closes the connection in order even
    /// when the first dies.
    pub fn rtmp(out: &Path, url: &str, key: &str, shot: Shot) -> Result<Self> {
        let target = format!("{}/{key}", url.trim_end_matches('/'));
        let flv = ["-flvflags", "no_duration_filesize", "-f", "flv"];
        if !shot.captions {
            return Self::start(out, shot, &[&flv[..], &[&target]].concat());
        }
        let mut sender = Command::new("ffmpeg");
        sender.args(["-hide_banner", "-nostats", "-loglevel", "warning", "-fflags", "nobuffer", "-f", "flv", "-i", "pipe:0", "-c", "copy"]);
        std::fs::create_dir_all(out)?;
        let words = std::fs::File::create(out.join("sender.log"))?;
        sender.args(flv).arg(target).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(words);
        let mut sender = sender.spawn().context("ffmpeg cannot be started; scripts/install test")?;
        let mut publisher = Self::start(out, shot, &[&flv[..], &["pipe:1"]].concat())?;
        let (from, to) = (publisher.child.stdout.take().context("ffmpeg's output")?, sender.stdin.take().context("ffmpeg's input")?);
        std::thread::spawn(move || {
            captioner::pass_on(from, to).ok(); // one of the two is gone, and the other hears of it
            sender.wait().ok();
        });
        Ok(publisher)
    }

    /// Sends to whatever `output`, ffmpeg's output arguments, says.
    pub fn start(out: &Path, shot: Shot, output: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(out)?;
        let log = (1..).map(|n| out.join(format!("publisher-{n}.log"))).find(|path| !path.exists()).context("a free name")?;
        let size = format!("{}x{}", shot.size.width, shot.size.height);
        let rate = FRAME_RATE.to_string();
        let tone = match shot.sound {
            Sound::Counted => count::source(shot.first),
            Sound::Steady => format!("sine=frequency={TONE}:sample_rate=48000"),
            Sound::Beeps => format!("aevalsrc='sin(2*PI*{TONE}*t)*lt(mod(t,1),0.1)':sample_rate=48000"),
        };
        let mut ffmpeg = Command::new(shot.coding.ffmpeg()?);
        ffmpeg.args(["-hide_banner", "-nostats", "-loglevel", "info"]);
        ffmpeg.args(["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", &size, "-framerate", &rate, "-i", "pipe:0"]);
        if !shot.hurry {
            ffmpeg.arg("-re");
        }
        ffmpeg.args(["-f", "lavfi", "-i", &tone]);
        if shot.remarks {
            ffmpeg.arg("-i").arg(remarks(out)?).args(["-map", "2:s", "-c:s", "text"]);
        }
        ffmpeg.args(["-map", "0:v", "-map", "1:a", "-shortest"]);
        ffmpeg.args(shot.coding.args());
        if let Some(second) = shot.jumps {
            // By the packet: ffmpeg 5.1 tells this filter the encoder's time base (`TB`) and gives it stamps of FLV's, in milliseconds.
            let later = |packets: u32| format!("setts=ts='TS+if(gte(N,{packets}),3600000,0)'");
            ffmpeg.args(["-bsf:v", &later(second * FRAME_RATE), "-bsf:a", &later(second * 48_000 / 1024)]);
        }
        ffmpeg.args(output);
        let stdout = if shot.captions { Stdio::piped() } else { Stdio::null() };
        ffmpeg.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = ffmpeg.spawn().context("ffmpeg cannot be started; scripts/install test")?;

        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU32::new(shot.first));
        let stdin = child.stdin.take().context("ffmpeg's input")?;
        let started = Arc::new(OnceLock::new());
        let pictures = {
            let (stop, next, shot, started) = (stop.clone(), next.clone(), shot.clone(), started.clone());
            std::thread::spawn(move || draw_all(stdin, &shot, &next, &started, &stop))
        };
        let words = BufReader::new(child.stderr.take().context("ffmpeg's words")?);
        let mut file = std::fs::File::create(&log)?;
        let (tell, accepted) = mpsc::channel();
        std::thread::spawn(move || {
            for line in words.split(b'\n').map_while(Result::ok) {
                // ffmpeg opens the connection, publish command included, before it names its output.
                if line.starts_with(b"Output #0") {
                    tell.send(SystemTime::now()).ok();
                }
                file.write_all(&line).and_then(|()| file.write_all(b"\n")).ok();
            }
        });
        Ok(Self { child, pictures: Some(pictures), stop, next, started, shot, accepted, log })
    }

    /// When the server accepted the publish command, as ffmpeg noticed; at most `within` from now.
    pub fn accepted(&self, within: Duration) -> Result<SystemTime> {
        self.accepted
            .recv_timeout(within)
            .with_context(|| format!("the server did not accept the publisher within {within:?}: {}", self.words()))
    }

    /// The counters drawn so far.
    pub fn published(&self) -> std::ops::Range<u32> {
        self.shot.first..self.next.load(Ordering::Acquire)
    }

    /// How long after a picture was due (and drawn, if the machine kept up) it was shown, in seconds; `None` where that cannot be read.
    pub fn behind(&self, shown: &Frame) -> Option<f64> {
        let due = *self.started.get()? + due(shown.counter?.checked_sub(self.shot.first)?);
        Some(shown.at / 1000.0 - due.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64())
    }

    /// True until ffmpeg has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The lecturer stops: the connection is closed in order. Returns what was published.
    pub fn leave(mut self) -> Result<std::ops::Range<u32>> {
        self.stop.store(true, Ordering::Release);
        self.join_pictures();
        let status = self.wait(Duration::from_secs(20))?;
        if !status.success() {
            bail!("ffmpeg ended with {status}: {}", self.words());
        }
        Ok(self.published())
    }

    /// The lecturer's machine dies. Returns what was drawn for it.
    pub fn die(mut self) -> Result<std::ops::Range<u32>> {
        self.child.kill()?;
        self.child.wait()?;
        self.join_pictures();
        Ok(self.published())
    }

    /// Waits for ffmpeg's own end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("ffmpeg still runs after {within:?}: {}", self.words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that ffmpeg said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last of it.
    pub fn words(&self) -> String {
        let text = self.said();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn join_pictures(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(pictures) = self.pictures.take() {
            pictures.join().ok();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        self.join_pictures();
    }
}

/// Draws picture after picture, each at its time, until `stop`, the shot's end, or ffmpeg's.
fn draw_all(mut ffmpeg: ChildStdin, shot: &Shot, next: &AtomicU32, started: &OnceLock<SystemTime>, stop: &AtomicBool) {
    let start = Instant::now();
    let _ = started.set(SystemTime::now()); // only here
    let mut picture = Vec::new();
    for index in 0..shot.frames.unwrap_or(u32::MAX - shot.first) {
        if stop.load(Ordering::Acquire) {
            return;
        }
        if !shot.hurry {
            std::thread::sleep((start + due(index)).saturating_duration_since(Instant::now()));
        }
        pattern::draw(shot.first + index, shot.size, &mut picture);
        // Counted before it is written, so that nobody can see a picture that does not count as published.
        next.store(shot.first + index + 1, Ordering::Release);
        if ffmpeg.write_all(&picture).is_err() {
            return;
        }
    }
}

/// A file of subtitles, one a second of the next half hour, which ffmpeg sends as `onTextData`.
fn remarks(out: &Path) -> Result<PathBuf> {
    let path = out.join("remarks.srt");
    let at = |second: u32| format!("{:02}:{:02}:{:02},000", second / 3600, second / 60 % 60, second % 60);
    let lines = (0..1800).map(|second| format!("{}\n{} --> {}\nremark {second}\n\n", second + 1, at(second), at(second + 1)));
    std::fs::write(&path, lines.collect::<String>())?;
    Ok(path)
}

/// From the first picture to number `index`.
fn due(index: u32) -> Duration {
    Duration::from_nanos(u64::from(index) * 1_000_000_000 / u64::from(FRAME_RATE))
}
