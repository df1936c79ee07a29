//! Pure media work, bytes in and values out: FLV, codec configurations, the run's timeline, CMAF, the original, playlists. Nothing here
//! opens a socket, reads a clock or knows a client.

pub mod aac;
pub mod avc;
mod bits;
pub mod cmaf;
pub mod flv;
pub mod hls;
pub mod original;
pub mod timeline;
