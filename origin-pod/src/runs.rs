//! The runs that somebody asks for, each with what was pushed of it and one subscription.

use crate::cache::ByteCache;
use crate::directives::Directives;
use crate::edge::Position;
use crate::growing::Growing;
use crate::memory::Memory;
use crate::metrics::{During, Metrics};
use crate::playlist::Playlist;
use crate::public::{Public, rendition_of};
use crate::store::Store;
use crate::subscription;
use bytes::Bytes;
use lectern_cloud::StorageError;
use lectern_contract::head::Head;
use lectern_contract::keys::RunPrefix;
use lectern_contract::push::Held;
use lectern_contract::{Epoch, SegmentNumber};
use lectern_media::fragments;
use lectern_podkit::tls::PeerTls;
use lectern_podkit::{CancellationToken, Task};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};

/// A run that nobody asked for this long is let go.
const IDLE: Duration = Duration::from_secs(120);
const SWEEP: Duration = Duration::from_secs(5);
/// A request waits this long for the first objects of a run whose packager is being connected to.
const FIRST_OBJECTS: Duration = Duration::from_secs(3);
/// A packager sends what players need now as soon as it is asked; after this it has nothing of that name.
const FIRST_BURST: Duration = Duration::from_secs(1);
/// "No such run" is believed this long.
const ABSENT_HOLDS: Duration = Duration::from_secs(1);
/// Playlists of a lost packager are given this long before S3 is asked whether it knows later ones: longer than a
/// reconnect, shorter than a player's buffer.
const STALE_AFTER: Duration = Duration::from_secs(6);

/// A request for what is more than this many segments away is a mistake (draft-pantos-hls-rfc8216bis §6.2.5.2).
const FURTHEST: u64 = 2;

/// How a run's subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Looking for the packager.
    Connecting,
    /// It pushes.
    Connected { since: Instant },
    /// It cannot be reached, or nobody owns the run just now.
    Away { since: Instant },
    /// The run has no head.
    Absent { since: Instant },
    /// The run is over; `complete`: what was pushed is final.
    Ended { complete: bool },
}

/// A run that somebody asks for.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) prefix: RunPrefix,
    memory: Memory,
    /// Changes with every push, too, so that waiting requests look again.
    phase: watch::Sender<Phase>,
    asked: Mutex<Instant>,
    /// The newest epoch that was heard of: who pushes under an older one has lost the run.
    epoch: AtomicU64,
    stop: CancellationToken,
}

/// Where an object was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// A packager pushed it.
    Memory(Bytes),
    /// A segment that is being made.
    Growing(watch::Receiver<Growing>),
    /// S3 has it.
    Storage(Bytes),
    /// Nobody has it; the reason is for people.
    Nowhere(&'static str),
    /// It did not come while the request waited.
    Late(&'static str),
    /// The request asks for what makes no sense.
    Bad(&'static str),
}

impl Found {
    fn playlist(playlist: Playlist, directives: Directives) -> Self {
        let delta = playlist.delta.filter(|_| directives.skip);
        Self::Memory(delta.unwrap_or(playlist.body))
    }
}

/// All runs that somebody asks for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    segments: Arc<ByteCache>,
    peers: PeerTls,
    metrics: Metrics,
    map: Mutex<HashMap<RunPrefix, Arc<Run>>>,
}

impl Runs {
    /// No runs yet; pushed segments may take `memory` bytes in all, and packagers are found among `peers`.
    pub fn new(store: Store, memory: usize, peers: PeerTls, metrics: Metrics) -> Self {
        let segments = Arc::new(ByteCache::new(memory));
        Self(Arc::new(Inner { store, segments, peers, metrics, map: Mutex::default() }))
    }

    /// The object at `path` below `prefix`, which is a `what`: from memory, else from S3. Live playlists heed `directives`.
    pub async fn get(&self, prefix: &RunPrefix, path: &str, what: Public, directives: Directives) -> Result<Found, Arc<StorageError>> {
        let key = format!("{prefix}/{path}");
        match what {
            Public::VodPlaylist => Ok(stored(self.0.store.get(&key, what).await?, "there is no recording yet")),
            Public::LivePlaylist => self.live_playlist(&self.asked_for(prefix), path, &key, directives).await,
            Public::Part(at) => self.part(&self.asked_for(prefix), path, (prefix, at)).await,
            Public::Init | Public::Segment => {
                let run = self.asked_for(prefix);
                if let Some(found) = run.settled(|memory| pushed(memory, path, what)).await {
                    return Ok(found);
                }
                if let Some(found) = self.begun(&run, path, what).await {
                    return Ok(found);
                }
                let answer = self.0.store.get(&key, what).await;
                if let (Ok(None), Some(pushed)) = (&answer, run.memory.get(path, what)) {
                    return Ok(Found::Memory(pushed)); // it came while S3 was asked
                }
                Ok(stored(answer?, "there is no such object"))
            }
        }
    }

    /// The segment at `path` once it is begun, if it is among the next [`FURTHEST`] of a playlist with parts: players of DASH ask by
    /// the clock, and who read a segment whose maker died asks for it again. `None` where there is nothing to wait for.
    async fn begun(&self, run: &Run, path: &str, what: Public) -> Option<Found> {
        let (rendition, file) = path.split_once('/')?;
        let at = Position { msn: file.strip_suffix(".m4s")?.parse().ok()?, part: None };
        let now = run.memory.follow(&format!("{rendition}/live.m3u8"))?.borrow().clone();
        let hold = now.hold.filter(|_| !now.edge.reaches(at) && !now.edge.is_short_of(at, FURTHEST))?;
        let _waiting = During::new(&self.0.metrics.waiting);
        let found = timeout(hold, run.comes(|memory| pushed(memory, path, what))).await;
        Some(found.ok().flatten().unwrap_or(Found::Nowhere("the segment was not begun while the request waited")))
    }

    async fn live_playlist(&self, run: &Run, path: &str, key: &str, directives: Directives) -> Result<Found, Arc<StorageError>> {
        let what = Public::LivePlaylist;
        if run.settled(|memory| memory.get(path, what)).await.is_none() || run.may_be_stale() {
            let answer = self.0.store.get(key, what).await;
            if run.memory.get(path, what).is_none() {
                return Ok(stored(answer?, "the lecture has not begun, or there is none here"));
            }
            // Whichever of the two goes further is the one that players have seen already or shall see next.
            if let Ok(Some(stored)) = &answer {
                run.memory.put(path, stored);
            }
        }
        let Some(mut held) = run.memory.follow(path) else { return Ok(Found::Nowhere("there is no such playlist")) };
        let now = held.borrow_and_update().clone();
        let (Some(until), Some(hold)) = (directives.until, now.hold) else { return Ok(Found::playlist(now, directives)) };
        if !now.edge.is_closed() && now.edge.is_short_of(until, FURTHEST) {
            return Ok(Found::Bad("the playlist is further than two segments from that"));
        }
        let _waiting = During::new(&self.0.metrics.waiting);
        match timeout(hold, held.wait_for(|playlist| playlist.edge.reaches(until))).await {
            Ok(Ok(reached)) => Ok(Found::playlist(reached.clone(), directives)),
            Ok(Err(_)) | Err(_) => Ok(Found::Late("nothing new came in time")),
        }
    }

    /// A part that was pushed, or that will be soon: players ask for the next one before it is there.
    async fn part(&self, run: &Run, path: &str, (prefix, at): (&RunPrefix, Position)) -> Result<Found, Arc<StorageError>> {
        let what = Public::Part(at);
        let nowhere = Found::Nowhere("there is no such part, or it is too old: its segment is there for longer");
        if let Some(body) = run.memory.get(path, what) {
            return Ok(Found::Memory(body));
        }
        let playlist = format!("{}/live.m3u8", rendition_of(path));
        if run.settled(|memory| memory.get(&playlist, Public::LivePlaylist)).await.is_none() {
            return Ok(nowhere);
        }
        let Some(mut held) = run.memory.follow(&playlist) else { return Ok(nowhere) };
        let now = held.borrow_and_update().clone();
        if now.edge.reaches(Position { part: None, ..at }) {
            return self.cut(run, path, (prefix, at)).await;
        }
        let Some(hold) = now.hold.filter(|_| !now.edge.reaches(at) && !now.edge.is_short_of(at, 1)) else {
            return Ok(run.memory.get(path, what).map_or(nowhere, Found::Memory)); // it may have come in between
        };
        let _waiting = During::new(&self.0.metrics.waiting);
        // A part comes before the playlist that names it.
        let _ = timeout(hold, held.wait_for(|playlist| playlist.edge.reaches(at))).await;
        Ok(run.memory.get(path, what).map_or(nowhere, Found::Memory))
    }

    /// A part of a whole segment. One that this origin never had, because it joined later than the part was pushed, or has forgotten, is cut out
    /// of its segment: playlists name parts of segments before the newest ones.
    async fn cut(&self, run: &Run, path: &str, (prefix, at): (&RunPrefix, Position)) -> Result<Found, Arc<StorageError>> {
        if let Some(body) = run.memory.get(path, Public::Part(at)) {
            return Ok(Found::Memory(body)); // it came in between
        }
        let segment = format!("{}/{}.m4s", rendition_of(path), at.msn);
        let whole = match run.memory.get(&segment, Public::Segment) {
            Some(held) => Some(held),
            None => self.0.store.get(&format!("{prefix}/{segment}"), Public::Segment).await?,
        };
        let part = whole.zip(at.part).and_then(|(whole, nth)| fragments::part(&whole, nth));
        Ok(part.map_or(Found::Nowhere("there is no such part"), Found::Storage))
    }

    fn asked_for(&self, prefix: &RunPrefix) -> Arc<Run> {
        let mut map = self.map();
        if let Some(run) = map.get(prefix)
            && !run.is_long_absent()
        {
            *run.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return run.clone();
        }
        let run = Arc::new(Run {
            prefix: prefix.clone(),
            memory: Memory::new(prefix.clone(), self.0.segments.clone()),
            phase: watch::Sender::new(Phase::Connecting),
            asked: Mutex::new(Instant::now()),
            epoch: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        map.insert(prefix.clone(), run.clone());
        self.0.metrics.runs.set(i64::try_from(map.len()).unwrap_or(i64::MAX));
        let Inner { store, peers, metrics, .. } = &*self.0;
        tokio::spawn(subscription::keep(run.clone(), run.stop.clone(), store.clone(), peers.clone(), metrics.clone()));
        run
    }

    /// Lets go of runs that nobody asks for, until `stop`.
    pub fn sweep(self, stop: CancellationToken) -> Task<Infallible> {
        Box::pin(async move {
            let mut ticks = interval(SWEEP);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = ticks.tick() => self.let_go(IDLE),
                }
            }
        })
    }

    fn let_go(&self, idle: Duration) {
        let mut map = self.map();
        map.retain(|_, run| {
            let asked = *run.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let keep = asked.elapsed() < idle && !run.is_long_absent();
            if !keep {
                run.stop.cancel();
            }
            keep
        });
        self.0.metrics.runs.set(i64::try_from(map.len()).unwrap_or(i64::MAX));
    }

    fn map(&self) -> MutexGuard<'_, HashMap<RunPrefix, Arc<Run>>> {
        self.0.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The segment, or the init section, at `path`, as far as it was pushed.
fn pushed(memory: &Memory, path: &str, what: Public) -> Option<Found> {
    memory.get(path, what).map(Found::Memory).or_else(|| memory.growing(path).map(Found::Growing))
}

fn stored(body: Option<Bytes>, otherwise: &'static str) -> Found {
    body.map_or(Found::Nowhere(otherwise), Found::Storage)
}

impl Run {
    pub(crate) fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// The packager is lost, if it was not already. What it had begun is nobody's: a successor makes it anew.
    pub(crate) fn lost(&self) {
        self.memory.abandon();
        self.phase.send_if_modified(|phase| {
            let news = !matches!(phase, Phase::Away { .. });
            if news {
                *phase = Phase::Away { since: Instant::now() };
            }
            news
        });
    }

    /// Takes note of an owner's epoch; `false` where there was one of a newer one.
    pub(crate) fn heard_of(&self, epoch: Epoch) -> bool {
        self.epoch.fetch_max(epoch.0, Ordering::Relaxed) <= epoch.0
    }

    /// What there is that `head` does not confirm.
    pub(crate) fn held_beyond(&self, head: &Head) -> Vec<Held> {
        self.memory.held_from(head.next_segment)
    }

    pub(crate) fn forget(&self, rendition: &str, number: SegmentNumber) {
        tracing::info!(run = %self.prefix, rendition, %number, "is made anew");
        self.memory.forget(rendition, number);
    }

    pub(crate) fn joined(&self, path: &str, parts: u32) {
        self.memory.join(path, parts);
        self.phase.send_modify(|_| {});
    }

    pub(crate) fn pushed(&self, path: &str, body: &Bytes) {
        self.memory.put(path, body);
        self.phase.send_modify(|_| {});
    }

    /// What `look` finds of what was pushed, waiting for it while the packager is being connected to.
    async fn settled<T>(&self, look: impl Fn(&Memory) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + FIRST_OBJECTS;
        let mut phase = self.phase.subscribe();
        loop {
            if let Some(found) = look(&self.memory) {
                return Some(found);
            }
            let now = phase.borrow_and_update().clone();
            let wait_until = match now {
                Phase::Connecting => deadline,
                Phase::Connected { since } => deadline.min(since + FIRST_BURST),
                Phase::Away { .. } | Phase::Absent { .. } | Phase::Ended { .. } => return None,
            };
            match timeout_at(wait_until, phase.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return look(&self.memory),
            }
        }
    }

    /// What `look` finds of what is pushed, now or later; `None` once the run has ended without it.
    async fn comes<T>(&self, look: impl Fn(&Memory) -> Option<T>) -> Option<T> {
        let mut phase = self.phase.subscribe();
        loop {
            let ended = matches!(*phase.borrow_and_update(), Phase::Ended { .. });
            if let Some(found) = look(&self.memory) {
                return Some(found);
            }
            if ended || phase.changed().await.is_err() {
                return None;
            }
        }
    }

    fn may_be_stale(&self) -> bool {
        match &*self.phase.borrow() {
            Phase::Away { since } => since.elapsed() > STALE_AFTER,
            Phase::Ended { complete } => !complete,
            Phase::Connecting | Phase::Connected { .. } | Phase::Absent { .. } => false,
        }
    }

    fn is_long_absent(&self) -> bool {
        matches!(&*self.phase.borrow(), Phase::Absent { since } if since.elapsed() > ABSENT_HOLDS)
    }
}

/// Waits between attempts to reach a packager: soon while a child is restarted in its pod, or a lost one gets a successor, for which players wait, then less often.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    wait: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);
    /// Attempts before the waits grow: most successors own a run within five seconds.
    const SOON: u32 = 50;

    pub(crate) const fn new() -> Self {
        Self { attempts: 0, wait: Self::FIRST }
    }

    pub(crate) async fn wait(&mut self) {
        sleep(self.wait).await;
        self.attempts += 1;
        if self.attempts > Self::SOON {
            self.wait = (self.wait * 2).min(Self::LONGEST);
        }
    }
}
