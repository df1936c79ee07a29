//! A student in headless Chromium: commands to `e2e/browser/watch.mjs`, a JSON line each, and its answers.

use crate::settings;
use anyhow::{Context as _, Result, bail};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A running browser with one page. Dropping it ends it.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
    out: PathBuf,
}

/// A frame as the page showed it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// Milliseconds since 1970 when it was shown.
    pub at: f64,
    /// Its time on the player's timeline, in seconds.
    pub media_time: f64,
    /// The counter that the publisher drew; `None` if it could not be read.
    pub counter: Option<u32>,
    /// How clear the least clear cell was, 0 to 127.
    pub margin: f64,
    /// How many the browser has shown up to it. A busy page is not told of each.
    pub presented: u32,
    /// Seconds of media that the player had from there on.
    pub in_hand: f64,
}

/// What a page showed for a while.
#[derive(Debug, Clone, Deserialize)]
pub struct Sample {
    /// Media seconds in a second of wall time.
    pub rate: f64,
    /// Wall time watched.
    pub seconds: f64,
    /// Frames that the browser dropped.
    pub dropped: u32,
    /// Each time that it had to wait for data: the player's state then, with its place and what it had.
    pub waits: Vec<serde_json::Value>,
    /// All frames shown.
    #[serde(deserialize_with = "frames")]
    pub frames: Vec<Frame>,
}

/// Seconds of media with which nobody waits for more.
const IN_HAND: f64 = 0.5;
/// Seconds of media with which it is the browser that has no time to decode where its picture stands still: more than the one segment that ends a wait, after which
/// a player may show a picture and stand still once more.
const IN_PLENTY: f64 = 5.0;

/// What may happen to a page for a second.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Trouble {
    /// Its script keeps it busy.
    BusyPage,
    /// The player is paused.
    Pause,
}

fn frames<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Frame>, D::Error> {
    let rows = Vec::<(f64, f64, Option<u32>, f64, u32, f64)>::deserialize(from).map_err(D::Error::custom)?;
    let frame = |(at, media_time, counter, margin, presented, in_hand)| Frame { at, media_time, counter, margin, presented, in_hand };
    Ok(rows.into_iter().map(frame).collect())
}

impl Sample {
    /// How often it had to wait for media. A browser that has no time to decode says that it waits, too.
    pub fn stalls(&self) -> usize {
        self.waits.iter().filter(|wait| wait["inHand"].as_f64().unwrap_or_default() < IN_HAND).count()
    }

    /// The counters that could be read, in the order shown.
    pub fn counters(&self) -> Vec<u32> {
        self.frames.iter().filter_map(|frame| frame.counter).collect()
    }

    /// The longest time for which no new picture can have been shown, in milliseconds: where the page was told of a picture late, those that the browser
    /// had shown meanwhile took their time.
    pub fn longest_stall(&self) -> f64 {
        self.longest(|_| true)
    }

    /// The longest of these for which the browser alone cannot have been the reason: it had no more than a segment or so in hand.
    pub fn longest_wait(&self) -> f64 {
        self.longest(|before| before.in_hand < IN_PLENTY)
    }

    /// The longest of them after a picture that is `meant`.
    fn longest(&self, meant: impl Fn(&Frame) -> bool) -> f64 {
        let of = |pair: &[Frame]| {
            let between = f64::from(pair[1].presented.saturating_sub(pair[0].presented).saturating_sub(1));
            pair[1].at - pair[0].at - between * 1e3 / f64::from(crate::pattern::FRAME_RATE)
        };
        self.frames.windows(2).filter(|pair| meant(&pair[0])).map(of).fold(0.0, f64::max)
    }

    /// What is wrong with the pictures: unread, out of order, not at their time, or never published.
    ///
    /// `at_their_time`: a picture's counter and its media time advance together, to two frames.
    pub fn complaints(&self, published: &std::ops::Range<u32>) -> Vec<String> {
        let mut wrong = Vec::new();
        let read: Vec<_> = self.frames.iter().filter_map(|frame| frame.counter.map(|counter| (frame.media_time, counter))).collect();
        let Some(&(start, first)) = read.first() else { return vec!["no picture could be read".to_owned()] };
        if read.len() < self.frames.len() {
            wrong.push(format!("{} of {} pictures could not be read", self.frames.len() - read.len(), self.frames.len()));
        }
        for pair in read.windows(2) {
            if pair[1].1 < pair[0].1 {
                wrong.push(format!("picture {} was shown after {}", pair[1].1, pair[0].1));
            }
        }
        for (time, counter) in &read {
            let expected = f64::from(first) + (time - start) * f64::from(crate::pattern::FRAME_RATE);
            // Two frames are allowed, and a player's times are rounded.
            if (f64::from(*counter) - expected).abs() > 2.01 {
                wrong.push(format!("picture {counter} was shown at {time:.3} s, where {expected:.1} belongs"));
            }
            if !published.contains(counter) {
                wrong.push(format!("picture {counter} was shown, but {published:?} were published"));
            }
        }
        wrong
    }
}

/// The renditions that the player offers.
#[derive(Debug, Clone, Deserialize)]
pub struct Renditions {
    /// hls.js's levels, or what another player offers.
    pub video: Vec<Level>,
    /// hls.js's audio tracks.
    pub audio: Vec<Track>,
}

/// A video rendition.
#[derive(Debug, Clone, Deserialize)]
pub struct Level {
    /// Its place among them.
    pub index: u32,
    /// Pixels, as the playlist says.
    pub width: u32,
    /// Pixels, as the playlist says.
    pub height: u32,
    /// CODECS, as the playlist says.
    pub codecs: String,
}

/// An audio rendition.
#[derive(Debug, Clone, Deserialize)]
pub struct Track {
    /// NAME, as the playlist says.
    pub name: String,
    /// Its playlist.
    pub url: String,
}

/// What a rendition showed after it was selected.
#[derive(Debug, Clone, Deserialize)]
pub struct Selected {
    /// Pixels, as decoded.
    pub width: u32,
    /// Pixels, as decoded.
    pub height: u32,
    /// Counter of the first picture.
    pub first: u32,
    /// Counter of the last picture.
    pub last: u32,
    /// Pictures whose code could not be read.
    pub unread: u32,
    /// No counter was less than the one before.
    pub ordered: bool,
}

/// What was heard.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Heard {
    /// Root mean square, 0 to 1.
    pub level: f64,
    /// Where the spectrum peaks.
    pub hertz: f64,
}

/// What a script of the player's page was told of the publisher's data messages.
#[derive(Debug, Clone, Deserialize)]
pub struct Told {
    /// When the publisher's picture zero was to be shown, in seconds of the element's time.
    pub zero: f64,
    /// The messages.
    pub said: Vec<Message>,
}

/// A publisher's data message.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// Its name.
    pub name: String,
    /// Its values, in JSON.
    pub value: String,
    /// When it was said, in seconds of the element's time.
    pub time: f64,
}

/// The picture at a place that was sought.
#[derive(Debug, Clone, Deserialize)]
pub struct Sought {
    /// Its counter.
    pub counter: u32,
    /// The earliest and the latest time that can be sought, in seconds.
    pub start: f64,
    /// See `start`.
    pub end: f64,
}

impl Browser {
    /// Starts Chromium. Its console goes to `{out}/browser.log`.
    pub async fn start(out: &Path) -> Result<Self> {
        let folder = tokio::task::spawn_blocking(installed).await??;
        std::fs::create_dir_all(out)?;
        let words = std::fs::File::options().create(true).append(true).open(out.join("browser-driver.log"))?;
        let mut child = Command::new("node")
            .arg(folder.join("watch.mjs"))
            .arg(out.join("browser.log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(words)
            .spawn()
            .context("node cannot be started; scripts/install test")?;
        let commands = child.stdin.take().context("node's input")?;
        let replies = BufReader::new(child.stdout.take().context("node's output")?).lines();
        Ok(Self { child, commands, replies, out: out.to_owned() })
    }

    /// One command, one answer. The page's own bound, `withinMs`, gives the better message; ours catches a page that hangs.
    async fn ask<T: DeserializeOwned>(&mut self, command: Value, within: Duration) -> Result<T> {
        let text = format!("{command}\n");
        let asked = async {
            self.commands.write_all(text.as_bytes()).await?;
            self.replies.next_line().await?.context("the browser's driver ended")
        };
        let line = match tokio::time::timeout(within + Duration::from_secs(45), asked).await {
            Ok(line) => line.with_context(|| format!("{} (see {})", text.trim(), self.out.join("browser-driver.log").display()))?,
            Err(_) => bail!("the browser does not answer: {}", text.trim()),
        };
        let reply: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if let Some(error) = reply.get("error") {
            bail!("browser: {}: {error} (the player: {})", text.trim(), reply["state"]);
        }
        serde_json::from_value(reply["ok"].clone()).with_context(|| format!("{}: {line}", text.trim()))
    }

    /// Opens a page whose `window.lectern` is `{hls, video}`; `source` replaces the playlist that it plays.
    pub async fn open(&mut self, url: &str, source: Option<&str>, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "open", "url": url, "source": source, "withinMs": millis(within)}), within).await.map(drop)
    }

    /// Plays an MPD or a playlist with shaka-player instead; audio renditions are hls.js's and are not listed then. What kind of
    /// presentation it is: `DASH, live`, `HLS` and so on.
    pub async fn open_shaka(&mut self, source: &str, within: Duration) -> Result<String> {
        let opened: Value = self.ask(json!({"do": "openShaka", "source": source, "withinMs": millis(within)}), within).await?;
        Ok(opened["kind"].as_str().unwrap_or_default().to_owned())
    }

    /// As [`Self::open_shaka`], with dash.js and its defaults, until the first picture plays: `DASH, live, low latency` and so on.
    pub async fn open_dash(&mut self, source: &str, within: Duration) -> Result<String> {
        let opened: Value = self.ask(json!({"do": "openDash", "source": source, "withinMs": millis(within)}), within).await?;
        Ok(opened["kind"].as_str().unwrap_or_default().to_owned())
    }

    /// Plays a playlist with hls.js and its defaults, on a page of its own.
    pub async fn open_hls(&mut self, source: &str, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "openHls", "source": source, "withinMs": millis(within)}), within).await.map(drop)
    }

    /// Waits for the first frame with a counter.
    pub async fn first_frame(&mut self, within: Duration) -> Result<Frame> {
        self.ask(json!({"do": "firstFrame", "withinMs": millis(within)}), within).await
    }

    /// Waits until the picture has moved on for two seconds without a seek or a stall.
    pub async fn playing(&mut self, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "playing", "withinMs": millis(within)}), within).await.map(drop)
    }

    /// As [`Self::playing`]; the player may be playing up to 5 % too fast or too slowly, to come to the latency that it aims at.
    pub async fn playing_about(&mut self, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "playing", "withinMs": millis(within), "drift": 0.05}), within).await.map(drop)
    }

    /// What the video element complains of, if it does: a decoder's error, mostly.
    pub async fn media_error(&mut self) -> Result<Option<String>> {
        let state: Value = self.ask(json!({"do": "state"}), Duration::ZERO).await?;
        Ok(state["error"].as_str().map(str::to_owned))
    }

    /// Watches for `seconds`.
    pub async fn sample(&mut self, seconds: u32) -> Result<Sample> {
        self.watch(seconds, None).await
    }

    /// Watches for `seconds`, and makes a second's trouble after the first of them.
    pub async fn sample_while(&mut self, seconds: u32, trouble: Trouble) -> Result<Sample> {
        self.watch(seconds, Some(trouble)).await
    }

    async fn watch(&mut self, seconds: u32, trouble: Option<Trouble>) -> Result<Sample> {
        self.ask(json!({"do": "sample", "seconds": seconds, "trouble": trouble}), Duration::from_secs(u64::from(seconds) + 10)).await
    }

    /// Presses a button of the page once it is visible.
    pub async fn press(&mut self, selector: &str, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "press", "selector": selector, "withinMs": millis(within)}), within).await.map(drop)
    }

    /// The playlist that is loaded.
    pub async fn playlist(&mut self) -> Result<String> {
        let state: Value = self.ask(json!({"do": "state"}), Duration::ZERO).await?;
        Ok(state["url"].as_str().unwrap_or_default().to_owned())
    }

    /// The requests of the page whose path and query match `pattern`, a JavaScript regular expression: each with its answer's status.
    pub async fn requests(&mut self, pattern: &str) -> Result<Vec<(String, u16)>> {
        self.ask(json!({"do": "requests", "pattern": pattern}), Duration::ZERO).await
    }

    /// What can be selected.
    pub async fn renditions(&mut self) -> Result<Renditions> {
        self.ask(json!({"do": "renditions"}), Duration::ZERO).await
    }

    /// Selects a video rendition and waits for a second of its pictures.
    pub async fn select(&mut self, index: u32, within: Duration) -> Result<Selected> {
        self.ask(json!({"do": "select", "index": index, "withinMs": millis(within)}), within).await
    }

    /// The same of one that may show another's pictures, in their size.
    pub async fn select_any_size(&mut self, index: u32, within: Duration) -> Result<Selected> {
        self.ask(json!({"do": "select", "index": index, "anySize": true, "withinMs": millis(within)}), within).await
    }

    /// Lets the player choose again.
    pub async fn automatic(&mut self) -> Result<()> {
        self.ask::<Value>(json!({"do": "automatic"}), Duration::ZERO).await.map(drop)
    }

    /// Has hls.js load a part of another rendition in the middle of so many segments, and come back within each; what it could not play on over then, in its
    /// words.
    pub async fn hesitate(&mut self, times: u32, within: Duration) -> Result<Vec<String>> {
        self.ask(json!({"do": "hesitate", "times": times, "withinMs": millis(within)}), within * 2).await
    }

    /// Listens to the player.
    pub async fn sound(&mut self, within: Duration) -> Result<Heard> {
        self.ask(json!({"do": "sound", "withinMs": millis(within)}), within).await
    }

    /// How much later than its picture the sound is heard, in milliseconds (less than zero: earlier), of so many seconds of a publisher that
    /// [beeps](crate::Sound::Beeps), each.
    pub async fn sound_after_picture(&mut self, beeps: u32, within: Duration) -> Result<Vec<f64>> {
        self.ask(json!({"do": "soundAfterPicture", "beeps": beeps, "withinMs": millis(within)}), within).await
    }

    /// Waits until so many data messages have come to what plays.
    pub async fn told(&mut self, messages: u32, within: Duration) -> Result<Told> {
        self.ask(json!({"do": "told", "messages": messages, "withinMs": millis(within)}), within).await
    }

    /// Turns on the text that the player offers, and waits until so many of the publisher's captions came up ([`crate::Shot::captions`]): the number of each, and
    /// the counter of the picture at which it begins.
    pub async fn captions(&mut self, captions: u32, within: Duration) -> Result<Vec<(u32, u32)>> {
        self.ask(json!({"do": "captions", "captions": captions, "withinMs": millis(within)}), within).await
    }

    /// Listens to one playlist, beside the player.
    pub async fn listen(&mut self, url: &str, within: Duration) -> Result<Heard> {
        self.ask(json!({"do": "listen", "url": url, "withinMs": millis(within)}), within).await
    }

    /// Pauses, goes `to` seconds after the earliest time and reads the picture.
    pub async fn seek(&mut self, to: f64, within: Duration) -> Result<Sought> {
        self.ask(json!({"do": "seek", "to": to, "withinMs": millis(within)}), within).await
    }

    /// Waits until what plays has played to its end.
    pub async fn ended(&mut self, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "ended", "withinMs": millis(within)}), within).await.map(drop)
    }

    /// Waits until the media is played to `seconds` of its own time.
    pub async fn reaches(&mut self, seconds: f64, within: Duration) -> Result<()> {
        self.ask::<Value>(json!({"do": "reaches", "seconds": seconds, "withinMs": millis(within)}), within).await.map(drop)
    }

    /// Saves a picture of the page as `{out}/{name}.png`.
    pub async fn screenshot(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.out.join(format!("{name}.png"));
        self.ask::<Value>(json!({"do": "screenshot", "path": path}), Duration::from_secs(30)).await?;
        Ok(path)
    }

    /// Closes the browser in order.
    pub async fn close(mut self) -> Result<()> {
        self.commands.shutdown().await?;
        drop(self.commands);
        match tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await {
            Ok(status) => status.map(drop).context("the browser's driver"),
            Err(_) => self.child.kill().await.context("the browser's driver"),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The folder with the driver and its packages, copied into the cache and installed there when they changed.
pub fn installed() -> Result<PathBuf> {
    const FILES: [&str; 5] = ["package.json", "package-lock.json", "watch.mjs", "probe.js", "page.html"];
    let source = settings::e2e_folder().join("browser");
    let folder = settings::cache()?.join("browser");
    std::fs::create_dir_all(&folder)?;
    let lock = std::fs::File::options().create(true).write(true).truncate(false).open(folder.join(".lock"))?;
    lock.lock()?; // until this function returns; other tests and benchmarks wait for it
    let lockfile = std::fs::read(source.join("package-lock.json"))?;
    let fresh = std::fs::read(folder.join(".installed")).is_ok_and(|done| done == lockfile);
    for name in FILES {
        let (from, to) = (std::fs::read(source.join(name))?, folder.join(name));
        if !std::fs::read(&to).is_ok_and(|there| there == from) {
            std::fs::write(&to, from)?;
        }
    }
    if !fresh {
        let npm =
            std::process::Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder).output();
        let npm = npm.context("npm cannot be started; scripts/install test")?;
        if !npm.status.success() {
            bail!("npm ci in {}: {}", folder.display(), String::from_utf8_lossy(&npm.stderr));
        }
        std::fs::copy(folder.join("node_modules/hls.js/dist/hls.min.js"), folder.join("hls.min.js"))?;
        std::fs::write(folder.join(".installed"), lockfile)?;
    }
    Ok(folder)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]
mod tests {
    use super::Sample;
    use serde_json::json;

    #[test]
    fn a_browser_that_has_no_time_is_told_from_a_player_that_has_no_media() {
        // When, at which place, the counter, how clear, how many were shown, and what was in hand.
        let frames = json!([
            [0, 0.0, 0, 99, 1, 9.0],
            [300, 0.033, 1, 99, 2, 9.0],
            [333, 0.067, 2, 99, 3, 0.02],
            [453, 0.1, 3, 99, 4, 4.0],
            [593, 0.133, 4, 99, 5, 4.0]
        ]);
        let waits = json!([{"inHand": 9.0}, {"inHand": 0.02}]);
        let sample: Sample =
            serde_json::from_value(json!({"rate": 1.0, "seconds": 1.0, "dropped": 0, "waits": waits, "frames": frames})).unwrap();
        assert_eq!((sample.longest_stall(), sample.longest_wait(), sample.stalls()), (300.0, 140.0, 1));
    }
}
