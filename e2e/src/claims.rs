//! What multivariant playlists claim of their renditions, held against what the renditions have. Pure.

use lectern_contract::TICKS_PER_SECOND;
use lectern_contract::ledger::LedgerSegment;
use std::collections::BTreeMap;

/// The segments of each rendition, by their numbers.
pub type Segments = BTreeMap<String, BTreeMap<u64, LedgerSegment>>;

/// Every segment of a variant, with the largest sound that may be played beside it, is within `BANDWIDTH` (RFC 8216 §4.3.4.2). Segments of
/// less than half of the usual length have no rate of their own.
pub fn bandwidth(multivariant: &str, segments: &Segments) -> Vec<String> {
    let mut complaints = Vec::new();
    let sounds: Vec<String> =
        multivariant.lines().filter(|line| line.starts_with("#EXT-X-MEDIA:TYPE=AUDIO,")).filter_map(rendition_of).collect();
    let mut lines = multivariant.lines();
    while let Some(line) = lines.next() {
        let Some(attributes) = line.strip_prefix("#EXT-X-STREAM-INF:") else { continue };
        let claimed = attributes.split(',').find_map(|attribute| attribute.strip_prefix("BANDWIDTH=")?.parse::<u64>().ok());
        let name = lines.next().and_then(|uri| uri.split('/').next()).unwrap_or_default();
        let Some((claimed, own)) = claimed.zip(segments.get(name)) else {
            complaints.push(format!("{line} claims no bandwidth of a rendition with segments"));
            continue;
        };
        let usual = own.values().map(|segment| segment.duration).max().unwrap_or_default();
        for (number, segment) in own.iter().filter(|(_, segment)| segment.duration.0 * 2 >= usual.0) {
            let beside = sounds.iter().filter(|sound| *sound != name).filter_map(|sound| segments.get(sound)?.get(number).map(rate)).max();
            let all = rate(segment) + beside.unwrap_or_default();
            if all > claimed {
                complaints.push(format!("{name}/{number} has {all} bit/s with its sound, and {claimed} are claimed"));
            }
        }
    }
    complaints
}

fn rate(segment: &LedgerSegment) -> u64 {
    segment.bytes * 8 * TICKS_PER_SECOND / segment.duration.0.max(1)
}

/// The folder of an `EXT-X-MEDIA`'s URI.
fn rendition_of(line: &str) -> Option<String> {
    Some(line.split("URI=\"").nth(1)?.split('/').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::{SegmentNumber, Ticks};

    const PLAYLIST: &str = "#EXTM3U\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",URI=\"audio/vod.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1000,AVERAGE-BANDWIDTH=700,AUDIO=\"audio\"\n\
        360p/vod.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=110,AVERAGE-BANDWIDTH=100,AUDIO=\"audio\"\n\
        audio/vod.m3u8\n";

    /// Segments of two seconds, the last one shorter.
    fn of(bits: [u64; 2], last: (u64, u64)) -> BTreeMap<u64, LedgerSegment> {
        let all = [(bits[0], 180_000), (bits[1], 180_000), last];
        let segment = |(number, (bits, duration))| LedgerSegment {
            number: SegmentNumber(number),
            offset: Ticks(0),
            duration: Ticks(duration),
            bytes: bits / 8,
            init: 0,
        };
        (0..).zip(all).map(|all| (all.0, segment(all))).collect()
    }

    #[test]
    fn the_largest_segment_counts_with_its_sound() {
        let audio = of([160, 160], (160, 180_000));
        let judged =
            |video| bandwidth(PLAYLIST, &Segments::from([("360p".into(), of(video, (800, 9_000))), ("audio".into(), audio.clone())]));
        assert_eq!(judged([1_840, 1_000]), Vec::<String>::new(), "the short one is no measure");
        assert_eq!(judged([1_000, 1_848]), ["360p/1 has 1004 bit/s with its sound, and 1000 are claimed"]);
    }

    #[test]
    fn sound_alone_has_a_claim_of_its_own() {
        let loud = Segments::from([("360p".into(), of([8, 8], (8, 9_000))), ("audio".into(), of([160, 240], (160, 180_000)))]);
        assert_eq!(bandwidth(PLAYLIST, &loud), ["audio/1 has 120 bit/s with its sound, and 110 are claimed"]);
        assert_eq!(bandwidth(PLAYLIST, &Segments::new()).len(), 2, "nothing there");
    }
}
