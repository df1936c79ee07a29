//! Several owners of one run, one after the other by their own account, and everything that can come between: each freezes at any step and
//! goes on, dies, or loses an answer whose request is carried out much later, or never. All orders of all steps are gone through; in none of
//! them does what S3 shows go back, name what is not there, or change; nor does what an origin has shown change, or differ from what S3 has.
//!
//! One thing is left out of that last: a segment that somebody who has been replaced already, and does not know it, puts into S3 before his successor does. He
//! is fenced by a clock for that (`transcoder-pod/src/supervise`), which no order of steps can show.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use lectern_contract::document::{Document, Mark};
use lectern_contract::{Epoch, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

type Version = u32;
type Owner = u8;

/// The bucket: each object with who wrote it, or which version it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Store {
    origin: Origin,
    head: Option<(Head, Version)>,
    segments: BTreeMap<u64, Owner>,
    list: Option<(Mark, Version)>,
    versions: Version,
    /// Segments that somebody wrote who had been replaced.
    late: BTreeSet<u64>,
}

/// What players see first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Origin {
    /// The newest that it has heard of.
    epoch: Epoch,
    segments: BTreeMap<u64, Owner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Head {
    owner: Owner,
    epoch: Epoch,
    next: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Request {
    ReadHead,
    /// Takes the place of this version, or of none.
    WriteHead(Option<Version>, (Owner, u64, u64)),
    /// Where there is none: as it was made by somebody.
    WriteSegment(u64, Owner),
    /// The origin comes to the owner of this epoch, and says what it has from there on.
    Hear(Epoch, u64),
    /// To the origin, under this epoch.
    Push(Epoch, u64, Owner),
    ReadList,
    WriteList(Option<Version>, (u64, u64)),
}

enum Answer {
    Head(Option<(Head, Version)>),
    List(Option<(Mark, Version)>),
    Held(BTreeMap<u64, Owner>),
    Written(Version),
    Refused,
}

/// What an owner does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    LookAtHead,
    Claim(Option<(Head, Version)>),
    Hear,
    Push(u64),
    Upload(u64),
    Name(u64),
    LookAtList(u64),
    Move(u64),
    /// The head was not as expected.
    Check(u64),
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    id: Owner,
    /// That the run has.
    segments: u64,
    step: Step,
    waits: bool,
    head: Head,
    version: Option<Version>,
    list: Document<Version>,
    /// What the origin had of others, and who made it.
    inherited: BTreeMap<u64, Owner>,
}

/// What a writer keeps to. Without either of them the model must find what goes wrong.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Writes name the version that they replace.
    conditional: bool,
    /// A text that reaches less far does not replace an older owner's.
    reach: bool,
    /// What the origin has of others is taken over.
    inherits: bool,
    /// What the origin had first stays there.
    first_stays: bool,
}

const ALL: Rules = Rules { conditional: true, reach: true, inherits: true, first_stays: true };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    store: Store,
    owners: Vec<Process>,
    /// Requests under way, and whose: their owners may be gone.
    under_way: Vec<(Owner, Request)>,
    segments: u64,
    /// Owners that may still come.
    to_come: u8,
    /// Answers that may still be lost.
    losses: u8,
}

impl Process {
    fn new(id: Owner, segments: u64) -> Self {
        let head = Head { owner: id, epoch: Epoch(0), next: 0 };
        Self {
            id,
            segments,
            step: Step::LookAtHead,
            waits: false,
            head,
            version: None,
            list: Document::of(Epoch(0)),
            inherited: BTreeMap::new(),
        }
    }

    /// Whose work its segment is.
    fn maker(&self, number: u64) -> Owner {
        self.inherited.get(&number).copied().unwrap_or(self.id)
    }

    fn request(&self, rules: Rules) -> Option<Request> {
        let head = |head: Head| (head.owner, head.epoch.0, head.next);
        Some(match self.step {
            Step::LookAtHead | Step::Check(_) => Request::ReadHead,
            Step::Claim(there) => {
                let (epoch, next) = there.map_or((Epoch(1), 0), |(there, _)| (there.epoch.next(), there.next));
                Request::WriteHead(there.map(|(_, version)| version), head(Head { owner: self.id, epoch, next }))
            }
            Step::Hear => Request::Hear(self.head.epoch, self.head.next),
            Step::Push(number) => Request::Push(self.head.epoch, number, self.maker(number)),
            Step::Upload(number) => Request::WriteSegment(number, self.maker(number)),
            Step::Name(number) => {
                let version = if rules.conditional { self.list.replaces().copied() } else { Some(Version::MAX) };
                Request::WriteList(version, (self.head.epoch.0, number))
            }
            Step::LookAtList(_) => Request::ReadList,
            Step::Move(number) => Request::WriteHead(self.version, head(Head { next: number + 1, ..self.head })),
            Step::Over => return None,
        })
    }

    fn hears(&mut self, answer: Answer, rules: Rules) {
        self.step = match (self.step, answer) {
            (Step::LookAtHead, Answer::Head(there)) => Step::Claim(there),
            (Step::Claim(there), Answer::Written(version)) => {
                let (epoch, next) = there.map_or((Epoch(1), 0), |(there, _)| (there.epoch.next(), there.next));
                self.head = Head { owner: self.id, epoch, next };
                (self.version, self.list) = (Some(version), Document::of(epoch));
                Step::Hear
            }
            (Step::Claim(_), _) => Step::LookAtHead,
            (Step::Hear, Answer::Held(held)) => {
                self.inherited = if rules.inherits { held } else { BTreeMap::new() };
                Step::Push(self.head.next)
            }
            // It goes to S3, too, and where the origin knows somebody newer that is found out there.
            (Step::Push(number), _) => Step::Upload(number),
            // There already: its own, or an older owner's, which stays.
            (Step::Upload(number), _) => self.name(number, rules),
            (Step::Name(number), Answer::Written(version)) => {
                self.list.wrote(version);
                Step::Move(number)
            }
            (Step::Name(number), _) => Step::LookAtList(number),
            (Step::LookAtList(number), Answer::List(there)) => match self.list.found(there) {
                Err(_) => Step::Over,
                Ok(()) => self.name(number, rules),
            },
            (Step::Move(number), Answer::Written(version)) => {
                (self.version, self.head.next) = (Some(version), number + 1);
                Step::Push(number + 1)
            }
            (Step::Move(number), _) => Step::Check(number),
            (Step::Check(number), Answer::Head(Some((there, version)))) if (there.owner, there.epoch) == (self.id, self.head.epoch) => {
                self.version = Some(version);
                Step::Move(number)
            }
            _ => Step::Over,
        };
        if self.step == Step::Push(self.segments) {
            self.step = Step::Over;
        }
    }

    fn name(&self, number: u64, rules: Rules) -> Step {
        let admitted = self.list.admits(Some(SegmentNumber(number))) || !rules.reach;
        if admitted { Step::Name(number) } else { Step::Move(number) } // it stands there already
    }
}

impl Store {
    /// Carries a request out. An error is what nobody may ever see.
    fn does(&mut self, who: Owner, request: &Request, rules: Rules) -> Result<Answer, String> {
        let before = self.clone();
        let is_replaced = before.head.is_some_and(|(head, _)| head.owner != who);
        let mut written = || {
            self.versions += 1;
            self.versions
        };
        let answer = match *request {
            Request::ReadHead => Answer::Head(self.head),
            Request::ReadList => Answer::List(self.list),
            Request::WriteHead(replaces, (owner, epoch, next)) if replaces == before.head.map(|(_, version)| version) => {
                let version = written();
                self.head = Some((Head { owner, epoch: Epoch(epoch), next }, version));
                Answer::Written(version)
            }
            Request::WriteSegment(number, maker) if !before.segments.contains_key(&number) => {
                let version = written();
                self.segments.insert(number, maker);
                if is_replaced {
                    self.late.insert(number);
                }
                Answer::Written(version)
            }
            Request::Hear(epoch, from) if epoch >= before.origin.epoch => {
                self.origin.epoch = epoch;
                Answer::Held(before.origin.segments.range(from..).map(|(number, maker)| (*number, *maker)).collect())
            }
            Request::Push(epoch, number, maker) if epoch >= before.origin.epoch => {
                if !rules.first_stays || !before.origin.segments.contains_key(&number) {
                    self.origin.segments.insert(number, maker);
                }
                Answer::Written(0) // of no object of S3's
            }
            Request::WriteList(replaces, (epoch, to))
                if replaces == before.list.map(|(_, version)| version) || replaces == Some(Version::MAX) =>
            {
                let version = written();
                self.list = Some((Mark { epoch: Epoch(epoch), to: Some(SegmentNumber(to)) }, version));
                Answer::Written(version)
            }
            Request::WriteHead(..) | Request::WriteSegment(..) | Request::WriteList(..) | Request::Hear(..) | Request::Push(..) => {
                Answer::Refused
            }
        };
        let reach = |store: &Self| store.list.and_then(|(mark, _)| mark.to).map_or(0, |to| to.0 + 1);
        let (from, to) = (reach(&before), reach(self));
        if to < from || to > from + 1 {
            return Err(format!("the list reached to {from} segments, and now to {to}"));
        }
        if (0..to).any(|number| !self.segments.contains_key(&number)) {
            return Err(format!("the list names {to} segments of {:?}", self.segments));
        }
        if before.segments.iter().any(|(number, owner)| self.segments.get(number) != Some(owner)) {
            return Err("a segment has changed".to_owned());
        }
        if before.origin.segments.iter().any(|(number, maker)| self.origin.segments.get(number) != Some(maker)) {
            return Err("what the origin has shown has changed".to_owned());
        }
        let shown = self.origin.segments.iter().filter(|(number, _)| !self.late.contains(number));
        for (number, maker) in shown {
            if let Some(stored) = self.segments.get(number).filter(|stored| *stored != maker) {
                return Err(format!("segment {number} is shown as {maker} made it, and stored as {stored} did"));
            }
        }
        let next = |store: &Self| store.head.map_or(0, |(head, _)| head.next);
        if next(self) < next(&before) || next(self) > to {
            return Err(format!("the head says {}, after {}, and the list names {to}", next(self), next(&before)));
        }
        Ok(answer)
    }
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
            if let Step::Move(number) = owner.step
                && number + 1 < owner.segments
                && !owner.waits
            {
                let mut world = self.clone();
                world.owners[at].step = Step::Push(number + 1); // the head is moved by somebody else, who may be late
                futures.push(world);
            }
            if let Some(request) = owner.request(rules).filter(|_| !owner.waits) {
                let mut world = self.clone();
                world.owners[at].waits = true;
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

/// Goes through all that may happen; how many states there are. Whoever is never heard of again has died.
fn explore(segments: u64, owners: u8, losses: u8, rules: Rules) -> Result<usize, String> {
    let first = World { store: Store::default(), owners: Vec::new(), under_way: Vec::new(), segments, to_come: owners, losses };
    // Of millions of states their hashes are enough: two that are alike are as likely as a broken memory.
    let (mut seen, mut ahead) = (HashSet::from([first.hash()]), vec![first]);
    let mut complete = 0;
    while let Some(world) = ahead.pop() {
        if world.is_over() {
            let named = world.store.list.and_then(|(mark, _)| mark.to);
            if named != Some(SegmentNumber(segments - 1)) {
                return Err(format!("all are done, and the list names {named:?}"));
            }
            complete += 1;
        }
        for future in world.futures(rules)? {
            if seen.insert(future.hash()) {
                ahead.push(future);
            }
        }
    }
    assert!(complete > 0, "nobody ever comes to an end");
    Ok(seen.len())
}

#[test]
fn whoever_freezes_where_what_is_named_stays_and_goes_on() {
    for (segments, owners, losses) in [(3, 1, 2), (2, 2, 1), (3, 2, 0), (2, 3, 0)] {
        let states = explore(segments, owners, losses, ALL).unwrap();
        println!("{segments} segments, {owners} owners, {losses} lost answers: {states} states");
        assert!(states > 500, "{owners} owners who lose {losses} answers have {states} states only");
    }
}

#[test]
fn without_its_rules_the_model_finds_a_list_that_goes_back() {
    let without = explore(2, 2, 0, Rules { conditional: false, ..ALL }).unwrap_err();
    assert!(without.contains("the list reached"), "{without}");
    let without = explore(2, 2, 0, Rules { reach: false, ..ALL }).unwrap_err();
    assert!(without.contains("the list reached"), "{without}");
}

#[test]
fn without_its_rules_the_model_finds_what_was_shown_and_is_no_more() {
    let without = explore(2, 2, 0, Rules { inherits: false, ..ALL }).unwrap_err();
    assert!(without.contains("is shown as"), "{without}");
    let without = explore(2, 2, 0, Rules { inherits: false, first_stays: false, ..ALL }).unwrap_err();
    assert!(without.contains("has changed"), "{without}");
}
