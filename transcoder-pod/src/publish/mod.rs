//! Publishing: to origins the moment a segment exists, to S3 in order and with patience.

mod document;
mod keeper;
mod live;
mod patient;
mod push_server;
mod restore;
mod uploader;

pub use document::{Written, marked};
pub use keeper::{Event, Keeper, KeeperError, Parting, ladder_renditions};
pub use live::{HandOver, Live};
pub use push_server::serve as serve_push;
pub use restore::{Restored, restore};
pub use uploader::{Backlog, Item, Uploader, empty_window};

use bytes::Bytes;
use lectern_contract::Ticks;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::CAPTIONS;
use lectern_media::dash::{Mpd, Representation, mpd};
use lectern_media::hls::{Kind, LiveWindow, LowLatency, MediaPlaylist, media_playlist, settled};

/// Segments that a live playlist lists.
pub const WINDOW: usize = 10;

/// The live playlist of the rendition called `name`, as S3 has it: without parts.
pub fn live_playlist(name: &str, window: &LiveWindow, job: &LiveJob, ended: bool) -> String {
    media_playlist(&described(name, window, job, None, ended))
}

/// The live playlist of the rendition called `name` up to its last whole segment; all of it, where there are no parts. It is for origins, and
/// those hold a request back: beside pictures in parts, text that is only looked for every two seconds is behind the pictures for good, and
/// hls.js 1.7 loads none of it then.
pub fn settled_playlist(name: &str, window: &LiveWindow, job: &LiveJob, low_latency: Option<LowLatency<'_>>) -> Bytes {
    let blocking = job.parts.is_some();
    settled(&MediaPlaylist { blocking, ..described(name, window, job, low_latency, false) }).into()
}

fn described<'a>(name: &str, window: &LiveWindow, job: &LiveJob, low_latency: Option<LowLatency<'a>>, ended: bool) -> MediaPlaylist<'a> {
    let LiveJob { segment_duration, anchor, .. } = *job;
    let (text, entries) = (name == CAPTIONS, window.entries().collect());
    MediaPlaylist { kind: Kind::Live, segment_duration, anchor, text, blocking: false, entries, ended, low_latency }
}

/// The run's live MPD, made now; `None` where no rendition has a segment. `part`: the longest part, where segments are named that are
/// still being made. Captions are told of, and not listed: players of DASH read those in the pictures.
pub fn live_mpd(job: &LiveJob, representations: Vec<Representation<'_>>, part: Option<Ticks>, ended: bool) -> Option<String> {
    let (text, representations): (Vec<_>, Vec<_>) = representations.into_iter().partition(|it| it.named.is_text());
    let captions = !text.is_empty();
    let (segment_duration, anchor, published) = (job.segment_duration, job.anchor, lectern_podkit::clock::wall_now());
    mpd(&Mpd { segment_duration, window: WINDOW, anchor, published, captions, ended, part }, &representations)
}
