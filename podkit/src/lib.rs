//! What every pod of Lectern does alike: logs, signals, tasks that live and die together, health and metrics over HTTP,
//! reports to the operator, TLS. A pod's `main` is a table of contents of these.

pub mod args;
pub mod clock;
pub mod health;
pub mod report;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use args::PodArgs;
pub use tasks::{Task, Tasks};
pub use tokio_util::sync::CancellationToken;
