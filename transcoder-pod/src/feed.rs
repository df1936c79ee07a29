//! The feed's client: gets a run's media from its shard, through outages of either side.

use crate::engine::{Input, Rungs};
use crate::pace::{Pace, Verdict};
use crate::retry::Backoff;
use crate::shards::Shards;
use crate::silence::{PATIENCE, Silence, WITHOUT_SHARD, patience};
use crate::status::Status;
use bytes::BytesMut;
use lectern_contract::feed::{ALIVE_EVERY, AccessUnit, FeedFrame, FeedRequest, TimedMetadata, Track};
use lectern_contract::frame::FrameError;
use lectern_contract::job::LiveJob;
use lectern_contract::{Epoch, RunId, Ticks};
use lectern_podkit::tls::{PeerRole, PeerTls};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A shard of a node that is gone refuses nothing, and students wait for the next one to be tried.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often silence is looked for, and filled.
const FILL_EVERY: Duration = Duration::from_millis(100);

/// A feed that lets its reader wait for so long, while the engine has taken all, has no more.
const AT_LIVE_EDGE: Duration = Duration::from_millis(5);

/// A shard that says that it is there, and says nothing for so long, is away: the network is cut, or its processes stand still. What the
/// lecturer sends meanwhile is kept there.
const QUIET: Duration = ALIVE_EVERY.saturating_mul(3);
/// After so long another way to the run is looked for, and there is time to find it before the slate would be shown.
const DEAF: Duration = Duration::from_secs(2);
const _: () = assert!(DEAF.as_secs() + CONNECT_WITHIN.as_secs() < WITHOUT_SHARD.as_secs());

/// Why the feed is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedEnd {
    /// The run has ended.
    Ended,
    /// Nothing came for as long as the job allows.
    Idle,
    /// The process is asked to stop.
    Stopped,
    /// The engine takes no more.
    EngineGone,
}

/// Why one connection is over. All but the end of the run are tried again.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no connection within {} s", CONNECT_WITHIN.as_secs())]
    Late,
    #[error("the shard says what it should not: {0}")]
    Frame(#[from] FrameError),
    #[error("the shard closed the connection")]
    Closed,
    #[error("the shard has said nothing for {} s", DEAF.as_secs())]
    Deaf,
    #[error("the shard refuses: {0}")]
    Refused(String),
    #[error("the run is at {0}")]
    Moved(String),
    #[error("the shard owns the run under epoch {serving}, and there is an owner of epoch {heard}")]
    Outdated { serving: Epoch, heard: Epoch },
    #[error("over")]
    Over(FeedEnd),
}

/// One run's feed, across connections.
#[derive(Debug)]
pub struct Feed {
    shards: Shards,
    peers: PeerTls,
    /// The newest epoch of an owner that was heard of: who serves under an older one has lost the run.
    epoch: Epoch,
    run: RunId,
    idle_after: Duration,
    cut_after: Duration,
    /// How long media may be late, see [`patience`].
    patience: Duration,
    /// The shard has said that nothing follows what there is of a track: nothing of it is late. Who comes next may send one before the other.
    is_over: [bool; 2],
    from: Option<Ticks>,
    /// The engine is given the feed's times and this.
    shift: Ticks,
    inputs: mpsc::Sender<Input>,
    status: Status,
    stop: CancellationToken,
    abandoned: CancellationToken,
    newest: [Option<Ticks>; 2],
    /// The newest timed metadata.
    said: Option<Ticks>,
    last_media: Instant,
    /// The publisher has left, and when the open segments are given up for it; only where nothing fills them.
    gap: Option<Instant>,
    /// What was heard of late, and when it is looked at next; `None`: a silent source leaves a hole.
    silence: Option<(Silence, Instant)>,
    /// Since when the shard serves the run.
    served: Option<Instant>,
    /// When the shard was heard last; only of one that says that it is there.
    alive: Option<Instant>,
    /// Whether the engine keeps up.
    pace: Pace,
    /// A track that is let pass.
    deaf_to: Option<Track>,
    /// All that there was was read once.
    caught_up: CancellationToken,
}

impl Feed {
    /// A feed of the job's run from `from` on, a time of the feed's (`None`: from the newest keyframe), into `inputs`, which get its times and `shift`; `peers` is the pod's end of
    /// connections to shards. Where `stop` ends it, it
    /// cancels `abandoned` before its inputs end: the open segments are a successor's.
    pub fn new(
        job: &LiveJob,
        peers: PeerTls,
        (from, shift): (Option<Ticks>, Ticks),
        inputs: mpsc::Sender<Input>,
        status: Status,
        stop: CancellationToken,
        abandoned: CancellationToken,
    ) -> Self {
        Self {
            shards: Shards::new(job),
            peers,
            epoch: Epoch(0),
            run: job.run.clone(),
            idle_after: Duration::from_millis(job.idle_after_ms),
            cut_after: job.segment_duration.into(),
            patience: patience(job),
            is_over: [false; 2],
            from,
            shift,
            inputs,
            status,
            stop,
            abandoned,
            newest: [None, None],
            said: None,
            last_media: Instant::now(),
            gap: None,
            silence: job.slate.is_some().then(|| (Silence::new(reached(from), Instant::now()), Instant::now())),
            served: None,
            alive: None,
            pace: Pace::new(Rungs::of(&job.ladder, job.parts.is_some()).steps(), job.segment_duration, Instant::now()),
            deaf_to: None,
            caught_up: CancellationToken::new(),
        }
    }

    /// Cancelled once all that the feed had was read.
    pub fn caught_up(&self) -> CancellationToken {
        self.caught_up.clone()
    }

    /// The same from where the run begins: nothing before it is missed.
    #[must_use]
    pub fn from_the_beginning(self) -> Self {
        let silence = self.silence.map(|(_, next)| (Silence::new(None, Instant::now()), next));
        Self { silence, ..self }
    }

    /// The same without what comes of `track`.
    #[must_use]
    pub fn deaf_to(self, track: Track) -> Self {
        Self { deaf_to: Some(track), ..self }
    }

    /// Reads until the run ends, falls idle, or somebody has had enough. Dropping the inputs then tells the engine.
    pub async fn run(mut self) -> FeedEnd {
        let end = self.read().await;
        if end == FeedEnd::Stopped {
            self.abandoned.cancel();
        }
        end
    }

    async fn read(&mut self) -> FeedEnd {
        let mut backoff = Backoff::default();
        loop {
            let seen = self.last_media;
            let broken = self.connection().await;
            (self.served, self.alive) = (None, None);
            match broken {
                Ok(never) => match never {},
                Err(Broken::Over(end)) => {
                    self.status.trouble("feed", None);
                    return end;
                }
                Err(broken) => {
                    if self.last_media != seen {
                        backoff.reset();
                    }
                    let shard = self.shards.address().to_owned();
                    if let Broken::Moved(owner) = &broken {
                        tracing::info!(shard, owner, "the run has moved");
                        if self.shards.moved(owner) {
                            continue;
                        }
                    } else {
                        self.shards.failed();
                    }
                    if backoff.failures().is_multiple_of(16) {
                        tracing::warn!(shard, %broken, "the feed is broken; trying on");
                    }
                    self.status.trouble("feed", Some(format!("the feed from {shard} is broken: {broken}")));
                }
            }
            let retry = Instant::now() + backoff.next_wait();
            if let Err(Broken::Over(end)) = self.until(std::future::pending::<()>(), Some(retry)).await {
                return end;
            }
        }
    }

    async fn connection(&mut self) -> Result<std::convert::Infallible, Broken> {
        let (peers, address) = (self.peers.clone(), self.shards.address().to_owned());
        let connected = timeout(CONNECT_WITHIN, peers.connect(&address, PeerRole::Ingest));
        let mut socket = match self.until(connected, None).await? {
            Some(Ok(socket)) => socket?,
            _ => return Err(Broken::Late),
        };
        let mut bytes = BytesMut::new();
        // What was received is asked for again and skipped: the shard counts in keyframes, not in bytes.
        let from = self.newest.iter().flatten().min().copied().or(self.from);
        let passed = Ticks::from_millis(u64::try_from(self.last_media.elapsed().as_millis()).unwrap_or(u64::MAX));
        let now = self.newest.iter().flatten().max().map(|newest| newest.plus(passed));
        FeedRequest { run: self.run.clone(), epoch: self.epoch, from, alive: true, now, through: self.shards.is_another() }
            .encode(&mut bytes);
        socket.write_all(&bytes).await?;
        socket.flush().await?;
        let mut input = BytesMut::with_capacity(1 << 16);
        loop {
            let began = Instant::now();
            // One that serves and does not say that it is there may be silent for as long as its publisher is.
            let deaf = (self.alive.is_some() || self.served.is_none()).then(|| began + DEAF);
            match self.until(socket.read_buf(&mut input), deaf).await?.transpose()? {
                Some(0) => return Err(Broken::Closed),
                Some(_) => self.alive = self.alive.map(|_| Instant::now()),
                None => return Err(Broken::Deaf),
            }
            if self.served.is_some() && began.elapsed() >= AT_LIVE_EDGE && self.inputs.capacity() == self.inputs.max_capacity() {
                self.caught_up.cancel();
            }
            while let Some(frame) = FeedFrame::decode(&mut input)? {
                self.frame(frame).await?;
            }
        }
    }

    /// Waits for `work` and minds the clock meanwhile: cuts, falls idle, stops. `None` at `deadline`.
    async fn until<T>(&mut self, work: impl Future<Output = T>, deadline: Option<Instant>) -> Result<Option<T>, Broken> {
        tokio::pin!(work);
        let far = Instant::now() + Duration::from_secs(86_400);
        loop {
            let idle = self.last_media + self.idle_after;
            let cut = self.gap.unwrap_or(far);
            let fill = self.silence.as_ref().map_or(far, |(_, next)| *next);
            tokio::select! {
                () = self.stop.cancelled() => return Err(Broken::Over(FeedEnd::Stopped)),
                done = &mut work => return Ok(Some(done)),
                () = sleep_until(deadline.unwrap_or(far)) => return Ok(None),
                () = sleep_until(idle) => return Err(Broken::Over(FeedEnd::Idle)),
                () = sleep_until(cut) => {
                    self.gap = None;
                    self.give(Input::Cut).await?;
                }
                () = sleep_until(fill) => self.fill().await?,
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        let Some((silence, next)) = &mut self.silence else { return Ok(()) };
        let now = Instant::now();
        *next = now + FILL_EVERY;
        // One that has just been found may have what was missed meanwhile, and say that it is there before it comes to that.
        let is_found = self.served.is_some_and(|since| now.duration_since(since) >= QUIET);
        let is_there = is_found && self.alive.is_none_or(|heard| now.duration_since(heard) < QUIET);
        let patience = |track| match is_there {
            true if self.is_over[at(track)] => PATIENCE,
            true => self.patience,
            false => WITHOUT_SHARD,
        };
        for (track, until) in silence.fill(now, patience) {
            self.give(Input::Fill(track, until)).await?;
        }
        Ok(())
    }

    async fn frame(&mut self, frame: FeedFrame) -> Result<(), Broken> {
        match frame {
            FeedFrame::Config { track, .. } | FeedFrame::AccessUnit(AccessUnit { track, .. }) if self.deaf_to == Some(track) => Ok(()),
            FeedFrame::Config { track, codec, config } => self.give(Input::Config { track, codec, config }).await,
            FeedFrame::AccessUnit(unit) => {
                let newest = &mut self.newest[at(unit.track)];
                if newest.is_some_and(|newest| unit.dts <= newest) {
                    return Ok(()); // seen on an earlier connection
                }
                *newest = Some(unit.dts);
                self.last_media = Instant::now();
                (self.gap, self.is_over[at(unit.track)]) = (None, false);
                self.pace.heard(unit.dts, self.last_media);
                self.status.input(unit.pts.plus(self.shift), self.pace.late());
                self.status.trouble("feed", None);
                let (track, dts) = (unit.track, unit.dts);
                for (track, until) in self.silence.as_mut().map_or_else(Vec::new, |(silence, _)| silence.begins(track, dts)) {
                    self.give(Input::Fill(track, until)).await?;
                }
                self.give(Input::Unit(unit)).await?;
                if let Some((silence, _)) = &mut self.silence {
                    // Only now: while the engine lets us wait it is not the source that is silent.
                    silence.heard(track, dts, Instant::now());
                    if let Some(missed) = self.deaf_to {
                        silence.misses(missed, dts, Instant::now());
                    }
                }
                match self.pace.judge(Instant::now()) {
                    Some(Verdict::Shed) => self.give(Input::Shed).await,
                    Some(Verdict::Restore) => self.give(Input::Restore).await,
                    None => Ok(()),
                }
            }
            FeedFrame::Metadata(metadata) => {
                if self.said.is_some_and(|newest| metadata.at <= newest) {
                    return Ok(()); // as above
                }
                self.said = Some(metadata.at);
                self.give(Input::Said(metadata)).await
            }
            FeedFrame::Gap { from, reason } => {
                tracing::info!(%from, reason, "a gap in the feed");
                self.status.trouble("feed", Some(format!("no media: {reason}")));
                self.is_over = [true; 2];
                self.gap = self.silence.is_none().then(|| Instant::now() + self.cut_after);
                self.give(Input::Gap).await
            }
            FeedFrame::Serving { epoch } if epoch < self.epoch => Err(Broken::Outdated { serving: epoch, heard: self.epoch }),
            FeedFrame::Serving { epoch } => {
                self.epoch = epoch;
                self.served = Some(Instant::now());
                self.shards.served();
                Ok(())
            }
            FeedFrame::Alive => {
                self.alive.get_or_insert(Instant::now());
                Ok(())
            }
            FeedFrame::Moved { feed } => Err(Broken::Moved(feed)),
            FeedFrame::End => Err(Broken::Over(FeedEnd::Ended)),
            FeedFrame::Refused { reason } => Err(Broken::Refused(reason)),
        }
    }

    /// Waits while the engine is behind: the shard notices, and says so with a gap when it has to skip.
    async fn give(&mut self, input: Input) -> Result<(), Broken> {
        let input = match input {
            Input::Unit(unit) => Input::Unit(AccessUnit { pts: unit.pts.plus(self.shift), dts: unit.dts.plus(self.shift), ..unit }),
            Input::Fill(track, until) => Input::Fill(track, until.plus(self.shift)),
            Input::Said(metadata) => Input::Said(TimedMetadata { at: metadata.at.plus(self.shift), ..metadata }),
            other => other,
        };
        let began = Instant::now();
        let given = tokio::select! {
            () = self.stop.cancelled() => Err(Broken::Over(FeedEnd::Stopped)),
            sent = self.inputs.send(input) => sent.map_err(|_| Broken::Over(FeedEnd::EngineGone)),
        };
        self.pace.waited(began.elapsed());
        given
    }
}

/// Where the state of a track is kept.
fn at(track: Track) -> usize {
    usize::from(track == Track::Audio)
}

/// How far a predecessor has come whose successor asks for the feed `from` there. One that has stored nothing leaves the run at its beginning, which lies before all media: it
/// has come nowhere.
fn reached(from: Option<Ticks>) -> Option<Ticks> {
    from.filter(|from| *from > Ticks(0))
}
