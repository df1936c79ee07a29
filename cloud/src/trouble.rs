//! When a server gave trouble last: who has a choice of when to depend on it would like to know.

use crate::objects::transfer;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// An answer that takes longer is trouble, besides the time for its bytes. A hand-over is some four answers, and students have about as many seconds in hand.
const SLOW: Duration = Duration::from_secs(1);

/// Of one bucket's server; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<Option<Instant>>>);

impl Troubles {
    pub(crate) fn last(&self) -> Option<Instant> {
        *self.lock()
    }

    fn note(&self) {
        *self.lock() = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes of `asked`, a request of `bytes`, whose errors are trouble where `is_trouble` says so. One that is slow is noted as soon as it is, because it may
    /// never be answered, and again when it is.
    pub(crate) async fn seen_in<T, E>(
        &self,
        bytes: usize,
        is_trouble: fn(&E) -> bool,
        asked: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut asked = pin!(asked);
        let in_time = SLOW + transfer(bytes);
        let (answer, is_late) = match tokio::time::timeout(in_time, &mut asked).await {
            Ok(answer) => (answer, false),
            Err(_) => {
                self.note();
                (asked.await, true)
            }
        };
        if is_late || answer.as_ref().is_err_and(is_trouble) {
            self.note();
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(bytes: usize, after: u64, answer: Result<(), &'static str>) -> Option<Duration> {
        let (troubles, began) = (Troubles::default(), Instant::now());
        let asked = async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            answer
        };
        let _ = troubles.seen_in(bytes, |error| *error != "conflict", asked).await;
        troubles.last().map(|at| at - began)
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_and_slow_answers_are_trouble_and_conflicts_are_not() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(answered(0, 900, Ok(())).await, None);
        assert_eq!(answered(0, 10, Err("503")).await, ms(10));
        assert_eq!(answered(0, 10, Err("conflict")).await, None);
        assert_eq!(answered(0, 3000, Ok(())).await, ms(3000));
        assert_eq!(answered(4 << 20, 2900, Ok(())).await, None, "its bytes take a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_not_answered_is_trouble_by_then() {
        let (troubles, began) = (Troubles::default(), Instant::now());
        let asked = troubles.seen_in(0, |(): &()| true, std::future::pending::<Result<(), ()>>());
        assert!(tokio::time::timeout(Duration::from_secs(2), asked).await.is_err());
        assert_eq!(troubles.last().map(|at| at - began), Some(SLOW));
    }
}
