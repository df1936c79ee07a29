//! What a LiveStream's reconcile asks the API server, in which order, and what it makes of the answers: the operator's own code
//! over a client whose server is a script.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "reconcile/endings.rs"]
mod endings;
#[path = "reconcile/failures.rs"]
mod failures;
#[path = "reconcile/jobs.rs"]
mod jobs;
#[path = "reconcile/operator.rs"]
mod operator;
#[path = "reconcile/places.rs"]
mod places;
#[path = "reconcile/server.rs"]
mod server;
