//! The harness of the end-to-end tests and the benchmarks: a real cluster, a real publisher, a real browser, and judges.

pub mod browser;
pub mod pattern;
pub mod publisher;
pub mod settings;
pub mod wait;

pub use browser::{Browser, Frame, Sample};
pub use publisher::{Publisher, Shot};
pub use settings::Settings;
