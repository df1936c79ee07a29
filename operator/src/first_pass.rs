//! Whether this leader has looked at every LiveStream that was there when it began: from then on it is in sync.

use lectern_contract::StreamRef;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The LiveStreams that are still to be looked at.
#[derive(Debug, Default)]
pub struct FirstPass(Mutex<Pass>);

#[derive(Debug, Default)]
enum Pass {
    #[default]
    NotBegun,
    Going(HashSet<StreamRef>),
    Over,
}

impl FirstPass {
    /// Begins with all that there are; later calls do nothing. True where there is nothing to look at.
    pub fn begin(&self, all: impl FnOnce() -> HashSet<StreamRef>) -> bool {
        let mut pass = self.lock();
        if !matches!(*pass, Pass::NotBegun) {
            return false;
        }
        *pass = Pass::Going(all());
        pass.is_over_now()
    }

    /// `stream` was looked at, or is gone. True for the last one, once.
    pub fn looked_at(&self, stream: &StreamRef) -> bool {
        let mut pass = self.lock();
        let Pass::Going(left) = &mut *pass else { return false };
        left.remove(stream) && pass.is_over_now()
    }

    fn lock(&self) -> MutexGuard<'_, Pass> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    fn is_over_now(&mut self) -> bool {
        let over = matches!(self, Self::Going(left) if left.is_empty());
        if over {
            *self = Self::Over;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamRef {
        StreamRef { namespace: "school".into(), name: name.into() }
    }

    #[test]
    fn a_pass_is_over_with_its_last_stream_and_only_once() {
        let pass = FirstPass::default();
        assert!(!pass.looked_at(&stream("a")), "it has not begun");
        assert!(!pass.begin(|| [stream("a"), stream("b")].into()));
        assert!(!pass.looked_at(&stream("a")));
        assert!(!pass.looked_at(&stream("a")), "the same again");
        assert!(!pass.looked_at(&stream("new")), "one that came later");
        assert!(pass.looked_at(&stream("b")));
        assert!(!pass.looked_at(&stream("b")));
        assert!(!pass.begin(HashSet::new), "it is over");
    }

    #[test]
    fn a_pass_without_streams_is_over_at_once() {
        assert!(FirstPass::default().begin(HashSet::new));
    }
}
