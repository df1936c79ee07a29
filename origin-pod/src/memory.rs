//! What packagers pushed of one run. Segments and parts are for ever what they were at first: players, and CDNs for as long as they like, have them.

use crate::cache::ByteCache;
use crate::edge::Position;
use crate::growing::{Growing, OpenSegments};
use crate::playlist::Playlist;
use crate::public::{Public, rendition_of};
use bytes::{Bytes, BytesMut};
use lectern_contract::SegmentNumber;
use lectern_contract::keys::{CAPTIONS, RunPrefix};
use lectern_contract::push::{Held, MOST_PARTS};
use lectern_media::fragments;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Segments of a rendition that are held: twice the live window and room for slow players; older ones come from S3.
const SEGMENTS: usize = 16;
/// Parts of a rendition that are held: those that playlists name (four segments of six), and those of the open segment.
const PARTS: usize = 32;

/// The pushed objects of one run. Playlists and init sections stay for as long as the run is asked for; segments and parts
/// share one budget with all other runs.
#[derive(Debug)]
pub struct Memory {
    prefix: RunPrefix,
    segments: Arc<ByteCache>,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    small: HashMap<String, Bytes>,
    playlists: HashMap<String, watch::Sender<Playlist>>,
    rings: HashMap<String, Rings>,
    open: OpenSegments,
}

/// Paths of what is held of one rendition, in the order of arrival.
#[derive(Debug, Default)]
struct Rings {
    segments: VecDeque<String>,
    parts: VecDeque<String>,
}

impl Memory {
    /// Nothing pushed yet of the run at `prefix`; its segments go to `segments`.
    pub fn new(prefix: RunPrefix, segments: Arc<ByteCache>) -> Self {
        Self { prefix, segments, inner: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object at `path` below the run's prefix.
    pub fn get(&self, path: &str, what: Public) -> Option<Bytes> {
        match what {
            Public::Segment | Public::Part(_) => self.segments.get(&self.key(path)),
            Public::LivePlaylist => self.read().playlists.get(path).map(|playlist| playlist.borrow().body.clone()),
            Public::VodPlaylist | Public::Init => self.read().small.get(path).cloned(),
        }
    }

    /// The segment at `path` as far as it is made, and what comes of it.
    pub fn growing(&self, path: &str) -> Option<watch::Receiver<Growing>> {
        self.read().open.get(path)
    }

    /// Who made the open segments is gone: nobody finishes them.
    pub fn abandon(&self) {
        self.write().open.abandon();
    }

    /// The live playlist at `path` and all that follow it.
    pub fn follow(&self, path: &str) -> Option<watch::Receiver<Playlist>> {
        self.read().playlists.get(path).map(watch::Sender::subscribe)
    }

    /// Takes a pushed object. What is not for players is dropped; a live playlist that would go back is, too.
    pub fn put(&self, path: &str, body: &Bytes) {
        let Some(what) = Public::of(path) else { return };
        // A copy, because a pushed body is a slice of a read buffer and would keep all of that buffer alive.
        let body = Bytes::copy_from_slice(body);
        match what {
            Public::Part(Position { msn, .. }) if self.holds(&segment_path(path, msn)) => {} // it is a window into that, or is cut out of it
            Public::Segment | Public::Part(_) => self.hold(path, what, body),
            Public::LivePlaylist => self.publish(path, Playlist::read(path, body)),
            Public::VodPlaylist | Public::Init => drop(self.write().small.insert(path.to_owned(), body)),
        }
    }

    /// Forgets segment `number` of `rendition` and its parts: who owns the run now cannot go on with what there is of it.
    pub fn forget(&self, rendition: &str, number: SegmentNumber) {
        let mut inner = self.write();
        let Some(rings) = inner.rings.get_mut(rendition) else { return };
        for ring in [&mut rings.segments, &mut rings.parts] {
            ring.retain(|path| {
                let stays = number_of(path) != Some(number.0);
                if !stays {
                    self.segments.remove(&self.key(path));
                }
                stays
            });
        }
    }

    /// What there is of the segments from `next` on.
    pub fn held_from(&self, next: SegmentNumber) -> Vec<Held> {
        let inner = self.read();
        let of_rendition = |(rendition, rings): (&String, &Rings)| {
            let numbers: BTreeSet<u64> = rings.segments.iter().chain(&rings.parts).filter_map(|path| number_of(path)).collect();
            let playlist = inner.playlists.get(&format!("{rendition}/live.m3u8")).map(|playlist| playlist.borrow().body.clone());
            let playlist = String::from_utf8_lossy(&playlist.unwrap_or_default()).into_owned();
            let init = |number| match init_of(&playlist, number) {
                Some(init) => inner.small.get(&format!("{rendition}/{init}")).cloned(),
                None => (rendition == CAPTIONS).then(Bytes::new),
            };
            let held = numbers.range(next.0..).filter_map(|number| self.held(rendition, rings, *number, init(*number)?));
            held.collect::<Vec<_>>()
        };
        inner.rings.iter().flat_map(of_rendition).collect()
    }

    fn held(&self, rendition: &str, rings: &Rings, number: u64, init: Bytes) -> Option<Held> {
        let whole = rings.segments.iter().find(|path| number_of(path) == Some(number)).and_then(|path| self.segments.get(&self.key(path)));
        let parts: Vec<Bytes> = match &whole {
            Some(segment) => match fragments::of(segment).collect::<Vec<_>>() {
                none if none.is_empty() => vec![segment.clone()], // captions
                fragments => fragments,
            },
            None => (0..).map_while(|at| self.segments.get(&self.key(&format!("{rendition}/{number}.{at}.m4s")))).collect(),
        };
        (!parts.is_empty()).then(|| Held {
            rendition: rendition.to_owned(),
            number: SegmentNumber(number),
            init,
            whole: whole.is_some(),
            parts,
        })
    }

    fn holds(&self, path: &str) -> bool {
        self.segments.get(&self.key(path)).is_some()
    }

    /// Makes the segment at `path` of its parts, all pushed before. Where one of them had to make room, players find the
    /// segment in S3.
    pub fn join(&self, path: &str, parts: u32) {
        let (Some(Public::Segment), Some(stem)) = (Public::of(path), path.strip_suffix(".m4s")) else { return };
        if parts as usize > MOST_PARTS {
            return;
        }
        if let Some(held) = self.segments.get(&self.key(path)) {
            return self.hold(path, Public::Segment, held);
        }
        let part = |at: u32| format!("{stem}.{at}.m4s");
        let Some(bodies) = (0..parts).map(|at| self.segments.get(&self.key(&part(at)))).collect::<Option<Vec<_>>>() else {
            return self.write().open.whole(path, |held| held.len() as u64 == u64::from(parts));
        };
        let mut whole = BytesMut::with_capacity(bodies.iter().map(Bytes::len).sum());
        bodies.iter().for_each(|body| whole.extend_from_slice(body));
        let whole = whole.freeze();
        // From here on the parts are windows into the whole.
        let mut start = 0;
        for (at, body) in (0..parts).zip(&bodies) {
            let end = start + body.len();
            self.segments.put(&self.key(&part(at)), whole.slice(start..end));
            start = end;
        }
        self.hold(path, Public::Segment, whole);
    }

    fn hold(&self, path: &str, what: Public, body: Bytes) {
        let mut inner = self.write();
        let key = self.key(path);
        let body = self.segments.get(&key).unwrap_or_else(|| {
            self.segments.put(&key, body.clone());
            body
        });
        let length = body.len();
        let rings = inner.rings.entry(rendition_of(path).to_owned()).or_default();
        let (ring, most) = if what == Public::Segment { (&mut rings.segments, SEGMENTS) } else { (&mut rings.parts, PARTS) };
        ring.retain(|held| held != path);
        ring.push_back(path.to_owned());
        while ring.len() > most {
            if let Some(oldest) = ring.pop_front() {
                self.segments.remove(&self.key(&oldest));
            }
        }
        // After the segment is held: who finds it open no more finds it whole.
        match what {
            Public::Segment => inner.open.whole(path, |parts| parts.iter().map(Bytes::len).sum::<usize>() == length),
            Public::Part(Position { msn, part: Some(part) }) => {
                inner.open.part(&segment_path(path, msn), part, body);
            }
            _ => {}
        }
    }

    fn publish(&self, path: &str, new: Playlist) {
        let mut inner = self.write();
        match inner.playlists.get(path) {
            Some(held) => drop(held.send_if_modified(|held| {
                let forward = held.edge <= new.edge;
                if forward {
                    *held = new;
                }
                forward
            })),
            None => drop(inner.playlists.insert(path.to_owned(), watch::Sender::new(new))),
        }
    }

    fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.prefix)
    }
}

/// Of the segment that the part at `path` is of.
fn segment_path(path: &str, msn: u64) -> String {
    format!("{}/{msn}.m4s", rendition_of(path))
}

/// Of the segment that is, or whose part is, at `path`.
fn number_of(path: &str) -> Option<u64> {
    path.split_once('/')?.1.split('.').next()?.parse().ok()
}

/// The init section that segment `number` needs by a media playlist: that of the newest segments, where it does not stand there yet.
fn init_of(playlist: &str, number: u64) -> Option<&str> {
    let (segment, part) = (format!("{number}.m4s"), format!("URI=\"{number}."));
    let before = playlist.lines().take_while(|line| *line != segment && !(line.starts_with("#EXT-X-PART:") && line.contains(&part)));
    before.filter_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\"")?.split('"').next()).last()
}

impl Drop for Memory {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for path in inner.rings.values().flat_map(|rings| rings.segments.iter().chain(&rings.parts)) {
            self.segments.remove(&format!("{}/{path}", self.prefix));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::growing;
    use futures::StreamExt as _;

    fn memory(limit: usize) -> Memory {
        let (prefix, _) = RunPrefix::of_key("0a/school/algebra/r1/live.m3u8").expect("it is a key");
        Memory::new(prefix, Arc::new(ByteCache::new(limit)))
    }

    #[test]
    fn the_newest_segments_of_each_rendition_stay() {
        let memory = memory(1 << 20);
        for number in 0..20 {
            for rendition in ["360p", "audio"] {
                memory.put(&format!("{rendition}/{number}.m4s"), &Bytes::from_static(b"moof"));
            }
        }
        assert_eq!(memory.get("360p/3.m4s", Public::Segment), None);
        assert!(memory.get("360p/4.m4s", Public::Segment).is_some());
        assert!(memory.get("audio/19.m4s", Public::Segment).is_some());
    }

    #[test]
    fn a_run_that_is_dropped_frees_its_segments() {
        let memory = memory(1 << 20);
        memory.put("360p/1.m4s", &Bytes::from_static(b"moof"));
        let segments = memory.segments.clone();
        assert_eq!(segments.bytes(), 4);
        drop(memory);
        assert_eq!(segments.bytes(), 0);
    }

    #[test]
    fn a_live_playlist_never_goes_back() {
        let memory = memory(1 << 20);
        let get = || memory.get("360p/live.m3u8", Public::LivePlaylist).expect("it was put");
        memory.put("360p/live.m3u8", &Bytes::from_static(b"#EXTM3U\n8.m4s\n9.m4s\n"));
        memory.put("360p/live.m3u8", &Bytes::from_static(b"#EXTM3U\n7.m4s\n8.m4s\n"));
        assert!(get().ends_with(b"9.m4s\n"));
        memory.put("360p/live.m3u8", &Bytes::from_static(b"#EXTM3U\n10.m4s\n"));
        assert!(get().ends_with(b"10.m4s\n"));
        memory.put("360p/live.m3u8", &Bytes::from_static(b"#EXTM3U\n9.m4s\n#EXT-X-ENDLIST\n"));
        assert!(get().ends_with(b"#EXT-X-ENDLIST\n"), "an end is final");
    }

    #[test]
    fn a_segment_is_made_of_its_parts() {
        let memory = memory(1 << 20);
        let part = |at| Public::Part(Position { msn: 7, part: Some(at) });
        for (at, text) in ["moof", "mdat"].into_iter().enumerate() {
            memory.put(&format!("360p/7.{at}.m4s"), &Bytes::from_static(text.as_bytes()));
        }
        memory.join("360p/8.m4s", 1); // whose part was never here
        memory.join("360p/7.m4s", u32::MAX);
        assert_eq!(memory.get("360p/7.m4s", Public::Segment), None);
        memory.join("360p/7.m4s", 2);
        assert_eq!(memory.get("360p/7.m4s", Public::Segment).as_deref(), Some(&b"moofmdat"[..]));
        assert_eq!(memory.get("360p/7.1.m4s", part(1)).as_deref(), Some(&b"mdat"[..]));
        assert_eq!(memory.get("360p/8.m4s", Public::Segment), None);
    }

    #[test]
    fn what_was_pushed_first_stays() {
        let memory = memory(1 << 20);
        let put = |path: &str, text: &'static str| memory.put(path, &Bytes::from_static(text.as_bytes()));
        let get = |path: &str| memory.get(path, Public::of(path).unwrap()).map(|body| String::from_utf8_lossy(&body).into_owned());
        for (path, first, second) in [("360p/5.m4s", "first", "second"), ("360p/7.0.m4s", "a", "A")] {
            put(path, first);
            put(path, second);
            assert_eq!(get(path).as_deref(), Some(first), "{path}");
        }
        put("360p/7.1.m4s", "B");
        memory.join("360p/7.m4s", 2);
        put("360p/7.m4s", "AB");
        put("360p/7.1.m4s", "C");
        assert_eq!((get("360p/7.m4s").unwrap(), get("360p/7.1.m4s").unwrap()), ("aB".to_owned(), "B".to_owned()));
        memory.forget("360p", SegmentNumber(7));
        assert_eq!((get("360p/7.m4s"), get("360p/7.0.m4s")), (None, None));
        put("360p/7.0.m4s", "A");
        assert_eq!((get("360p/7.0.m4s").unwrap(), get("360p/5.m4s").unwrap()), ("A".to_owned(), "first".to_owned()));
    }

    #[tokio::test]
    async fn an_open_segment_goes_on_with_what_there_was() {
        let memory = memory(1 << 20);
        let put = |path: &str, text: &'static str| memory.put(path, &Bytes::from_static(text.as_bytes()));
        put("360p/7.0.m4s", "a");
        memory.abandon();
        put("360p/7.0.m4s", "A");
        put("360p/7.1.m4s", "B");
        let read: Vec<_> = growing::body(memory.growing("360p/7.m4s").unwrap()).take(2).map(Result::unwrap).collect().await;
        assert_eq!(read, ["a", "B"]);
    }

    #[test]
    fn what_the_head_does_not_confirm_is_told_with_its_init_section() {
        let memory = memory(1 << 20);
        let fragment = |text: &str| [&(8 + text.len() as u32).to_be_bytes()[..], b"mdat", text.as_bytes()].concat();
        let put = |path: &str, body: &[u8]| memory.put(path, &Bytes::copy_from_slice(body));
        for number in 4..7 {
            put(&format!("360p/{number}.m4s"), &fragment("old"));
        }
        put("360p/7.m4s", &[fragment("one"), fragment("two")].concat());
        put("360p/8.0.m4s", &fragment("three"));
        put("360p/8.2.m4s", b"what was before it is gone");
        put("captions/7.vtt", b"WEBVTT");
        assert_eq!(memory.held_from(SegmentNumber(7)).len(), 1, "what the pictures need is not known");
        (1..3).for_each(|init| put(&format!("360p/init-{init}.mp4"), format!("moov {init}").as_bytes()));
        let playlist =
            b"#EXTM3U\n#EXT-X-MAP:URI=\"init-0.mp4\"\n6.m4s\n#EXT-X-MAP:URI=\"init-1.mp4\"\n7.m4s\n#EXT-X-MAP:URI=\"init-2.mp4\"\n\
            #EXT-X-PART:DURATION=0.3,URI=\"8.0.m4s\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"8.1.m4s\"\n";
        put("360p/live.m3u8", playlist);
        put("captions/live.m3u8", b"#EXTM3U\n7.vtt\n");
        let mut held = memory.held_from(SegmentNumber(7));
        held.sort_by_key(|held| (held.rendition.clone(), held.number));
        let expect = |rendition: &str, number, init: &'static str, whole, parts: &[&[u8]]| Held {
            rendition: rendition.to_owned(),
            number: SegmentNumber(number),
            init: Bytes::from_static(init.as_bytes()),
            whole,
            parts: parts.iter().map(|part| Bytes::copy_from_slice(part)).collect(),
        };
        let whole = expect("360p", 7, "moov 1", true, &[&fragment("one"), &fragment("two")]);
        assert_eq!(held, [whole, expect("360p", 8, "moov 2", false, &[&fragment("three")]), expect("captions", 7, "", true, &[b"WEBVTT"])]);
    }

    #[test]
    fn the_newest_parts_stay() {
        let memory = memory(1 << 20);
        for at in 0..40 {
            memory.put(&format!("360p/7.{at}.m4s"), &Bytes::from_static(b"moof"));
        }
        let held = |at| memory.get(&format!("360p/7.{at}.m4s"), Public::Part(Position { msn: 7, part: Some(at) })).is_some();
        assert_eq!((held(7), held(8), held(39)), (false, true, true));
        let segments = memory.segments.clone();
        drop(memory);
        assert_eq!(segments.bytes(), 0);
    }

    #[test]
    fn what_is_private_is_not_taken() {
        let memory = memory(1 << 20);
        memory.put("head.json", &Bytes::from_static(b"{}"));
        assert!(memory.read().small.is_empty() && memory.read().playlists.is_empty());
    }
}
