//! Which objects of a run players may have. What is not listed here does not exist for them: `head.json`, ledgers,
//! `ended.json`, the original.

use crate::edge::Position;
use crate::metrics::Kind;

/// The rendition whose object lies at `path` (below a run's prefix); of one of the run's own, its name.
pub fn rendition_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// An object that players may have, by its path below the run's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Public {
    /// `live.m3u8`, `{rendition}/live.m3u8`, `live.mpd`: grows while the run lasts.
    LivePlaylist,
    /// `vod.m3u8`, `{rendition}/vod.m3u8`, `vod.mpd`.
    VodPlaylist,
    /// `{rendition}/init-{n}.mp4`: never changes.
    Init,
    /// `{rendition}/{number}.m4s`, and of captions `{rendition}/{number}.vtt` and `{rendition}/empty.vtt`: never changes.
    Segment,
    /// `{rendition}/{number}.{part}.m4s`: never changes, and is gone soon.
    Part(Position),
}

impl Public {
    /// What `path` (below a run's prefix) is; `None` where it is not for players.
    pub fn of(path: &str) -> Option<Self> {
        let file = match path.split_once('/') {
            None => path,
            Some((rendition, file)) if is_label(rendition) => file,
            Some(_) => return None,
        };
        let in_rendition = file.len() < path.len();
        match file {
            "live.m3u8" => Some(Self::LivePlaylist),
            "vod.m3u8" => Some(Self::VodPlaylist),
            "live.mpd" if !in_rendition => Some(Self::LivePlaylist),
            "vod.mpd" if !in_rendition => Some(Self::VodPlaylist),
            _ if !in_rendition => None,
            _ if is_number(file.strip_suffix(".m4s")) => Some(Self::Segment),
            _ if file == "empty.vtt" || is_number(file.strip_suffix(".vtt")) => Some(Self::Segment),
            _ if file.ends_with(".m4s") => part(file).map(Self::Part),
            _ if is_number(file.strip_prefix("init-").and_then(|rest| rest.strip_suffix(".mp4"))) => Some(Self::Init),
            _ => None,
        }
    }

    /// Whether the object is the same for ever.
    pub const fn is_immutable(self) -> bool {
        matches!(self, Self::Init | Self::Segment | Self::Part(_))
    }

    /// As metrics call it.
    pub const fn kind(self) -> Kind {
        match self {
            Self::LivePlaylist | Self::VodPlaylist => Kind::Playlist,
            Self::Init => Kind::Init,
            Self::Segment => Kind::Segment,
            Self::Part(_) => Kind::Part,
        }
    }
}

fn part(file: &str) -> Option<Position> {
    let (number, part) = file.strip_suffix(".m4s")?.split_once('.')?;
    let digits = is_number(Some(number)) && is_number(Some(part));
    digits.then(|| Some(Position { msn: number.parse().ok()?, part: Some(part.parse().ok()?) })).flatten()
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= 63 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn is_number(text: Option<&str>) -> bool {
    text.is_some_and(|digits| (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_players_need_is_public() {
        for (path, what) in [
            ("live.m3u8", Public::LivePlaylist),
            ("360p/live.m3u8", Public::LivePlaylist),
            ("live.mpd", Public::LivePlaylist),
            ("vod.m3u8", Public::VodPlaylist),
            ("audio/vod.m3u8", Public::VodPlaylist),
            ("vod.mpd", Public::VodPlaylist),
            ("360p/init-0.mp4", Public::Init),
            ("360p/17.m4s", Public::Segment),
            ("captions/17.vtt", Public::Segment),
            ("captions/empty.vtt", Public::Segment),
            ("360p/17.3.m4s", Public::Part(Position { msn: 17, part: Some(3) })),
        ] {
            assert_eq!(Public::of(path), Some(what), "{path}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for path in [
            "head.json",
            "ended.json",
            "ledger/0.ledger.json",
            "original/17.mp4",
            "17.m4s",
            "17.vtt",
            "captions/17.3.vtt",
            "init-0.mp4",
            "360p/../head.json",
            "360p/head.json",
            "360p/live.mpd",
            "360p/vod.mpd",
            "a/b/17.m4s",
            "/live.m3u8",
            "360P/live.m3u8",
            "360p/-1.m4s",
            "360p/.m4s",
            "360p/17..m4s",
            "360p/17.3.4.m4s",
            "360p/+17.3.m4s",
            "360p/99999999999999999999.3.m4s",
            "17.3.m4s",
            "%2e%2e/live.m3u8",
            "",
        ] {
            assert_eq!(Public::of(path), None, "{path}");
        }
    }
}
