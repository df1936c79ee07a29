//! The harness of the end-to-end tests and the benchmarks: a real cluster, a real publisher, a real browser, and judges.

pub mod boxes;
pub mod browser;
mod evidence;
pub mod gateway;
pub mod judge;
pub mod lab;
pub mod pattern;
pub mod playlist;
pub mod publisher;
pub mod settings;
pub mod storage;
pub mod table;
pub mod wait;

pub use browser::{Browser, Frame, Sample};
pub use gateway::Gateway;
pub use lab::{Lab, Share, condition};
pub use publisher::{Publisher, Shot};
pub use settings::Settings;
pub use storage::Storage;
