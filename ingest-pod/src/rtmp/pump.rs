//! The pump: threads that read all publishers of this shard in batches.
//!
//! The cost of ingest is wake-ups, not parsing (facts/media.md: half of nginx-rtmp's CPU with sockets drained every 10 ms).
//! So a publisher is no task that wakes for every packet: a thread asks the kernel which sockets have something, empties
//! them one after the other through one buffer, lets the readers of each run know once, and sleeps out the interval. A
//! publisher's payload is copied out of that buffer into its message and, still in the CPU's cache, behind the run's other
//! media: a sixth less CPU than keeping each message in an allocation of its own, which is found and freed a minute later.

use super::peer::{End, Peer, Taken};
use super::session::Event;
use super::{IDLE, TOLD_TO_RECONNECT};
use crate::handover::{Baggage, Tag};
use crate::metrics::Metrics;
use crate::rtmp::headers::Headers;
use crate::stream::{Closing, Publication};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// The bytes that are read at once; one buffer a thread.
const SCRATCH: usize = 256 * 1024;
/// The most that one publisher is read before the others' turn comes.
const TURN: usize = 1024 * 1024;
/// How often publishers that send nothing are looked at: who is to go, who has been silent for too long.
const LOOK: Duration = Duration::from_millis(100);
/// How often the kernel is told again to acknowledge at leisure, in looks.
const LEISURE: u32 = 10;
const WAKE: Token = Token(usize::MAX);

/// The pump's threads. Dropped, they end with their last publishers.
#[derive(Debug, Clone)]
pub struct Pump(Arc<Vec<Thread>>);

#[derive(Debug)]
struct Thread {
    jobs: Sender<Box<Job>>,
    waker: Waker,
}

/// A publisher that is handed to the pump.
struct Job {
    peer: Peer,
    socket: std::net::TcpStream,
    publication: Publication,
    headers: Headers,
    parted: oneshot::Sender<Parted>,
}

/// A publisher that is given back.
pub(super) struct Parted {
    pub(super) peer: Peer,
    pub(super) socket: std::net::TcpStream,
    pub(super) headers: Headers,
    /// What its stream's next owner needs, where the stream has moved.
    pub(super) baggage: Option<Baggage>,
    pub(super) why: Parting,
}

/// Why it is given back.
#[derive(Debug)]
pub(super) enum Parting {
    /// It has stopped publishing, and may begin anew.
    Unpublished,
    /// The run has no place for it here any more.
    Closing(Closing),
    /// The connection is over.
    End(End),
}

/// The pump cannot run.
#[derive(Debug, thiserror::Error)]
#[error("publishers cannot be read: {0}")]
pub struct PumpError(#[from] io::Error);

impl Pump {
    /// Starts `threads` threads that read every `interval`. `draining`: publishers are asked to connect anew once it is
    /// true.
    ///
    /// # Errors
    /// The system has no thread or no epoll for it.
    pub fn start(threads: usize, interval: Duration, metrics: &Metrics, draining: &watch::Receiver<bool>) -> Result<Self, PumpError> {
        let thread = |number: usize| {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            let (jobs, todo) = channel();
            let worker = Worker {
                poll,
                todo,
                interval,
                metrics: metrics.clone(),
                draining: draining.clone(),
                places: Vec::new(),
                free: Vec::new(),
                ready: Vec::new(),
                scratch: vec![0; SCRATCH],
                looks: 0,
            };
            std::thread::Builder::new().name(format!("pump-{number}")).spawn(move || worker.run())?;
            Ok(Thread { jobs, waker })
        };
        let threads: io::Result<Vec<_>> = (0..threads.max(1)).map(thread).collect();
        Ok(Self(Arc::new(threads?)))
    }

    /// Reads a publisher until something ends it.
    pub(super) async fn publish(
        &self,
        peer: Peer,
        socket: std::net::TcpStream,
        headers: Headers,
        publication: Publication,
    ) -> Option<Parted> {
        let (parted, back) = oneshot::channel();
        // By the port, which is as good as random: a publisher stays with its thread.
        let thread = self.0.get(usize::from(peer.remote.port()) % self.0.len())?;
        thread.jobs.send(Box::new(Job { peer, socket, publication, headers, parted })).ok()?;
        thread.waker.wake().ok()?;
        back.await.ok()
    }
}

/// One thread.
struct Worker {
    poll: Poll,
    todo: Receiver<Box<Job>>,
    interval: Duration,
    metrics: Metrics,
    draining: watch::Receiver<bool>,
    places: Vec<Option<Box<Place>>>,
    free: Vec<usize>,
    /// Places that have something to be read, each once.
    ready: Vec<usize>,
    scratch: Vec<u8>,
    looks: u32,
}

/// A publisher in its place.
struct Place {
    peer: Peer,
    socket: TcpStream,
    publication: Publication,
    headers: Headers,
    parted: oneshot::Sender<Parted>,
    /// What came when the run had no place for it any more.
    untaken: Option<Tag>,
    /// It is in `ready`.
    listed: bool,
    /// It may have closed its end: a short read does not mean that nothing follows.
    closed: bool,
    /// It has been asked to connect anew.
    asked: bool,
    heard: Instant,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut looked = Instant::now();
        loop {
            let wait = if self.ready.is_empty() { LOOK } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(%error, "sockets cannot be waited for");
                    std::thread::sleep(LOOK);
                }
                _ => {}
            }
            let now = Instant::now();
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.list(event.token().0, event.is_read_closed() || event.is_error());
            }
            if !self.take_jobs(now) && self.places.iter().all(Option::is_none) {
                return; // nobody can hand in more
            }
            for at in std::mem::take(&mut self.ready) {
                self.read(at, now);
            }
            if now.duration_since(looked) >= LOOK {
                looked = now;
                self.look(now);
            }
            self.metrics.batches.inc();
            // What comes meanwhile is read at once, together.
            std::thread::sleep(self.interval.saturating_sub(now.elapsed()));
        }
    }

    fn list(&mut self, at: usize, closed: bool) {
        if let Some(Some(place)) = self.places.get_mut(at) {
            place.closed |= closed;
            if !std::mem::replace(&mut place.listed, true) {
                self.ready.push(at);
            }
        }
    }

    /// False once nobody can hand in more.
    fn take_jobs(&mut self, now: Instant) -> bool {
        loop {
            match self.todo.try_recv() {
                Ok(job) => self.seat(*job, now),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn seat(&mut self, job: Job, now: Instant) {
        let Job { peer, socket, publication, headers, parted } = job;
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let mut socket = TcpStream::from_std(socket);
        let registered = self.poll.registry().register(&mut socket, Token(at), Interest::READABLE);
        acknowledge_at_leisure(&socket);
        let place =
            Place { peer, socket, publication, headers, parted, untaken: None, listed: false, closed: false, asked: false, heard: now };
        self.places[at] = Some(Box::new(place));
        match registered {
            // What came before it was registered raises no event, its end included: this once it is read to the last byte.
            Ok(()) => self.list(at, true),
            Err(error) => self.part(at, Parting::End(error.into())),
        }
    }

    fn read(&mut self, at: usize, now: Instant) {
        let Some(Some(place)) = self.places.get_mut(at) else { return };
        place.listed = false;
        match place.read(&mut self.scratch, now) {
            Ok(Taken::Drained) => {}
            Ok(Taken::More) => self.list(at, true),
            Ok(Taken::Left) => self.part(at, Parting::End(End::Left)),
            Ok(Taken::Event(_)) => self.part(at, Parting::Unpublished),
            Err(End::Media(crate::stream::PublishError::Closed(closing))) => self.part(at, Parting::Closing(closing)),
            Err(end) => self.part(at, Parting::End(end)),
        }
    }

    /// Looks after those who send nothing.
    fn look(&mut self, now: Instant) {
        let draining = *self.draining.borrow();
        self.looks = self.looks.wrapping_add(1);
        let leisure = self.looks.is_multiple_of(LEISURE);
        for at in 0..self.places.len() {
            let Some(Some(place)) = self.places.get_mut(at) else { continue };
            if leisure {
                acknowledge_at_leisure(&place.socket);
            }
            if let Some(closing) = place.publication.closed() {
                self.part(at, Parting::Closing(closing));
            } else if now.duration_since(place.heard) > IDLE {
                self.part(at, Parting::End(End::Idle));
            } else if let Err(end) = place.remind(draining) {
                self.part(at, Parting::End(end));
            }
        }
    }

    /// Gives a publisher back.
    fn part(&mut self, at: usize, why: Parting) {
        let Some(place) = self.places.get_mut(at).and_then(Option::take) else { return };
        self.free.push(at);
        let Place { peer, mut socket, publication, headers, parted, untaken, .. } = *place;
        // A socket that was never registered has nothing to be taken back.
        let _ = self.poll.registry().deregister(&mut socket);
        let heritage = if matches!(&why, Parting::Closing(closing) if closing.is_a_move()) { publication.heritage() } else { None };
        let baggage = heritage.map(|heritage| Baggage { heritage, tags: untaken.into_iter().collect() });
        publication.leave(why.to_string());
        // A task that is gone has let go of the connection.
        let _ = parted.send(Parted { peer, socket: socket.into(), headers, baggage, why });
    }
}

impl Place {
    fn read(&mut self, scratch: &mut [u8], now: Instant) -> Result<Taken, End> {
        let Self { peer, socket, publication, headers, heard, untaken, .. } = self;
        publication.batch(now);
        let mut on = |event| match event {
            Event::Media { kind, timestamp, payload } => {
                *heard = now;
                headers.note(kind, &payload);
                let again = payload.clone();
                if let Err(error) = publication.tag(kind, timestamp, payload) {
                    *untaken = Some(Tag { kind, timestamp, payload: again });
                    return Err(error.into());
                }
                Ok(None)
            }
            other => Ok(Some(other)),
        };
        let taken = peer.take(socket, scratch, TURN, std::mem::take(&mut self.closed), &mut on);
        self.publication.flush();
        let taken = taken?;
        self.peer.answer(&self.socket)?;
        Ok(taken)
    }

    /// Asks it to connect anew where the shard is going, and sends what did not fit before.
    fn remind(&mut self, draining: bool) -> Result<(), End> {
        if draining && !std::mem::replace(&mut self.asked, true) {
            self.peer.session.request_reconnect(TOLD_TO_RECONNECT, None);
        }
        self.peer.answer(&self.socket).map(drop)
    }
}

/// Has the kernel leave out the acknowledgement that each read of ours would send at once: a third of what a publisher cost.
/// Every second segment of full size is still acknowledged when it comes, and the last one within 40 ms (RFC 1122
/// §4.2.3.2). Linux forgets it after a loss, when acknowledgements are wanted soon, so it is told again.
fn acknowledge_at_leisure(socket: &TcpStream) {
    // A system that does not know the option acknowledges as it always has.
    let _ = socket2::SockRef::from(socket).set_tcp_quickack(false);
}

impl std::fmt::Display for Parting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unpublished => f.write_str("the publisher stopped"),
            Self::Closing(closing) => closing.fmt(f),
            Self::End(end) => end.fmt(f),
        }
    }
}
