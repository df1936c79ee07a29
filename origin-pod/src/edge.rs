//! How far a live playlist reaches.

/// A place in a media playlist, as a request names it: a segment, or (`part`, from zero) a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The segment's media sequence number, which is its number.
    pub msn: u64,
    /// `None`: the whole segment.
    pub part: Option<u64>,
}

/// How far a live playlist reaches, for playlists of one name. A successor's first playlists may end before its predecessor's last one,
/// whose segments are here all the same; and S3's lag behind the pushed ones. Players must never see a playlist go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// An end is final.
    closed: bool,
    /// The newest segment's number.
    newest: Option<u64>,
    /// Parts of the segment after it.
    parts: u64,
    /// The newest segments' numbers of all Representations of an MPD together: one that knows less of the others is the older.
    sum: u64,
}

impl Edge {
    /// The edge of `body`, an MPD or a media playlist by the end of `path`. A multivariant playlist has none: it is equal to any other.
    pub fn of(path: &str, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        if path.ends_with(".mpd") { Self::of_mpd(&text) } else { Self::of_playlist(&text) }
    }

    fn of_playlist(text: &str) -> Self {
        let closed = text.lines().any(|line| line == "#EXT-X-ENDLIST");
        let newest = text.lines().rev().find_map(|line| line.strip_suffix(".m4s").or_else(|| line.strip_suffix(".vtt"))?.parse().ok());
        let next = newest.map(|newest: u64| newest.saturating_add(1));
        let part_of_next = |line: &str| {
            let uri = line.strip_prefix("#EXT-X-PART:")?.split("URI=\"").nth(1)?;
            let (number, part) = uri.split_once(".m4s\"")?.0.split_once('.')?;
            part.parse::<u64>().ok().filter(|_| number.parse().ok() == next)
        };
        let parts = text.lines().rev().find_map(part_of_next).map_or(0, |part| part.saturating_add(1));
        Self { closed, newest, parts, sum: 0 }
    }

    /// Whether nothing will be added.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether `wanted` stands in the playlist, or will never.
    pub fn reaches(&self, wanted: Position) -> bool {
        let of_next = |newest: u64| wanted.msn == newest.saturating_add(1) && wanted.part.is_some_and(|part| part < self.parts);
        self.closed || self.newest.is_some_and(|newest| wanted.msn <= newest || of_next(newest))
    }

    /// Whether `wanted` is more than `segments` after the newest whole one.
    pub fn is_short_of(&self, wanted: Position, segments: u64) -> bool {
        self.newest.is_none_or(|newest| wanted.msn > newest.saturating_add(segments))
    }

    /// Not a parser of XML: it reads what `media::dash` writes, and what is not that reaches nowhere.
    ///
    /// A Representation's segments count on from its `@startNumber`, `S@r` + 1 of them for each `S` (ISO/IEC 23009-1 §5.3.9.6).
    fn of_mpd(text: &str) -> Self {
        let number = |attribute: &str| attribute.split('"').next().and_then(|digits| digits.parse::<u64>().ok());
        let newest = text.split(" startNumber=\"").skip(1).filter_map(|template| {
            let timeline = template.split("</SegmentTimeline>").next()?;
            let series = timeline.split("<S ").skip(1).filter_map(|series| series.split("/>").next());
            let count = |series: &str| series.split(" r=\"").nth(1).and_then(number).unwrap_or_default().saturating_add(1);
            let segments = series.map(count).fold(0, u64::saturating_add);
            number(template)?.saturating_add(segments).checked_sub(1)
        });
        let (newest, sum) = newest.fold((None, 0u64), |(most, sum), n| (most.max(Some(n)), sum.saturating_add(n)));
        Self { closed: text.contains(" type=\"static\""), newest, parts: 0, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mpd(kind: &str, representations: &[(u64, u64)]) -> Edge {
        let template = |(first, repeats): &(u64, u64)| {
            format!(
                "<SegmentTemplate startNumber=\"{first}\"><SegmentTimeline><S t=\"0\" d=\"2\" r=\"{repeats}\"/></SegmentTimeline></SegmentTemplate>"
            )
        };
        Edge::of("live.mpd", format!("<MPD type=\"{kind}\">{}</MPD>", representations.iter().map(template).collect::<String>()).as_bytes())
    }

    #[test]
    fn an_mpd_reaches_as_far_as_its_newest_segment() {
        assert_eq!((mpd("dynamic", &[(7, 2), (8, 0)]).newest, mpd("dynamic", &[(7, 2), (8, 0)]).sum), (Some(9), 17));
        let single =
            "<MPD><SegmentTemplate startNumber=\"3\"><SegmentTimeline><S t=\"6\" d=\"2\"/></SegmentTimeline></SegmentTemplate></MPD>";
        assert_eq!(Edge::of("live.mpd", single.as_bytes()).newest, Some(3));
    }

    #[test]
    fn an_mpd_that_knows_less_is_the_older() {
        let in_order = [
            mpd("dynamic", &[]),
            mpd("dynamic", &[(0, 9), (0, 8)]),
            mpd("dynamic", &[(0, 9), (0, 9)]),
            mpd("dynamic", &[(9, 1), (9, 0)]),
            mpd("static", &[(0, 3), (0, 3)]),
        ];
        assert!(in_order.is_sorted() && in_order.windows(2).all(|pair| pair[0] != pair[1]), "{in_order:?}");
    }

    #[test]
    fn parts_of_the_next_segment_count() {
        let edge = Edge::of(
            "360p/live.m3u8",
            b"#EXTM3U\n#EXT-X-PART:DURATION=0.3,URI=\"8.5.m4s\"\n#EXTINF:2,\n8.m4s\n#EXT-X-PART:DURATION=0.3,URI=\"9.0.m4s\",INDEPENDENT=YES\n\
              #EXT-X-PART:DURATION=0.3,URI=\"9.1.m4s\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.2.m4s\"\n",
        );
        assert_eq!((edge.newest, edge.parts), (Some(8), 2));
        let at = |msn, part| Position { msn, part };
        for wanted in [at(8, None), at(8, Some(9)), at(9, Some(0)), at(9, Some(1)), at(3, Some(0))] {
            assert!(edge.reaches(wanted), "{wanted:?}");
        }
        for wanted in [at(9, None), at(9, Some(2)), at(10, Some(0))] {
            assert!(!edge.reaches(wanted), "{wanted:?}");
        }
        assert!(edge.is_short_of(at(11, None), 2) && !edge.is_short_of(at(10, None), 2));
        let text = Edge::of("captions/live.m3u8", b"#EXTINF:2,\n8.vtt\n#EXTINF:2,\n9.vtt\n");
        assert!(text.reaches(Position { msn: 9, part: None }) && !text.reaches(Position { msn: 10, part: None }));
        let whole = Edge::of("360p/live.m3u8", b"#EXT-X-PART:DURATION=0.3,URI=\"8.5.m4s\"\n#EXTINF:2,\n8.m4s\n");
        assert_eq!((whole.parts, whole < edge), (0, true));
    }

    #[test]
    fn what_is_no_mpd_reaches_nowhere() {
        for text in ["", "<MPD", "<MPD startNumber=\"", " startNumber=\"x\"", " startNumber=\"0\""] {
            assert_eq!(Edge::of("live.mpd", text.as_bytes()).newest, None, "{text}");
        }
    }
}
