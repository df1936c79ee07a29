//! What the owners of a run meet: the bucket, and an origin that students watch; and what these may never show.

use crate::rules::Rules;
use lectern_contract::document::Mark;
use lectern_contract::{Epoch, SegmentNumber};

pub type Version = u32;
pub type Owner = u8;
/// Who made each segment, where it is there. To the model, the same maker means the same bytes.
pub type Made = [Option<Owner>; MOST];

/// Segments that a run can have.
const MOST: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Store {
    pub head: Option<(Head, Version)>,
    pub segments: Made,
    pub list: Option<(Mark, Version)>,
    pub origin: Origin,
    /// Segments that somebody stored of whom no origin had them.
    unshown: [bool; MOST],
    /// How many segments the run has.
    length: usize,
}

/// What players see first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    /// The newest that it has heard of.
    epoch: Epoch,
    segments: Made,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    pub owner: Owner,
    pub epoch: Epoch,
    pub next: usize,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Owned,
    LetGo { unstored: bool },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    ReadHead,
    /// Takes the place of this version, or of none.
    WriteHead(Option<Version>, Head),
    /// Where there is none: as it was made by somebody.
    WriteSegment(usize, Owner),
    /// The origin comes to the owner of this epoch, and says what it has from there on.
    Hear(Epoch, usize),
    /// To the origin, under this epoch: a segment, or the first part of one.
    Push(Epoch, usize, Owner),
    ReadList,
    WriteList(Option<Version>, (u64, usize)),
    /// To another transcoder, which is to hand the run over.
    Ask(Owner),
}

pub enum Answer {
    Head(Option<(Head, Version)>),
    List(Option<(Mark, Version)>),
    Held(Made),
    Written(Version),
    Refused,
    /// Who was asked makes what comes before this segment.
    HandingOver(usize),
}

impl Store {
    pub fn new(length: usize) -> Self {
        Self { head: None, segments: Made::default(), list: None, origin: Origin::default(), unshown: [false; MOST], length }
    }

    pub fn is_owned_by_another(&self, than: Owner) -> bool {
        self.head.is_some_and(|(head, _)| head.owner != than)
    }

    /// How many segments the list names.
    fn reach(&self) -> usize {
        self.list.and_then(|(mark, _)| mark.to).map_or(0, |to| to.0 as usize + 1)
    }

    pub const fn length(&self) -> usize {
        self.length
    }

    /// All of the run is named.
    pub fn is_whole(&self) -> bool {
        self.reach() == self.length
    }

    /// Whether carrying it out would change nothing, now or at any time to come.
    pub fn is_vain(&self, request: &Request, rules: Rules) -> bool {
        let is_past = |replaces: Option<Version>, there: Option<Version>| replaces < there;
        match *request {
            Request::ReadHead | Request::ReadList => true,
            Request::WriteHead(replaces, _) => rules.swaps && is_past(replaces, self.head.map(|(_, version)| version)),
            Request::WriteList(replaces, _) => rules.conditional && is_past(replaces, self.list.map(|(_, version)| version)),
            Request::WriteSegment(number, _) => rules.stores_once && self.segments[number].is_some(),
            Request::Hear(epoch, _) => epoch <= self.origin.epoch,
            Request::Push(epoch, number, _) => {
                let stays = rules.first_stays && self.origin.segments[number].is_some();
                epoch < self.origin.epoch || (epoch == self.origin.epoch && stays)
            }
            Request::Ask(_) => false,
        }
    }

    /// Carries a request out. An error is what nobody may ever see.
    pub fn does(&mut self, who: Owner, request: &Request, rules: Rules) -> Result<Answer, String> {
        let before = *self;
        let next = |version: Option<Version>| version.unwrap_or(0) + 1;
        let (head, list) = (before.head.map(|(_, version)| version), before.list.map(|(_, version)| version));
        let answer = match *request {
            Request::ReadHead => Answer::Head(self.head),
            Request::ReadList => Answer::List(self.list),
            Request::WriteHead(replaces, written) if replaces == head || !rules.swaps => {
                self.head = Some((written, next(head)));
                Answer::Written(next(head))
            }
            Request::WriteList(replaces, (epoch, to)) if replaces == list || !rules.conditional => {
                self.list = Some((Mark { epoch: Epoch(epoch), to: Some(SegmentNumber(to as u64)) }, next(list)));
                Answer::Written(next(list))
            }
            Request::WriteSegment(number, maker) if before.segments[number].is_none() || !rules.stores_once => {
                self.segments[number] = Some(maker);
                self.unshown[number] = before.origin.segments[number] != Some(maker);
                Answer::Written(1)
            }
            Request::Hear(epoch, from) if epoch >= before.origin.epoch => {
                self.origin.epoch = epoch;
                let mut held = before.origin.segments;
                held[..from].fill(None);
                Answer::Held(held)
            }
            Request::Push(epoch, number, maker) if epoch >= before.origin.epoch => {
                self.origin.epoch = epoch; // it has come to the owner of that epoch, before anything is pushed to it
                let there = before.origin.segments[number];
                if rules.polite && maker == who && there.is_some_and(|there| there != who) {
                    return Err(format!("segment {number} is made twice"));
                }
                if !rules.first_stays || there.is_none() {
                    self.origin.segments[number] = Some(maker);
                }
                Answer::Written(0) // of no object of S3's
            }
            _ => Answer::Refused,
        };
        self.check(&before, rules)?;
        Ok(answer)
    }

    /// What nobody may ever see after what was seen `before`.
    fn check(&self, before: &Self, rules: Rules) -> Result<(), String> {
        let (from, to) = (before.reach(), self.reach());
        if to < from || to > from + 1 {
            return Err(format!("the list reached to {from} segments, and now to {to}"));
        }
        if self.segments[..to].iter().any(Option::is_none) {
            return Err(format!("the list names {to} segments of {:?}", self.segments));
        }
        let has_changed = |before: &Made, now: &Made| before.iter().zip(now).any(|(before, now)| before.is_some() && before != now);
        if has_changed(&before.segments, &self.segments) {
            return Err("a segment has changed".to_owned());
        }
        if has_changed(&before.origin.segments, &self.origin.segments) {
            return Err("what the origin has shown has changed".to_owned());
        }
        for (number, (shown, stored)) in self.origin.segments.iter().zip(&self.segments).enumerate() {
            let differs = matches!((shown, stored), (Some(shown), Some(stored)) if shown != stored);
            if differs && !(rules.excused && self.unshown[number]) {
                return Err(format!("segment {number} is shown as {shown:?} made it, and stored as {stored:?} did"));
            }
        }
        let next = |store: &Self| store.head.map_or(0, |(head, _)| head.next);
        if next(self) < next(before) || next(self) > to {
            return Err(format!("the head says {}, after {}, and the list names {to}", next(self), next(before)));
        }
        let (is, was) = (self.head.map(|(head, _)| head), before.head.map(|(head, _)| head));
        let moved = is.map(|head| (head.epoch.0, head.owner)) != was.map(|head| (head.epoch.0, head.owner));
        if moved && is.map_or(0, |head| head.epoch.0) != was.map_or(0, |head| head.epoch.0) + 1 {
            return Err(format!("{is:?} has followed {was:?}"));
        }
        let visible = |store: &Self| (store.head, store.list, store.segments);
        if was.is_some_and(|head| head.state == State::Ended) && visible(self) != visible(before) {
            return Err("something has changed after the end".to_owned());
        }
        if rules.polite && is.is_some_and(|head| head.state == State::LetGo { unstored: true }) {
            return Err("what its successor has to ask origins for is left behind".to_owned());
        }
        if is.is_some_and(|head| head.state == State::Ended) && !self.is_whole() {
            return Err(format!("the run has ended, and the list names {to} segments"));
        }
        Ok(())
    }
}
