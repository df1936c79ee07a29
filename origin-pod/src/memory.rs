//! What packagers pushed of one run.

use crate::cache::ByteCache;
use crate::edge::Position;
use crate::growing::{Growing, OpenSegments};
use crate::playlist::Playlist;
use crate::public::{Public, rendition_of};
use bytes::{Bytes, BytesMut};
use lectern_contract::keys::RunPrefix;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Segments of a rendition that are held: twice the live window and room for slow players; older ones come from S3.
const SEGMENTS: usize = 16;
/// Parts of a rendition that are held: those that playlists name (four segments of six), and those of the open segment.
const PARTS: usize = 32;
/// Parts that a segment can have: the contract's count is a byte.
const MOST_PARTS: u32 = 255;

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
            Public::Segment | Public::Part(_) => self.hold(path, what, body),
            Public::LivePlaylist => self.publish(path, Playlist::read(path, body)),
            Public::VodPlaylist | Public::Init => drop(self.write().small.insert(path.to_owned(), body)),
        }
    }

    /// Makes the segment at `path` of its parts, all pushed before. Where one of them had to make room, players find the
    /// segment in S3.
    pub fn join(&self, path: &str, parts: u32) {
        let (Some(Public::Segment), Some(stem)) = (Public::of(path), path.strip_suffix(".m4s")) else { return };
        if parts > MOST_PARTS {
            return;
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
        let length = body.len();
        self.segments.put(&self.key(path), body.clone());
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
                inner.open.part(&format!("{}/{msn}.m4s", rendition_of(path)), part, body);
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

impl Drop for Memory {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for path in inner.rings.values().flat_map(|rings| rings.segments.iter().chain(&rings.parts)) {
            self.segments.remove(&format!("{}/{path}", self.prefix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
