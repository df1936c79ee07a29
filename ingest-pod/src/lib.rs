//! The ingest shard: takes publishers in (RTMP, a relay from another shard, RTSP cameras), puts their media on the run's
//! timeline, keeps the last minute of it, and feeds transcoders.
//!
//! Every protocol adapts to one type, [`stream::Publication`]; every reader sees one type, [`stream::Reader`].

pub mod args;
pub mod drain;
pub mod feed;
pub mod gate;
pub mod handover;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod original;
pub mod relay;
pub mod routes;
pub mod rtmp;
pub mod rtsp;
pub mod shard;
pub mod stream;
