//! What crosses a process border in Lectern: identities, object keys, the SQS job, the head of a run, the feed's and the
//! push's frames, reports. Values and their bytes only: nothing here opens a socket, reads a clock or knows a client.

pub mod cost;
pub mod document;
pub mod feed;
pub mod frame;
pub mod head;
pub mod ids;
pub mod job;
pub mod keys;
pub mod ladder;
pub mod ledger;
pub mod message;
pub mod push;
pub mod relay;
pub mod report;
pub mod time;
pub mod timeline;
pub mod viewing;

pub use ids::{Epoch, KeyHash, Owner, RunId, ShardName, StreamRef};
pub use ladder::{AudioRendition, Ladder, VideoCodec, VideoRendition};
pub use time::{PartCount, SegmentDuration, SegmentNumber, TICKS_PER_SECOND, Ticks, WallMillis};
