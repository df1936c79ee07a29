//! The way of a run's media through a child: the feed's client, and the engine on a thread of its own.

use crate::child::{ChildError, ChildJob};
use crate::engine::{Card, Engine, Input, Libav, Order, Output, Predecessor};
use crate::feed::{Feed, FeedEnd};
use crate::status::Status;
use lectern_contract::feed::Track;
use lectern_contract::head::Head;
use lectern_contract::job::LiveJob;
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks};
use lectern_podkit::clock::wall_now;
use lectern_podkit::tls::PeerTls;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Access units that may wait for the engine; at 30 pictures and 43 sound frames a second, most of a second.
const INPUTS: usize = 64;
/// Samples that may wait for the packager.
const OUTPUTS: usize = 256;
/// Pictures are shown in another order than they are sent in: those of a segment's start may come before the keyframe
/// that is sent at that time. H.264 reorders by 16 pictures at most (ISO/IEC 14496-10 §E.2.1).
const REORDER: Ticks = Ticks::from_millis(1_000);

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the newest keyframe.
    Newest,
    /// With the keyframe of this time of the feed's, as the run's first owner.
    First(Ticks),
    /// The same after a first owner, which may have made some parts of what follows.
    Again(Ticks),
    /// With this segment, which a living predecessor leaves to it.
    With(SegmentNumber),
    /// With this segment, of which a dead predecessor may have made some parts, and some of the next ones.
    Within(SegmentNumber),
}

impl Begin {
    /// Where the run that `head` tells of is gone on with: `otherwise`, a way to begin with its next segment, unless nothing of it is confirmed.
    pub fn after(head: &Head, otherwise: impl FnOnce(SegmentNumber) -> Self) -> Self {
        match head.begins.filter(|_| head.next_segment == SegmentNumber(0)) {
            Some(begins) => Self::Again(begins),
            None => otherwise(head.next_segment),
        }
    }

    fn segment(self) -> Option<SegmentNumber> {
        match self {
            Self::Newest | Self::First(_) | Self::Again(_) => None,
            Self::With(number) | Self::Within(number) => Some(number),
        }
    }

    /// From when on the feed of `job` is wanted, by its own clock, of which media is counted from `shift` earlier.
    fn asked(self, job: &LiveJob, shift: Ticks) -> Option<Ticks> {
        match self {
            Self::Newest => None,
            Self::First(at) | Self::Again(at) => Some(at),
            Self::With(number) | Self::Within(number) => Some(number.start(job.segment_duration).since(shift).since(REORDER)),
        }
    }

    /// Before which time a segment may have been begun, where `now` is the run's time.
    fn joints_until(self, now: Ticks, shift: Ticks, duration: SegmentDuration) -> Option<Ticks> {
        let from = match self {
            Self::Within(number) => number.start(duration),
            Self::Again(at) => at.plus(shift),
            Self::Newest | Self::First(_) | Self::With(_) => return None,
        };
        let two = duration.ticks().plus(duration.ticks());
        // A clock that is wrong is not believed for longer than the feed's history.
        Some(Ticks(now.plus(duration.ticks()).0.clamp(from.plus(two).0, from.plus(HISTORY).0.max(from.plus(two).0))))
    }
}

/// What a shard keeps of a feed, and a little.
const HISTORY: Ticks = Ticks::from_millis(64_000);

/// See the module. Dropping it stops both ends.
#[derive(Debug)]
pub struct Line {
    /// What the engine puts out, in the order of time per rendition.
    pub outputs: mpsc::Receiver<Output>,
    /// Until then pictures that begin a part are keyframes.
    pub joints_until: Ticks,
    /// Whom the engine follows.
    pub predecessor: Predecessor,
    /// Cancelled once all that the feed had was read.
    pub caught_up: CancellationToken,
    engine: std::thread::JoinHandle<Result<(), ChildError>>,
    feed: tokio::task::JoinHandle<FeedEnd>,
    abandoned: CancellationToken,
    stop: CancellationToken,
    _gone: DropGuard,
}

impl Line {
    /// Starts both for `job`, whose media is counted from `shift` earlier than the feed's, with what is at or after where it is to `begin`, until the feed
    /// is over or `stop`.
    ///
    /// # Errors
    /// [`ChildError::Thread`].
    pub fn start(
        given: &ChildJob,
        job: &LiveJob,
        shift: Ticks,
        begin: Begin,
        peers: PeerTls,
        status: Status,
        stop: &CancellationToken,
    ) -> Result<Self, ChildError> {
        let (inputs, taken) = mpsc::channel(INPUTS);
        let (put, outputs) = mpsc::channel(OUTPUTS);
        let text = job.slate.clone().unwrap_or_default();
        let from = begin.segment().map(|number| number.start(job.segment_duration));
        let now = Ticks::from_millis(wall_now().0.saturating_sub(job.anchor.0));
        let joints_until = begin.joints_until(now, shift, job.segment_duration).unwrap_or_default();
        let order = Order {
            ladder: job.ladder.clone(),
            segment_duration: job.segment_duration,
            from: from.unwrap_or(Ticks(0)),
            card: Card { title: job.title.clone(), text, picture: given.slate_picture.clone() },
            encoder: given.encoder,
            passthrough: given.passthrough,
            parts: job.parts,
            joints_until,
            predecessor: Predecessor::default(),
        };
        let predecessor = order.predecessor.clone();
        let (abandoned, stop) = (CancellationToken::new(), stop.child_token());
        let abandon = abandoned.clone();
        let engine = std::thread::Builder::new()
            .name("decode".to_owned())
            .spawn(move || drive(order, taken, put, &abandon))
            .map_err(|error| ChildError::Thread(error.to_string()))?;
        let feed = Feed::new(job, peers, (begin.asked(job, shift), shift), inputs, status, stop.clone(), abandoned.clone());
        let feed = if from.is_none() { feed.from_the_beginning() } else { feed };
        let caught_up = feed.caught_up();
        let feed = tokio::spawn(if given.deaf_to_pictures { feed.deaf_to(Track::Video) } else { feed }.run());
        Ok(Self { outputs, joints_until, predecessor, caught_up, engine, feed, abandoned, _gone: stop.clone().drop_guard(), stop })
    }

    /// The next output that counts; `None` once the engine has put out its last. An encoder that was cut off ends its rendition, too; the
    /// open segment is the successor's.
    pub async fn next(&mut self) -> Option<Output> {
        loop {
            match self.outputs.recv().await? {
                Output::End { .. } if self.abandoned.is_cancelled() => {}
                output => return Some(output),
            }
        }
    }

    /// Reads no more, and leaves what is open to a successor.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// How the engine and the feed have ended, once the outputs have.
    ///
    /// # Errors
    /// [`ChildError::Panicked`].
    pub async fn end(self) -> Result<(Result<(), ChildError>, FeedEnd), ChildError> {
        let broken = self.engine.join().unwrap_or_else(|_| Err(ChildError::Thread("it panicked".to_owned())));
        let end = if broken.is_err() { FeedEnd::EngineGone } else { self.feed.await? };
        Ok((broken, end))
    }
}

/// The engine's thread: pushes what the feed brings, and at its end finishes; unless the child was asked to stop, for then
/// a successor makes the open segments, whole.
pub(crate) fn drive(
    order: Order,
    mut inputs: mpsc::Receiver<Input>,
    out: mpsc::Sender<Output>,
    abandon: &CancellationToken,
) -> Result<(), ChildError> {
    let mut engine: Box<dyn Engine> = Box::new(Libav::new(order, out)?);
    while let Some(input) = inputs.blocking_recv() {
        engine.push(input)?;
    }
    if !abandon.is_cancelled() {
        engine.finish()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_a_death_can_go_on_within_each_segment_that_may_have_been_begun() {
        let two = SegmentDuration::LOW_LATENCY;
        let (at, second) = (SegmentNumber(50), |second: u64| Ticks::from_millis(second * 1000));
        let until = |now| Begin::Within(at).joints_until(second(now), second(0), two);
        assert_eq!(until(103), Some(second(105)), "it is the 103rd second, and 104 begins a segment");
        assert_eq!((until(0), until(3700)), (Some(second(104)), Some(second(164))), "a clock that is wrong");
        assert_eq!(Begin::Again(second(99)).joints_until(second(103), second(1), two), Some(second(105)), "and who begins once more, too");
        for begin in [Begin::With(at), Begin::First(second(100)), Begin::Newest] {
            assert_eq!(begin.joints_until(second(103), second(0), two), None, "{begin:?}");
        }
    }
}
