//! A document of the run in S3, written by the rule of `lectern_contract::document`.

use bytes::Bytes;
use lectern_cloud::{Etag, Objects, Precondition, PutIfError, StorageError};
use lectern_contract::document::{Document, Mark, Overtaken};
use lectern_contract::ledger::Ledger;
use lectern_contract::{Epoch, SegmentNumber};

/// One playlist, MPD or ledger, as this owner of the run writes it.
#[derive(Debug)]
pub struct Written {
    objects: Objects,
    key: String,
    document: Document<Etag>,
    /// The mark of a text that is there.
    reads: fn(&[u8]) -> Mark,
}

/// How a write went that S3 has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Done,
    /// It is not: what an older owner has written reaches further.
    Behind,
    /// It is not, and never will be: a newer owner has written.
    Overtaken(Overtaken),
}

impl Written {
    /// The document at `key`, for the owner of `epoch`; `reads` finds the mark of a text that is there: [`marked`] or [`entered`].
    pub const fn new(objects: Objects, key: String, epoch: Epoch, reads: fn(&[u8]) -> Mark) -> Self {
        Self { objects, key, document: Document::of(epoch), reads }
    }

    /// Writes `text`, which reaches to segment `to` and must hold its mark. It is asked again, with what is there, where nobody knew of that.
    ///
    /// # Errors
    /// S3's; it may or may not have been written.
    pub async fn write(
        &mut self,
        to: Option<SegmentNumber>,
        mut text: impl FnMut(Mark, Option<&[u8]>) -> Bytes,
    ) -> Result<Outcome, StorageError> {
        let mut there: Option<Bytes> = None;
        while self.document.admits(to) {
            let body = text(self.document.mark(to), there.as_deref());
            let precondition = self.document.replaces().map_or(Precondition::Absent, |etag| Precondition::Matches(etag.clone()));
            match self.objects.put_if(&self.key, body, precondition).await {
                Ok(etag) => {
                    self.document.wrote(etag);
                    return Ok(Outcome::Done);
                }
                Err(PutIfError::Storage(error)) => return Err(error),
                Err(PutIfError::Conflict { .. }) => {}
            }
            let object = self.objects.get(&self.key).await?;
            if let Err(overtaken) = self.document.found(object.as_ref().map(|object| ((self.reads)(&object.body), object.etag.clone()))) {
                return Ok(Outcome::Overtaken(overtaken));
            }
            there = object.map(|object| object.body);
        }
        Ok(Outcome::Behind)
    }
}

/// The mark of a playlist or an MPD.
pub fn marked(text: &[u8]) -> Mark {
    Mark::find(&String::from_utf8_lossy(text))
}

/// The mark of a ledger, which takes in what others have entered and so never reaches less far; epoch zero where it does not parse.
pub fn entered(text: &[u8]) -> Mark {
    let ledger = serde_json::from_slice::<Ledger>(text).ok();
    Mark { epoch: ledger.map(|ledger| ledger.epoch).unwrap_or_default(), to: None }
}

/// A playlist with its mark, a comment after the first line (RFC 8216 §4.1).
pub fn marked_playlist(playlist: &str, mark: Mark) -> Bytes {
    let (first, rest) = playlist.split_once('\n').unwrap_or((playlist, ""));
    format!("{first}\n## {mark}\n{rest}").into()
}

/// An MPD with its mark, a comment after the document (XML 1.0 §2.8).
pub fn marked_mpd(mpd: &str, mark: Mark) -> Bytes {
    format!("{}\n<!-- {mark} -->\n", mpd.trim_end()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_comments_that_are_found_again() {
        let mark = Mark { epoch: Epoch(3), to: Some(SegmentNumber(17)) };
        let playlist = marked_playlist("#EXTM3U\n#EXT-X-VERSION:8\n17.m4s\n", mark);
        assert_eq!(playlist, "#EXTM3U\n## lectern epoch 3 to 17\n#EXT-X-VERSION:8\n17.m4s\n");
        let mpd = marked_mpd("<MPD>\n</MPD>\n", mark);
        assert_eq!(mpd, "<MPD>\n</MPD>\n<!-- lectern epoch 3 to 17 -->\n");
        for text in [playlist, mpd] {
            assert_eq!(marked(&text), mark);
        }
    }
}
