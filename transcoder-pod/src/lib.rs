//! The transcoder: a supervisor that takes jobs off the queue, and a child process per job that decodes the feed, encodes
//! the ladder, cuts segments and publishes them to origins and S3.

mod align;
pub mod archive;
pub mod body;
mod caution;
pub mod child;
pub mod engine;
pub mod feed;
mod foregoing;
pub mod head;
pub mod line;
pub mod pace;
pub mod packager;
pub mod publish;
pub mod retry;
mod shards;
pub mod silence;
pub mod status;
pub mod studio;
mod succession;
pub mod supervise;
