//! Several owners of one run, one after the other by their own account, and everything that can come between: each freezes at any step and
//! goes on, dies, lets go between two segments or in the middle of one, ends the run, or loses an answer whose request is carried out much later, or never. All orders of all
//! steps are gone through; in none of them does what S3 shows go back, name what is not there, or change, after the end anything at all; nor does what an origin has shown
//! change, or differ from what S3 has; and nobody is left who takes the run for somebody else's while nobody has it.
//!
//! One rule is no order of steps, but a clock: who has been replaced, and does not know it, puts no segment into S3 any more (`transcoder-pod/src/supervise` stops him before
//! another may come). The model takes it for granted as a rule like the others, shows what goes wrong without it, and that all else holds all the same.

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
    /// What came to pass, to know that all of it does.
    seen: Seen,
}

/// What an order of steps had in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Seen {
    let_go: bool,
    /// Somebody went on after that.
    followed: bool,
    /// And had to ask the origin for what was not stored.
    unstored: bool,
}

/// What players see first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Origin {
    /// The newest that it has heard of.
    epoch: Epoch,
    segments: BTreeMap<u64, Owner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Head {
    owner: Owner,
    epoch: Epoch,
    next: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum State {
    Owned,
    LetGo { unstored: bool },
    Ended,
}

/// What an owner makes of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Change {
    /// This segment is stored and named.
    Stored(u64),
    LetGo {
        unstored: bool,
    },
    End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Request {
    ReadHead,
    /// Takes the place of this version, or of none.
    WriteHead(Option<Version>, Head),
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
    /// Its clock has stopped who asked.
    Fenced,
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
    Move(Change),
    /// The head was not as expected.
    Check(Change),
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
    /// It has sent all before this one to the origin, whether that got it or not.
    pushed: u64,
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
    /// What an owner does to its head it does to the head that is there.
    takes_up: bool,
    /// Who lets go of what is not stored says so, and who follows asks the origin then, as after a death.
    tells: bool,
    /// A run that has ended is nobody's to take.
    stays_ended: bool,
    /// It ends once all of it is named.
    ends_last: bool,
    /// Who has been replaced puts no segment into S3 any more.
    fenced: bool,
    /// Where he does, that one segment may be another than was shown.
    excused: bool,
}

const ALL: Rules = Rules {
    conditional: true,
    reach: true,
    inherits: true,
    first_stays: true,
    takes_up: true,
    tells: true,
    stays_ended: true,
    ends_last: true,
    fenced: true,
    excused: false,
};

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
    /// How often an owner may still let go.
    to_let_go: u8,
}

impl Process {
    fn new(id: Owner, segments: u64) -> Self {
        let head = Head { owner: id, epoch: Epoch(0), next: 0, state: State::Owned };
        Self {
            id,
            segments,
            step: Step::LookAtHead,
            waits: false,
            head,
            version: None,
            list: Document::of(Epoch(0)),
            inherited: BTreeMap::new(),
            pushed: 0,
        }
    }

    /// Whose work its segment is.
    fn maker(&self, number: u64) -> Owner {
        self.inherited.get(&number).copied().unwrap_or(self.id)
    }

    /// The head of whoever follows that one.
    fn claimed(&self, there: Option<(Head, Version)>) -> Head {
        let (epoch, next) = there.map_or((Epoch(1), 0), |(there, _)| (there.epoch.next(), there.next));
        Head { owner: self.id, epoch, next, state: State::Owned }
    }

    fn request(&self, rules: Rules) -> Option<Request> {
        Some(match self.step {
            Step::LookAtHead | Step::Check(_) => Request::ReadHead,
            Step::Claim(there) => Request::WriteHead(there.map(|(_, version)| version), self.claimed(there)),
            Step::Hear => Request::Hear(self.head.epoch, self.head.next),
            Step::Push(number) => Request::Push(self.head.epoch, number, self.maker(number)),
            Step::Upload(number) => Request::WriteSegment(number, self.maker(number)),
            Step::Name(number) => {
                let version = if rules.conditional { self.list.replaces().copied() } else { Some(Version::MAX) };
                Request::WriteList(version, (self.head.epoch.0, number))
            }
            Step::LookAtList(_) => Request::ReadList,
            Step::Move(change) => Request::WriteHead(self.version, self.changed(change)),
            Step::Over => return None,
        })
    }

    fn changed(&self, change: Change) -> Head {
        match change {
            Change::Stored(number) => Head { next: number + 1, ..self.head },
            Change::LetGo { unstored } => Head { state: State::LetGo { unstored }, ..self.head },
            Change::End => Head { next: self.segments, state: State::Ended, ..self.head },
        }
    }

    fn hears(&mut self, answer: Answer, rules: Rules) {
        self.step = match (self.step, answer) {
            (Step::LookAtHead, Answer::Head(Some((Head { state: State::Ended, .. }, _)))) if rules.stays_ended => Step::Over,
            (Step::LookAtHead, Answer::Head(there)) => Step::Claim(there),
            (Step::Claim(there), Answer::Written(version)) => {
                self.head = self.claimed(there);
                (self.version, self.list) = (Some(version), Document::of(self.head.epoch));
                match there {
                    // The others have left nothing behind, or the origin says it in time.
                    Some((Head { state: State::LetGo { unstored: false }, next, .. }, _)) => Step::Push(next),
                    _ => Step::Hear,
                }
            }
            (Step::Claim(_), _) => Step::LookAtHead,
            (Step::Hear, Answer::Held(held)) => {
                self.inherited = if rules.inherits { held } else { BTreeMap::new() };
                Step::Push(self.head.next)
            }
            // It goes to S3, too, and where the origin knows somebody newer that is found out there.
            (Step::Push(number), _) => Step::Upload(number),
            (Step::Upload(_), Answer::Fenced) => Step::Over,
            // There already: its own, or an older owner's, which stays.
            (Step::Upload(number), _) => self.name(number, rules),
            (Step::Name(number), Answer::Written(version)) => {
                self.list.wrote(version);
                Step::Move(Change::Stored(number))
            }
            (Step::Name(number), _) => Step::LookAtList(number),
            (Step::LookAtList(number), Answer::List(there)) => match self.list.found(there) {
                Err(_) => Step::Over,
                Ok(()) => self.name(number, rules),
            },
            (Step::Move(change), Answer::Written(version)) => {
                (self.version, self.head) = (Some(version), self.changed(change));
                if let Change::Stored(number) = change { Step::Push(number + 1) } else { Step::Over }
            }
            (Step::Move(change), _) => Step::Check(change),
            (Step::Check(change), Answer::Head(Some((there, version)))) if (there.owner, there.epoch) == (self.id, self.head.epoch) => {
                // An attempt of its own went through unseen: what it said stands.
                (self.version, self.head) = (Some(version), if rules.takes_up { there } else { self.head });
                Step::Move(change)
            }
            _ => Step::Over,
        };
        if self.step == Step::Push(self.segments) {
            self.step = Step::Move(Change::End);
        }
    }

    /// The origin may have this segment, or a later one, which is not stored: it was sent there, or is somebody's who died before.
    fn leaves_from(&self, number: u64) -> bool {
        self.pushed > number || self.inherited.range(number..).next().is_some()
    }

    fn name(&self, number: u64, rules: Rules) -> Step {
        let admitted = self.list.admits(Some(SegmentNumber(number))) || !rules.reach;
        if admitted { Step::Name(number) } else { Step::Move(Change::Stored(number)) } // it stands there already
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
            Request::WriteHead(replaces, head) if replaces == before.head.map(|(_, version)| version) => {
                let version = written();
                if let (Some((Head { state: State::LetGo { unstored }, .. }, _)), State::Owned) = (before.head, head.state) {
                    self.seen.followed = true;
                    self.seen.unstored |= unstored;
                }
                self.seen.let_go |= matches!(head.state, State::LetGo { .. });
                self.head = Some((head, version));
                Answer::Written(version)
            }
            Request::WriteSegment(..) if is_replaced && rules.fenced => Answer::Fenced,
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
                self.origin.epoch = epoch; // it has come to the owner of that epoch, before anything is pushed to it
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
        let shown = self.origin.segments.iter().filter(|(number, _)| !rules.excused || !self.late.contains(number));
        for (number, maker) in shown {
            if let Some(stored) = self.segments.get(number).filter(|stored| *stored != maker) {
                return Err(format!("segment {number} is shown as {maker} made it, and stored as {stored} did"));
            }
        }
        let next = |store: &Self| store.head.map_or(0, |(head, _)| head.next);
        if next(self) < next(&before) || next(self) > to {
            return Err(format!("the head says {}, after {}, and the list names {to}", next(self), next(&before)));
        }
        let visible = |store: &Self| (store.head.map(|(head, _)| head), store.list, store.segments.clone());
        let is_ended = before.head.is_some_and(|(head, _)| head.state == State::Ended);
        if is_ended && visible(self) != visible(&before) {
            return Err("something has changed after the end".to_owned());
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
struct Size {
    segments: u64,
    owners: u8,
    losses: u8,
    to_let_go: u8,
}

/// Goes through all that may happen; how many states there are, and what came to pass. Whoever is never heard of again has died.
fn explore(Size { segments, owners, losses, to_let_go }: Size, rules: Rules) -> Result<(usize, Seen), String> {
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

const fn size(segments: u64, owners: u8, losses: u8, to_let_go: u8) -> Size {
    Size { segments, owners, losses, to_let_go }
}

#[test]
fn whoever_freezes_or_lets_go_where_what_is_named_stays_and_goes_on() {
    for size in [size(3, 1, 2, 1), size(2, 2, 1, 0), size(2, 2, 1, 1), size(3, 2, 0, 1), size(2, 3, 0, 1)] {
        let (states, seen) = explore(size, ALL).unwrap();
        println!("{size:?}: {states} states");
        assert!(states > 500, "{size:?} has {states} states only");
        let lets_go = size.to_let_go > 0;
        assert_eq!(
            (seen.let_go, seen.followed, seen.unstored),
            (lets_go, lets_go && size.owners > 1, lets_go && size.owners > 1),
            "{size:?}"
        );
    }
}

/// What the model finds without a rule.
fn without(rules: Rules) -> String {
    explore(size(2, 2, 0, 1), rules).unwrap_err()
}

#[test]
fn without_its_rules_the_model_finds_a_list_that_goes_back() {
    let unconditional = without(Rules { conditional: false, ..ALL });
    assert!(unconditional.contains("the list reached") || unconditional.contains("after the end"), "{unconditional}");
    let short = without(Rules { reach: false, ..ALL });
    assert!(short.contains("the list reached"), "{short}");
}

#[test]
fn a_head_whose_move_was_not_answered_has_to_be_gone_on_from() {
    let gone_back = explore(size(2, 1, 2, 1), Rules { takes_up: false, ..ALL }).unwrap_err();
    assert!(gone_back.contains("the head says"), "{gone_back}");
}

#[test]
fn without_its_rules_the_model_finds_what_was_shown_and_is_no_more() {
    let without_one = without(Rules { inherits: false, ..ALL });
    assert!(without_one.contains("is shown as"), "{without_one}");
    let without_both = without(Rules { inherits: false, first_stays: false, ..ALL });
    assert!(without_both.contains("has changed"), "{without_both}");
}

#[test]
fn who_lets_go_of_what_is_not_stored_has_to_say_so() {
    let silent = without(Rules { tells: false, ..ALL });
    assert!(silent.contains("is shown as"), "{silent}");
}

#[test]
fn a_run_has_to_end_last_and_to_stay_ended() {
    let again = without(Rules { stays_ended: false, ..ALL });
    assert!(again.contains("after the end"), "{again}");
    let early = without(Rules { ends_last: false, ..ALL });
    assert!(early.contains("the head says"), "{early}");
}

/// And all else holds without it, too.
#[test]
fn the_clock_is_needed_for_one_segment_that_somebody_replaced_puts_into_s3() {
    let unfenced = Rules { fenced: false, ..ALL };
    assert!(without(unfenced).contains("is shown as"), "{}", without(unfenced));
    for size in [size(2, 2, 1, 0), size(3, 2, 0, 1)] {
        explore(size, Rules { excused: true, ..unfenced }).unwrap();
    }
}
