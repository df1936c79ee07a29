//! One process that is, would be, or was the owner of the run, by its own account.

use crate::rules::Rules;
use crate::store::{Answer, Head, Made, Owner, Request, State, Version};
use lectern_contract::document::Document;
use lectern_contract::{Epoch, SegmentNumber};

/// What an owner makes of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// This segment is stored and named.
    Stored(usize),
    LetGo {
        unstored: bool,
    },
    End,
}

/// What a process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    LookAtHead,
    /// Of whom the head names, if it does not live, or has let go.
    Claim(Option<(Head, Version)>),
    /// For the run: it lives.
    Ask(Owner),
    /// Until it closes the connection.
    Await(Owner),
    Hear,
    Push(usize),
    Upload(usize),
    Name(usize),
    LookAtList(usize),
    Move(Change),
    /// The head was not as expected.
    Check(Change),
    Over,
}

impl Step {
    /// What is done there, for who counts what came to pass.
    pub fn kind(self) -> &'static str {
        match self {
            Self::LookAtHead => "look at the head",
            Self::Claim(_) => "claim",
            Self::Ask(_) => "ask",
            Self::Await(_) => "await",
            Self::Hear => "hear the origin",
            Self::Push(_) => "push",
            Self::Upload(_) => "upload",
            Self::Name(_) => "name",
            Self::LookAtList(_) => "look at the list",
            Self::Move(Change::Stored(_)) => "move",
            Self::Move(Change::LetGo { .. }) => "let go",
            Self::Move(Change::End) => "end",
            Self::Check(_) => "check",
            Self::Over => "over",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pub id: Owner,
    /// How many segments the run has.
    length: usize,
    pub step: Step,
    pub waits: bool,
    pub head: Head,
    version: Option<Version>,
    list: Document<Version>,
    /// What the origin had of others, and who made it.
    inherited: Made,
    /// It has sent all before this one to the origin, whether that got it or not; nothing, where it is zero.
    pub pushed: usize,
    /// The first segment that is its successor's.
    until: Option<usize>,
    /// The same as its predecessor said.
    pub told: Option<usize>,
    /// What it does to the head last.
    pub parting: Option<Change>,
}

impl Process {
    pub fn new(id: Owner, length: usize) -> Self {
        Self {
            id,
            length,
            step: Step::LookAtHead,
            waits: false,
            head: Head { owner: id, epoch: Epoch(0), next: 0, state: State::Owned },
            version: None,
            list: Document::of(Epoch(0)),
            inherited: Made::default(),
            pushed: 0,
            until: None,
            told: None,
            parting: None,
        }
    }

    /// It is gone, and what it knew with it.
    pub fn is_over(&mut self) {
        *self = Self { step: Step::Over, ..Self::new(self.id, self.length) };
    }

    /// Whether it would say that it has the run, under that epoch or a newer one.
    pub fn serves(&self, epoch: Epoch) -> bool {
        self.step != Step::Over && self.head.epoch >= epoch
    }

    /// Whose work its segment is.
    fn maker(&self, number: usize) -> Owner {
        self.inherited[number].unwrap_or(self.id)
    }

    /// The head of whoever follows that one.
    fn claimed(&self, there: Option<(Head, Version)>) -> Head {
        let (epoch, next) = there.map_or((Epoch(1), 0), |(there, _)| (there.epoch.next(), there.next));
        Head { owner: self.id, epoch, next, state: State::Owned }
    }

    pub fn request(&self) -> Option<Request> {
        Some(match self.step {
            Step::LookAtHead | Step::Check(_) => Request::ReadHead,
            Step::Claim(there) => Request::WriteHead(there.map(|(_, version)| version), self.claimed(there)),
            Step::Ask(owner) => Request::Ask(owner),
            Step::Hear => Request::Hear(self.head.epoch, self.head.next),
            Step::Push(number) => Request::Push(self.head.epoch, number, self.maker(number)),
            Step::Upload(number) => Request::WriteSegment(number, self.maker(number)),
            Step::Name(number) => Request::WriteList(self.list.replaces().copied(), (self.head.epoch.0, number)),
            Step::LookAtList(_) => Request::ReadList,
            Step::Move(change) => Request::WriteHead(self.version, self.changed(change)),
            Step::Await(_) | Step::Over => return None,
        })
    }

    fn changed(&self, change: Change) -> Head {
        match change {
            Change::Stored(number) => Head { next: number + 1, ..self.head },
            Change::LetGo { unstored } => Head { state: State::LetGo { unstored }, ..self.head },
            Change::End => Head { state: State::Ended, ..self.head },
        }
    }

    pub fn hears(&mut self, answer: Answer, rules: Rules) {
        match (self.step, answer) {
            (Step::LookAtHead, Answer::Head(Some((Head { state: State::Ended, .. }, _)))) if rules.stays_ended => self.is_over(),
            (Step::LookAtHead, Answer::Head(there)) => self.step = Step::Claim(there),
            (Step::Claim(there), Answer::Written(version)) => {
                self.head = self.claimed(there);
                (self.version, self.list) = (Some(version), Document::of(self.head.epoch));
                match there.map(|(there, _)| there.state) {
                    None | Some(State::LetGo { unstored: false }) => self.begin(self.first(rules), rules),
                    Some(_) => self.step = Step::Hear,
                }
            }
            (Step::Claim(_), _) => self.step = Step::LookAtHead,
            (Step::Ask(owner), Answer::HandingOver(at)) => (self.told, self.step) = (Some(at), Step::Await(owner)),
            (Step::Hear, answer) => {
                if let Answer::Held(held) = answer
                    && rules.inherits
                {
                    self.inherited = held;
                }
                self.begin(self.first(rules), rules); // also where none has come in time
            }
            // It goes to S3, too, and where the origin knows somebody newer that is found out there.
            (Step::Push(number), _) if rules.stored_first => self.step = Step::Upload(number),
            (Step::Push(number), _) => self.name(number, rules),
            // There already: its own, or an older owner's, which stays.
            (Step::Upload(number), _) if rules.named_first => self.name(number, rules),
            (Step::Upload(number), _) => self.step = Step::Move(Change::Stored(number)),
            (Step::Name(number), Answer::Written(version)) => {
                self.list.wrote(version);
                self.step = Step::Move(Change::Stored(number));
            }
            (Step::Name(number), _) => self.step = Step::LookAtList(number),
            (Step::LookAtList(number), Answer::List(there)) => match self.list.found(there) {
                Err(_) => self.is_over(),
                Ok(()) => self.name(number, rules),
            },
            (Step::Move(change), Answer::Written(version)) => {
                (self.version, self.head) = (Some(version), self.changed(change));
                match (change, self.parting) {
                    (Change::Stored(_), Some(parting)) => self.step = Step::Move(parting),
                    (Change::Stored(number), None) => self.begin(number + 1, rules),
                    _ => self.is_over(),
                }
            }
            (Step::Move(change), _) => self.step = Step::Check(change),
            (Step::Check(change), Answer::Head(Some((there, version)))) if (there.owner, there.epoch) == (self.id, self.head.epoch) => {
                // An attempt of its own went through unseen: what it said stands.
                (self.version, self.head) = (Some(version), if rules.takes_up { there } else { self.head });
                self.step = Step::Move(change);
            }
            _ => self.is_over(),
        }
    }

    /// The first segment that it puts out.
    fn first(&self, rules: Rules) -> usize {
        self.told.filter(|_| !rules.by_the_head).unwrap_or(self.head.next)
    }

    /// Goes on to this segment, if there is one, and it is not its successor's.
    pub fn begin(&mut self, number: usize, rules: Rules) {
        if number >= self.length {
            self.part(number, Change::End);
        } else if self.until.is_some_and(|until| number >= until) {
            self.lets_go(number, rules);
        } else {
            self.step = Step::Push(number);
        }
    }

    fn name(&mut self, number: usize, rules: Rules) {
        let admitted = self.list.admits(Some(SegmentNumber(number as u64))) || !rules.reach;
        self.step = if admitted { Step::Name(number) } else { Step::Move(Change::Stored(number)) }; // it stands there already
    }

    /// Somebody asks for the run: the first segment that is the successor's, unless nothing is begun yet, or it is on its way out.
    pub fn is_asked(&mut self, rules: Rules) -> Option<usize> {
        let works = self.pushed > 0 && self.parting.is_none() && self.step != Step::Over;
        let until = *self.until.get_or_insert(if works { self.pushed } else { return None });
        match self.step {
            Step::Push(number) if !self.waits => self.begin(number, rules),
            Step::Upload(number) if !rules.to_the_boundary => self.lets_go(number, rules),
            _ => {}
        }
        works.then_some(until)
    }

    /// Lets go: all before this segment is stored.
    pub fn lets_go(&mut self, number: usize, rules: Rules) {
        if !rules.lets_go {
            return self.is_over();
        }
        let own = self.pushed > number && rules.tells_its_own;
        let of_others = self.inherited[number..].iter().any(Option::is_some) && rules.tells_of_others;
        self.part(number, Change::LetGo { unstored: own || of_others });
    }

    /// Sees the head to this segment, and then does that to it.
    fn part(&mut self, number: usize, change: Change) {
        (self.parting, self.waits) = (Some(change), false);
        self.step = Step::Move(if self.head.next < number { Change::Stored(number - 1) } else { change });
    }
}
