//! The way of a run's media through a child: the feed's client, and the engine on a thread of its own.

use crate::child::{ChildError, ChildJob};
use crate::engine::{Card, Engine, Input, Libav, Order, Output};
use crate::feed::{Feed, FeedEnd};
use crate::status::Status;
use lectern_contract::Ticks;
use lectern_contract::feed::Track;
use lectern_contract::job::LiveJob;
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

/// See the module. Dropping it stops both ends.
#[derive(Debug)]
pub struct Line {
    /// What the engine puts out, in the order of time per rendition.
    pub outputs: mpsc::Receiver<Output>,
    engine: std::thread::JoinHandle<Result<(), ChildError>>,
    feed: tokio::task::JoinHandle<FeedEnd>,
    abandoned: CancellationToken,
    stop: CancellationToken,
    _gone: DropGuard,
}

impl Line {
    /// Starts both for `job`, whose media is counted from `shift` earlier than the feed's, with what is at or after `from` (`None`: from the
    /// newest keyframe), until the feed is over or `stop`.
    ///
    /// # Errors
    /// [`ChildError::Thread`].
    pub fn start(
        given: &ChildJob,
        job: &LiveJob,
        shift: Ticks,
        from: Option<Ticks>,
        peers: PeerTls,
        status: Status,
        stop: &CancellationToken,
    ) -> Result<Self, ChildError> {
        let (inputs, taken) = mpsc::channel(INPUTS);
        let (put, outputs) = mpsc::channel(OUTPUTS);
        let text = job.slate.clone().unwrap_or_default();
        let order = Order {
            ladder: job.ladder.clone(),
            segment_duration: job.segment_duration,
            from: from.unwrap_or(Ticks(0)),
            card: Card { title: job.title.clone(), text, picture: given.slate_picture.clone() },
            encoder: given.encoder,
            passthrough: given.passthrough,
            parts: job.parts.is_some(),
        };
        let (abandoned, stop) = (CancellationToken::new(), stop.child_token());
        let abandon = abandoned.clone();
        let engine = std::thread::Builder::new()
            .name("decode".to_owned())
            .spawn(move || drive(order, taken, put, &abandon))
            .map_err(|error| ChildError::Thread(error.to_string()))?;
        let asked = from.map(|from| from.since(shift).since(REORDER));
        let feed = Feed::new(job, peers, (asked, shift), inputs, status, stop.clone(), abandoned.clone());
        let feed = tokio::spawn(if given.deaf_to_pictures { feed.deaf_to(Track::Video) } else { feed }.run());
        Ok(Self { outputs, engine, feed, abandoned, _gone: stop.clone().drop_guard(), stop })
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
