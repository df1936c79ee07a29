//! MPDs: against golden files (`UPDATE_GOLDEN=1` writes them anew), and read back by the parser and the types of other crates.
#![allow(clippy::unwrap_used)]

use lectern_contract::ledger::{EndedRendition, Picture};
use lectern_contract::{SegmentDuration, SegmentNumber, Ticks, WallMillis};
use lectern_media::dash::{Mpd, Recorded, Representation, Stretch, mpd, vod_mpd};
use lectern_media::hls::{Entry, LiveWindow, Part, PartWindow, Segment};
use roxmltree::{Document, Node};

const TWO: SegmentDuration = SegmentDuration::LOW_LATENCY;
const LIVE: Mpd = Mpd {
    segment_duration: TWO,
    window: 10,
    anchor: WallMillis(1_700_000_000_250),
    published: WallMillis(1_700_000_030_000),
    captions: false,
    ended: false,
    part: None,
};
/// Of parts of a third of a second, to a frame of AAC.
const LOW: Mpd = Mpd { part: Some(Ticks(30_720)), ..LIVE };

fn segment(number: u64) -> Segment {
    Segment { number: SegmentNumber(number), offset: Ticks(0), duration: TWO.ticks(), init: 0 }
}

fn window(segments: impl IntoIterator<Item = Segment>) -> LiveWindow {
    let mut window = LiveWindow::new(10);
    segments.into_iter().for_each(|segment| assert!(window.push(segment)));
    window
}

fn stretch(segments: impl IntoIterator<Item = Segment>) -> Stretch {
    Stretch::newest(&window(segments)).unwrap()
}

fn renditions() -> [EndedRendition; 3] {
    let video = |name: &str, codec: &str, width, height, bitrate| EndedRendition {
        name: name.into(),
        codec: codec.into(),
        bitrate,
        picture: Some(Picture { width, height, frame_rate: 30 }),
    };
    let audio = EndedRendition { name: "audio".into(), codec: "mp4a.40.2".into(), bitrate: 128_000, picture: None };
    [video("720p", "avc1.64001f", 1280, 720, 2_800_000), video("360p", "avc1.64001e", 640, 360, 800_000), audio]
}

/// The MPD of a run whose renditions end at the numbers given.
fn text(of: &Mpd, stretches: [Stretch; 3]) -> String {
    let all = renditions();
    let representations: Vec<_> = all.iter().zip(stretches).map(|(named, stretch)| Representation { named, stretch }).collect();
    mpd(of, &representations).unwrap()
}

fn golden(name: &str, text: &str) {
    let read = dash_mpd_core::parse(text).unwrap();
    assert_eq!(dash_mpd_core::check_conformity(&read), Vec::<String>::new());
    let codecs: Vec<_> =
        read.periods.iter().flat_map(|it| &it.adaptations).flat_map(|it| &it.representations).map(|it| &it.codecs).collect();
    assert!(!codecs.is_empty() && codecs.iter().all(|codec| codec.is_some()), "{codecs:?}");
    let path = format!("tests/golden/{name}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path}; UPDATE_GOLDEN=1 writes it anew");
}

fn all<'t>(document: &'t Document<'_>, name: &str) -> Vec<Node<'t, 't>> {
    document.descendants().filter(|node| node.has_tag_name(("urn:mpeg:dash:schema:mpd:2011", name))).collect()
}

fn attributes<'t>(nodes: &[Node<'t, 't>], name: &str) -> Vec<Option<&'t str>> {
    nodes.iter().map(|node| node.attribute(name)).collect()
}

/// Init section and segments of each Representation, as a player makes them of the templates (§5.3.9.4.4): its URL, its start in ticks.
fn named(document: &Document<'_>) -> Vec<(String, Vec<(String, u64)>)> {
    let number = |node: &Node<'_, '_>, name: &str| node.attribute(name).map(|value| value.parse::<u64>().unwrap());
    let urls = |representation: Node<'_, '_>| {
        let template = representation.children().find(|node| node.has_tag_name("SegmentTemplate")).unwrap();
        let fill =
            |attribute: &str| template.attribute(attribute).unwrap().replace("$RepresentationID$", representation.attribute("id").unwrap());
        let (mut next, mut time, mut segments) = (number(&template, "startNumber").unwrap(), 0, Vec::new());
        for series in template.descendants().filter(|node| node.has_tag_name("S")) {
            time = number(&series, "t").unwrap_or(time);
            for _ in 0..=number(&series, "r").unwrap_or(0) {
                segments.push((fill("media").replace("$Number$", &next.to_string()), time));
                next += 1;
                time += number(&series, "d").unwrap();
            }
        }
        (fill("initialization"), segments)
    };
    all(document, "Representation").into_iter().map(urls).collect()
}

#[test]
fn a_live_mpd_names_what_there_is() {
    let text = text(&LIVE, [stretch((5..15).map(segment)), stretch((5..14).map(segment)), stretch([segment(14)])]);
    golden("live.mpd", &text);
    let document = Document::parse(&text).unwrap();
    let root = document.root_element();
    assert_eq!((root.attribute("type"), root.attribute("availabilityStartTime")), (Some("dynamic"), Some("2023-11-14T22:13:20.250Z")));
    assert_eq!(root.attribute("mediaPresentationDuration"), None);
    assert_eq!((root.attribute("minimumUpdatePeriod"), root.attribute("timeShiftBufferDepth")), (Some("PT2S"), Some("PT20S")));
    assert_eq!(attributes(&all(&document, "Period"), "start"), [Some("PT0S")]);
    let representations = all(&document, "Representation");
    assert_eq!(attributes(&representations, "codecs"), [Some("avc1.64001f"), Some("avc1.64001e"), Some("mp4a.40.2")]);
    assert_eq!(attributes(&representations, "height"), [Some("720"), Some("360"), None]);
    assert_eq!(attributes(&all(&document, "AdaptationSet"), "contentType"), [Some("video"), Some("audio")]);

    let named = named(&document);
    assert_eq!(named.iter().map(|(init, _)| init.as_str()).collect::<Vec<_>>(), ["720p/init-0.mp4", "360p/init-0.mp4", "audio/init-0.mp4"]);
    let expected: Vec<_> = (5..15).map(|n| (format!("720p/{n}.m4s"), n * 180_000)).collect();
    assert_eq!(named[0].1, expected);
    assert_eq!(named[1].1.len(), 9);
    assert_eq!(named[2].1, [("audio/14.m4s".to_owned(), 2_520_000)]);
}

/// A window of parts: a part each of the segments given, which need init section `init`.
fn parts(numbers: impl IntoIterator<Item = u64>, init: u32) -> PartWindow {
    let mut parts = PartWindow::default();
    let part = Part { duration: Ticks(30_000), independent: true };
    numbers.into_iter().for_each(|number| parts.push(SegmentNumber(number), init, part));
    parts
}

#[test]
fn a_low_latency_mpd_names_the_segment_that_is_being_made() {
    let whole = || stretch((5..15).map(segment));
    let text = text(&LOW, [whole().with_open(&parts([14, 15], 0)), whole().with_open(&parts([14], 0)), whole()]);
    golden("live-low.mpd", &text);
    let document = Document::parse(&text).unwrap();
    let named = named(&document);
    let last: Vec<_> = named.iter().map(|(_, urls)| urls.last().unwrap().0.as_str()).collect();
    assert_eq!(last, ["720p/15.m4s", "360p/14.m4s", "audio/14.m4s"]);
    let templates = all(&document, "SegmentTemplate");
    assert_eq!(attributes(&templates, "availabilityTimeOffset"), [Some("1.658"); 3], "two seconds less the longest part");
    assert_eq!(attributes(&templates, "availabilityTimeComplete"), [Some("false"); 3]);
    assert_eq!(document.root_element().attribute("suggestedPresentationDelay"), None, "players would add the target to it");
    let (latency, reference) = (&all(&document, "Latency")[0], &all(&document, "ProducerReferenceTime")[0]);
    assert_eq!((latency.attribute("target"), latency.attribute("referenceId")), (Some("4000"), reference.attribute("id")));
    assert_eq!(reference.attribute("wallClockTime"), document.root_element().attribute("availabilityStartTime"));
}

#[test]
fn an_open_segment_is_named_only_where_it_continues_what_is_whole() {
    let last = |parts: &PartWindow| stretch((5..15).map(segment)).with_open(parts).last().0;
    assert_eq!(last(&parts([15], 0)), 15);
    assert_eq!(last(&parts([16], 0)), 14, "after a hole");
    assert_eq!(last(&parts([15], 1)), 14, "of another init section");
    assert_eq!(last(&PartWindow::default()), 14);
}

#[test]
fn without_parts_and_after_the_end_nothing_can_be_had_early() {
    let stretches = || [stretch((5..15).map(segment)); 3];
    let ended = text(&Mpd { ended: true, ..LOW }, stretches());
    assert_eq!(ended, text(&Mpd { ended: true, ..LIVE }, stretches()));
    assert!(!text(&LIVE, stretches()).contains("availabilityTime"));
}

#[test]
fn an_ended_mpd_is_static_and_nothing_else_moves() {
    let stretches = [stretch((5..15).map(segment)), stretch((5..15).map(segment)), stretch((5..14).map(segment))];
    let ended = text(&Mpd { ended: true, ..LIVE }, stretches);
    golden("ended.mpd", &ended);
    let (live, ended) = (text(&LIVE, stretches), Document::parse(&ended).unwrap());
    let live = Document::parse(&live).unwrap();
    let root = ended.root_element();
    assert_eq!((root.attribute("type"), root.attribute("mediaPresentationDuration")), (Some("static"), Some("PT30S")));
    assert_eq!((root.attribute("minimumUpdatePeriod"), root.attribute("timeShiftBufferDepth")), (None, None));
    assert!(all(&ended, "UTCTiming").is_empty());
    assert_eq!(named(&live), named(&ended), "a player goes on where it is");
    assert_eq!(attributes(&all(&live, "Period"), "id"), attributes(&all(&ended, "Period"), "id"));
}

#[test]
fn after_a_hole_the_mpd_begins_anew_and_its_times_do_not() {
    let after = stretch([7, 8, 12, 13].map(segment));
    assert_eq!((after.first(), after.last()), (SegmentNumber(12), SegmentNumber(13)));
    let text = text(&LIVE, [after, after, after]);
    let named = named(&Document::parse(&text).unwrap());
    assert_eq!(named[0].1, [("720p/12.m4s".to_owned(), 12 * 180_000), ("720p/13.m4s".to_owned(), 13 * 180_000)]);
}

#[test]
fn another_init_section_begins_a_stretch() {
    let after = stretch([segment(7), segment(8), Segment { init: 1, ..segment(9) }, Segment { init: 1, ..segment(10) }]);
    assert_eq!((after.first(), after.last(), after.init()), (SegmentNumber(9), SegmentNumber(10), 1));
    let text = text(&LIVE, [after, after, after]);
    assert_eq!(named(&Document::parse(&text).unwrap())[1].0, "360p/init-1.mp4");
}

#[test]
fn without_segments_there_is_no_mpd() {
    assert_eq!(Stretch::newest(&LiveWindow::new(10)), None);
    assert_eq!(mpd(&LIVE, &[]), None);
}

#[test]
fn a_lecture_without_sound_has_one_set() {
    let all_of_them = renditions();
    let text = mpd(&LIVE, &[Representation { named: &all_of_them[0], stretch: stretch([segment(0)]) }]).unwrap();
    let document = Document::parse(&text).unwrap();
    assert_eq!(attributes(&all(&document, "AdaptationSet"), "contentType"), [Some("video")]);
}

#[test]
fn a_recording_has_a_period_for_each_stretch_and_no_hole() {
    let all_of_them = renditions();
    let mut segments: Vec<Segment> = [5, 6, 7, 12, 13, 14, 15].map(segment).to_vec();
    segments[2].duration = Ticks(45_000); // the publisher went away in the middle of it
    segments[5..].iter_mut().for_each(|segment| segment.init = 1);
    let recorded: Vec<_> = all_of_them.iter().map(|named| Recorded { named, segments: segments.clone() }).collect();
    let text = vod_mpd(TWO, &recorded, false).unwrap();
    golden("vod.mpd", &text);
    let document = Document::parse(&text).unwrap();
    let root = document.root_element();
    assert_eq!((root.attribute("type"), root.attribute("mediaPresentationDuration")), (Some("static"), Some("PT12.500S")));
    let periods = all(&document, "Period");
    assert_eq!(attributes(&periods, "duration"), [Some("PT4.500S"), Some("PT4S"), Some("PT4S")]);
    assert_eq!(attributes(&periods, "start"), [Some("PT0S"), None, None], "each follows the one before");
    // The first rendition of each Period: init section, URLs, and the time in the Period at which the first begins.
    let named = named(&document);
    for (at, (init, numbers)) in
        [("720p/init-0.mp4", 5..8), ("720p/init-0.mp4", 12..14), ("720p/init-1.mp4", 14..16)].into_iter().enumerate()
    {
        let (found, urls) = &named[at * 3];
        assert_eq!(
            (found.as_str(), urls.iter().map(|(url, _)| url.clone()).collect::<Vec<_>>()),
            (init, numbers.map(|n| format!("720p/{n}.m4s")).collect())
        );
        let template = periods[at].descendants().find(|node| node.has_tag_name("SegmentTemplate")).unwrap();
        assert_eq!(template.attribute("presentationTimeOffset"), Some(urls[0].1.to_string().as_str()));
    }
    assert_eq!(vod_mpd(TWO, &[], false), None);
}

#[test]
fn captions_are_told_of_where_the_pictures_are() {
    let text = text(&Mpd { captions: true, ..LIVE }, [stretch((5..15).map(segment)); 3]);
    let document = Document::parse(&text).unwrap();
    let told = all(&document, "Accessibility");
    assert_eq!(attributes(&told, "schemeIdUri"), [Some("urn:scte:dash:cc:cea-608:2015")]);
    assert_eq!(told[0].attribute("value"), Some("CC1=und"));
    assert_eq!(told[0].parent().unwrap().attribute("contentType"), Some("video"));
    assert_eq!(told[0].next_sibling_element().unwrap().tag_name().name(), "Role", "the schema has an order");
}

proptest::proptest! {
    #[test]
    fn an_mpd_names_only_what_the_playlist_names_to_its_end(
        segments in proptest::collection::btree_map(0u64..60, 0u32..3, 1..40),
        size in 1usize..12,
        ended: bool,
    ) {
        let mut window = LiveWindow::new(size);
        for (number, init) in segments {
            window.push(Segment { init, ..segment(number) });
        }
        let stretch = Stretch::newest(&window).unwrap();
        let text = text(&Mpd { ended, ..LIVE }, [stretch; 3]);
        let document = Document::parse(&text).unwrap();
        let playlist: Vec<Entry> = window.entries().collect();
        for (init, urls) in named(&document) {
            let tail = &playlist[playlist.len() - urls.len()..];
            for (entry, (url, start)) in tail.iter().zip(&urls) {
                let Entry::Segment(segment) = entry else { panic!("a gap is named: {url}") };
                assert!(url.ends_with(&format!("/{}.m4s", segment.number)) && init.ends_with(&format!("/init-{}.mp4", segment.init)));
                assert_eq!(*start, segment.number.start(TWO).0);
            }
        }
    }
}
