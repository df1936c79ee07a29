//! The Lambda that makes the VOD playlists of a run, from what the packager noted of it: `ended.json` and its ledgers.
//!
//! The order and the number of its events do not matter: each one leads to the same playlists, written from the same
//! objects, and nothing is listed.

pub mod event;
pub mod handler;
pub mod plan;
