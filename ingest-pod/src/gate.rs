//! Who may connect: bounds on connections in all, by address, and on how often an address may fail.
//!
//! An address is an IPv4 address or an IPv6 /64, which is what one customer gets. Behind a load balancer that hides its
//! clients' addresses all publishers have one address; such a pool needs larger limits (see `docs/ingest.md`). Pure but for a
//! lock: callers say what time it is.

use crate::metrics::RefusedReason;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct GateLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once that do not publish (yet).
    pub waiting: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// Connections at once from one address that do not publish (yet).
    pub waiting_per_address: usize,
    /// Failures (a wrong key, a broken handshake or protocol) of one address in a minute; then it has to wait.
    pub failures_per_minute: u32,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { connections: 4096, waiting: 1024, per_address: 512, waiting_per_address: 64, failures_per_minute: 60 }
    }
}

/// Addresses that failed and are gone are remembered up to this many.
const REMEMBERED: usize = 65_536;
const MINUTE: Duration = Duration::from_secs(60);

/// The gate. Clones are one.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: GateLimits,
    book: Mutex<Book>,
    connections: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Book {
    waiting: usize,
    by_address: HashMap<IpAddr, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    connections: usize,
    waiting: usize,
    failures: u32,
    /// When the minute of the failures began.
    since: Option<Instant>,
}

impl Entry {
    fn failures_at(&self, now: Instant) -> u32 {
        self.since.filter(|since| now.saturating_duration_since(*since) < MINUTE).map_or(0, |_| self.failures)
    }
}

impl Gate {
    /// A gate with nobody in.
    pub fn new(limits: GateLimits) -> Self {
        Self(Arc::new(Inner { limits, book: Mutex::default(), connections: watch::Sender::new(0) }))
    }

    /// How many are in, as it changes.
    pub fn connections(&self) -> watch::Receiver<usize> {
        self.0.connections.subscribe()
    }

    /// Lets a connection from `address` in, as one that does not publish yet.
    ///
    /// # Errors
    /// Which bound it would break.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Pass, RefusedReason> {
        let (limits, address) = (&self.0.limits, bucket(address));
        let mut book = self.lock();
        if *self.0.connections.borrow() >= limits.connections || book.waiting >= limits.waiting {
            return Err(RefusedReason::TooManyConnections);
        }
        if book.by_address.len() >= REMEMBERED {
            book.by_address.retain(|_, entry| entry.connections > 0 || entry.failures_at(now) > 0);
        }
        if book.by_address.len() >= REMEMBERED && !book.by_address.contains_key(&address) {
            return Err(RefusedReason::TooManyFailures); // so many addresses fail that no more of them can be told apart
        }
        let entry = book.by_address.entry(address).or_default();
        if entry.failures_at(now) >= limits.failures_per_minute {
            return Err(RefusedReason::TooManyFailures);
        }
        if entry.connections >= limits.per_address || entry.waiting >= limits.waiting_per_address {
            return Err(RefusedReason::TooManyFromAddress);
        }
        entry.connections += 1;
        entry.waiting += 1;
        book.waiting += 1;
        drop(book);
        self.0.connections.send_modify(|count| *count += 1);
        Ok(Pass { gate: self.clone(), address, waiting: true })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner) // counters, each changed whole
    }
}

/// A connection that is in, until it is dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    address: IpAddr,
    waiting: bool,
}

impl Pass {
    /// The connection publishes, or waits again.
    pub fn publishes(&mut self, publishes: bool) {
        if self.waiting != publishes {
            return; // as it was
        }
        self.waiting = !publishes;
        let mut book = self.gate.lock();
        let step = |count: &mut usize| if publishes { *count -= 1 } else { *count += 1 };
        step(&mut book.waiting);
        book.by_address.get_mut(&self.address).into_iter().for_each(|entry| step(&mut entry.waiting));
    }

    /// The connection has failed in a way that an attack would.
    pub fn failed(&self, now: Instant) {
        let mut book = self.gate.lock();
        if let Some(entry) = book.by_address.get_mut(&self.address) {
            if entry.failures_at(now) == 0 {
                (entry.failures, entry.since) = (0, Some(now));
            }
            entry.failures = entry.failures.saturating_add(1);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.publishes(true);
        let mut book = self.gate.lock();
        if let Some(entry) = book.by_address.get_mut(&self.address) {
            entry.connections -= 1;
            if entry.connections == 0 && entry.since.is_none() {
                book.by_address.remove(&self.address);
            }
        }
        drop(book);
        self.gate.0.connections.send_modify(|count| *count -= 1);
    }
}

/// The address that counts.
fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GateLimits = GateLimits { connections: 6, waiting: 5, per_address: 4, waiting_per_address: 2, failures_per_minute: 3 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_may_wait_twice_and_publish_four_times() {
        let (gate, now) = (Gate::new(LIMITS), Instant::now());
        let mut passes = Vec::new();
        for _ in 0..4 {
            let mut pass = gate.admit(address(1), now).unwrap();
            pass.publishes(true);
            passes.push(pass);
        }
        assert_eq!(gate.admit(address(1), now).unwrap_err(), RefusedReason::TooManyFromAddress);
        passes.truncate(2);
        passes[0].publishes(false);
        passes[1].publishes(false);
        assert_eq!(gate.admit(address(1), now).unwrap_err(), RefusedReason::TooManyFromAddress);
        assert!(gate.admit(address(2), now).is_ok());
        drop(passes);
        let (connections, book) = (*gate.connections().borrow(), gate.lock());
        assert_eq!((connections, book.by_address.len(), book.waiting), (0, 0, 0));
    }

    #[test]
    fn the_shard_has_a_bound_in_all() {
        let (gate, now) = (Gate::new(LIMITS), Instant::now());
        let passes: Vec<_> = (0..5).map(|last| gate.admit(address(last), now).unwrap()).collect();
        assert_eq!(gate.admit(address(9), now).unwrap_err(), RefusedReason::TooManyConnections);
        drop(passes);
        assert!(gate.admit(address(9), now).is_ok());
    }

    #[test]
    fn an_address_that_fails_has_to_wait_for_a_minute() {
        let (gate, now) = (Gate::new(LIMITS), Instant::now());
        for _ in 0..3 {
            gate.admit(address(1), now).unwrap().failed(now);
        }
        assert_eq!(gate.admit(address(1), now).unwrap_err(), RefusedReason::TooManyFailures);
        assert!(gate.admit(address(2), now).is_ok());
        assert!(gate.admit(address(1), now + MINUTE).is_ok());
    }

    #[test]
    fn neighbours_in_a_v6_network_count_as_one() {
        let (gate, now) = (Gate::new(LIMITS), Instant::now());
        let passes = ["2001:db8::1", "2001:db8::2"].map(|text| gate.admit(text.parse().unwrap(), now).unwrap());
        assert!(gate.admit("2001:db8::3".parse().unwrap(), now).is_err());
        assert!(gate.admit("2001:db8:0:1::3".parse().unwrap(), now).is_ok());
        drop(passes);
    }
}
