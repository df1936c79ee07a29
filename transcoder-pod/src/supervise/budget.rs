//! What the pod has for its jobs, and what they take of it.

use lectern_contract::Ladder;
use lectern_contract::cost::{Budget, Class, Needs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The pod's purse; all clones are one.
#[derive(Debug, Clone)]
pub struct Purse {
    class: Class,
    budget: Budget,
    taken: Arc<Mutex<Vec<Needs>>>,
    given_back: Arc<Notify>,
}

/// A job's share, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    purse: Purse,
    needs: Needs,
}

impl Purse {
    /// Full.
    pub fn new(class: Class, budget: Budget) -> Self {
        Self { class, budget, taken: Arc::default(), given_back: Arc::default() }
    }

    /// What encodes in the pod.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it held when it was full.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// What is taken out of it now.
    pub fn taken(&self) -> Needs {
        self.lock().iter().copied().fold(Needs::default(), Needs::and)
    }

    /// Takes what a job with `ladder` needs.
    ///
    /// # Errors
    /// Why that is not in it, for people.
    pub fn take(&self, ladder: &Ladder) -> Result<Share, String> {
        let needs = Needs::of(ladder, self.class);
        let mut taken = self.lock();
        let all = taken.iter().copied().fold(needs, Needs::and);
        match self.budget.lacks(all) {
            Some(lacks) => Err(lacks),
            None => {
                taken.push(needs);
                Ok(Share { purse: self.clone(), needs })
            }
        }
    }

    /// Notified when a share is given back.
    pub fn given_back(&self) -> Arc<Notify> {
        self.given_back.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Needs>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.purse.lock();
        if let Some(at) = taken.iter().position(|needs| *needs == self.needs) {
            taken.swap_remove(at);
        }
        drop(taken);
        self.purse.given_back.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::cost::PixelRate;
    use lectern_contract::{VideoCodec, VideoRendition};

    fn ladder(height: u32) -> Ladder {
        let (name, width) = (format!("{height}p"), height * 16 / 9);
        let video = vec![VideoRendition { name, width, height, frame_rate: 30, codec: VideoCodec::H264, bitrate: 1 }];
        Ladder { video, audio: Vec::new() }
    }

    #[test]
    fn a_job_fits_while_there_is_enough_left() {
        let purse = Purse::new(Class::Software, Budget { pixels: Some(PixelRate(50_000_000)), ..Budget::default() });
        let one = purse.take(&ladder(720)).unwrap(); // 35.4 megapixels a second
        assert!(purse.take(&ladder(720)).is_err());
        let small = purse.take(&ladder(360)).unwrap();
        assert_eq!(purse.taken().pixels, PixelRate(35_389_440 + 8_847_360));
        drop(one);
        let _again = purse.take(&ladder(720)).unwrap();
        drop(small);
        assert_eq!(purse.taken().pixels, PixelRate(35_389_440));
    }

    #[test]
    fn without_a_budget_everything_fits() {
        let purse = Purse::new(Class::Software, Budget::default());
        let shares: Vec<_> = (0..64).map(|_| purse.take(&ladder(2160)).unwrap()).collect();
        assert_eq!(shares.len(), 64);
    }
}
