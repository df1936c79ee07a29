//! What a child knows of itself, gathered from its tasks, as the report wants it.

use lectern_contract::report::TranscoderState;
use lectern_contract::{SegmentNumber, Ticks};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Segments per rendition that the bit rate is taken over.
const RATE_OVER: usize = 4;

/// Shared by the tasks of a child; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting_for: Option<String>,
    has_begun: bool,
    newest_input: Ticks,
    behind: Duration,
    newest_end: Ticks,
    live_edge: Option<SegmentNumber>,
    confirmed: Option<SegmentNumber>,
    sizes: BTreeMap<usize, VecDeque<(usize, Ticks)>>,
    troubles: BTreeMap<String, String>,
    remarks: BTreeMap<String, String>,
}

impl Status {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the child waits for before it can start; `None`: nothing amiss.
    pub fn waiting_for(&self, what: Option<String>) {
        self.lock().waiting_for = what;
    }

    /// Media up to `pts` has arrived, and is older than it need be by `behind`, because the engine is behind.
    pub fn input(&self, pts: Ticks, behind: Duration) {
        let mut inner = self.lock();
        inner.newest_input = inner.newest_input.max(pts);
        inner.behind = behind;
    }

    /// A segment is begun.
    pub fn begun(&self) {
        if !std::mem::replace(&mut self.lock().has_begun, true) {
            self.0.begun.notify_one();
        }
    }

    /// Whether a segment was begun: from then on a successor can be told where to go on.
    pub fn has_begun(&self) -> bool {
        self.lock().has_begun
    }

    /// Resolves once, when the first segment is begun.
    pub async fn until_begun(&self) {
        self.0.begun.notified().await;
    }

    /// A segment of `bytes` was offered to origins.
    pub fn segment(&self, rendition: usize, number: SegmentNumber, end: Ticks, duration: Ticks, bytes: usize) {
        let mut inner = self.lock();
        inner.live_edge = inner.live_edge.max(Some(number));
        inner.newest_end = inner.newest_end.max(end);
        let sizes = inner.sizes.entry(rendition).or_default();
        sizes.push_back((bytes, duration));
        if sizes.len() > RATE_OVER {
            sizes.pop_front();
        }
    }

    /// S3 has everything up to `number` in every rendition.
    pub fn confirmed(&self, number: SegmentNumber) {
        let mut inner = self.lock();
        inner.confirmed = inner.confirmed.max(Some(number));
    }

    /// `part` is in trouble, or (`None`) is not any more.
    pub fn trouble(&self, part: &str, trouble: Option<String>) {
        let mut inner = self.lock();
        match trouble {
            Some(trouble) => drop(inner.troubles.insert(part.to_owned(), trouble)),
            None => drop(inner.troubles.remove(part)),
        }
    }

    /// Something of `part` is worth to be known, and is no trouble; or (`None`) is not so any more.
    pub fn remark(&self, part: &str, remark: Option<String>) {
        let mut inner = self.lock();
        match remark {
            Some(remark) => drop(inner.remarks.insert(part.to_owned(), remark)),
            None => drop(inner.remarks.remove(part)),
        }
    }

    /// For the report.
    pub fn state(&self) -> TranscoderState {
        let inner = self.lock();
        let Some(live_edge) = inner.live_edge else {
            let trouble = inner.troubles.values().next().cloned();
            return TranscoderState::Starting { waiting_for: inner.waiting_for.clone().or(trouble) };
        };
        let rate = |sizes: &VecDeque<(usize, Ticks)>| {
            let bytes: usize = sizes.iter().map(|(bytes, _)| bytes).sum();
            let seconds: f64 = sizes.iter().map(|(_, duration)| duration.as_secs_f64()).sum();
            if seconds > 0.0 { (bytes as f64 * 8.0 / seconds) as u64 } else { 0 }
        };
        let all =
            |said: &BTreeMap<String, String>| (!said.is_empty()).then(|| said.values().map(String::as_str).collect::<Vec<_>>().join("; "));
        TranscoderState::Running {
            confirmed: inner.confirmed,
            live_edge,
            lag: Ticks(inner.newest_input.since(inner.newest_end).0.saturating_add(ticks(inner.behind))),
            bitrate: inner.sizes.values().map(rate).sum(),
            trouble: all(&inner.troubles),
            remark: all(&inner.remarks),
        }
    }
}

fn ticks(duration: Duration) -> u64 {
    Ticks::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).0
}
