//! What this shard tells the operator.

use crate::shard::Shard;
use lectern_contract::report::Role;

/// The shard's part of its pod's report: the runs that it owns and has seen a publisher for.
pub fn collect(shard: &Shard) -> Role {
    Role::Ingest { runs: shard.reports(), draining: false, orphans: Vec::new() }
}
