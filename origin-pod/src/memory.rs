//! What packagers pushed of one run.

use crate::cache::ByteCache;
use crate::edge::Edge;
use crate::public::Public;
use bytes::Bytes;
use lectern_contract::keys::RunPrefix;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

/// Segments of a rendition that are held: twice the live window and room for slow players; older ones come from S3.
const SEGMENTS: usize = 16;

/// The pushed objects of one run. Playlists and init sections stay for as long as the run is asked for; segments share
/// one budget with all other runs.
#[derive(Debug)]
pub struct Memory {
    prefix: RunPrefix,
    segments: Arc<ByteCache>,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    small: HashMap<String, Bytes>,
    /// Names of the segments held, by rendition, in the order of arrival.
    rings: HashMap<String, VecDeque<String>>,
}

impl Memory {
    /// Nothing pushed yet of the run at `prefix`; its segments go to `segments`.
    pub fn new(prefix: RunPrefix, segments: Arc<ByteCache>) -> Self {
        Self { prefix, segments, inner: RwLock::default() }
    }

    /// The object at `path` below the run's prefix.
    pub fn get(&self, path: &str, what: Public) -> Option<Bytes> {
        match what {
            Public::Segment => self.segments.get(&self.key(path)),
            _ => self.inner.read().unwrap_or_else(PoisonError::into_inner).small.get(path).cloned(),
        }
    }

    /// Takes a pushed object. What is not for players is dropped; a live playlist that would go back is, too.
    pub fn put(&self, path: &str, body: &Bytes) {
        let Some(what) = Public::of(path) else { return };
        // A copy, because a pushed body is a slice of a read buffer and would keep all of that buffer alive.
        let body = Bytes::copy_from_slice(body);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        match what {
            Public::Segment => {
                self.segments.put(&self.key(path), body);
                let rendition = path.split('/').next().unwrap_or_default();
                let ring = inner.rings.entry(rendition.to_owned()).or_default();
                ring.retain(|held| held != path);
                ring.push_back(path.to_owned());
                while ring.len() > SEGMENTS {
                    if let Some(oldest) = ring.pop_front() {
                        self.segments.remove(&self.key(&oldest));
                    }
                }
            }
            Public::LivePlaylist if inner.small.get(path).is_some_and(|held| Edge::of(path, held) > Edge::of(path, &body)) => {}
            _ => drop(inner.small.insert(path.to_owned(), body)),
        }
    }

    fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.prefix)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for path in inner.rings.values().flatten() {
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
    fn what_is_private_is_not_taken() {
        let memory = memory(1 << 20);
        memory.put("head.json", &Bytes::from_static(b"{}"));
        assert!(memory.inner.read().is_ok_and(|inner| inner.small.is_empty()));
    }
}
