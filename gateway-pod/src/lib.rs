//! Lectern's gateway: StartStream, EndStream and WatchStream as HTTPS REST, with LiveStreams as the only state.
//!
//! Any replica answers any call, and a replica that dies loses nothing: what a call needs to know is in the LiveStream.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod api;
pub mod args;
pub mod error;
pub mod files;
pub mod https;
pub mod keys;
pub mod metrics;
pub mod names;
pub mod refusal;
pub mod requests;
pub mod streams;
pub mod view;
pub mod viewing;
