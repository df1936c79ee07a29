//! The platform, whole, on a real cluster (`make cluster`, `make images`, the charts). The modules are the tests.
#![allow(clippy::unwrap_used)]

mod an_overloaded_transcoder_sheds;
mod every_codec_plays;
mod faults;
mod ingest;
mod lecture_plays_at_low_latency;
mod lecture_plays_in_a_browser;
mod lecture_plays_over_dash;
mod operators;
mod places;
mod pools;
mod resilience;
mod who_may_watch;
mod wrong_things_are_refused;
