//! The origin: serves a run's playlists and segments over HTTP and HTTPS, from memory that packagers push into, and from S3.
//!
//! ```text
//! request ─▶ http ─▶ runs ─▶ memory ◀─push─ subscription ◀─address─ head.json in S3
//!                      └──▶ store ─▶ S3     (a miss: one request for all that ask at the same time)
//! ```

pub mod args;
pub mod cache;
pub mod directives;
pub mod edge;
pub mod growing;
pub mod http;
pub mod https;
pub mod memory;
pub mod metrics;
pub mod pages;
pub mod playlist;
pub mod public;
mod range;
pub mod runs;
pub mod store;
mod subscription;
pub mod viewing;
