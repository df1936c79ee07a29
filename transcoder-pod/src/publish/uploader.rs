//! One rendition's way to S3: init section, segment, playlist, one after the other.

use super::document::{Outcome, Written, marked_playlist};
use super::keeper::Event;
use super::{Live, live_playlist};
use crate::packager::Segment;
use crate::retry::Backoff;
use crate::status::Status;
use bytes::{Buf as _, Bytes};
use lectern_cloud::{Object, Objects, PutIfError, StorageError};
use lectern_contract::SegmentNumber;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::ledger::LedgerSegment;
use lectern_media::hls::LiveWindow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Something to upload.
#[derive(Debug, Clone)]
pub enum Item {
    /// An init section and its number.
    Init(u32, Bytes),
    /// A segment.
    Segment(Segment),
    /// One that was given up.
    GivenUp(SegmentNumber),
    /// Nothing follows; `true`: the run has ended, so the playlist is closed.
    Last(bool),
}

impl Item {
    /// Of segments alone: init sections are small, and few.
    fn bytes(&self) -> usize {
        if let Self::Segment(segment) = self { segment.body.remaining() } else { 0 }
    }
}

/// What waits for a rendition's uploader; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<(Mutex<VecDeque<Item>>, Notify)>);

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item.
    pub fn push(&self, item: Item) {
        self.lock().push_back(item);
        self.0.1.notify_one();
    }

    /// The oldest segment that waits, where a newer one does, too.
    pub fn dispensable(&self) -> Option<SegmentNumber> {
        let items = self.lock();
        let mut waiting = items.iter().filter_map(|item| if let Item::Segment(segment) = item { Some(segment.number) } else { None });
        waiting.next().filter(|_| waiting.next().is_some())
    }

    /// Gives up a segment that waits. Its place stays: what came before it is still to be stored.
    pub fn give_up(&self, number: SegmentNumber) {
        for item in self.lock().iter_mut().filter(|item| matches!(item, Item::Segment(segment) if segment.number == number)) {
            *item = Item::GivenUp(number);
        }
    }

    /// Bytes of the segments that wait.
    pub fn bytes(&self) -> usize {
        self.lock().iter().map(Item::bytes).sum()
    }

    /// Segments that wait.
    pub fn waiting(&self) -> usize {
        self.lock().iter().filter(|item| matches!(item, Item::Segment(_))).count()
    }

    async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.lock().pop_front() {
                return item;
            }
            self.0.1.notified().await;
        }
    }
}

/// The task that empties a rendition's backlog.
#[derive(Debug)]
pub struct Uploader {
    /// Which rendition, as the engine counts them.
    pub at: usize,
    /// Its name.
    pub name: String,
    /// The bucket.
    pub objects: Objects,
    /// What the run is, and its folder.
    pub job: LiveJob,
    /// What waits.
    pub backlog: Backlog,
    /// Who knows what origins have of a predecessor's.
    pub live: Live,
    /// A predecessor has died: nothing is stored before they have said it.
    pub after_death: bool,
    /// What S3 has confirmed: the playlist there names nothing else.
    pub window: LiveWindow,
    /// That playlist.
    pub playlist: Written,
    /// Who keeps the ledger and the head.
    pub keeper: mpsc::UnboundedSender<Event>,
    /// Where trouble is told.
    pub status: Status,
}

/// The run is somebody else's, or cannot go on; the keeper has been told.
#[derive(Debug)]
struct Over;

impl Uploader {
    /// Uploads until [`Item::Last`]. Tries each thing until S3 takes it; whoever is no longer the owner drops this future.
    pub async fn run(mut self) {
        if self.after_death {
            self.live.has_heard_origins(self.job.segment_duration.into()).await;
        }
        loop {
            let done = match self.backlog.next().await {
                Item::Init(number, body) => self.init(number, body).await,
                Item::Segment(segment) => self.segment(segment).await,
                Item::GivenUp(number) => {
                    let _ = self.keeper.send(Event::GivenUp { rendition: self.at, number }); // as in segment
                    Ok(())
                }
                Item::Last(ended) => {
                    if ended && self.window.last().is_some() {
                        let _ = self.name_all(true).await; // nothing follows in any case
                    }
                    return;
                }
            };
            if let Err(Over) = done {
                return;
            }
        }
    }

    async fn init(&self, number: u32, body: Bytes) -> Result<(), Over> {
        match self.put_new(&ObjectName::Init(self.name.clone(), number), body, None).await {
            // A predecessor that is not quite dead was quicker: what was made needs ours.
            Some(_) => Err(self.over(Event::InitTaken { rendition: self.at, number })),
            None => Ok(()),
        }
    }

    async fn segment(&mut self, segment: Segment) -> Result<(), Over> {
        let Segment { number, offset, duration, init, body, .. } = segment;
        let mut body = self.live.settled(&self.name, number, body);
        let body = body.copy_to_bytes(body.remaining());
        let ours = LedgerSegment { number, offset, duration, bytes: body.len() as u64, init };
        // Structs of numbers always encode.
        let note = serde_json::to_string(&ours).unwrap_or_default();
        let there = self.put_new(&ObjectName::segment(&self.name, number), body, Some(&note)).await;
        let segment = there.map_or(ours, |there| as_noted(&there, ours));
        self.live.is_stored(&self.name, number);
        self.window.push(segment.into());
        self.name_all(false).await?;
        // The keeper is gone only when the run is lost.
        let _ = self.keeper.send(Event::Confirmed { rendition: self.at, segment });
        Ok(())
    }

    /// Writes the playlist.
    async fn name_all(&mut self, ended: bool) -> Result<(), Over> {
        let text = live_playlist(&self.name, &self.window, &self.job, ended);
        let mut backoff = Backoff::default();
        loop {
            match self.playlist.write(self.window.last(), |mark, _| marked_playlist(&text, mark)).await {
                Ok(Outcome::Done) => return Ok(()),
                Ok(Outcome::Behind) => {
                    tracing::info!(rendition = self.name, "a predecessor has named more segments than are made here so far");
                    return Ok(());
                }
                Ok(Outcome::Overtaken(newer)) => {
                    tracing::warn!(rendition = self.name, %newer, "the playlist is another's");
                    return Err(self.over(Event::Overtaken));
                }
                Err(error) => {
                    self.complain(&error, backoff.failures());
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    fn over(&self, why: Event) -> Over {
        let _ = self.keeper.send(why); // as in segment
        Over
    }

    /// Stores an object where there is none, and `note` beside it; where a predecessor was quicker, its object, if that is another.
    async fn put_new(&self, name: &ObjectName, body: Bytes, note: Option<&str>) -> Option<Object> {
        let key = self.job.prefix.key(name);
        let mut backoff = Backoff::default();
        let there = loop {
            let error = match self.objects.put_new(&key, body.clone(), note).await {
                Ok(_) => break None,
                Err(PutIfError::Conflict { .. }) => match self.objects.get(&key).await {
                    Ok(Some(object)) if object.body == body => break None,
                    Ok(Some(object)) => {
                        tracing::info!(key, "a predecessor's stays");
                        break Some(object);
                    }
                    Ok(None) => continue, // deleted meanwhile
                    Err(error) => error,
                },
                Err(PutIfError::Storage(error)) => error,
            };
            self.complain(&error, backoff.failures());
            tokio::time::sleep(backoff.next_wait()).await;
        };
        let waiting = self.backlog.waiting();
        let trouble = (waiting > 2).then(|| format!("S3 is slow: {waiting} segments of {} wait", self.name));
        self.status.trouble(&self.name, trouble);
        there
    }

    fn complain(&self, error: &StorageError, failures: u32) {
        let waiting = self.backlog.waiting();
        if failures.is_multiple_of(16) {
            tracing::warn!(rendition = self.name, %error, waiting, "an upload failed; trying on");
        }
        self.status.trouble(&self.name, Some(format!("{} cannot be stored, {waiting} segments wait: {error}", self.name)));
    }
}

/// How a predecessor's segment is entered, in whose place `ours` was made. Its init section may be another, as that of an encoder that knew of no source is: it says
/// itself what it needs, and for how long it lasts. Builds before this one have noted nothing, and encoders of one kind say the same of themselves.
fn as_noted(there: &Object, ours: LedgerSegment) -> LedgerSegment {
    let noted = there.note.as_deref().and_then(|note| serde_json::from_str::<LedgerSegment>(note).ok());
    let bytes = there.body.len() as u64;
    LedgerSegment { bytes, ..noted.filter(|noted| noted.number == ours.number).unwrap_or(ours) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use lectern_contract::Ticks;

    #[test]
    fn what_is_given_up_is_a_segment_that_a_newer_one_waits_behind() {
        let backlog = Backlog::default();
        backlog.push(Item::Init(0, Bytes::from_static(b"init")));
        for n in [7, 8] {
            let body = Body::from(Bytes::from_static(b"media"));
            backlog.push(Item::Segment(Segment {
                number: SegmentNumber(n),
                offset: Ticks(0),
                duration: Ticks(1),
                init: 0,
                body,
                parts: 0,
            }));
        }
        assert_eq!((backlog.waiting(), backlog.bytes()), (2, 10));
        assert_eq!(backlog.dispensable(), Some(SegmentNumber(7)));
        backlog.give_up(SegmentNumber(7));
        assert_eq!((backlog.dispensable(), backlog.waiting(), backlog.bytes()), (None, 1, 5));
        let left: Vec<Item> = backlog.lock().iter().cloned().collect();
        assert!(matches!(&left[..], [Item::Init(0, _), Item::GivenUp(SegmentNumber(7)), Item::Segment(_)]), "{left:?}");
    }
}
