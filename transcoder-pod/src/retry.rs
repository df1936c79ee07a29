//! Waiting between attempts.

use rand::Rng;
use std::time::Duration;

/// 75 ms, doubling to 2 s, each cut by up to a quarter at random so that a thousand children do not knock in step.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let full = 75u64.saturating_mul(1 << self.failures.min(5)).min(2_000);
        self.failures = self.failures.saturating_add(1);
        let jitter: u64 = rand::rng().random_range(0..=full / 4);
        Duration::from_millis(full - jitter)
    }

    /// Failures so far without a success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_and_start_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= Duration::from_millis(75) && waits[0] >= Duration::from_millis(50));
        assert!(waits[11] <= Duration::from_secs(2) && waits[11] >= Duration::from_millis(1500));
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(75));
    }
}
