//! The streams that wait for a transcoder, or soon will, as their reconciles have seen them: what a pool's classes grow by.

use lectern_contract::Ladder;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By the stream's uid: its pool, and what is to be encoded for it.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<String, (String, Ladder)>>);

impl Waiting {
    /// Takes note that a stream waits in `pool`. True where that is news.
    pub fn note(&self, uid: &str, pool: &str, ladder: &Ladder) -> bool {
        let now = (pool.to_owned(), ladder.clone());
        let before = self.lock().insert(uid.to_owned(), now.clone());
        before.is_none_or(|before| before != now)
    }

    /// It does not wait any more, or is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// What is to be encoded for those that wait in `pool`.
    pub fn ladders(&self, pool: &str) -> Vec<Ladder> {
        self.lock().values().filter(|(of, _)| of == pool).map(|(_, ladder)| ladder.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, Ladder)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
