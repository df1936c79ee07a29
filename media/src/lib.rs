//! Pure media work, bytes in and values out: RTMP, FLV, codec configurations, captions, the run's timeline, CMAF, the original, playlists.
//! Nothing here opens a socket, reads a clock or knows a client.

pub mod aac;
pub mod ac3;
pub mod av1;
pub mod avc;
mod bits;
pub mod captions;
pub mod cmaf;
pub mod dash;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fixtures;
pub mod flac;
pub mod flv;
pub mod fragments;
pub mod hevc;
pub mod hls;
pub mod metadata;
pub mod mp3;
pub mod opus;
pub mod original;
pub mod pcm;
pub mod reorder;
pub mod rtmp;
pub mod source;
pub mod timeline;
pub mod vp9;
