//! The wall clock, read in one place.

use lectern_contract::WallMillis;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall-clock time now. A clock set before 1970 reads as 1970.
pub fn wall_now() -> WallMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
