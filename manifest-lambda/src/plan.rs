//! What to write for an ended run. Pure: values in, playlists out.

use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{Ended, EndedRendition, Ledger, LedgerSegment};
use lectern_contract::{Epoch, RunId, SegmentNumber};
use lectern_media::captions::webvtt;
use lectern_media::dash::{Recorded, vod_mpd};
use lectern_media::hls::{Entry, Kind, MediaPlaylist, Multivariant, common_numbers, media_playlist, multivariant};
use std::collections::BTreeMap;

/// A ledger of another run than the one that it was read for: an object was copied to a wrong place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a ledger of run {found} is among those of run {wanted}")]
pub struct WrongRun {
    /// The run that ended.
    pub wanted: RunId,
    /// The run that the ledger names.
    pub found: RunId,
}

/// The VOD playlists and the MPD of the run, and what they name that is not there yet: keys and texts, in the order to write them: each after
/// those that it names.
///
/// `ledgers` may come in any order. A number that two of them have counts as the later epoch's. Renditions of which
/// nothing was confirmed are left out; where nothing at all was, there is nothing to write.
pub fn plan(prefix: &RunPrefix, ended: &Ended, ledgers: &[Ledger]) -> Result<Vec<(String, String)>, WrongRun> {
    if let Some(stray) = ledgers.iter().find(|ledger| ledger.run != ended.run) {
        return Err(WrongRun { wanted: ended.run.clone(), found: stray.run.clone() });
    }
    let segments = merged(ledgers);
    let shown: Vec<EndedRendition> =
        ended.renditions.iter().filter(|rendition| segments.contains_key(rendition.name.as_str())).cloned().collect();
    // Captions begin when the first is read, and have nothing to say of what is there.
    let media = || shown.iter().filter(|rendition| !rendition.is_text());
    let numbers = common_numbers(media().map(|rendition| segments[rendition.name.as_str()].keys().copied()));
    let Some(lead) = media().next().filter(|_| !numbers.is_empty()).map(|rendition| &segments[rendition.name.as_str()]) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::with_capacity(shown.len() + 2);
    for rendition in &shown {
        let (all, text) = (&segments[rendition.name.as_str()], rendition.is_text());
        let empty = |number| lead.get(number).filter(|_| text).map(|(_, segment)| Entry::Empty((*segment).into()));
        let entry = |number| all.get(number).map(|(_, segment)| Entry::Segment((*segment).into())).or_else(|| empty(number));
        let entries: Vec<Entry> = numbers.iter().filter_map(entry).collect();
        if entries.iter().any(|entry| matches!(entry, Entry::Empty(_))) {
            files.push((prefix.key(&ObjectName::NoText(rendition.name.clone())), webvtt(&[])));
        }
        let playlist = MediaPlaylist {
            kind: Kind::Vod,
            segment_duration: ended.segment_duration,
            anchor: ended.anchor,
            text,
            blocking: false,
            entries,
            ended: true,
            low_latency: None,
        };
        files.push((prefix.key(&ObjectName::VodMedia(rendition.name.clone())), media_playlist(&playlist)));
    }
    let recorded: Vec<Recorded<'_>> = media()
        .map(|named| {
            let all = &segments[named.name.as_str()];
            let listed = numbers.iter().filter_map(|number| all.get(number)).map(|(_, segment)| (*segment).into()).collect();
            Recorded { named, segments: listed }
        })
        .collect();
    let captions = shown.iter().any(EndedRendition::is_text);
    let top = multivariant(&Multivariant { kind: Kind::Vod, renditions: &shown });
    files.push((prefix.key(&ObjectName::Vod), top));
    files.extend(vod_mpd(ended.segment_duration, &recorded, captions).map(|text| (prefix.key(&ObjectName::VodMpd), text)));
    Ok(files)
}

type Segments<'a> = BTreeMap<SegmentNumber, (Epoch, LedgerSegment)>;

/// By rendition; none is empty.
fn merged(ledgers: &[Ledger]) -> BTreeMap<&str, Segments<'_>> {
    let mut all: BTreeMap<&str, Segments<'_>> = BTreeMap::new();
    for ledger in ledgers {
        for (rendition, segments) in &ledger.segments {
            for segment in segments {
                let place = all.entry(rendition).or_default().entry(segment.number).or_insert((ledger.epoch, *segment));
                if place.0 < ledger.epoch {
                    *place = (ledger.epoch, *segment);
                }
            }
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lectern_contract::ledger::Picture;
    use lectern_contract::{SegmentDuration, StreamRef, Ticks, WallMillis};

    fn prefix() -> RunPrefix {
        RunPrefix::of(&StreamRef { namespace: "school".into(), name: "algebra".into() }, &"r1".into())
    }

    fn ended(minutes: Vec<u64>) -> Ended {
        let rendition =
            |name: &str, codec: &str, bitrate, picture| EndedRendition { name: name.into(), codec: codec.into(), bitrate, picture };
        Ended {
            run: "r1".into(),
            anchor: WallMillis(1_700_000_000_000),
            segment_duration: SegmentDuration::STANDARD,
            minutes,
            renditions: vec![
                rendition("720p", "avc1.64001f", 2_000_000, Some(Picture { width: 1280, height: 720, frame_rate: 30 })),
                rendition("360p", "avc1.4d401e", 500_000, Some(Picture { width: 640, height: 360, frame_rate: 30 })),
                rendition("audio", "mp4a.40.2", 128_000, None),
            ],
        }
    }

    fn segment(number: u64) -> LedgerSegment {
        LedgerSegment { number: SegmentNumber(number), offset: Ticks(0), duration: Ticks(360_000), bytes: 1_000, init: 0 }
    }

    fn ledger(minute: u64, renditions: &[(&str, std::ops::Range<u64>)]) -> Ledger {
        let segments = renditions.iter().map(|(name, numbers)| ((*name).to_owned(), numbers.clone().map(segment).collect())).collect();
        Ledger { run: "r1".into(), epoch: Epoch(1), minute, segments }
    }

    fn both() -> [Ledger; 2] {
        let minute = |minute, numbers: std::ops::Range<u64>| {
            ledger(minute, &[("720p", numbers.clone()), ("360p", numbers.clone()), ("audio", numbers)])
        };
        [minute(0, 13..15), minute(1, 15..16)]
    }

    #[test]
    fn the_playlists_of_a_run_read_like_this() {
        let files = plan(&prefix(), &ended(vec![0, 1]), &both()).unwrap();
        let keys: Vec<_> = files.iter().map(|(key, _)| key.strip_prefix(prefix().as_str()).unwrap()).collect();
        assert_eq!(keys, ["/720p/vod.m3u8", "/360p/vod.m3u8", "/audio/vod.m3u8", "/vod.m3u8", "/vod.mpd"]);
        assert_eq!(
            files[1].1,
            "#EXTM3U\n#EXT-X-VERSION:8\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MAP:URI=\"init-0.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:14:12.000Z\n\
             #EXTINF:4.00000,\n13.m4s\n#EXTINF:4.00000,\n14.m4s\n#EXTINF:4.00000,\n15.m4s\n#EXT-X-ENDLIST\n"
        );
        for name in ["720p/vod.m3u8", "360p/vod.m3u8", "audio/vod.m3u8"] {
            assert!(files[3].1.contains(name), "{}", files[3].1);
        }
        let mpd = &files[4].1;
        assert!(mpd.contains(" mediaPresentationDuration=\"PT12S\"") && mpd.contains(" startNumber=\"13\""), "{mpd}");
    }

    #[test]
    fn the_order_of_ledgers_does_not_matter() {
        let [first, second] = both();
        let one = plan(&prefix(), &ended(vec![0, 1]), &[first.clone(), second.clone()]);
        assert_eq!(one, plan(&prefix(), &ended(vec![0, 1]), &[second.clone(), first, second]));
    }

    #[test]
    fn a_number_that_one_rendition_lacks_is_in_none() {
        let ledgers = [ledger(0, &[("720p", 0..2), ("360p", 0..5), ("audio", 1..5)])];
        for (key, text) in &plan(&prefix(), &ended(vec![0]), &ledgers).unwrap()[..3] {
            let numbers: Vec<_> = text.lines().filter(|line| line.ends_with(".m4s")).collect();
            assert_eq!(numbers, ["1.m4s"], "{key}");
        }
    }

    #[test]
    fn a_rendition_that_never_came_out_is_left_out() {
        let files = plan(&prefix(), &ended(vec![0]), &[ledger(0, &[("360p", 0..2), ("audio", 0..2)])]).unwrap();
        assert_eq!(files.len(), 4);
        for (_, text) in &files[2..] {
            assert!(text.contains("360p") && !text.contains("720p"), "{text}");
        }
    }

    #[test]
    fn captions_are_in_the_recording_from_its_start_though_they_began_later() {
        let mut ended = ended(vec![0]);
        ended.renditions.push(EndedRendition::captions());
        let of = |captions: std::ops::Range<u64>| {
            let ledger = ledger(0, &[("720p", 0..4), ("360p", 0..4), ("audio", 0..4), ("captions", captions)]);
            plan(&prefix(), &ended, &[ledger]).unwrap()
        };
        let files = of(2..3);
        let text = |name: &str| files.iter().find(|(key, _)| key.ends_with(name)).map(|(_, text)| text.as_str()).unwrap();
        let named: Vec<_> = text("captions/vod.m3u8").lines().filter(|line| line.ends_with(".vtt")).collect();
        assert_eq!(named, ["empty.vtt", "empty.vtt", "2.vtt", "empty.vtt"], "also where one was given up");
        assert_eq!(text("captions/empty.vtt").lines().next(), Some("WEBVTT"));
        assert_eq!(text("720p/vod.m3u8").matches(".m4s").count(), 4, "the others are whole");
        assert!(text("/r1/vod.m3u8").contains("URI=\"captions/vod.m3u8\""), "{files:?}");
        assert!(!of(0..4).iter().any(|(key, _)| key.ends_with("empty.vtt")));
    }

    #[test]
    fn a_run_without_segments_has_nothing_to_write() {
        assert_eq!(plan(&prefix(), &ended(vec![]), &[]), Ok(vec![]));
    }

    #[test]
    fn a_later_epoch_has_the_last_word() {
        let mut late = ledger(0, &[("audio", 0..1)]);
        late.epoch = Epoch(2);
        late.segments.get_mut("audio").unwrap()[0].init = 7;
        for ledgers in [[late.clone(), ledger(0, &[("audio", 0..1)])], [ledger(0, &[("audio", 0..1)]), late]] {
            assert!(plan(&prefix(), &ended(vec![0]), &ledgers).unwrap()[0].1.contains("init-7.mp4"));
        }
    }

    #[test]
    fn a_ledger_of_another_run_is_refused() {
        let mut stray = ledger(0, &[("audio", 0..1)]);
        stray.run = "r2".into();
        assert!(plan(&prefix(), &ended(vec![0]), &[stray]).is_err());
    }
}
