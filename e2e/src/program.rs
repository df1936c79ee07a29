//! Publishers that are no ffmpeg, each with a picture and a sound of its own.

use crate::settings;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Longer than any test: a program whose test was killed ends by itself.
const SECONDS: &str = "600";
/// How long a program that is told to leave may take; OBS takes a few seconds.
const GOODBYE: Duration = Duration::from_secs(30);

/// A program that publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// OBS Studio on a screen that nobody sees (Xvfb): x264 and AAC, 64 × 48.
    Obs,
    /// GStreamer's `rtmp2sink`: x264 with B-frames and AAC, 320 × 180.
    GStreamer,
}

impl Program {
    /// Publishes to `{url}/{key}`; the program's words go to a file in `out`.
    pub fn publish(self, out: &Path, url: &str, key: &str) -> Result<Running> {
        let target = format!("{}/{key}", url.trim_end_matches('/'));
        let (name, mut command) = match self {
            Self::Obs => {
                let mut obs = Command::new(settings::e2e_folder().with_file_name("ingest-pod/tests/captures/obs"));
                obs.args([&target, SECONDS]);
                ("obs", obs)
            }
            Self::GStreamer => {
                let picture = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 ! queue \
                               ! x264enc speed-preset=veryfast bframes=2 rc-lookahead=5 sync-lookahead=0 threads=1 key-int-max=30 bitrate=500 \
                               ! h264parse ! queue ! mux.";
                let sound = "audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! queue ! avenc_aac ! aacparse ! queue ! mux.";
                let pipeline = format!("flvmux name=mux streamable=true ! rtmp2sink location={target} {picture} {sound}");
                let mut gst = Command::new("gst-launch-1.0");
                gst.arg("-e").args(pipeline.split_whitespace());
                ("gstreamer", gst)
            }
        };
        let log = out.join(format!("{name}.log"));
        let words = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(words.try_clone()?).stderr(words).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{name} cannot be started; scripts/install test"))?;
        Ok(Running { child, log })
    }
}

/// A program that publishes now. Dropping it ends it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Its user stops it: the connection is closed in order.
    pub async fn leave(mut self) -> Result<()> {
        self.interrupt();
        let status = tokio::time::timeout(GOODBYE, self.child.wait()).await;
        let words = || std::fs::read_to_string(&self.log).unwrap_or_default();
        let status = status.with_context(|| format!("it does not leave: {}", words()))??;
        ensure!(status.success(), "it ended with {status}: {}", words());
        Ok(())
    }

    /// Control-C: both programs, and the script that runs OBS, end in order on it.
    fn interrupt(&self) {
        if let Some(id) = self.child.id() {
            std::process::Command::new("kill").args(["-s", "INT", &id.to_string()]).status().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Before it is killed: OBS and its screen are the script's children, and only the script can end them.
        self.interrupt();
        let end = std::time::Instant::now() + GOODBYE;
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
