//! Pure media work, bytes in and values out: RTMP, FLV, codec configurations, the run's timeline, CMAF, playlists. Nothing here
//! opens a socket, reads a clock or knows a client.

pub mod aac;
pub mod avc;
mod bits;
pub mod cmaf;
pub mod flv;
pub mod hls;
pub mod rtmp;
pub mod timeline;
