//! Playlists: against golden files (`UPDATE_GOLDEN=1` writes them anew), and read back by another crate's parser.
#![allow(clippy::unwrap_used)]

use lectern_contract::ledger::{EndedRendition, Picture};
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks, WallMillis};
use lectern_media::hls::{Entry, Kind, LiveWindow, MediaPlaylist, Multivariant, Segment, common_numbers, media_playlist, multivariant};
use quick_m3u8::tag::{KnownTag, hls};
use quick_m3u8::{HlsLine, Reader, config::ParsingOptionsBuilder};

const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

fn segment(number: u64) -> Segment {
    Segment { number: SegmentNumber(number), duration: TWO.ticks(), init: 0 }
}

fn playlist(kind: Kind, entries: Vec<Entry>, ended: bool) -> MediaPlaylist {
    MediaPlaylist { kind, segment_duration: TWO, anchor: WallMillis(1_700_000_000_000), entries, ended }
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path}; UPDATE_GOLDEN=1 writes it anew");
}

fn tags(text: &str) -> (Vec<hls::Tag<'_>>, Vec<String>) {
    let mut reader = Reader::from_str(text, ParsingOptionsBuilder::new().with_parsing_for_all_tags().build());
    let (mut tags, mut uris) = (Vec::new(), Vec::new());
    while let Some(line) = reader.read_line().expect("every line parses") {
        match line {
            HlsLine::KnownTag(KnownTag::Hls(tag)) => tags.push(tag),
            HlsLine::Uri(uri) => uris.push(uri.into_owned()),
            other => panic!("an unknown line: {other:?}"),
        }
    }
    (tags, uris)
}

#[test]
fn a_live_playlist_counts_gaps_and_names_its_init_sections() {
    let mut window = LiveWindow::new(10);
    for number in [7, 8, 10] {
        assert!(window.push(segment(number)));
    }
    assert!(window.push(Segment { duration: Ticks(90_000), init: 1, ..segment(11) }));
    let text = media_playlist(&playlist(Kind::Live, window.entries().collect(), false));
    golden("live.m3u8", &text);

    let (tags, uris) = tags(&text);
    assert_eq!(uris, ["7.m4s", "8.m4s", "9.m4s", "10.m4s", "11.m4s"]);
    let sequence = tags.iter().find_map(|tag| if let hls::Tag::MediaSequence(s) = tag { Some(s.media_sequence()) } else { None });
    assert_eq!(sequence, Some(7));
    let durations: Vec<f64> =
        tags.iter().filter_map(|tag| if let hls::Tag::Inf(inf) = tag { Some(inf.duration()) } else { None }).collect();
    assert_eq!(durations, [2.0, 2.0, 2.0, 2.0, 1.0]);
    assert_eq!(tags.iter().filter(|tag| matches!(tag, hls::Tag::Map(_))).count(), 2);
    assert_eq!(tags.iter().filter(|tag| matches!(tag, hls::Tag::Gap(_))).count(), 1);
}

#[test]
fn a_vod_playlist_turns_a_hole_into_a_discontinuity() {
    let entries = [0, 1, 5].map(|n| Entry::Segment(segment(n))).to_vec();
    let text = media_playlist(&playlist(Kind::Vod, entries, true));
    golden("vod.m3u8", &text);
    let (tags, uris) = tags(&text);
    assert_eq!(uris, ["0.m4s", "1.m4s", "5.m4s"]);
    assert_eq!(tags.iter().filter(|tag| matches!(tag, hls::Tag::Discontinuity(_))).count(), 1);
    assert!(matches!(tags.last(), Some(hls::Tag::Endlist(_))));
}

#[test]
fn an_ended_live_playlist_is_closed() {
    let text = media_playlist(&playlist(Kind::Live, vec![Entry::Segment(segment(3))], true));
    golden("live-ended.m3u8", &text);
}

fn renditions() -> Vec<EndedRendition> {
    let video = |name: &str, width, height, bitrate| EndedRendition {
        name: name.into(),
        codec: "avc1.64001f".into(),
        bitrate,
        picture: Some(Picture { width, height, frame_rate: 30 }),
    };
    let audio = EndedRendition { name: "audio".into(), codec: "mp4a.40.2".into(), bitrate: 128_000, picture: None };
    vec![video("720p", 1280, 720, 2_800_000), video("360p", 640, 360, 800_000), audio]
}

#[test]
fn a_multivariant_playlist_has_every_picture_and_sound_alone() {
    let all = renditions();
    let text = multivariant(&Multivariant { kind: Kind::Live, renditions: &all });
    golden("multivariant.m3u8", &text);
    let (tags, uris) = tags(&text);
    assert_eq!(uris, ["720p/live.m3u8", "360p/live.m3u8", "audio/live.m3u8"]);
    let first = tags.iter().find_map(|tag| if let hls::Tag::StreamInf(inf) = tag { Some(inf) } else { None }).unwrap();
    assert_eq!((first.bandwidth(), first.average_bandwidth()), (4_340_800, Some(2_928_000)));
    assert_eq!((first.codecs(), first.audio()), (Some("avc1.64001f,mp4a.40.2"), Some("audio")));
}

#[test]
fn a_run_without_sound_names_no_group() {
    let all: Vec<_> = renditions().into_iter().filter(|r| r.picture.is_some()).collect();
    let text = multivariant(&Multivariant { kind: Kind::Vod, renditions: &all });
    golden("multivariant-video.m3u8", &text);
}

#[test]
fn a_window_slides_and_never_goes_back() {
    let mut window = LiveWindow::new(3);
    for number in 0..10 {
        assert!(window.push(segment(number)));
        assert!(!window.push(segment(number)), "the same number twice");
        assert!(number == 0 || !window.push(segment(number - 1)), "an older number");
    }
    let numbers: Vec<u64> = window.entries().map(|entry| entry.number().0).collect();
    assert_eq!(numbers, [7, 8, 9]);
}

#[test]
fn a_source_that_was_away_for_long_leaves_only_what_is_new() {
    let mut window = LiveWindow::new(4);
    window.push(segment(1));
    window.push(segment(1_000_000_000));
    let entries: Vec<Entry> = window.entries().collect();
    assert_eq!(entries, [Entry::Segment(segment(1_000_000_000))]);
}

#[test]
fn only_numbers_that_all_renditions_have_are_common() {
    let n = |numbers: &[u64]| numbers.iter().map(|n| SegmentNumber(*n)).collect::<Vec<_>>();
    let common: Vec<_> = common_numbers([n(&[1, 2, 3, 5]), n(&[2, 3, 4, 5])]).into_iter().collect();
    assert_eq!(common, n(&[2, 3, 5]));
}

proptest::proptest! {
    #[test]
    fn a_window_has_no_hole_and_only_grows(numbers in proptest::collection::vec(0u64..200, 1..60), size in 1usize..12) {
        let mut window = LiveWindow::new(size);
        let mut first_before = 0;
        for number in numbers {
            window.push(segment(number));
            let listed: Vec<u64> = window.entries().map(|entry| entry.number().0).collect();
            assert!(listed.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole: {listed:?}");
            assert!(listed.len() <= size && !listed.is_empty());
            assert!(listed[0] >= first_before, "went back");
            first_before = listed[0];
        }
    }
}
