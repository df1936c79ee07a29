//! Looks at what S3 has of a running lecture: whose it is, and the documents that one owner after the other writes. None of them ever goes back.

use crate::storage::Storage;
use lectern_contract::document::Mark;
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use std::collections::BTreeMap;

/// What S3 had.
#[derive(Debug)]
pub(super) struct Stored {
    storage: Storage,
    prefix: RunPrefix,
    head: Option<Head>,
    marks: BTreeMap<String, Mark>,
    /// What went back, for people.
    pub back: Vec<String>,
}

impl Stored {
    pub fn new(storage: Storage, prefix: RunPrefix) -> Self {
        Self { storage, prefix, head: None, marks: BTreeMap::new(), back: Vec::new() }
    }

    /// Reads the head, and the live documents of `renditions`. What cannot be read is read the next time.
    pub async fn look(&mut self, renditions: impl Iterator<Item = String>) {
        if let Ok(head) = self.storage.json(&self.prefix, &ObjectName::Head).await {
            self.has_head(head);
        }
        let media = renditions.map(ObjectName::MediaPlaylist);
        for name in [ObjectName::Multivariant, ObjectName::Mpd].into_iter().chain(media) {
            if let Ok(text) = self.storage.text(&self.prefix, &name).await {
                self.has_document(&name.to_string(), Mark::find(&text));
            }
        }
    }

    fn has_head(&mut self, head: Head) {
        if let Some(before) = &self.head {
            let same = |head: &Head| (head.epoch, head.owner.clone());
            let goes_on = head.epoch >= before.epoch && head.next_segment >= before.next_segment && head.ended >= before.ended;
            let is_whose = head.epoch > before.epoch || same(&head) == same(before);
            if !goes_on || !is_whose {
                self.back.push(format!("head.json went from {before:?} to {head:?}"));
            }
        }
        self.head = Some(head);
    }

    fn has_document(&mut self, name: &str, mark: Mark) {
        let before = self.marks.insert(name.to_owned(), mark);
        if let Some(before) = before.filter(|before| mark.epoch < before.epoch || mark.to < before.to) {
            self.back.push(format!("S3's {name} went from {before} back to {mark}"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::{Epoch, Owner, SegmentNumber, Ticks};

    fn stored() -> Stored {
        let (prefix, _) = RunPrefix::of_key("00/school/lecture/run/head.json").unwrap();
        Stored::new(Storage::at(1, "nowhere"), prefix)
    }

    fn head(owner: &str, epoch: u64, next: u64) -> Head {
        let (run, address) = (lectern_contract::RunId("run".into()), None);
        let (epoch, next_segment) = (Epoch(epoch), SegmentNumber(next));
        Head { run, owner: Owner(owner.into()), epoch, address, unstored: false, next_segment, begins: None, shift: Ticks(0), ended: false }
    }

    #[test]
    fn a_head_goes_on_and_each_epoch_is_one_owners() {
        let mut stored = stored();
        for (owner, epoch, next, wrong) in [("a", 1, 3, 0), ("a", 1, 4, 0), ("b", 2, 4, 0), ("c", 2, 4, 1), ("c", 3, 3, 2), ("b", 2, 9, 3)]
        {
            stored.has_head(head(owner, epoch, next));
            assert_eq!(stored.back.len(), wrong, "{owner} {epoch} {next}: {:?}", stored.back);
        }
    }

    #[test]
    fn a_document_of_an_older_epoch_or_that_reaches_less_far_is_told() {
        let mut stored = stored();
        let mark = |epoch, to| Mark { epoch: Epoch(epoch), to: Some(SegmentNumber(to)) };
        for (mark, wrong) in [(mark(1, 7), 0), (mark(2, 7), 0), (mark(2, 6), 1), (mark(1, 9), 2)] {
            stored.has_document("360p/live.m3u8", mark);
            assert_eq!(stored.back.len(), wrong, "{mark}: {:?}", stored.back);
        }
    }
}
