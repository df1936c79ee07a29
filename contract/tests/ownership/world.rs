//! All owners at one bucket, and everything that may happen next.

use crate::owner::{Change, Process, Step};
use crate::rules::Rules;
use crate::store::{Owner, Request, Seen, State, Store};
use lectern_contract::SegmentNumber;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) owners: Vec<Process>,
    /// Requests under way, and whose: their owners may be gone.
    pub(crate) under_way: Vec<(Owner, Request)>,
    pub(crate) segments: u64,
    /// Owners that may still come.
    pub(crate) to_come: u8,
    /// Answers that may still be lost.
    pub(crate) losses: u8,
    /// How often an owner may still let go.
    pub(crate) to_let_go: u8,
}

impl World {
    /// All that may happen next.
    fn futures(&self, rules: Rules) -> Result<Vec<Self>, String> {
        let mut futures = Vec::new();
        for (at, owner) in self.owners.iter().enumerate() {
            if owner.waits && self.losses > 0 {
                let mut world = self.clone();
                world.losses -= 1;
                world.owners[at].waits = false; // asks again; the first request may still be carried out
                futures.push(world);
            }
            if let Step::Move(Change::Stored(number)) = owner.step
                && number + 1 < owner.segments
                && !owner.waits
            {
                let mut world = self.clone();
                world.owners[at].step = Step::Push(number + 1); // the head is moved by somebody else, who may be late
                futures.push(world);
            }
            // Asked to stop, or for the run, it lets go between two segments, or of one that S3 does not get.
            let lets_go = match owner.step {
                Step::Push(number) => Some(owner.leaves_from(number) && rules.tells),
                Step::Upload(_) => Some(rules.tells),
                _ => None,
            };
            if let Some(unstored) = lets_go.filter(|_| !owner.waits && self.to_let_go > 0) {
                let mut world = self.clone();
                world.to_let_go -= 1;
                world.owners[at].step = Step::Move(Change::LetGo { unstored });
                futures.push(world);
            }
            if let Step::Upload(_) = owner.step
                && !rules.ends_last
                && !owner.waits
            {
                let mut world = self.clone();
                world.owners[at].step = Step::Move(Change::End);
                futures.push(world);
            }
            if let Some(request) = owner.request(rules).filter(|_| !owner.waits) {
                let mut world = self.clone();
                world.owners[at].waits = true;
                if let Request::Push(_, number, _) = request {
                    world.owners[at].pushed = number + 1;
                }
                world.under_way.push((owner.id, request));
                world.under_way.sort();
                futures.push(world);
            }
        }
        for at in 0..self.under_way.len() {
            let mut world = self.clone();
            let (who, request) = world.under_way.remove(at);
            let answer = world.store.does(who, &request, rules)?;
            // Who has asked again hears the answer to what it asked last.
            let hears =
                world.owners.iter_mut().find(|owner| owner.id == who && owner.waits && owner.request(rules).as_ref() == Some(&request));
            if let Some(owner) = hears {
                owner.waits = false;
                owner.hears(answer, rules);
            }
            futures.push(world);
        }
        if self.to_come > 0 {
            let mut world = self.clone();
            world.to_come -= 1;
            world.owners.push(Process::new(world.owners.len() as Owner, world.segments));
            futures.push(world);
        }
        Ok(futures)
    }

    fn hash(&self) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(self)
    }

    /// Nobody has anything left to do.
    fn is_over(&self) -> bool {
        self.to_come == 0 && self.under_way.is_empty() && self.owners.iter().all(|owner| owner.step == Step::Over)
    }
}

/// How much there is to go through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) segments: u64,
    pub(crate) owners: u8,
    pub(crate) losses: u8,
    pub(crate) to_let_go: u8,
}

/// Goes through all that may happen; how many states there are, and what came to pass. Whoever is never heard of again has died.
pub(crate) fn explore(Size { segments, owners, losses, to_let_go }: Size, rules: Rules) -> Result<(usize, Seen), String> {
    let first = World { store: Store::default(), owners: Vec::new(), under_way: Vec::new(), segments, to_come: owners, losses, to_let_go };
    // Of millions of states their hashes are enough: two that are alike are as likely as a broken memory.
    let (mut seen, mut ahead) = (HashSet::from([first.hash()]), vec![first]);
    let (mut complete, mut ever) = (0, Seen::default());
    while let Some(world) = ahead.pop() {
        let Seen { let_go, unstored, followed } = world.store.seen;
        ever = Seen { let_go: ever.let_go | let_go, unstored: ever.unstored | unstored, followed: ever.followed | followed };
        if world.is_over() {
            let named = world.store.list.and_then(|(mark, _)| mark.to);
            match world.store.head.map(|(head, _)| head.state) {
                Some(State::Ended) if named == Some(SegmentNumber(segments - 1)) => complete += 1,
                Some(State::LetGo { .. }) => {} // whoever comes next goes on
                state => return Err(format!("all are done, the run is {state:?}, and the list names {named:?}")),
            }
        }
        for future in world.futures(rules)? {
            if seen.insert(future.hash()) {
                ahead.push(future);
            }
        }
    }
    assert!(complete > 0, "nobody ever comes to an end");
    Ok((seen.len(), ever))
}
