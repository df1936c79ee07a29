//! The platform, whole, on a real cluster (`make cluster`, `make images`, the charts). The modules are the tests.
#![allow(clippy::unwrap_used)]

mod faults;
mod ingest;
mod lecture_plays_in_a_browser;
mod wrong_things_are_refused;
