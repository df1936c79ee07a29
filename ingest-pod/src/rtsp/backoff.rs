//! When a camera is tried again.

use std::time::Duration;

/// Pauses that double, drawn from half to all of their length: a hundred cameras behind one switch do not come back in step.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause is the first one again.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to pause after a try that gave media for `media_for`, `None` if it gave none. `draw` is a random number from
    /// 0 to 1.
    ///
    /// A camera that gave media for a while, and then did not, has restarted or changed its parameters: it is described
    /// anew within a tenth of the first pause. One that gives a moment of media each time waits as if it had given none,
    /// but never for longer than the first pause.
    pub(super) fn pause(&mut self, media_for: Option<Duration>, draw: f64) -> Duration {
        let draw = draw.clamp(0.0, 1.0);
        match media_for {
            Some(span) if span >= self.first => {
                self.reset();
                return self.first.mul_f64(0.1 * draw);
            }
            Some(_) => self.reset(),
            None => {}
        }
        let pause = self.next.mul_f64(0.5 + 0.5 * draw);
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread() {
        let mut most = Backoff::new(seconds(1), seconds(30));
        let mut least = most.clone();
        for longest in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(most.pause(None, 1.0), seconds(longest));
            assert_eq!(least.pause(None, 0.0), seconds(longest) / 2);
        }
    }

    #[test]
    fn a_camera_that_gave_media_is_tried_at_once_and_then_after_the_first_pause() {
        let mut backoff = Backoff::new(seconds(1), seconds(30));
        for _ in 0..5 {
            backoff.pause(None, 1.0);
        }
        assert!(backoff.pause(Some(seconds(60)), 1.0) <= seconds(1) / 10);
        assert_eq!(backoff.pause(None, 1.0), seconds(1));
    }

    #[test]
    fn a_camera_that_gives_a_moment_of_media_each_time_is_not_hammered() {
        let mut backoff = Backoff::new(seconds(1), seconds(30));
        for _ in 0..10 {
            assert!(backoff.pause(Some(Duration::from_millis(40)), 0.0) >= seconds(1) / 2);
        }
    }
}
