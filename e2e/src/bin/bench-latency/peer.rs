//! MediaMTX with parts of the same length, in a folder and on ports of its own.

use anyhow::{Context as _, Result};
use lectern_e2e::settings::{self, free_port};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running MediaMTX. Dropping it ends it, and nothing else.
pub struct MediaMtx {
    child: Child,
    rtmp: u16,
    http: u16,
}

impl MediaMtx {
    /// Starts it in `folder`, which is emptied.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::remove_dir_all(folder).ok();
        std::fs::create_dir_all(folder)?;
        let (rtmp, http) = (free_port()?, free_port()?);
        let config = format!(
            "logLevel: warn
rtsp: no
webrtc: no
srt: no
rtmpAddress: 127.0.0.1:{rtmp}
hlsAddress: 127.0.0.1:{http}
hlsAlwaysRemux: yes
hlsVariant: lowLatency
hlsSegmentDuration: 2s
hlsPartDuration: 333ms
paths:
  all_others:
"
        );
        let file = folder.join("mediamtx.yml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let binary = settings::cache()?.join("bench/mediamtx");
        let mut server = Command::new(&binary);
        server.arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = server.spawn().with_context(|| format!("{} cannot be started; e2e/bench/run latency builds it", binary.display()))?;
        Ok(Self { child, rtmp, http })
    }

    pub fn rtmp(&self) -> String {
        format!("rtmp://127.0.0.1:{}", self.rtmp)
    }

    pub fn playlist(&self, stream: &str) -> String {
        format!("http://127.0.0.1:{}/{stream}/index.m3u8", self.http)
    }
}

impl Drop for MediaMtx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
