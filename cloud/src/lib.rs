//! S3 and SQS as Lectern uses them, and the one place that knows the AWS SDK.
//!
//! Connecting never touches the network: a pod starts while its server is away, and every operation says for itself
//! whether trying again can help ([`FailureKind::is_transient`]).

use std::pin::Pin;

mod bucket;
mod client;
mod failure;
mod objects;
mod place;
mod queue;
pub mod testing;
mod trouble;

pub use bucket::{BucketSetting, Upkeep};
pub use failure::{FailureKind, PutIfError, QueueError, StorageError};
pub use objects::{Etag, Object, Objects, Precondition};
pub use place::{BucketAt, Keys, QueueAt};
pub use queue::{Delivery, Depth, Ensured, Queue, Receipt};

/// What an operation returns. Boxed, because an `async fn` is compiled anew in every crate that awaits it, and with it all of
/// the SDK below; so it is compiled once, here.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
