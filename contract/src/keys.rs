//! Object keys: `{h}/{namespace}/{name}/{run}/…`, the same in S3, at the origin and behind the CDN.

use crate::{RunId, SegmentNumber, StreamRef, Ticks, ids};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The folder of the captions that the source's pictures carry, as WebVTT: no rendition of a ladder has this name.
pub const CAPTIONS: &str = "captions";

/// The prefix of every object of one run, without a slash at its end.
///
/// It opens with two hex digits of a hash, because S3 splits its request limits by prefix (3,500 PUT a second each).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunPrefix(String);

impl RunPrefix {
    /// The prefix of `run` of `stream`.
    pub fn of(stream: &StreamRef, run: &RunId) -> Self {
        let tail = format!("{}/{}/{}", stream.namespace, stream.name, run);
        let hash = Sha256::digest(tail.as_bytes());
        Self(format!("{:02x}/{tail}", hash[0]))
    }

    /// Reads the prefix off an object key or a URL path without its leading slash: the first four of its five or more
    /// parts. `None` where the shape is another, a part is empty, or a part could climb out (`..`).
    pub fn of_key(key: &str) -> Option<(Self, &str)> {
        let (at, _) = key.match_indices('/').nth(3)?;
        let (prefix, rest) = (&key[..at], &key[at + 1..]);
        let two_hex = |part: &str| part.len() == 2 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let fine = |part: &str| !part.is_empty() && part != "." && part != "..";
        let sound = prefix.split('/').next().is_some_and(two_hex) && prefix.split('/').all(fine) && rest.split('/').all(fine);
        sound.then(|| (Self(prefix.to_owned()), rest))
    }

    /// As text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The run's name: the last part.
    pub fn run(&self) -> RunId {
        RunId(self.0.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Only those who have a link may watch the run: see [`RunId::is_signed`].
    pub fn is_signed(&self) -> bool {
        self.0.rsplit('/').next().is_some_and(|run| run.starts_with(ids::SIGNED))
    }

    /// The key of the object that `name` stands for.
    pub fn key(&self, name: &ObjectName) -> String {
        format!("{}/{name}", self.0)
    }
}

impl fmt::Display for RunPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object of a run, by what it is. `Display` writes its path below the run's prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectName {
    /// Who owns the run: `head.json`.
    Head,
    /// The multivariant playlist: `live.m3u8`.
    Multivariant,
    /// The live MPD: `live.mpd`.
    Mpd,
    /// A rendition's live playlist: `{rendition}/live.m3u8`.
    MediaPlaylist(String),
    /// A rendition's initialisation section (CMAF header): `{rendition}/init-{n}.mp4`.
    Init(String, u32),
    /// A media segment: `{rendition}/{segment}.m4s`.
    Segment(String, SegmentNumber),
    /// A part of a media segment, counted from zero: `{rendition}/{segment}.{part}.m4s`. Origins only; S3 has whole segments.
    Part(String, SegmentNumber, u32),
    /// A segment of captions: `{rendition}/{segment}.vtt`.
    Text(String, SegmentNumber),
    /// A segment of captions in which nothing is said, whatever its number; recordings name it for what lies before the first
    /// caption: `{rendition}/empty.vtt`.
    NoText(String),
    /// What was confirmed in one minute of the run's timeline: `ledger/{minute}.ledger.json`.
    Ledger(u64),
    /// A piece of the original as the publisher sent it, by the time at which it starts, in ticks since the run's epoch:
    /// `original/{ticks}.mp4`.
    Original(Ticks),
    /// Written last, once everything else is there: `ended.json`.
    Ended,
    /// How far what is encoded after the end is: `archive.json`.
    Archive,
    /// The VOD's multivariant playlist: `vod.m3u8`.
    Vod,
    /// The VOD's MPD: `vod.mpd`.
    VodMpd,
    /// A rendition's VOD playlist: `{rendition}/vod.m3u8`.
    VodMedia(String),
}

impl ObjectName {
    /// Segment `number` of `rendition`, be it captions or media.
    pub fn segment(rendition: &str, number: SegmentNumber) -> Self {
        if rendition == CAPTIONS { Self::Text(rendition.to_owned(), number) } else { Self::Segment(rendition.to_owned(), number) }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head.json"),
            Self::Multivariant => f.write_str("live.m3u8"),
            Self::Mpd => f.write_str("live.mpd"),
            Self::MediaPlaylist(rendition) => write!(f, "{rendition}/live.m3u8"),
            Self::Init(rendition, n) => write!(f, "{rendition}/init-{n}.mp4"),
            Self::Segment(rendition, number) => write!(f, "{rendition}/{number}.m4s"),
            Self::Part(rendition, number, part) => write!(f, "{rendition}/{number}.{part}.m4s"),
            Self::Text(rendition, number) => write!(f, "{rendition}/{number}.vtt"),
            Self::NoText(rendition) => write!(f, "{rendition}/empty.vtt"),
            Self::Ledger(minute) => write!(f, "ledger/{minute}.ledger.json"),
            // Padded, so that a listing is in the order of time: 14 digits last for 35 years.
            Self::Original(start) => write!(f, "original/{:014}.mp4", start.0),
            Self::Ended => f.write_str("ended.json"),
            Self::Archive => f.write_str("archive.json"),
            Self::Vod => f.write_str("vod.m3u8"),
            Self::VodMpd => f.write_str("vod.mpd"),
            Self::VodMedia(rendition) => write!(f, "{rendition}/vod.m3u8"),
        }
    }
}

/// The media type of an object, by the end of its key (RFC 8216 §4, W3C WebVTT §8, RFC 8259, ISO/IEC 23000-19, ISO/IEC 23009-1 Annex C).
pub fn content_type(key: &str) -> &'static str {
    match key.rsplit('.').next() {
        Some("m3u8") => "application/vnd.apple.mpegurl",
        Some("mpd") => "application/dash+xml",
        Some("mp4" | "m4s") => "video/mp4",
        Some("vtt") => "text/vtt",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

/// How long a cache may keep the object at `key` (facts: CDN cache rules). A segment and an init section never change; a live
/// playlist (an MPD is one) holds for half a segment; a VOD playlist is rewritten only when a late ledger arrives.
///
/// What is signed is kept by the browser of who was let in and by nothing between; an hour is enough to go back in a lecture.
pub fn cache_control(key: &str) -> &'static str {
    let is_signed = RunPrefix::of_key(key).is_some_and(|(prefix, _)| prefix.is_signed());
    match (key.rsplit('/').next(), is_signed) {
        (Some("live.m3u8" | "live.mpd"), false) => "public, max-age=1",
        (Some("live.m3u8" | "live.mpd"), true) => "private, max-age=1",
        (Some("vod.m3u8" | "vod.mpd"), false) => "public, max-age=5",
        (Some("vod.m3u8" | "vod.mpd"), true) => "private, max-age=5",
        (Some(name), is_signed) if [".m4s", ".mp4", ".vtt"].iter().any(|end| name.ends_with(end)) => {
            if is_signed {
                "private, max-age=3600, immutable"
            } else {
                "public, max-age=1209600, immutable"
            }
        }
        _ => "no-store",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> RunPrefix {
        RunPrefix::of(&StreamRef { namespace: "school".into(), name: "algebra".into() }, &"r1".into())
    }

    #[test]
    fn a_key_leads_back_to_its_run() {
        let key = prefix().key(&ObjectName::Segment("360p".into(), SegmentNumber(42)));
        let (back, rest) = RunPrefix::of_key(&key).unwrap();
        assert_eq!((back, rest), (prefix(), "360p/42.m4s"));
        assert_eq!(prefix().run(), RunId("r1".into()));
    }

    #[test]
    fn a_signed_run_says_so_in_every_key_and_is_kept_by_browsers_only() {
        let of = |run: &str| RunPrefix::of(&StreamRef { namespace: "s-school".into(), name: "s-algebra".into() }, &run.into());
        let (signed, public) = (of("s-tro8w0-000001"), of("tro8w0-000001"));
        assert!(signed.is_signed() && signed.run().is_signed() && !public.is_signed() && !public.run().is_signed());
        for name in [
            ObjectName::Multivariant,
            ObjectName::Vod,
            ObjectName::Segment("360p".into(), SegmentNumber(7)),
            ObjectName::Init("360p".into(), 0),
            ObjectName::NoText(CAPTIONS.into()),
        ] {
            let key = signed.key(&name);
            assert_eq!(RunPrefix::of_key(&key).unwrap().0, signed);
            assert!(cache_control(&key).starts_with("private, max-age="), "{key}");
            assert!(cache_control(&public.key(&name)).starts_with("public, max-age="), "{name}");
        }
        assert_eq!(cache_control(&signed.key(&ObjectName::Head)), "no-store");
    }

    #[test]
    fn captions_are_text_and_never_change() {
        let key = prefix().key(&ObjectName::segment(CAPTIONS, SegmentNumber(42)));
        assert!(key.ends_with("/captions/42.vtt"), "{key}");
        assert_eq!(ObjectName::segment("360p", SegmentNumber(42)), ObjectName::Segment("360p".into(), SegmentNumber(42)));
        assert_eq!((content_type(&key), cache_control(&key)), ("text/vtt", "public, max-age=1209600, immutable"));
    }

    #[test]
    fn a_path_that_is_no_key_is_refused() {
        for path in ["", "favicon.ico", "zz/a/b/c/live.m3u8", "0a/a/b/c", "0a/a//c/live.m3u8", "0a/a/../c/live.m3u8", "0a/a/b/c/../../x"] {
            assert_eq!(RunPrefix::of_key(path), None, "{path}");
        }
    }
}
