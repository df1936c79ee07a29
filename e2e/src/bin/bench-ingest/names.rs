//! How the benchmark's streams are called, the same for all of its processes.

use lectern_contract::RunId;

/// The stream key of a publisher.
pub fn key(publisher: usize) -> String {
    format!("stream-{publisher}")
}

/// The run that it publishes.
pub fn run(publisher: usize) -> RunId {
    RunId(format!("run-{publisher}"))
}
