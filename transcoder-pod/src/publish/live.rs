//! What origins get: the objects that a player needs now, held in memory, and who wants to hear of new ones. A successor comes to the
//! same place, and so does what origins have of a predecessor.

use super::inheritance::{Inheritance, Place, Unfit};
use crate::body::Body;
use bytes::buf::Chain;
use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use lectern_contract::keys::ObjectName;
use lectern_contract::push::{Held, PushFrame};
use lectern_contract::{Epoch, RunId, SegmentNumber};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Frames that may wait for a subscriber: some ten seconds of a ladder. One that is slower is dropped, and comes back.
const WAITING: usize = 256;

/// A frame on its way to a subscriber: its first bytes, and the body where it has one.
pub type Sent = Chain<Bytes, Body>;

/// How long what a successor stores waits for an origin to come and say what there is of its predecessor's, besides a segment; and from then on, for the others.
const ORIGIN_WITHIN: Duration = Duration::from_secs(3);
const OTHERS_WITHIN: Duration = Duration::from_millis(250);

/// Successors that may ask at a time; the run goes to one.
pub(super) const SUCCESSORS: usize = 4;

/// A successor's wish to have the run: answered with the first segment that it makes, or `None` where it cannot have it.
pub type HandOver = oneshot::Sender<Option<SegmentNumber>>;

/// What a successor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// From here on the run is its.
    HandingOver(SegmentNumber),
    /// This packager keeps the run, or has never had it.
    Refused,
    /// It is done before it would have handed over: the run can be claimed once the last word is said.
    Done,
}

/// The live objects of one run; all clones are one.
#[derive(Debug, Clone)]
pub struct Live {
    inner: Arc<Mutex<Inner>>,
    closed: CancellationToken,
    /// An origin has subscribed.
    sought: CancellationToken,
    /// The run is this process's.
    owned: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    run: RunId,
    /// Under which it is published; `None`: the run is not this process's yet.
    epoch: Option<Epoch>,
    /// In the order in which they must be handed out: what is named before what names it.
    objects: Vec<(ObjectName, Body)>,
    subscribers: Vec<mpsc::Sender<Sent>>,
    last_word: Option<PushFrame>,
    inheritance: Inheritance,
    /// Who hears of successors.
    successors: Option<mpsc::Sender<HandOver>>,
}

impl Live {
    /// Nothing published yet.
    pub fn new(run: RunId) -> Self {
        let inheritance = Inheritance::default();
        let inner =
            Inner { run, epoch: None, objects: Vec::new(), subscribers: Vec::new(), last_word: None, inheritance, successors: None };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            closed: CancellationToken::new(),
            sought: CancellationToken::new(),
            owned: CancellationToken::new(),
        }
    }

    /// Of what a predecessor has begun of `renditions` only whole segments can be gone on with.
    pub fn goes_on_only_after_whole(&self, renditions: Vec<String>) {
        let mut inner = self.lock();
        let unfit = inner.inheritance.only_whole(renditions);
        unfit.into_iter().for_each(|place| inner.make_anew(place, "its encoder cannot go on within a segment"));
    }

    /// An origin holds this of a predecessor's; `false` where it has to be made anew.
    pub fn inherit(&self, run: &RunId, held: Held) -> bool {
        let mut inner = self.lock();
        if *run != inner.run {
            return true; // it is refused all the rest, too
        }
        let (rendition, number) = (held.rendition.clone(), held.number);
        match inner.inherit(held) {
            Ok(taken) => {
                tracing::info!(%run, rendition, %number, taken, "an origin has some of a predecessor's");
                true
            }
            Err(why) => {
                tracing::info!(%run, rendition, %number, why, "what an origin has of a predecessor's is made anew");
                false
            }
        }
    }

    /// Waits until origins have had their time to say what they hold. A predecessor that is not dead, and that only this packager cannot reach, finds out that it has
    /// lost the run when it moves the head next, within one of its `segment`s; until then origins stay with it, and show what it makes.
    pub async fn has_heard_origins(&self, segment: Duration) {
        if tokio::time::timeout(segment + ORIGIN_WITHIN, self.sought.cancelled()).await.is_ok() {
            tokio::time::sleep(OTHERS_WITHIN).await;
        }
    }

    /// What is to be stored as segment `number` of `rendition`, which was made as `made`.
    pub fn settled(&self, rendition: &str, number: SegmentNumber, made: Body) -> Body {
        self.lock().settled(rendition, number, made)
    }

    /// S3 has it.
    pub fn is_stored(&self, rendition: &str, number: SegmentNumber) {
        self.lock().inheritance.is_stored(rendition, number);
    }

    /// Whether origins hold what S3 has not got from here: a predecessor's, or parts of a segment that did not get whole.
    pub fn leaves_unstored(&self) -> bool {
        let inner = self.lock();
        !inner.inheritance.is_empty() || inner.has_open_segments()
    }

    /// The run is this process's since `epoch`.
    pub fn own(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.epoch = Some(epoch);
        inner.tell_frame(&PushFrame::Serving { epoch });
        drop(inner);
        self.owned.cancel();
    }

    /// What a transcoder hears that asks for the owner of `run`. It is no origin: nobody sees what it has, and it holds nothing of a predecessor's.
    pub async fn owner_of(&self, run: &RunId) -> PushFrame {
        // The head tells of an owner a moment before it knows itself.
        tokio::select! {
            () = self.owned.cancelled() => {}
            () = self.closed.cancelled() => {}
        }
        let inner = self.lock();
        match inner.epoch.filter(|_| inner.run == *run) {
            Some(epoch) => PushFrame::Serving { epoch },
            None => PushFrame::Refused { reason: format!("this packager does not own run {run}") },
        }
    }

    /// Under which epoch the run is served, once it is.
    pub fn serving(&self) -> Option<Epoch> {
        self.lock().epoch
    }

    /// From now on the run can be handed over: who asks for it comes out of this.
    pub fn successors(&self) -> mpsc::Receiver<HandOver> {
        let (asked, heard) = mpsc::channel(SUCCESSORS);
        self.lock().successors = Some(asked);
        heard
    }

    /// Asks for `run` on a successor's behalf. The answer may take a while.
    pub async fn hand_over(&self, run: &RunId) -> Answer {
        let asked = Some(self.lock()).filter(|inner| inner.run == *run).and_then(|inner| inner.successors.clone());
        let (answer, answered) = oneshot::channel();
        if asked.is_none_or(|asked| asked.try_send(answer).is_err()) {
            return Answer::Refused;
        }
        match answered.await {
            Ok(at) => at.map_or(Answer::Refused, Answer::HandingOver),
            Err(_) => Answer::Done,
        }
    }

    /// Resolves once the last word is said.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an object, in the place of what had its name.
    pub fn put(&self, name: ObjectName, body: Bytes) {
        self.put_pieces(name, body.into());
    }

    /// The same of an object in pieces.
    pub fn put_pieces(&self, name: ObjectName, body: Body) {
        let mut inner = self.lock();
        let body = inner.instead_of(&name, body);
        inner.tell(|head| {
            PushFrame::encode_head(head, &name.to_string(), body.remaining());
            body.clone()
        });
        inner.keep(name, body);
    }

    /// Publishes segment `number` of `rendition`, whose `parts` were published before it: who got those joins them.
    pub fn put_joined(&self, rendition: &str, number: SegmentNumber, parts: u32, body: Body) {
        let name = ObjectName::Segment(rendition.to_owned(), number);
        let mut inner = self.lock();
        let body = inner.settled(rendition, number, body);
        inner.tell_frame(&PushFrame::Joined { name: name.to_string(), parts });
        inner.keep(name, body);
    }

    /// Lets go of the segments of `rendition`, and of the parts, that `segments` and `parts` do not want: later subscribers
    /// find segments in S3.
    pub fn retain(&self, rendition: &str, segments: impl Fn(SegmentNumber) -> bool, parts: impl Fn(SegmentNumber) -> bool) {
        self.lock().objects.retain(|(name, _)| match name {
            ObjectName::Segment(of, number) | ObjectName::Text(of, number) if of == rendition => segments(*number),
            ObjectName::Part(of, number, _) if of == rendition => parts(*number),
            _ => true,
        });
    }

    /// Says the last word to all subscribers, now and later.
    pub fn close(&self, last_word: PushFrame) {
        let mut inner = self.lock();
        inner.tell_frame(&last_word);
        inner.subscribers.clear();
        inner.last_word = Some(last_word);
        inner.successors = None;
        self.closed.cancel();
    }

    /// A new subscriber to `run`: what it gets at once, and what comes later. Without the latter nothing follows.
    pub fn subscribe(&self, run: &RunId) -> (Bytes, Option<mpsc::Receiver<Sent>>) {
        let mut inner = self.lock();
        let mut bytes = BytesMut::new();
        if *run != inner.run {
            PushFrame::Refused { reason: format!("this packager works for run {}", inner.run) }.encode(&mut bytes);
            return (bytes.freeze(), None);
        }
        if let Some(epoch) = inner.epoch {
            PushFrame::Serving { epoch }.encode(&mut bytes);
        }
        for (name, body) in &inner.objects {
            PushFrame::encode_head(&mut bytes, &name.to_string(), body.remaining());
            bytes.put(body.clone());
        }
        if let Some(last_word) = &inner.last_word {
            last_word.encode(&mut bytes);
            return (bytes.freeze(), None);
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        inner.subscribers.push(sender);
        self.sought.cancel();
        (bytes.freeze(), Some(receiver))
    }
}

impl Inner {
    /// Takes what an origin holds; whether it is of use. Too late where others have had what was made in its place.
    fn inherit(&mut self, held: Held) -> Result<bool, Unfit> {
        let (rendition, number) = (held.rendition.clone(), held.number);
        let whole = ObjectName::segment(&rendition, number);
        let part = |at: usize| u32::try_from(at).ok().map(|at| ObjectName::Part(rendition.clone(), number, at));
        let known = |name: &ObjectName| self.objects.iter().find(|(known, _)| known == name).map(|(_, body)| body);
        let segment = known(&whole);
        let made = |at| part(at).as_ref().and_then(known).cloned().or_else(|| segment?.run(at));
        if !self.subscribers.is_empty() && (0..held.parts.len()).any(|at| made(at).is_some()) {
            return Ok(false);
        }
        let segment = segment.cloned();
        let Some(parts) = self.inheritance.take(held, made)?.map(|held| held.parts.clone()) else { return Ok(false) };
        // First what can be refused.
        if let Some(made) = segment
            && let Some(settled) = self.inheritance.segment((&rendition, number), &made)?
        {
            self.replace(&whole, settled);
        }
        for (at, body) in (0..).zip(parts) {
            self.replace(&ObjectName::Part(rendition.clone(), number, at), body.into());
        }
        Ok(true)
    }

    /// Puts `body` in the place of an object that there is.
    fn replace(&mut self, name: &ObjectName, body: Body) {
        if let Some((_, there)) = self.objects.iter_mut().find(|(there, _)| there == name) {
            *there = body;
        }
    }

    /// Whether parts were published of a segment that was not.
    fn has_open_segments(&self) -> bool {
        let is_whole = |of: &String, number: SegmentNumber| {
            self.objects
                .iter()
                .any(|(name, _)| matches!(name, ObjectName::Segment(rendition, whole) if rendition == of && *whole >= number))
        };
        self.objects.iter().any(|(name, _)| matches!(name, ObjectName::Part(of, number, _) if !is_whole(of, *number)))
    }

    /// What is put out as `name`, which was made as `made`.
    fn instead_of(&mut self, name: &ObjectName, made: Body) -> Body {
        match name {
            ObjectName::Init(rendition, _) => {
                let mut init = made.clone();
                let init = init.copy_to_bytes(init.remaining());
                let unfit = self.inheritance.init(rendition, &init);
                unfit.into_iter().for_each(|place| self.make_anew(place, "it needs another init section"));
                made
            }
            ObjectName::Segment(rendition, number) | ObjectName::Text(rendition, number) => self.settled(rendition, *number, made),
            ObjectName::Part(rendition, number, index) => match self.inheritance.part((rendition, *number), *index as usize, &made) {
                Ok(held) => held.map_or(made, Body::from),
                Err(why) => {
                    self.make_anew((rendition.clone(), *number), why);
                    made
                }
            },
            _ => made,
        }
    }

    fn settled(&mut self, rendition: &str, number: SegmentNumber, made: Body) -> Body {
        match self.inheritance.segment((rendition, number), &made) {
            Ok(held) => held.unwrap_or(made),
            Err(why) => {
                self.make_anew((rendition.to_owned(), number), why);
                made
            }
        }
    }

    /// Tells all origins that what they may have of a segment is made anew.
    fn make_anew(&mut self, (rendition, number): Place, why: Unfit) {
        tracing::info!(run = %self.run, rendition, %number, why, "what an origin has of a predecessor's is made anew");
        self.tell_frame(&PushFrame::Anew { rendition, number });
    }

    fn keep(&mut self, name: ObjectName, body: Body) {
        match self.objects.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = body,
            None => {
                let rank = rank(&name);
                let at = self.objects.partition_point(|(known, _)| self::rank(known) <= rank);
                self.objects.insert(at, (name, body));
            }
        }
    }

    fn tell_frame(&mut self, frame: &PushFrame) {
        self.tell(|head| {
            frame.encode(head);
            Body::default()
        });
    }

    /// Sends what `encode` writes, and after it what it returns.
    fn tell(&mut self, encode: impl FnOnce(&mut BytesMut) -> Body) {
        if self.subscribers.is_empty() {
            return;
        }
        let mut head = BytesMut::with_capacity(128);
        let body = encode(&mut head);
        let head = head.freeze();
        self.subscribers.retain(|subscriber| subscriber.try_send(head.clone().chain(body.clone())).is_ok());
    }
}

fn rank(name: &ObjectName) -> u8 {
    match name {
        ObjectName::Init(..) => 0,
        ObjectName::Segment(..) | ObjectName::Text(..) | ObjectName::Part(..) => 1,
        ObjectName::MediaPlaylist(_) => 2,
        _ => 3,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
