//! All that may happen, one step after the other.

use crate::owner::{Change, Process, Step};
use crate::rules::{Rules, Size};
use crate::store::{Answer, Owner, Request, State, Store};
use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

/// What came to pass, and at which of an owner's steps; to know that all of it does.
pub type Seen = BTreeSet<(&'static str, &'static str)>;

/// All orders of steps.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub seen: Seen,
    /// Of states in which nobody has anything left to do, and the run has ended.
    pub complete: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    store: Store,
    owners: Vec<Process>,
    /// Requests under way, and whose: their owners may be gone.
    under_way: Vec<(Owner, Request)>,
    /// What may still come to pass.
    left: Size,
}

/// Goes through all that may happen. Whoever is never heard of again has died, or stands still for ever.
pub fn explore(size: Size, rules: Rules) -> Result<Explored, String> {
    let first = World { store: Store::new(size.segments), owners: Vec::new(), under_way: Vec::new(), left: size };
    // Of millions of states their hashes are enough: two that are alike are as likely as a broken memory.
    let (mut known, mut ahead) = (HashSet::from([first.hash()]), vec![first]);
    let mut explored = Explored { states: 0, seen: Seen::new(), complete: 0 };
    while let Some(world) = ahead.pop() {
        let futures = world.futures(rules, &mut explored.seen)?;
        if futures.is_empty() {
            explored.complete += usize::from(world.ends_well(rules)?);
        }
        for future in futures {
            if known.insert(future.hash()) {
                ahead.push(future);
            }
        }
    }
    explored.states = known.len();
    assert!(explored.complete > 0, "nobody ever comes to an end");
    Ok(explored)
}

impl World {
    fn hash(&self) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(self)
    }

    /// Nothing more happens: whether the run has ended. It is nobody's by mistake, and nobody waits for ever.
    fn ends_well(&self, rules: Rules) -> Result<bool, String> {
        if let Some(waiting) = self.owners.iter().find(|owner| owner.step != Step::Over) {
            return Err(format!("{waiting:?} waits for ever"));
        }
        match self.store.head.map(|(head, _)| head.state) {
            Some(State::Ended) if self.store.is_whole() => Ok(true),
            Some(State::LetGo { .. }) if !rules.polite => Ok(false), // whoever comes next goes on
            state => Err(format!("all are done, and the run is {state:?}")),
        }
    }

    /// All that may happen next.
    fn futures(&self, rules: Rules, seen: &mut Seen) -> Result<Vec<Self>, String> {
        let mut futures = Vec::new();
        for at in 0..self.owners.len() {
            self.is_lost(at, rules, seen, &mut futures);
            self.goes_another_way(at, rules, seen, &mut futures);
            self.asks(at, rules, seen, &mut futures);
        }
        for at in 0..self.under_way.len() {
            futures.push(self.is_carried_out(at, rules, seen)?);
        }
        if self.left.owners > 0 {
            let mut world = self.clone();
            world.left.owners -= 1;
            world.owners.push(Process::new(world.owners.len() as Owner, world.left.segments));
            futures.push(world);
        }
        for world in &mut futures {
            world.forget_what_is_vain(rules);
        }
        Ok(futures)
    }

    /// The same after somebody has done something.
    fn after(&self, at: usize, does: impl FnOnce(&mut Size, &mut Process)) -> Self {
        let mut world = self.clone();
        does(&mut world.left, &mut world.owners[at]);
        world
    }

    /// An answer is lost, whose request may be carried out much later, or never; or the connection to a predecessor.
    fn is_lost(&self, at: usize, rules: Rules, seen: &mut Seen, futures: &mut Vec<Self>) {
        let owner = &self.owners[at];
        let awaits = matches!(owner.step, Step::Await(_));
        if self.left.losses == 0 || !(owner.waits || awaits) {
            return;
        }
        let is_push = matches!(owner.step, Step::Push(_));
        if is_push && rules.shown_first {
            return;
        }
        seen.insert(("loses", owner.step.kind()));
        futures.push(self.after(at, |left, owner| {
            left.losses -= 1;
            owner.waits = false; // as a rule it asks again
            match owner.step {
                Step::Push(number) => owner.step = Step::Upload(number), // nobody answers to a push
                Step::Ask(_) => owner.is_over(),                         // the run stays where it is, as it seems
                Step::Await(_) => owner.step = Step::LookAtHead,
                _ => {}
            }
        }));
    }

    /// What an owner may do otherwise.
    fn goes_another_way(&self, at: usize, rules: Rules, seen: &mut Seen, futures: &mut Vec<Self>) {
        let owner = &self.owners[at];
        let mut may = |what, does: &dyn Fn(&mut Size, &mut Process)| {
            seen.insert((what, owner.step.kind()));
            futures.push(self.after(at, does));
        };
        match owner.step {
            Step::Claim(Some((there, _))) if !owner.waits && there.state == State::Owned && there.owner != owner.id => {
                if self.owners[usize::from(there.owner)].serves(there.epoch) {
                    may("finds the owner alive", &|_, owner| owner.is_over());
                    if owner.told.is_none() && self.left.to_ask > 0 {
                        may("wants the run", &|left, owner| {
                            left.to_ask -= 1;
                            owner.step = Step::Ask(there.owner);
                        });
                    }
                }
            }
            Step::Await(owner) if self.owners[usize::from(owner)].step == Step::Over && rules.closes => {
                may("sees the owner go", &|_, owner| owner.step = Step::LookAtHead);
            }
            Step::Move(Change::Stored(number)) if !owner.waits => match owner.parting {
                // The head is moved by somebody else, who may be late.
                None if number + 1 < self.store.length() => may("goes on", &|_, owner| owner.begin(number + 1, rules)),
                Some(parting @ Change::LetGo { .. }) if !rules.polite || !rules.moves_on_first => {
                    may("leaves the head behind", &|_, owner| owner.step = Step::Move(parting));
                }
                _ => {}
            },
            _ => {}
        }
        if let Step::Upload(_) = owner.step
            && !rules.ends_last
        {
            may("ends early", &|_, owner| (owner.parting, owner.waits, owner.step) = (Some(Change::End), false, Step::Move(Change::End)));
        }
        // Asked to stop, or late for its successor, it lets go between two segments, or of one of which S3 has not got all, or not yet.
        let stops_at = match owner.step {
            Step::Push(number) if !(owner.waits && rules.shown_first) => Some(number),
            Step::Upload(number) => Some(number),
            _ => None,
        };
        if let Some(number) = stops_at.filter(|_| self.left.to_let_go > 0) {
            may("stops", &|left, owner| {
                left.to_let_go -= 1;
                owner.lets_go(number, rules);
            });
        }
    }

    /// An owner sends what it does next on its way, unless a clock stops it there.
    fn asks(&self, at: usize, rules: Rules, seen: &mut Seen, futures: &mut Vec<Self>) {
        let owner = &self.owners[at];
        let Some(request) = owner.request().filter(|_| !owner.waits) else { return };
        match owner.step {
            Step::Upload(_) if rules.fenced && self.store.is_owned_by_another(owner.id) => {
                seen.insert(("is fenced", owner.step.kind()));
                return futures.push(self.after(at, |_, owner| owner.is_over()));
            }
            // Who is polite asks whether the owner lives, for as long as it takes, and it does.
            Step::Claim(Some((there, _))) if rules.polite && there.state == State::Owned && there.owner != owner.id => {
                if self.owners[usize::from(there.owner)].step != Step::Over {
                    return;
                }
            }
            _ => {}
        }
        let mut world = self.after(at, |_, owner| {
            owner.waits = true;
            if let Request::Push(_, number, _) = request {
                owner.pushed = number + 1;
            }
        });
        world.under_way.push((owner.id, request));
        world.under_way.sort();
        futures.push(world);
    }

    /// A request arrives, and its answer where somebody waits for that.
    fn is_carried_out(&self, at: usize, rules: Rules, seen: &mut Seen) -> Result<Self, String> {
        let mut world = self.clone();
        let (who, request) = world.under_way.remove(at);
        let before = world.store.head.map(|(head, _)| head);
        let answer = match request {
            Request::Ask(owner) => match world.owners[usize::from(owner)].is_asked(rules) {
                Some(until) => Answer::HandingOver(until),
                None => Answer::Refused,
            },
            _ => world.store.does(who, &request, rules)?,
        };
        let now = world.store.head.map(|(head, _)| head);
        if let (Some(before), Some(now)) = (before, now)
            && before.owner != now.owner
        {
            let how = if before.state == State::Owned { "is replaced" } else { "is followed" };
            seen.insert((how, world.owners[usize::from(before.owner)].step.kind()));
        }
        // Who has asked again hears the answer to what it asked last.
        let owner = &mut world.owners[usize::from(who)];
        let answered = if matches!(answer, Answer::Refused) { "is refused" } else { "is answered" };
        if owner.waits && owner.request().as_ref() == Some(&request) {
            seen.insert((answered, owner.step.kind()));
            owner.waits = false;
            owner.hears(answer, rules);
        } else if world.store != self.store {
            seen.insert(("is done unheard", kind(&request)));
        }
        Ok(world)
    }

    /// Drops requests that change nothing any more, and that nobody waits for.
    fn forget_what_is_vain(&mut self, rules: Rules) {
        let (owners, store) = (&self.owners, &self.store);
        self.under_way.retain(|(who, request)| {
            let owner = &owners[usize::from(*who)];
            let awaited = owner.waits && owner.request().as_ref() == Some(request);
            awaited || !store.is_vain(request, rules)
        });
    }
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::WriteHead(_, head) => match head.state {
            State::Owned => "claim or move",
            State::LetGo { .. } => "let go",
            State::Ended => "end",
        },
        Request::WriteSegment(..) => "upload",
        Request::WriteList(..) => "name",
        Request::Push(..) => "push",
        Request::Hear(..) => "hear the origin",
        Request::ReadHead | Request::ReadList | Request::Ask(_) => "nothing",
    }
}
