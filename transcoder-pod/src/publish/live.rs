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

/// How long what a successor stores waits for an origin to come and say what there is of its predecessor's; and from then on, for the others.
const ORIGIN_WITHIN: Duration = Duration::from_secs(3);
const OTHERS_WITHIN: Duration = Duration::from_millis(250);

/// Successors that may ask at a time; the run goes to one.
const SUCCESSORS: usize = 4;

/// A successor's wish to have the run: answered with the first segment that it makes.
pub type HandOver = oneshot::Sender<SegmentNumber>;

/// The live objects of one run; all clones are one.
#[derive(Debug, Clone)]
pub struct Live {
    inner: Arc<Mutex<Inner>>,
    closed: CancellationToken,
    /// Somebody has subscribed.
    sought: CancellationToken,
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
        Self { inner: Arc::new(Mutex::new(inner)), closed: CancellationToken::new(), sought: CancellationToken::new() }
    }

    /// Of what a predecessor has begun of `renditions` only whole segments can be gone on with.
    pub fn goes_on_only_after_whole(&self, renditions: Vec<String>) {
        self.lock().inheritance.only_whole(renditions);
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

    /// Waits until origins have had their time to say what they hold.
    pub async fn has_heard_origins(&self) {
        if tokio::time::timeout(ORIGIN_WITHIN, self.sought.cancelled()).await.is_ok() {
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

    /// The run is this process's since `epoch`.
    pub fn own(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.epoch = Some(epoch);
        inner.tell_frame(&PushFrame::Serving { epoch });
    }

    /// From now on the run can be handed over: who asks for it comes out of this.
    pub fn successors(&self) -> mpsc::Receiver<HandOver> {
        let (asked, heard) = mpsc::channel(SUCCESSORS);
        self.lock().successors = Some(asked);
        heard
    }

    /// Asks for `run` on a successor's behalf: the first segment that is the successor's; `None` where this packager does not hand it over.
    pub async fn hand_over(&self, run: &RunId) -> Option<SegmentNumber> {
        let asked = Some(self.lock()).filter(|inner| inner.run == *run)?.successors.clone()?;
        let (answer, answered) = oneshot::channel();
        asked.try_send(answer).ok()?;
        answered.await.ok()
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
        let Some(held) = self.inheritance.take(held, made)? else { return Ok(false) };
        for (at, body) in held.parts.iter().enumerate() {
            if let Some((_, known)) = part(at).and_then(|name| self.objects.iter_mut().find(|(known, _)| *known == name)) {
                *known = body.clone().into();
            }
        }
        if let Some(at) = self.objects.iter().position(|(known, _)| *known == whole) {
            let made = std::mem::take(&mut self.objects[at].1);
            let settled = self.inheritance.segment((&rendition, number), &made);
            self.objects[at].1 = settled?.unwrap_or(made);
        }
        Ok(true)
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
mod tests {
    use super::*;
    use lectern_media::cmaf::{Sample, segment_head};

    fn names(mut bytes: impl Buf) -> Vec<String> {
        let mut input = BytesMut::from(&bytes.copy_to_bytes(bytes.remaining())[..]);
        let mut names = Vec::new();
        while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
            names.push(match frame {
                PushFrame::Object { name, .. } => name,
                PushFrame::Joined { name, parts } => format!("{name} = {parts}"),
                other => format!("{other:?}"),
            });
        }
        names
    }

    fn segment(number: u64) -> ObjectName {
        ObjectName::Segment("a".into(), SegmentNumber(number))
    }

    #[test]
    fn a_subscriber_gets_what_is_named_before_what_names_it() {
        let live = Live::new("r".into());
        for name in
            [ObjectName::Multivariant, ObjectName::MediaPlaylist("a".into()), segment(1), ObjectName::Init("a".into(), 0), segment(2)]
        {
            live.put(name, Bytes::from_static(b"x"));
        }
        live.retain("a", |number| number.0 > 1, |_| false);
        let (now, later) = live.subscribe(&"r".into());
        assert_eq!(names(now), ["a/init-0.mp4", "a/2.m4s", "a/live.m3u8", "live.m3u8"]);
        let mut later = later.unwrap();
        live.put(segment(3), Bytes::from_static(b"x"));
        live.close(PushFrame::Ended);
        assert_eq!(names(later.try_recv().unwrap()), ["a/3.m4s"]);
        assert_eq!(names(later.try_recv().unwrap()), ["Ended"]);
        assert!(live.subscribe(&"r".into()).1.is_none());
    }

    #[test]
    fn a_segment_is_sent_once_to_who_got_its_parts() {
        let live = Live::new("r".into());
        let (_, early) = live.subscribe(&"r".into());
        for part in 0..2 {
            live.put(ObjectName::Part("a".into(), SegmentNumber(1), part), Bytes::from_static(b"x"));
        }
        live.put_joined("a", SegmentNumber(1), 2, Bytes::from_static(b"xx").into());
        let mut early = early.unwrap();
        let heard: Vec<String> = std::iter::from_fn(|| early.try_recv().ok()).flat_map(names).collect();
        assert_eq!(heard, ["a/1.0.m4s", "a/1.1.m4s", "a/1.m4s = 2"]);
        // Who comes later gets it whole, and the parts for as long as playlists name them.
        assert_eq!(names(live.subscribe(&"r".into()).0), ["a/1.0.m4s", "a/1.1.m4s", "a/1.m4s"]);
        live.retain("a", |_| true, |_| false);
        assert_eq!(names(live.subscribe(&"r".into()).0), ["a/1.m4s"]);
    }

    #[test]
    fn a_slow_subscriber_is_dropped_and_the_others_are_not() {
        let live = Live::new("r".into());
        let (_, slow) = live.subscribe(&"r".into());
        let mut slow = slow.unwrap();
        for number in 0..=WAITING as u64 {
            live.put(segment(number), Bytes::new());
        }
        let (_, quick) = live.subscribe(&"r".into());
        live.put(segment(9999), Bytes::new());
        assert_eq!(names(quick.unwrap().try_recv().unwrap()), ["a/9999.m4s"]);
        let mut got = 0;
        while slow.try_recv().is_ok() {
            got += 1;
        }
        assert_eq!(got, WAITING, "what had been queued still arrives; then the line is cut");
        assert!(matches!(slow.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn everybody_hears_first_under_which_epoch_it_is_served() {
        let live = Live::new("r".into());
        let (now, later) = live.subscribe(&"r".into());
        assert_eq!(names(now), [""; 0], "it is not ours yet");
        live.own(Epoch(3));
        live.put(segment(1), Bytes::from_static(b"x"));
        let mut later = later.unwrap();
        assert_eq!(names(later.try_recv().unwrap()), ["Serving { epoch: Epoch(3) }"]);
        assert_eq!(names(live.subscribe(&"r".into()).0), ["Serving { epoch: Epoch(3) }", "a/1.m4s"]);
    }

    #[test]
    fn another_run_is_refused() {
        let (said, later) = Live::new("r".into()).subscribe(&"s".into());
        assert!(names(said)[0].starts_with("Refused") && later.is_none());
    }

    fn part(index: u32) -> ObjectName {
        ObjectName::Part("a".into(), SegmentNumber(7), index)
    }

    /// A part that begins at `start`.
    fn made(start: u64, text: &'static str) -> Body {
        let sample = Sample { data: Bytes::from_static(text.as_bytes()), duration: 1, composition_offset: 0, sync: true };
        Body::of(vec![segment_head(1, start, None, &[], std::slice::from_ref(&sample)).unwrap(), sample.data])
    }

    fn bytes(mut body: impl Buf) -> Bytes {
        body.copy_to_bytes(body.remaining())
    }

    /// What an origin has of segment 7: a part.
    fn begun() -> Held {
        let (init, parts) = (Bytes::from_static(b"moov"), vec![bytes(made(0, "old"))]);
        Held { rendition: "a".into(), number: SegmentNumber(7), init, whole: false, parts }
    }

    /// Of a rendition whose segment 7 has two parts.
    fn make_segment(live: &Live) {
        live.put(ObjectName::Init("a".into(), 0), Bytes::from_static(b"moov"));
        let parts = [made(0, "new"), made(1, "newer")];
        let mut whole = Body::default();
        for (index, body) in (0..).zip(&parts) {
            live.put_pieces(part(index), body.clone());
            whole.append(body);
        }
        live.put_joined("a", SegmentNumber(7), 2, whole);
    }

    /// All bodies that a new subscriber gets, by name.
    fn got(live: &Live) -> std::collections::HashMap<String, Bytes> {
        let mut input = BytesMut::from(&live.subscribe(&"r".into()).0[..]);
        let mut got = std::collections::HashMap::new();
        while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
            if let PushFrame::Object { name, body } = frame {
                got.insert(name, body);
            }
        }
        got
    }

    #[test]
    fn what_an_origin_holds_is_put_out_by_all_whenever_the_first_one_comes() {
        let whole = [bytes(made(0, "old")), bytes(made(1, "newer"))].concat();
        for early in [true, false] {
            let live = Live::new("r".into());
            if early {
                assert!(live.inherit(&"r".into(), begun()));
            }
            make_segment(&live);
            if !early {
                assert!(live.inherit(&"r".into(), begun()));
            }
            let got = got(&live);
            assert_eq!(
                (&got["a/7.0.m4s"], &got["a/7.1.m4s"], &got["a/7.m4s"][..]),
                (&bytes(made(0, "old")), &bytes(made(1, "newer")), &whole[..])
            );
            let mut own = made(0, "new");
            own.append(&made(1, "newer"));
            assert_eq!(bytes(live.settled("a", SegmentNumber(7), own)), whole, "S3 gets the same");
        }
    }

    #[test]
    fn what_others_have_had_already_stays() {
        let live = Live::new("r".into());
        let (_, _first) = live.subscribe(&"r".into());
        make_segment(&live);
        assert!(live.inherit(&"r".into(), begun()), "who comes late keeps what it has");
        assert_eq!(got(&live)["a/7.0.m4s"], bytes(made(0, "new")));
        assert!(live.inherit(&"another".into(), begun()), "and hears later that this is not its run");
    }

    #[test]
    fn who_holds_what_cannot_be_gone_on_with_is_told() {
        let other = Held { init: Bytes::from_static(b"other"), ..begun() };
        let live = Live::new("r".into());
        live.put(ObjectName::Init("a".into(), 0), Bytes::from_static(b"moov"));
        assert!(!live.inherit(&"r".into(), other.clone()));
        // It is known only later that it needs something else, and that its parts begin at other times.
        for (held, init) in [(other, "a/init-0.mp4"), (Held { parts: vec![bytes(made(5, "old"))], ..begun() }, "a/init-0.mp4")] {
            let live = Live::new("r".into());
            assert!(live.inherit(&"r".into(), held));
            let (_, heard) = live.subscribe(&"r".into());
            make_segment(&live);
            let mut heard = heard.unwrap();
            let said: Vec<String> = std::iter::from_fn(|| heard.try_recv().ok()).flat_map(names).collect();
            let at = said.iter().position(|said| said.starts_with("Anew")).unwrap();
            assert!(said.iter().position(|said| said == "a/7.0.m4s").unwrap() > at && said.contains(&init.to_owned()), "{said:?}");
            assert_eq!(got(&live)["a/7.0.m4s"], bytes(made(0, "new")));
        }
    }
}
