//! Why a pull ended, in words that say what to do: they end in the LiveStream's status.

use crate::stream::{Closing, Occupied, PublishError};
use std::time::Duration;

/// Characters of a camera's or a library's own words that are passed on.
const LONGEST_QUOTE: usize = 200;

/// Why a pull ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error(
        "the camera's user name and password are not here; check that the Secret of spec.source.rtsp.secretRef has the keys username and password"
    )]
    NoCredentials,
    #[error("the camera refuses user name and password; check the Secret of spec.source.rtsp.secretRef")]
    Unauthorized,
    #[error("the camera asks for user name and password; put them into a Secret and name it in spec.source.rtsp.secretRef")]
    NeedsCredentials,
    #[error("the camera has nothing at this path; check spec.source.rtsp.url")]
    NotFound,
    #[error("the camera does not send over this transport; choose the other one")]
    Transport,
    #[error("the camera did not answer {0} within {limit} s", limit = .1.as_secs_f32())]
    NoAnswer(&'static str, Duration),
    #[error("the camera sent neither picture nor sound for {limit} s", limit = .0.as_secs_f32())]
    Silent(Duration),
    #[error("the camera sent sound, but no picture for {limit} s", limit = .0.as_secs_f32())]
    NoPicture(Duration),
    #[error("the camera offers {0}; set it to H.264 or H.265, with AAC or G.711 for sound")]
    NothingToPull(String),
    #[error("the camera ended the session")]
    Ended,
    #[error("{0}")]
    Rtsp(String),
    #[error(transparent)]
    Media(#[from] PublishError),
    #[error("{0}")]
    Closed(Closing),
    #[error(transparent)]
    Occupied(#[from] Occupied),
    #[error("what the camera sent could not be read, and the reader failed")]
    Panicked,
    #[error("the camera is no longer pulled here")]
    Stopped,
}

impl From<Closing> for PullError {
    fn from(closing: Closing) -> Self {
        Self::Closed(closing)
    }
}

impl PullError {
    /// What `retina` says, as far as people need it; `with_credentials`: it had some to give.
    pub(super) fn rtsp(error: &retina::Error, with_credentials: bool) -> Self {
        match error.status_code() {
            Some(401) if with_credentials => Self::Unauthorized,
            Some(401) => Self::NeedsCredentials,
            Some(404) => Self::NotFound,
            Some(461) => Self::Transport,
            // What follows the first line are addresses and packets.
            _ => Self::Rtsp(error.to_string().lines().next().unwrap_or_default().chars().take(LONGEST_QUOTE).collect()),
        }
    }
}
