//! A live playlist as it is held: its text, and what requests ask about it.

use crate::edge::Edge;
use bytes::Bytes;
use lectern_media::hls::delta_update;
use std::time::Duration;

/// Target durations that a request waits for what does not stand there yet (draft-pantos-hls-rfc8216bis §6.2.5.2).
const HELD: u32 = 3;

/// A live playlist or MPD.
#[derive(Debug, Clone, Default)]
pub struct Playlist {
    /// Its text.
    pub body: Bytes,
    /// What has changed of late, for a player that has the rest.
    pub delta: Option<Bytes>,
    /// How far it reaches.
    pub edge: Edge,
    /// How long a request may wait for its next version; `None` where it offers no such waiting.
    pub hold: Option<Duration>,
}

impl Playlist {
    /// Reads `body`, which belongs at `path`.
    pub fn read(path: &str, body: Bytes) -> Self {
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let blocking = text.lines().any(|line| line.starts_with("#EXT-X-SERVER-CONTROL:") && line.contains("CAN-BLOCK-RELOAD=YES"));
        let target = || text.lines().find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:")?.parse::<u64>().ok());
        let hold = if blocking { target().map(|seconds| Duration::from_secs(seconds.min(60)) * HELD) } else { None };
        let delta = blocking.then(|| delta_update(text)).flatten().map(Bytes::from);
        Self { edge: Edge::of(path, &body), delta, hold, body }
    }
}
