//! Tests of chunks, values and messages.

#![allow(clippy::unwrap_used)]

mod chunks;
mod messages;
mod values;
mod writing;
