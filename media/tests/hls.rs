//! Playlists: against golden files (`UPDATE_GOLDEN=1` writes them anew), and read back by another crate's parser.
#![allow(clippy::unwrap_used)]

use lectern_contract::ledger::{EndedRendition, Picture};
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks, WallMillis};
use lectern_media::hls::{
    Entry, Kind, LiveWindow, LowLatency, MediaPlaylist, Multivariant, Part, PartWindow, Report, Segment, common_numbers, delta_update,
    growing, media_playlist, multivariant, settled,
};
use quick_m3u8::tag::{KnownTag, hls};
use quick_m3u8::{HlsLine, Reader, config::ParsingOptionsBuilder};

const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;

fn segment(number: u64) -> Segment {
    Segment { number: SegmentNumber(number), offset: Ticks(0), duration: TWO.ticks(), init: 0 }
}

fn playlist(kind: Kind, entries: Vec<Entry>, ended: bool) -> MediaPlaylist<'static> {
    MediaPlaylist {
        kind,
        segment_duration: TWO,
        anchor: WallMillis(1_700_000_000_000),
        text: false,
        blocking: false,
        entries,
        ended,
        low_latency: None,
    }
}

fn golden(name: &str, text: &str) {
    let path = format!("tests/golden/{name}");
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
fn a_playlist_says_when_its_first_sample_is_to_be_shown() {
    let dates = |first: Segment, rest: &[u64]| {
        let mut window = LiveWindow::new(10);
        window.push(first);
        rest.iter().for_each(|number| assert!(window.push(segment(*number))));
        let text = media_playlist(&playlist(Kind::Live, window.entries().collect(), false));
        text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:").map(str::to_owned)).collect::<Vec<_>>()
    };
    let on_time = dates(segment(7), &[8]);
    // The publisher came in the middle of it: its picture was there after 367 ms, and the sound that belongs to it 41 ms before.
    let of_picture = dates(Segment { offset: Ticks(33_000), duration: Ticks(147_000), ..segment(7) }, &[8]);
    let of_sound = dates(Segment { offset: Ticks(29_280), duration: Ticks(151_680), ..segment(7) }, &[8]);
    let later = |dates: &[String]| {
        let at = |date: &str| date.parse::<jiff::Timestamp>().unwrap();
        at(&dates[0]).duration_since(at(&on_time[0])).as_millis()
    };
    assert_eq!((later(&of_picture), later(&of_sound)), (366, 325));
    assert_eq!(dates(segment(7), &[8, 10]).len(), 2, "and again after a gap");
}

/// Ten whole segments and two parts of the next.
fn low_latency() -> String {
    let (mut window, mut parts) = (LiveWindow::new(10), PartWindow::default());
    for number in 7..18 {
        for part in 0..if number < 17 { 6 } else { 2 } {
            parts.push(SegmentNumber(number), 0, Part { duration: Ticks(30_000), independent: part == 0 });
        }
        if number < 17 {
            window.push(segment(number));
        }
    }
    let reports = [Report { rendition: "audio".into(), number: SegmentNumber(17), part: 1 }];
    let low_latency = LowLatency { parts: &parts, target: Ticks(30_000), reports: &reports };
    let playlist = MediaPlaylist { low_latency: Some(low_latency), ..playlist(Kind::Live, window.entries().collect(), false) };
    let text = media_playlist(&playlist);
    assert_eq!(settled(&playlist) + &growing(&low_latency, &window.newest().unwrap()), text, "in two pieces it is the same");
    text
}

#[test]
fn a_low_latency_playlist_names_its_parts_and_what_comes_next() {
    let text = low_latency();
    golden("live-low.m3u8", &text);
    let (tags, uris) = tags(&text);
    assert_eq!((uris.len(), uris[9].as_str()), (10, "16.m4s"));
    let parts: Vec<(String, f64, bool)> = tags
        .iter()
        .filter_map(
            |tag| if let hls::Tag::Part(part) = tag { Some((part.uri().to_string(), part.duration(), part.independent())) } else { None },
        )
        .collect();
    assert_eq!(parts.len(), 3 * 6 + 2, "three whole segments and the open one");
    assert_eq!((parts[0].0.as_str(), parts[19].0.as_str()), ("14.0.m4s", "17.1.m4s"));
    let target = tags.iter().find_map(|tag| if let hls::Tag::PartInf(inf) = tag { Some(inf.part_target()) } else { None }).unwrap();
    assert!(parts.iter().all(|(_, duration, _)| *duration <= target && *duration >= 0.85 * target), "{parts:?}");
    assert_eq!(parts.iter().filter(|(_, _, independent)| *independent).count(), 4);
    let control =
        tags.iter().find_map(|tag| if let hls::Tag::ServerControl(control) = tag { Some(control.clone()) } else { None }).unwrap();
    assert!(control.can_block_reload() && control.part_hold_back().unwrap() >= 2.0 * target && control.can_skip_until().unwrap() >= 12.0);
    let hint = tags.iter().find_map(|tag| if let hls::Tag::PreloadHint(hint) = tag { Some(hint.uri().to_string()) } else { None });
    assert_eq!(hint.as_deref(), Some("17.2.m4s"));
    assert!(tags.iter().any(|tag| matches!(tag, hls::Tag::RenditionReport(report) if report.uri() == "../audio/live.m3u8")));
}

#[test]
fn a_low_latency_playlist_that_ends_is_an_ordinary_one() {
    let parts = PartWindow::default();
    let low_latency = Some(LowLatency { parts: &parts, target: Ticks(30_000), reports: &[] });
    let text = media_playlist(&MediaPlaylist { low_latency, ..playlist(Kind::Live, vec![Entry::Segment(segment(3))], true) });
    assert!(!text.contains("PART") && !text.contains("SERVER-CONTROL") && text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
}

#[test]
fn parts_that_need_another_init_section_say_so() {
    let mut parts = PartWindow::default();
    parts.push(SegmentNumber(4), 1, Part { duration: Ticks(30_000), independent: true });
    let low_latency = Some(LowLatency { parts: &parts, target: Ticks(30_000), reports: &[] });
    let text = media_playlist(&MediaPlaylist { low_latency, ..playlist(Kind::Live, vec![Entry::Segment(segment(3))], false) });
    let open = text.split("3.m4s\n").nth(1).unwrap();
    assert!(open.starts_with("#EXT-X-MAP:URI=\"init-1.mp4\"\n#EXT-X-PART:"), "{text}");
}

#[test]
fn a_delta_update_leaves_out_what_is_old() {
    let full = low_latency();
    let delta = delta_update(&full).unwrap();
    golden("live-low-delta.m3u8", &delta);
    let (tags, uris) = tags(&delta);
    let skipped = tags.iter().find_map(|tag| if let hls::Tag::Skip(skip) = tag { Some(skip.skipped_segments()) } else { None });
    // 20.67 s in all, 12 of which must stay.
    assert_eq!((skipped, uris[0].as_str(), uris.len()), (Some(4), "11.m4s", 6));
    assert_eq!(full.split("11.m4s").nth(1), delta.split("11.m4s").nth(1));
    assert_eq!(delta_update(&media_playlist(&playlist(Kind::Live, vec![Entry::Segment(segment(3))], false))), None);
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
    assert_eq!((first.bandwidth(), first.average_bandwidth()), (4_364_800, Some(2_952_000)));
    assert_eq!((first.codecs(), first.audio()), (Some("avc1.64001f,mp4a.40.2"), Some("audio")));
}

#[test]
fn a_run_without_sound_names_no_group() {
    let all: Vec<_> = renditions().into_iter().filter(|r| r.picture.is_some()).collect();
    let text = multivariant(&Multivariant { kind: Kind::Vod, renditions: &all });
    golden("multivariant-video.m3u8", &text);
}

#[test]
fn captions_are_named_as_text_and_as_what_the_pictures_carry() {
    let all = [renditions(), vec![EndedRendition::captions()]].concat();
    let text = multivariant(&Multivariant { kind: Kind::Live, renditions: &all });
    golden("multivariant-captions.m3u8", &text);
    let (tags, uris) = tags(&text);
    assert_eq!(uris, ["720p/live.m3u8", "360p/live.m3u8", "audio/live.m3u8"], "captions are no variant");
    let media: Vec<_> = tags.iter().filter_map(|tag| if let hls::Tag::Media(media) = tag { Some(media) } else { None }).collect();
    assert_eq!(media[1].uri(), Some("captions/live.m3u8"));
    assert_eq!(media[2].instream_id().map(|id| id.to_string()).as_deref(), Some("CC1"));
    let variants = tags.iter().filter_map(|tag| if let hls::Tag::StreamInf(inf) = tag { Some(inf) } else { None });
    let groups: Vec<_> = variants.map(|inf| (inf.audio(), inf.subtitles(), inf.closed_captions())).collect();
    let picture = (Some("audio"), Some("text"), Some("cc"));
    assert_eq!(groups, [picture, picture, (Some("audio"), Some("text"), None)]);
}

#[test]
fn text_beside_parts_is_asked_for_before_it_is_there() {
    let playlist = MediaPlaylist { text: true, blocking: true, ..playlist(Kind::Live, vec![Entry::Segment(segment(3))], false) };
    assert_eq!(media_playlist(&playlist), settled(&playlist), "there are no parts to follow");
    let text = settled(&playlist);
    let (tags, uris) = tags(&text);
    assert_eq!(uris, ["3.vtt"]);
    let control = tags.iter().find_map(|tag| if let hls::Tag::ServerControl(control) = tag { Some(control) } else { None });
    let control = control.expect("the server's control");
    assert!(control.can_block_reload() && control.part_hold_back().is_none() && control.can_skip_until().is_none(), "{text}");
    let ended = media_playlist(&MediaPlaylist { ended: true, ..playlist });
    assert!(!ended.contains("SERVER-CONTROL"), "nothing comes: {ended}");
}

#[test]
fn a_recording_of_captions_is_as_long_as_the_others() {
    let entries = vec![Entry::Empty(segment(0)), Entry::Segment(segment(1)), Entry::Segment(segment(5))];
    let text = media_playlist(&MediaPlaylist { text: true, ..playlist(Kind::Vod, entries, true) });
    golden("vod-captions.m3u8", &text);
    let (tags, uris) = tags(&text);
    assert_eq!(uris, ["empty.vtt", "1.vtt", "5.vtt"]);
    assert_eq!(tags.iter().filter(|tag| matches!(tag, hls::Tag::Inf(_))).count(), 3);
    assert_eq!(tags.iter().filter(|tag| matches!(tag, hls::Tag::Discontinuity(_))).count(), 1, "where the others have it");
    assert!(!tags.iter().any(|tag| matches!(tag, hls::Tag::Map(_))));
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
fn a_segment_that_is_lost_is_a_gap_from_then_on() {
    let mut window = LiveWindow::new(4);
    (0..5).for_each(|number| assert!(window.push(segment(number))));
    [0, 3, 9].into_iter().for_each(|number| window.lose(SegmentNumber(number))); // of those, one is there
    let entries: Vec<Entry> = window.entries().collect();
    assert_eq!(entries[..2], [1, 2].map(|number| Entry::Segment(segment(number))));
    assert_eq!(entries[2..], [Entry::Gap(SegmentNumber(3)), Entry::Segment(segment(4))]);
    [2, 1].into_iter().for_each(|number| window.lose(SegmentNumber(number)));
    assert_eq!(window.entries().collect::<Vec<_>>(), [Entry::Segment(segment(4))], "none at the front");
    assert!(window.push(segment(5)) && !window.push(segment(3)), "and none comes back");
}

#[test]
fn an_hours_window_is_short_to_load_and_shorter_to_load_again() {
    let (mut window, mut parts) = (LiveWindow::new(1800), PartWindow::default());
    for number in 10_000..12_000 {
        parts.push(SegmentNumber(number), 0, Part { duration: Ticks(30_000), independent: true });
        window.push(segment(number));
    }
    let low_latency = Some(LowLatency { parts: &parts, target: Ticks(30_000), reports: &[] });
    let full = media_playlist(&MediaPlaylist { low_latency, ..playlist(Kind::Live, window.entries().collect(), false) });
    let (_, uris) = tags(&full);
    assert_eq!((uris.len(), uris[0].as_str()), (1800, "10200.m4s"));
    let delta = delta_update(&full).unwrap();
    assert!(full.len() < 50 * 1024 && delta.len() < 1024, "{} bytes, {} of an update", full.len(), delta.len());
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
