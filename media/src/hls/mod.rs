//! HLS playlists (RFC 8216 and draft-pantos-hls-rfc8216bis): values in, text out. One writer serves live and VOD.

mod common;
mod delta;
mod live_window;
mod media;
mod multivariant;
mod parts;

pub use common::common_numbers;
pub use delta::delta_update;
pub use live_window::LiveWindow;
pub use media::{Entry, MediaPlaylist, Segment, growing, media_playlist, settled};
pub use multivariant::{Multivariant, multivariant};
pub use parts::{LowLatency, Part, PartWindow, Report};

/// Which of a run's two sets of playlists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `live.m3u8`: a window that slides while the run lasts.
    Live,
    /// `vod.m3u8`: the whole run, after its end.
    Vod,
}

impl Kind {
    /// The file name that both the multivariant and the media playlists of this kind have.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Live => "live.m3u8",
            Self::Vod => "vod.m3u8",
        }
    }
}
