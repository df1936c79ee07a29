//! A document of the run in S3, written by the rule of `lectern_contract::document`.

use bytes::Bytes;
use lectern_cloud::{Etag, Objects, Precondition, PutIfError, StorageError};
use lectern_contract::document::{Document, Mark, Overtaken};
use lectern_contract::{Epoch, SegmentNumber};

/// One playlist or MPD, as this owner of the run writes it.
#[derive(Debug)]
pub struct Written {
    objects: Objects,
    key: String,
    document: Document<Etag>,
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
    /// The document at `key`, for the owner of `epoch`.
    pub const fn new(objects: Objects, key: String, epoch: Epoch) -> Self {
        Self { objects, key, document: Document::of(epoch) }
    }

    /// Writes `text`, which reaches to segment `to` and must hold its mark.
    ///
    /// # Errors
    /// S3's; it may or may not have been written.
    pub async fn write(&mut self, to: Option<SegmentNumber>, text: impl Fn(Mark) -> Bytes) -> Result<Outcome, StorageError> {
        while self.document.admits(to) {
            match self.objects.put_if(&self.key, text(self.document.mark(to)), precondition(&self.document)).await {
                Ok(etag) => {
                    self.document.wrote(etag);
                    return Ok(Outcome::Done);
                }
                Err(PutIfError::Storage(error)) => return Err(error),
                Err(PutIfError::Conflict { .. }) => {}
            }
            let there = self.objects.get(&self.key).await?;
            let there = there.map(|object| (Mark::find(&String::from_utf8_lossy(&object.body)), object.etag));
            if let Err(overtaken) = self.document.found(there) {
                return Ok(Outcome::Overtaken(overtaken));
            }
        }
        Ok(Outcome::Behind)
    }
}

/// What S3 has to have for the next write.
pub fn precondition(document: &Document<Etag>) -> Precondition {
    document.replaces().map_or(Precondition::Absent, |etag| Precondition::Matches(etag.clone()))
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
            assert_eq!(Mark::find(&String::from_utf8_lossy(&text)), mark);
        }
    }
}
