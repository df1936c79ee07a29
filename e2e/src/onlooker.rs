//! Looks at what the origin serves of a running lecture, again and again: playlists never go back, and what they name is there.

use crate::Lab;
use crate::playlist::{self, Media, Segment};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;

/// Who has seen some playlists of a lecture already.
pub struct Onlooker<'a> {
    lab: &'a Lab,
    hls: reqwest::Url,
    seen: BTreeMap<String, Media>,
}

impl<'a> Onlooker<'a> {
    /// Of the lecture with this multivariant playlist; has seen nothing yet.
    pub fn new(lab: &'a Lab, hls: &str) -> Result<Self> {
        Ok(Self { lab, hls: reqwest::Url::parse(hls)?, seen: BTreeMap::new() })
    }

    /// Loads every playlist, and the newest of what each names.
    pub async fn look(&mut self) -> Result<()> {
        let named = playlist::variants(&self.lab.http(self.hls.as_str()).await?);
        for name in self.seen.keys() {
            ensure!(named.contains(name), "{name} was named by {}, and is not any more: {named:?}", self.hls);
        }
        for name in named {
            let url = self.hls.join(&name)?;
            let text = self.lab.http(url.as_str()).await?;
            let now = playlist::media(&text);
            if let Some(before) = self.seen.get(&name) {
                let why = goes_back(before, &now);
                ensure!(why.is_none(), "{url}: {}\n{text}", why.unwrap_or_default());
            }
            let newest = now.segments.iter().rev().find(|segment| !segment.gap).map(|segment| &segment.uri);
            for uri in newest.into_iter().chain(now.parts.last()).chain(now.maps.last()) {
                let there = self.lab.http_bytes(url.join(uri)?.as_str()).await;
                let there = there.with_context(|| format!("{url} names it:\n{text}"))?;
                ensure!(!there.is_empty(), "{url} names {uri}, which is empty");
            }
            self.seen.insert(name, now);
        }
        Ok(())
    }
}

/// What was true before and is not now.
fn goes_back(before: &Media, now: &Media) -> Option<String> {
    let last = |media: &Media| media.segments.iter().filter_map(Segment::number).max();
    let gaps =
        |media: &Media| media.segments.iter().filter_map(|segment| Some((segment.number()?, segment.gap))).collect::<BTreeMap<_, _>>();
    let other = gaps(before).into_iter().find(|(number, gap)| gaps(now).get(number).is_some_and(|now| now != gap));
    match () {
        () if now.sequence < before.sequence => Some(format!("it began with {}, and begins with {}", before.sequence, now.sequence)),
        () if last(now) < last(before) => Some(format!("it ended with {:?}, and ends with {:?}", last(before), last(now))),
        () if before.ended && !now.ended => Some("it was closed, and is open".to_owned()),
        () => other.map(|(number, gap)| format!("{number} was {} and is {}", said(gap), said(!gap))),
    }
}

const fn said(gap: bool) -> &'static str {
    if gap { "a gap" } else { "a segment" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(first: u64, rest: &str) -> Media {
        playlist::media(&format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{first}\n{rest}"))
    }

    #[test]
    fn a_playlist_may_grow_slide_and_close() {
        let before = read(3, "#EXTINF:2,\n3.m4s\n#EXT-X-GAP\n#EXTINF:2,\n4.m4s\n#EXTINF:2,\n5.m4s\n");
        assert_eq!(goes_back(&before, &before), None);
        assert_eq!(goes_back(&before, &read(5, "#EXTINF:2,\n5.m4s\n#EXTINF:2,\n6.m4s\n#EXT-X-ENDLIST\n")), None);
    }

    #[test]
    fn whatever_else_it_does_is_told() {
        let before = read(3, "#EXTINF:2,\n3.m4s\n#EXT-X-GAP\n#EXTINF:2,\n4.m4s\n#EXTINF:2,\n5.m4s\n#EXT-X-ENDLIST\n");
        let told = |now: &Media| goes_back(&before, now).unwrap_or_default();
        assert_eq!(told(&read(2, "#EXTINF:2,\n5.m4s\n#EXT-X-ENDLIST\n")), "it began with 3, and begins with 2");
        assert_eq!(told(&read(3, "#EXTINF:2,\n3.m4s\n#EXT-X-ENDLIST\n")), "it ended with Some(5), and ends with Some(3)");
        assert_eq!(told(&read(4, "#EXT-X-GAP\n#EXTINF:2,\n4.m4s\n#EXTINF:2,\n5.m4s\n")), "it was closed, and is open");
        assert_eq!(told(&read(4, "#EXTINF:2,\n4.m4s\n#EXTINF:2,\n5.m4s\n#EXT-X-ENDLIST\n")), "4 was a gap and is a segment");
    }
}
