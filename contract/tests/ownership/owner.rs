//! One owner: what it asks for, and what it makes of the answers.

use crate::rules::Rules;
use crate::store::{Answer, Head, Owner, Request, State, Version};
use lectern_contract::document::Document;
use lectern_contract::{Epoch, SegmentNumber};
use std::collections::BTreeMap;

/// What an owner makes of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// This segment is stored and named.
    Stored(u64),
    LetGo {
        unstored: bool,
    },
    End,
}

/// What an owner does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
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
pub(crate) struct Process {
    pub(crate) id: Owner,
    /// That the run has.
    pub(crate) segments: u64,
    pub(crate) step: Step,
    pub(crate) waits: bool,
    pub(crate) head: Head,
    pub(crate) version: Option<Version>,
    pub(crate) list: Document<Version>,
    /// What the origin had of others, and who made it.
    pub(crate) inherited: BTreeMap<u64, Owner>,
    /// It has sent all before this one to the origin, whether that got it or not.
    pub(crate) pushed: u64,
}

impl Process {
    pub(crate) fn new(id: Owner, segments: u64) -> Self {
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

    pub(crate) fn request(&self, rules: Rules) -> Option<Request> {
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

    pub(crate) fn hears(&mut self, answer: Answer, rules: Rules) {
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
    pub(crate) fn leaves_from(&self, number: u64) -> bool {
        self.pushed > number || self.inherited.range(number..).next().is_some()
    }

    fn name(&self, number: u64, rules: Rules) -> Step {
        let admitted = self.list.admits(Some(SegmentNumber(number))) || !rules.reach;
        if admitted { Step::Name(number) } else { Step::Move(Change::Stored(number)) } // it stands there already
    }
}
