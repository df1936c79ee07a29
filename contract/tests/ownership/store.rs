//! The bucket and the origin, and what nobody may ever see of them.

use crate::rules::Rules;
use lectern_contract::document::Mark;
use lectern_contract::{Epoch, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Version = u32;
pub(crate) type Owner = u8;

/// The bucket: each object with who wrote it, or which version it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Store {
    pub(crate) origin: Origin,
    pub(crate) head: Option<(Head, Version)>,
    pub(crate) segments: BTreeMap<u64, Owner>,
    pub(crate) list: Option<(Mark, Version)>,
    pub(crate) versions: Version,
    /// Segments that somebody wrote who had been replaced.
    pub(crate) late: BTreeSet<u64>,
    /// What came to pass, to know that all of it does.
    pub(crate) seen: Seen,
}

/// What an order of steps had in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Seen {
    pub(crate) let_go: bool,
    /// Somebody went on after that.
    pub(crate) followed: bool,
    /// And had to ask the origin for what was not stored.
    pub(crate) unstored: bool,
}

/// What players see first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Origin {
    /// The newest that it has heard of.
    pub(crate) epoch: Epoch,
    pub(crate) segments: BTreeMap<u64, Owner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Head {
    pub(crate) owner: Owner,
    pub(crate) epoch: Epoch,
    pub(crate) next: u64,
    pub(crate) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum State {
    Owned,
    LetGo { unstored: bool },
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Request {
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

pub(crate) enum Answer {
    Head(Option<(Head, Version)>),
    List(Option<(Mark, Version)>),
    Held(BTreeMap<u64, Owner>),
    Written(Version),
    Refused,
    /// Its clock has stopped who asked.
    Fenced,
}

impl Store {
    /// Carries a request out. An error is what nobody may ever see.
    pub(crate) fn does(&mut self, who: Owner, request: &Request, rules: Rules) -> Result<Answer, String> {
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
