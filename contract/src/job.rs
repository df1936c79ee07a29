//! The jobs that send runs to transcoders, through SQS.

use crate::keys::RunPrefix;
use crate::message::Message;
use crate::{Epoch, Ladder, PartCount, RunId, SegmentDuration, StreamRef, VideoRendition, WallMillis};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a transcoder pod that is asked to stop may take: its jobs move to successors, which have to be found and to get ready.
pub const FAREWELL: Duration = Duration::from_secs(60);

/// Work for a transcoder: take the run's feed, encode it, publish it. Delivered at least once; the head of the run
/// decides who may act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveJob {
    /// The LiveStream, for reports and logs.
    pub stream: StreamRef,
    /// What is shown of it: the LiveStream's title.
    pub title: String,
    /// The run to work for.
    pub run: RunId,
    /// Which dispatch of the run this is, counted from 1; a report carries it back, so that the operator knows which of
    /// its messages was answered.
    pub attempt: u32,
    /// Wall-clock time of tick zero of the run's timeline.
    pub anchor: WallMillis,
    /// Where the feed is served: `host:port` of the owning shard.
    pub feed: String,
    /// `host:port` at which any shard of the pool answers: should the owner be gone, one that is left knows the new one.
    #[serde(default)]
    pub any_feed: Option<String>,
    /// What to encode.
    pub ladder: Ladder,
    /// The length of every segment.
    pub segment_duration: SegmentDuration,
    /// Parts a segment, for players that want to be closer to the live edge than whole segments let them; `None`: none.
    #[serde(default)]
    pub parts: Option<PartCount>,
    /// How far back live playlists reach, in milliseconds; `None`, as of an operator that does not know of it: ten segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dvr_window_ms: Option<u64>,
    /// What stands below the title while nothing comes from the lecturer; `None`: the run has a hole then.
    #[serde(default)]
    pub slate: Option<String>,
    /// Where the run's objects go.
    pub prefix: RunPrefix,
    /// The run moves: the owner of this epoch is alive, and is asked to hand over at a segment's start. `None`: an owner that is alive keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Epoch>,
    /// How often a pod that could have taken it has put it back to the end of the queue, for another one.
    #[serde(default)]
    pub passed_on: u32,
    /// How long the source may be silent before the job ends as idle, in milliseconds.
    pub idle_after_ms: u64,
}

impl Message for LiveJob {
    const KIND: &'static str = "live";
}

/// Work for a slot that is idle: encode an ended run's original into renditions that were too dear to encode live, and add them to the recording. It has a queue of
/// its own, because SQS knows no order: a lecture that begins waits for none of them. Delivered at least once; what is stored stays, and who comes second goes on
/// from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveJob {
    /// The LiveStream, for logs.
    pub stream: StreamRef,
    /// The run.
    pub run: RunId,
    /// What is shown of it: the LiveStream's title.
    pub title: String,
    /// What stands below the title where nothing came from the lecturer; `None`: the run has a hole there.
    #[serde(default)]
    pub slate: Option<String>,
    /// Where the run's objects are.
    pub prefix: RunPrefix,
    /// What to encode.
    pub video: Vec<VideoRendition>,
}

impl ArchiveJob {
    /// Its renditions alone.
    pub fn ladder(&self) -> Ladder {
        Ladder { video: self.video.clone(), audio: Vec::new() }
    }
}

impl Message for ArchiveJob {
    const KIND: &'static str = "archive";
}
