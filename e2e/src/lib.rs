//! The harness of the end-to-end tests and the benchmarks: a real cluster, a real publisher, a real browser, and judges.

pub mod boxes;
pub mod browser;
pub mod camera;
pub mod certificate;
pub mod claims;
pub mod coded;
pub mod coding;
mod evidence;
pub mod forward;
pub mod gateway;
pub mod judge;
pub mod lab;
pub mod onlooker;
pub mod pattern;
pub mod playlist;
pub mod process;
pub mod program;
pub mod proxy;
pub mod publisher;
pub mod settings;
pub mod shards;
pub mod storage;
pub mod table;
pub mod wait;

pub use browser::{Browser, Frame, Sample};
pub use camera::Camera;
pub use coding::Coding;
pub use forward::PortForward;
pub use gateway::Gateway;
pub use lab::{Lab, Share, condition};
pub use onlooker::Onlooker;
pub use program::Program;
pub use proxy::Proxy;
pub use publisher::{Publisher, Shot};
pub use settings::Settings;
pub use storage::Storage;
