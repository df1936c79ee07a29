//! Publishing: to origins the moment a segment exists, to S3 in order and with patience.

mod calm;
mod document;
mod inheritance;
mod keeper;
mod live;
mod patient;
mod push_server;
mod restore;
mod uploader;

pub use calm::successors_in_calm;
pub use document::{Written, marked};
pub(crate) use keeper::json;
pub use keeper::{Event, Keeper, KeeperError, Parting, ladder_renditions};
pub use live::{Answer, HandOver, Live};
pub use push_server::serve as serve_push;
pub use restore::{Listing, MINUTE, Restored, list, restore};
pub(crate) use restore::{newest_init, numbers};
pub use uploader::{Backlog, Item, Uploader};

use bytes::Bytes;
use lectern_contract::Ticks;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::CAPTIONS;
use lectern_media::dash::{Mpd, Representation, mpd};
use lectern_media::hls::{Kind, LiveWindow, LowLatency, MediaPlaylist, media_playlist, settled};

/// The newest segments of a rendition: playlists list as many at least, and origins that come get them at once. Older ones are in S3.
pub const NEWEST: usize = 10;

/// Segments that the live playlists of `job` list.
pub fn window_of(job: &LiveJob) -> usize {
    let span = Ticks::from_millis(job.dvr_window_ms.unwrap_or_default());
    usize::try_from(span.0.div_ceil(job.segment_duration.ticks().0)).unwrap_or(usize::MAX).max(NEWEST)
}

/// An empty window of that size.
pub fn empty_window(job: &LiveJob) -> LiveWindow {
    LiveWindow::new(window_of(job))
}

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
    mpd(&Mpd { segment_duration, window: window_of(job), anchor, published, captions, ended, part }, &representations)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::SegmentNumber;
    use lectern_contract::ledger::EndedRendition;
    use lectern_media::dash::Stretch;
    use lectern_media::hls::Segment;
    use serde_json::json;

    /// A job as it lies in the queue, of segments of 2 s.
    fn job(more: &serde_json::Value) -> LiveJob {
        let mut fields = json!({
            "stream": { "namespace": "school", "name": "algebra" }, "title": "", "run": "r1", "attempt": 1, "anchor": 0, "feed": "",
            "ladder": { "video": [], "audio": [] }, "segmentDuration": 2000, "prefix": "00/school/algebra/r1", "idleAfterMs": 1,
        });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn a_window_is_counted_in_segments_and_is_never_shorter_than_ten() {
        for (more, segments) in [
            (json!({}), 10),
            (json!({ "dvrWindowMs": 1000 }), 10),
            (json!({ "dvrWindowMs": 61_000 }), 31),
            (json!({ "dvrWindowMs": 1_800_000 }), 900),
            (json!({ "dvrWindowMs": 1_800_000, "segmentDuration": 4000 }), 450),
        ] {
            assert_eq!(window_of(&job(&more)), segments, "{more}");
        }
    }

    #[test]
    fn playlist_and_mpd_reach_back_as_far_as_the_job_says() {
        let job = job(&json!({ "dvrWindowMs": 1_800_000 }));
        let mut window = empty_window(&job);
        for number in 0..1000 {
            window.push(Segment { number: SegmentNumber(number), offset: Ticks(0), duration: job.segment_duration.ticks(), init: 0 });
        }
        let playlist = live_playlist("a", &window, &job, false);
        assert!(playlist.contains("#EXT-X-MEDIA-SEQUENCE:100\n") && playlist.ends_with("\n999.m4s\n"), "{playlist}");
        let named = EndedRendition { name: "a".into(), codec: "mp4a.40.2".into(), bitrate: 1, picture: None };
        let stretch = Stretch::newest(&window).unwrap();
        let mpd = live_mpd(&job, vec![Representation { named: &named, stretch }], None, false).unwrap();
        assert!(mpd.contains(" timeShiftBufferDepth=\"PT1800S\"") && mpd.contains(" startNumber=\"100\""), "{mpd}");
        assert!(mpd.len() < 4096, "900 segments are one line of it: {mpd}");
    }
}
