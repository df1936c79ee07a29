//! The segment that is being made: its parts, handed on as they come.
//!
//! Each such segment has a channel of its own. Where its sender goes without having said that the segment is whole, the writer is
//! gone, and whoever reads is told so: what was read is not a segment.

use crate::public::rendition_of;
use bytes::Bytes;
use futures::Stream;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// A reader waits this long for the next part: longer than it takes to notice that a packager is lost, and to hear its successor.
const NEXT_PART: Duration = Duration::from_secs(10);

/// What there is of a segment.
#[derive(Debug, Clone, Default)]
pub struct Growing {
    parts: Vec<Bytes>,
    whole: bool,
}

/// The segments that are being made, by rendition; each has a part at least.
#[derive(Debug, Default)]
pub struct OpenSegments(HashMap<String, Open>);

#[derive(Debug)]
struct Open {
    path: String,
    grown: watch::Sender<Growing>,
}

impl OpenSegments {
    /// Takes part `index` of the segment at `path`. The first one begins it, in the place of what the rendition had, also of itself:
    /// a successor makes it anew, and nobody may get a half of either. One that does not follow the last ends it.
    pub fn part(&mut self, path: &str, index: u64, body: Bytes) {
        let rendition = rendition_of(path);
        if index == 0 {
            let grown = watch::Sender::new(Growing { parts: vec![body], whole: false });
            self.0.insert(rendition.to_owned(), Open { path: path.to_owned(), grown });
            return;
        }
        let Some(open) = self.0.get(rendition).filter(|open| open.path == path) else { return };
        let mut follows = false;
        open.grown.send_if_modified(|grown| {
            follows = !grown.whole && grown.parts.len() as u64 == index;
            if follows {
                grown.parts.push(body);
            }
            follows
        });
        if !follows {
            self.0.remove(rendition);
        }
    }

    /// The segment at `path` is whole, if `all` of its parts are here.
    pub fn whole(&mut self, path: &str, all: impl FnOnce(&[Bytes]) -> bool) {
        let Some(open) = self.0.get(rendition_of(path)).filter(|open| open.path == path) else { return };
        open.grown.send_modify(|grown| grown.whole = all(&grown.parts));
        self.0.remove(rendition_of(path)); // readers keep what there was
    }

    /// The segment at `path`, if it is being made.
    pub fn get(&self, path: &str) -> Option<watch::Receiver<Growing>> {
        self.0.get(rendition_of(path)).filter(|open| open.path == path).map(|open| open.grown.subscribe())
    }

    /// Nobody makes them any more.
    pub fn abandon(&mut self) {
        self.0.clear();
    }
}

/// The segment's bytes, part by part: those that are there, then each as it comes, to the last. An error, if that does not come.
pub fn body(grown: watch::Receiver<Growing>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    body_within(grown, NEXT_PART)
}

fn body_within(grown: watch::Receiver<Growing>, next_part: Duration) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures::stream::try_unfold((grown, 0), move |(mut grown, at)| async move {
        let (next, whole) = match timeout(next_part, grown.wait_for(|grown| grown.whole || grown.parts.len() > at)).await {
            Ok(Ok(now)) => (now.parts.get(at).cloned(), now.whole),
            // What it had grown to before it was closed has been read by now.
            Ok(Err(_closed)) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the packager is gone, and the segment not whole"));
            }
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the segment's next part did not come")),
        };
        debug_assert!(next.is_some() || whole);
        Ok(next.map(|part| (part, (grown, at + 1))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    const SEGMENT: &str = "360p/13.m4s";

    fn open(parts: &[&'static str]) -> OpenSegments {
        let mut open = OpenSegments::default();
        parts.iter().enumerate().for_each(|(at, text)| open.part(SEGMENT, at as u64, Bytes::from_static(text.as_bytes())));
        open
    }

    fn read(open: &OpenSegments) -> impl Stream<Item = io::Result<Bytes>> + Unpin + use<> {
        Box::pin(body(open.get(SEGMENT).expect("it is open")))
    }

    /// What there is to read now, and how it ends if it does.
    fn drain(stream: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin)) -> (String, Option<Result<(), io::ErrorKind>>) {
        let mut text = String::new();
        loop {
            match stream.next().now_or_never() {
                Some(Some(Ok(part))) => text += &String::from_utf8_lossy(&part),
                Some(Some(Err(error))) => return (text, Some(Err(error.kind()))),
                Some(None) => return (text, Some(Ok(()))),
                None => return (text, None),
            }
        }
    }

    #[tokio::test]
    async fn parts_come_as_they_are_made_and_the_last_ends_the_body() {
        let mut open = open(&["a", "b"]);
        let (mut early, mut slow) = (read(&open), read(&open));
        assert_eq!(drain(&mut early), ("ab".into(), None));
        open.part(SEGMENT, 2, Bytes::from_static(b"c"));
        assert_eq!(drain(&mut early), ("c".into(), None));
        open.whole(SEGMENT, |parts| parts.len() == 3);
        assert_eq!(drain(&mut early), (String::new(), Some(Ok(()))));
        assert_eq!(drain(&mut slow), ("abc".into(), Some(Ok(()))), "also for who has not read until then");
        assert!(open.get(SEGMENT).is_none());
    }

    #[tokio::test]
    async fn a_segment_that_is_not_finished_ends_in_an_error() {
        type End = fn(&mut OpenSegments);
        let ends: [(&str, End); 5] = [
            ("its writer is gone", OpenSegments::abandon),
            ("it is made anew", |open| open.part(SEGMENT, 0, Bytes::from_static(b"x"))),
            ("the next one begins", |open| open.part("360p/14.m4s", 0, Bytes::from_static(b"x"))),
            ("a part is missing", |open| open.part(SEGMENT, 3, Bytes::from_static(b"d"))),
            ("the parts were another's", |open| open.whole(SEGMENT, |parts| parts.len() == 3)),
        ];
        for (why, end) in ends {
            let mut open = open(&["a", "b"]);
            let mut reader = read(&open);
            end(&mut open);
            assert_eq!(drain(&mut reader), ("ab".into(), Some(Err(io::ErrorKind::UnexpectedEof))), "{why}");
        }
    }

    #[tokio::test]
    async fn a_next_part_is_not_waited_for_without_end() {
        let open = open(&["a"]);
        let grown = open.get(SEGMENT).expect("it is open");
        let parts: Vec<_> = body_within(grown, Duration::from_millis(10)).map(|part| part.map_err(|error| error.kind())).collect().await;
        assert_eq!(parts, [Ok(Bytes::from_static(b"a")), Err(io::ErrorKind::TimedOut)]);
    }

    #[test]
    fn renditions_have_their_own() {
        let mut open = open(&["a"]);
        open.part("720p/14.m4s", 0, Bytes::from_static(b"x"));
        open.part("720p/13.m4s", 1, Bytes::from_static(b"x")); // of a segment that was never begun here
        assert!(open.get(SEGMENT).is_some() && open.get("720p/14.m4s").is_some() && open.get("720p/13.m4s").is_none());
    }
}
