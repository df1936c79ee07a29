//! Where a run's media begins, and how its segments come to begin with the keyframes of its source, where that may be passed on as a rendition.
//!
//! The first transcoder of a run looks at the first keyframe, and begins with that. A run's clock begins when the lecture gets a place, and its source's keyframes come
//! whenever the publisher began: so it counts the run's media from so much earlier that the keyframe lies on the grid. It writes both into the head, where
//! successors read it: all of them number segments alike, and make the first one of the same pictures. What playlists say of the wall clock is not moved.

use crate::retry::Backoff;
use crate::shards::Shards;
use bytes::BytesMut;
use lectern_contract::feed::{Codec, FeedFrame, FeedRequest, Track};
use lectern_contract::job::LiveJob;
use lectern_contract::{Ladder, Ticks, VideoCodec, WallMillis};
use lectern_media::avc::AvcConfig;
use lectern_podkit::tls::{PeerRole, PeerTls};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a keyframe is waited for. A job comes when there is a publisher, and shards keep its newest keyframe.
const WITHIN: Duration = Duration::from_secs(3);
/// Keyframes are put on multiples of this; segments begin there, and so do the keyframes of a source that has one every second, or two.
const GRID: Ticks = Ticks::from_millis(2_000);
/// And so much later, within what a picture may be moved by (`engine/passing.rs`): stamps waver, and a keyframe must not come to lie before its boundary.
const LATER: Ticks = Ticks::from_millis(25);

/// What was seen of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The time of the first access unit, by the feed's clock.
    pub begins: Ticks,
    /// By how much to move the run; zero where its source is none to be passed on.
    pub shift: Ticks,
}

/// Looks at the source of `job`, which nobody has worked for yet, and for its first keyframe where it may be `passed` on; `None` where there is nothing to be seen.
pub async fn look(job: &LiveJob, passed: bool, peers: &PeerTls) -> Option<Seen> {
    let (mut shards, mut backoff, mut begins) = (Shards::new(job), Backoff::default(), None);
    let looking = async {
        loop {
            match first_picture(job, passed, (shards.address(), peers), &mut begins).await {
                Ok(shift) => return shift,
                Err(Unseen::Moved(owner)) if shards.moved(&owner) => continue,
                Err(Unseen::Moved(_)) => {}
                Err(Unseen::Io(error)) => {
                    tracing::info!(%error, shard = shards.address(), "the source cannot be looked at there");
                    shards.failed();
                }
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    };
    let shift = tokio::time::timeout(WITHIN, looking).await.unwrap_or(Ticks(0)); // its keyframes lie where they lie
    begins.map(|begins| Seen { begins, shift })
}

/// The same job, of which media is counted from `shift` earlier.
pub fn shifted(job: LiveJob, shift: Ticks) -> LiveJob {
    LiveJob { anchor: WallMillis(job.anchor.0.saturating_sub(shift.as_millis())), ..job }
}

/// Why nothing is seen of a source.
enum Unseen {
    Io(io::Error),
    /// The run is at another shard.
    Moved(String),
}

impl From<io::Error> for Unseen {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// By how much to move the run; where it `begins`, which may be with sound, is told at once.
async fn first_picture(
    job: &LiveJob,
    mut passed: bool,
    (shard, peers): (&str, &PeerTls),
    begins: &mut Option<Ticks>,
) -> Result<Ticks, Unseen> {
    let mut socket = peers.connect(shard, PeerRole::Ingest).await?;
    let mut bytes = BytesMut::new();
    FeedRequest::newest(job.run.clone()).encode(&mut bytes);
    socket.write_all(&bytes).await?;
    socket.flush().await?;
    let mut input = BytesMut::new();
    while socket.read_buf(&mut input).await? > 0 {
        while let Some(frame) = FeedFrame::decode(&mut input).map_err(io::Error::other)? {
            match frame {
                FeedFrame::Config { track: Track::Video, codec, config } => passed &= may_be(&job.ladder, codec, &config),
                FeedFrame::AccessUnit(unit) => {
                    begins.get_or_insert(unit.dts);
                    if !passed {
                        return Ok(Ticks(0));
                    }
                    if unit.track == Track::Video && unit.keyframe {
                        return Ok(if unit.pts == unit.dts { to_grid(unit.pts) } else { Ticks(0) });
                    }
                }
                FeedFrame::Moved { feed } => return Err(Unseen::Moved(feed)),
                _ => {}
            }
        }
    }
    Err(Unseen::Io(io::ErrorKind::UnexpectedEof.into()))
}

/// Whether a source with this picture is like one of the renditions.
fn may_be(ladder: &Ladder, codec: Codec, config: &[u8]) -> bool {
    let picture = AvcConfig::parse(config).and_then(|config| config.picture());
    let like = |width, height| ladder.video.iter().any(|it| it.codec == VideoCodec::H264 && (it.width, it.height) == (width, height));
    codec == Codec::H264 && picture.is_ok_and(|picture| like(picture.width, picture.height))
}

/// From `pts` to its place on the grid, in whole milliseconds (as anchors are), rounded down.
fn to_grid(pts: Ticks) -> Ticks {
    let missing = (GRID.0 + LATER.0 - pts.0 % GRID.0) % GRID.0;
    Ticks::from_millis(Ticks(missing).as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_come_to_lie_on_the_grid_to_a_millisecond() {
        for pts in [0, 1, 89, 90, 91_234, 179_999, 180_000, 300_600] {
            let shift = to_grid(Ticks(pts));
            let off = (pts + shift.0) % GRID.0;
            assert!(shift < GRID && (LATER.0 - 90..=LATER.0).contains(&off), "{pts} moved by {shift:?} is {off} off");
        }
    }
}
