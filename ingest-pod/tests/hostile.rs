//! Twenty lecturers publish while everything else that the internet has comes as well. They lose nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

#[path = "hostile/attacks.rs"]
mod attacks;
mod common;
#[path = "hostile/peer.rs"]
mod peer;

use attacks::Attack;
use bytes::Bytes;
use common::*;
use futures::stream::{self, StreamExt};
use lectern_contract::feed::FeedFrame;
use lectern_contract::{KeyHash, RunId, StreamRef};
use lectern_ingest_pod::gate::GateLimits;
use lectern_ingest_pod::metrics::{Refused, RefusedReason};
use lectern_ingest_pod::routes::{Keys, Route};
use lectern_podkit::tls::PeerTls;
use peer::Publisher;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// Lecturers.
const GOOD: usize = 20;
/// Publishers with keys of their own that say nothing once they have been accepted.
const SILENT: usize = 10;
const IDLE: usize = 2000;
const SLOW: usize = 200;
/// Connections that each quick attack makes, from one address.
const QUICK: usize = 100;
/// What one connection may cost, whatever it does, in bytes, with the attacker's side of it (docs/ingest.md).
const A_CONNECTION: usize = 24 * 1024;
/// What the process may grow by beside that: buffers that threads have once, an allocator's slack.
const ONCE: usize = 16 << 20;
/// Between two pictures of a lecturer.
const FRAME: Duration = Duration::from_millis(20);

/// Memory is the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lecturers_lose_nothing_while_every_attacker_gets_in() {
    let _alone = ALONE.lock().await;
    let everybody = 1_000_000;
    let open = GateLimits {
        connections: everybody,
        waiting: everybody,
        per_address: everybody,
        waiting_per_address: everybody,
        failures_per_minute: u32::MAX,
    };
    let lectures = Lectures::begin(open).await;
    let attackers = attackers();
    let at_once = attackers.len();
    let (idle, own) = (lectures.shard.shard.memory().held(), own_bytes());
    let highest = highest_during(lectures.attacked(attackers)).await;
    let held = lectures.shard.shard.memory().held().saturating_sub(idle);
    let growth = highest.saturating_sub(own);
    let bound = at_once * A_CONNECTION + held * 11 / 10 + ONCE;
    println!("{at_once} connections: the process grew by {growth} bytes, of which {held} are media; at most {bound}");
    assert!(growth <= bound, "{at_once} connections: {growth} bytes, of which {held} are media; the docs say {bound}");
    for reason in [RefusedReason::UnknownKey, RefusedReason::Protocol, RefusedReason::Slow] {
        assert!(lectures.refused(reason) > 0, "nobody was refused for {reason:?}");
    }
    lectures.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_turns_attackers_away_and_counts_them() {
    let _alone = ALONE.lock().await;
    let lectures = Lectures::begin(GateLimits::default()).await;
    let (guesser, crowd) = (Ipv4Addr::new(127, 8, 0, 1), Ipv4Addr::new(127, 8, 0, 2));
    for _ in 0..10 {
        lectures.attacked(vec![(Attack::WrongKey, guesser); 10]).await;
    }
    assert!(lectures.refused(RefusedReason::TooManyFailures) > 0, "a guesser was never stopped");
    lectures.attacked(vec![(Attack::Idle, crowd); 100]).await;
    assert!(lectures.refused(RefusedReason::TooManyFromAddress) > 0, "one address had all it wanted");
    lectures.end().await;
}

/// Everybody who attacks, and from where: fifty from an address at most, but the quick ones from one address each.
fn attackers() -> Vec<(Attack, Ipv4Addr)> {
    let from = |network: u8, number: usize| Ipv4Addr::new(127, network, 0, 1 + (number / 50) as u8);
    let share = room();
    let of = |count: usize| (count as f64 * share) as usize;
    let idle = (0..of(IDLE)).map(|number| (Attack::Idle, from(2, number)));
    let slow = (0..of(SLOW)).map(|number| {
        let attack = [Attack::SlowHandshake, Attack::SlowMessage, Attack::ManyClaims][number % 3];
        (attack, from(3, number))
    });
    let quick = Attack::QUICK.into_iter().enumerate();
    let quick = quick.flat_map(|(kind, attack)| (0..of(QUICK)).map(move |_| (attack, Ipv4Addr::new(127, 4, 0, 1 + kind as u8))));
    slow.chain(quick).chain(idle).collect()
}

/// Which part of the attackers this process may have sockets for: two each, and some hundred for the rest.
fn room() -> f64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let most: usize = line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX);
    let wanted = 2 * (IDLE + SLOW + Attack::QUICK.len() * QUICK);
    let share = (most.saturating_sub(400) as f64 / wanted as f64).min(1.0);
    if share < 1.0 {
        eprintln!("`ulimit -n` is {most}: {:.0} % of the attackers come", share * 100.0);
    }
    share
}

/// A shard with its lecturers, and readers that check what they get.
struct Lectures {
    shard: TestShard,
    over: watch::Sender<bool>,
    lecturers: JoinSet<u64>,
    readers: Vec<tokio::task::JoinHandle<u64>>,
    silent: Vec<Publisher>,
    attacks: AtomicU64,
}

impl Lectures {
    async fn begin(limits: GateLimits) -> Self {
        let shard = TestShard::start_with(Default::default(), limits, PeerTls::plain()).await;
        shard.route::<{ GOOD + SILENT }>(std::array::from_fn(|number| route(&shard, number)));
        let (over, _) = watch::channel(false);
        let (mut lecturers, mut readers, mut silent) = (JoinSet::new(), Vec::new(), Vec::new());
        for number in 0..GOOD {
            let reader = FeedClient::of(shard.feed, RunId(format!("r{number}")), None, None).await;
            lecturers.spawn(lecture(shard.rtmp, number, over.subscribe()));
            readers.push(tokio::spawn(read(reader, over.subscribe())));
        }
        for number in GOOD..GOOD + SILENT {
            let address = Ipv4Addr::new(127, 5, 0, 1);
            silent.push(guarded("a publish", Publisher::start(shard.rtmp, address, &key(number))).await.unwrap());
        }
        Self { shard, over, lecturers, readers, silent, attacks: AtomicU64::new(0) }
    }

    /// Has all of them attack at the same time, to their ends.
    async fn attacked(&self, attackers: Vec<(Attack, Ipv4Addr)>) {
        let (target, count) = (self.shard.rtmp, attackers.len());
        let one = |(attack, from): (Attack, Ipv4Addr)| attack.run(target, from, self.attacks.fetch_add(1, Ordering::Relaxed));
        guarded("the attacks", stream::iter(attackers).map(one).buffer_unordered(count).collect::<()>()).await;
    }

    fn refused(&self, reason: RefusedReason) -> u64 {
        self.shard.metrics.refused.get_or_create(&Refused { reason }).get()
    }

    /// Ends the lectures: all that was sent has arrived, in order, and nobody is left.
    async fn end(mut self) {
        self.over.send_replace(true);
        let sent = guarded("the lecturers to end", std::mem::take(&mut self.lecturers).join_all()).await;
        let mut arrived = Vec::new();
        for reader in self.readers.drain(..) {
            arrived.push(guarded("a reader to end", reader).await.unwrap());
        }
        assert_eq!((sent.len(), sent.iter().sum::<u64>()), (GOOD, arrived.iter().sum()));
        assert!(sent.iter().all(|sent| *sent > 100), "a lecturer was stopped: {sent:?}");
        self.silent.clear();
        let mut connections = self.shard.gate.connections();
        guarded("the gate to be empty", connections.wait_for(|count| *count == 0)).await.unwrap();
        assert_eq!(self.shard.metrics.panics.get(), 0);
    }
}

fn key(number: usize) -> String {
    format!("secret-{number}")
}

fn route(shard: &TestShard, number: usize) -> Route {
    Route {
        keys: Keys::only(KeyHash::of(&key(number))),
        stream: StreamRef { namespace: "school".into(), name: format!("lecture-{number}") },
        run: RunId(format!("r{number}")),
        ..shard.own_route()
    }
}

/// Publishes pictures that are counted until it is over; how many.
async fn lecture(rtmp: std::net::SocketAddr, number: usize, over: watch::Receiver<bool>) -> u64 {
    let mut publisher = Publisher::start(rtmp, Ipv4Addr::LOCALHOST, &key(number)).await.unwrap();
    publisher.video([&[0x17, 0, 0, 0, 0][..], &record()].concat().into(), 0).await.unwrap();
    let mut pace = tokio::time::interval(FRAME); // a lecturer's camera, not a wait
    let mut count = 0;
    while !*over.borrow() {
        pace.tick().await;
        publisher.video(picture(count), count as u32 * FRAME.as_millis() as u32).await.unwrap();
        count += 1;
    }
    publisher.leave().await.unwrap();
    count
}

/// Reads until the lecturer leaves; how many pictures came. None may be missing.
async fn read(mut reader: FeedClient, over: watch::Receiver<bool>) -> u64 {
    let mut next = 0;
    loop {
        match reader.next().await {
            FeedFrame::AccessUnit(unit) => {
                assert_eq!(number_of(&unit.payload), next, "a picture is missing");
                next += 1;
            }
            FeedFrame::Gap { reason, .. } if *over.borrow() => {
                assert!(!reason.contains("slow"), "{reason}");
                return next;
            }
            FeedFrame::Gap { reason, .. } => panic!("a lecture was cut after {next} pictures: {reason}"),
            FeedFrame::Serving { .. } | FeedFrame::Config { .. } => {}
            other => panic!("a lecture ended: {other:?}"),
        }
    }
}

/// A video tag of an IDR picture every fiftieth time, with a number where its slice would be.
fn picture(number: u64) -> Bytes {
    let (head, unit) = if number.is_multiple_of(50) { (0x17, 0x65) } else { (0x27, 0x41) };
    let body = [&[head, 1, 0, 0, 0][..], &1009u32.to_be_bytes(), &[unit], &number.to_be_bytes(), &[0x88; 1000]].concat();
    body.into()
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[5..13].try_into().unwrap())
}

/// The most memory that this process has while `work` is done.
async fn highest_during(work: impl Future<Output = ()>) -> usize {
    let mut look = tokio::time::interval(Duration::from_millis(50)); // samples, not a wait
    let (mut work, mut highest) = (std::pin::pin!(work), 0);
    loop {
        tokio::select! {
            () = &mut work => return highest,
            _ = look.tick() => highest = highest.max(own_bytes()),
        }
    }
}

/// Memory of this process, without its program.
fn own_bytes() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}
