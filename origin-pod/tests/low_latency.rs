//! Low-Latency HLS at the origin: requests that wait, parts, delta updates.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::BytesMut;
use common::{Lab, Packager, waiting};
use lectern_contract::push::PushRequest;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A playlist of segments of a second whose newest is `newest`, with `parts` of the next.
fn playlist(newest: u64, parts: u64) -> String {
    let mut text = String::from(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0,CAN-SKIP-UNTIL=6.0\n#EXT-X-MAP:URI=\"init-0.mp4\"\n",
    );
    for number in newest.saturating_sub(9)..=newest {
        text += &format!("#EXTINF:1.00000,\n{number}.m4s\n");
    }
    for part in 0..parts {
        text += &format!("#EXT-X-PART:DURATION=0.33333,URI=\"{}.{part}.m4s\"\n", newest + 1);
    }
    text + &format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}.{parts}.m4s\"\n", newest + 1)
}

async fn lecture(lab: &Lab) -> Packager {
    let packager = Packager::start().await;
    packager.push("360p/init-0.mp4", "moov");
    packager.push("360p/12.m4s", "segment twelve");
    packager.push("360p/13.0.m4s", "part nought ");
    packager.push("360p/live.m3u8", &playlist(12, 1));
    lab.owned_by(Some(&packager.address), 1, false).await;
    assert_eq!(lab.get("360p/live.m3u8").await, (200, playlist(12, 1)));
    packager
}

/// A request under way.
fn ask(lab: &Lab, path: &str) -> JoinHandle<(u16, String)> {
    let request = lab.client.get(lab.url(path)).send();
    tokio::spawn(async move {
        let answer = request.await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

#[tokio::test]
async fn a_reload_waits_for_the_part_that_it_asks_for() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    assert_eq!(lab.get("360p/live.m3u8?_HLS_msn=13&_HLS_part=0").await, (200, playlist(12, 1)), "it is there");
    let (part, segment) = (ask(&lab, "360p/live.m3u8?_HLS_msn=13&_HLS_part=1"), ask(&lab, "360p/live.m3u8?_HLS_msn=13"));
    waiting(&lab, 2).await;
    packager.push("360p/13.1.m4s", "part one");
    packager.push("360p/live.m3u8", &playlist(12, 2));
    assert_eq!(part.await.unwrap(), (200, playlist(12, 2)));
    waiting(&lab, 1).await;
    packager.join("360p/13.m4s", 2);
    packager.push("360p/live.m3u8", &playlist(13, 0));
    assert_eq!(segment.await.unwrap(), (200, playlist(13, 0)));
    assert_eq!(lab.get("360p/13.m4s").await, (200, "part nought part one".into()), "the segment is its parts");
    assert_eq!(lab.get("360p/13.1.m4s").await, (200, "part one".into()));
    assert_eq!(lab.metrics.all_fetches(), 0);
}

#[tokio::test]
async fn a_part_can_be_asked_for_before_it_is_there() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    let hinted: Vec<_> = (0..20).map(|_| ask(&lab, "360p/13.1.m4s")).collect();
    waiting(&lab, 20).await;
    packager.push("360p/13.1.m4s", "part one");
    packager.push("360p/live.m3u8", &playlist(12, 2));
    for asked in hinted {
        assert_eq!(asked.await.unwrap(), (200, "part one".into()));
    }
    // What is past or far off is not waited for.
    for path in ["360p/12.0.m4s", "360p/14.0.m4s", "360p/99.0.m4s", "720p/13.0.m4s"] {
        assert_eq!(lab.get(path).await.0, 404, "{path}");
    }
    assert_eq!(lab.metrics.waiting.get(), 0);
}

#[tokio::test]
async fn a_reload_that_gets_nothing_new_says_so_and_an_end_ends_the_wait() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    assert_eq!(lab.get("360p/live.m3u8?_HLS_msn=13&_HLS_part=1").await.0, 503, "after three target durations");
    let last = ask(&lab, "360p/live.m3u8?_HLS_msn=14");
    waiting(&lab, 1).await;
    let closed = format!("{}#EXT-X-ENDLIST\n", playlist(12, 0));
    packager.push("360p/live.m3u8", &closed);
    assert_eq!(last.await.unwrap(), (200, closed.clone()));
    assert_eq!(lab.get("360p/live.m3u8?_HLS_msn=99").await, (200, closed));
}

#[tokio::test]
async fn directives_that_make_no_sense_are_refused() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    for query in ["_HLS_part=1", "_HLS_msn=x", "_HLS_msn=15", "_HLS_msn=18446744073709551615&_HLS_part=18446744073709551615"] {
        assert_eq!(lab.get(&format!("360p/live.m3u8?{query}")).await.0, 400, "{query}");
    }
    assert_eq!(lab.get("360p/12.m4s?_HLS_msn=4").await.0, 200, "directives are for playlists");
}

#[tokio::test]
async fn a_player_that_knows_the_rest_gets_the_end() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    let (status, delta) = lab.get("360p/live.m3u8?_HLS_msn=13&_HLS_part=0&_HLS_skip=YES").await;
    assert_eq!(status, 200);
    assert!(delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n#EXTINF:1.00000,\n7.m4s\n"), "{delta}");
    assert_eq!(delta.split("7.m4s").nth(1), playlist(12, 1).split("7.m4s").nth(1));
    assert_eq!(lab.get("live.m3u8?_HLS_skip=YES").await.0, 404);
}

#[tokio::test]
async fn a_successor_is_waited_for() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    let next = ask(&lab, "360p/live.m3u8?_HLS_msn=13&_HLS_part=1");
    waiting(&lab, 1).await;
    packager.kill();
    let successor = Packager::start_under(2).await;
    successor.push("360p/13.0.m4s", "anew nought ");
    successor.push("360p/live.m3u8", &playlist(12, 1)); // as far as the one before: nobody is told
    successor.push("360p/13.1.m4s", "anew one");
    successor.push("360p/live.m3u8", &playlist(12, 2));
    lab.owned_by(Some(&successor.address), 2, false).await;
    assert_eq!(next.await.unwrap(), (200, playlist(12, 2)));
    assert_eq!(lab.get("360p/13.1.m4s").await, (200, "anew one".into()));
}

/// Reads on until `text` has come.
async fn read(answer: &mut reqwest::Response, text: &str) {
    let mut got = Vec::new();
    while got.len() < text.len() {
        got.extend(answer.chunk().await.unwrap().unwrap_or_else(|| panic!("it ends after {:?}", String::from_utf8_lossy(&got))));
    }
    assert_eq!(String::from_utf8_lossy(&got), text);
}

#[tokio::test]
async fn a_segment_that_is_being_made_comes_part_by_part() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    let mut answer = lab.client.get(lab.url("360p/13.m4s")).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!((answer.status().as_u16(), header("content-type").as_deref()), (200, Some("video/mp4")));
    assert_eq!(header("cache-control").as_deref(), Some("no-store"), "what ends early must not stay in a cache");
    assert_eq!((header("content-length"), header("accept-ranges")), (None, None));
    read(&mut answer, "part nought ").await;
    packager.push("360p/13.1.m4s", "part one ");
    read(&mut answer, "part one ").await;
    let late = ask(&lab, "360p/13.m4s");
    packager.push("360p/13.2.m4s", "part two");
    packager.join("360p/13.m4s", 3);
    read(&mut answer, "part two").await;
    assert_eq!(answer.chunk().await.unwrap(), None, "the last part ends it");
    assert_eq!(late.await.unwrap(), (200, "part nought part one part two".into()));
    lab.eventually("360p/13.m4s", "part nought part one part two").await;
    let whole = lab.client.get(lab.url("360p/13.m4s")).send().await.unwrap();
    assert_eq!(
        (whole.content_length(), whole.headers()["cache-control"].to_str().unwrap()),
        (Some(29), "public, max-age=1209600, immutable")
    );
    assert_eq!(lab.metrics.all_fetches(), 0);
}

/// A successor takes what students have for its own, or says that it cannot.
#[tokio::test]
async fn a_segment_whose_maker_dies_ends_in_an_error_and_a_successor_goes_on_with_it_or_makes_it_anew() {
    for (anew, wanted) in [(false, "part nought anew one"), (true, "anew nought anew one")] {
        let lab = Lab::start().await;
        let packager = lecture(&lab).await;
        assert_eq!(packager.told(), [], "there was nobody before it");
        let mut answer = lab.client.get(lab.url("360p/13.m4s")).send().await.unwrap();
        read(&mut answer, "part nought ").await;
        packager.kill();
        assert!(answer.chunk().await.is_err(), "a torso passes for a segment");
        let next = ask(&lab, "360p/13.m4s");
        waiting(&lab, 1).await; // for somebody to begin it
        let successor = Packager::start_under(2).await;
        if anew {
            successor.make_anew("360p", 13);
        }
        successor.push("360p/13.0.m4s", "anew nought ");
        successor.push("360p/live.m3u8", &playlist(12, 1));
        successor.push("360p/13.1.m4s", "anew one");
        successor.push("360p/live.m3u8", &playlist(12, 2));
        successor.join("360p/13.m4s", 2);
        lab.owned_by(Some(&successor.address), 2, false).await;
        assert_eq!(next.await.unwrap(), (200, wanted.into()));
        let told = successor.told();
        let begun = told.iter().find(|held| held.number.0 == 13).unwrap();
        assert_eq!(
            (begun.rendition.as_str(), &begun.init[..], begun.whole, begun.parts.concat()),
            ("360p", &b"moov"[..], false, b"part nought ".to_vec())
        );
        assert!(told.iter().any(|held| held.number.0 == 12 && held.whole));
    }
}

#[tokio::test]
async fn a_segment_that_is_not_begun_is_waited_for_and_one_that_never_comes_is_not_there() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    let (early, never) = (ask(&lab, "360p/14.m4s"), ask(&lab, "audio/13.m4s"));
    waiting(&lab, 1).await;
    packager.push("360p/13.1.m4s", "part one");
    packager.join("360p/13.m4s", 2);
    packager.push("360p/live.m3u8", &playlist(13, 0));
    packager.push("360p/14.0.m4s", "next");
    packager.push("360p/live.m3u8", &playlist(13, 1));
    packager.join("360p/14.m4s", 1);
    assert_eq!(early.await.unwrap(), (200, "next".into()));
    assert_eq!(never.await.unwrap().0, 404, "a rendition that is not there");
    packager.push("360p/live.m3u8", &playlist(14, 0));
    assert_eq!(lab.get("360p/17.m4s").await.0, 404, "three segments ahead");
    assert_eq!(lab.get("360p/15.m4s").await.0, 404, "after three target durations");
    assert_eq!(lab.metrics.waiting.get(), 0);
}

/// A successor's first playlist names parts that its predecessor pushed; an origin that has joined since has only their segments.
#[tokio::test]
async fn a_part_that_this_origin_never_had_is_cut_out_of_its_segment() {
    let part = |what: &str| format!("\0\0\0\u{8}moof\0\0\0{}mdat{what}", char::from(8 + u8::try_from(what.len()).unwrap()));
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    lab.store("360p/11.m4s", &(part("nought") + &part("one"))).await;
    packager.push("360p/14.m4s", &(part("new nought") + &part("new one")));
    packager.push("360p/live.m3u8", &playlist(14, 2));
    lab.eventually("360p/live.m3u8", &playlist(14, 2)).await;
    for (path, what) in [("11.0", "nought"), ("11.1", "one"), ("14.0", "new nought"), ("14.1", "new one")] {
        assert_eq!(lab.get(&format!("360p/{path}.m4s")).await, (200, part(what)), "{path}");
    }
    assert_eq!(lab.metrics.all_fetches(), 1, "the older segment, once");
    assert_eq!(lab.get("360p/14.2.m4s").await.0, 404);
}

/// What an origin says before it asks for objects: how much of it is of a predecessor's.
async fn told(connection: &mut TcpStream) -> usize {
    let (mut input, mut held) = (BytesMut::new(), 0);
    loop {
        match PushRequest::decode(&mut input).unwrap() {
            Some(PushRequest::Holds { .. }) => held += 1,
            Some(_) => return held,
            None => assert_ne!(connection.read_buf(&mut input).await.unwrap(), 0, "the origin hung up before it asked"),
        }
    }
}

#[tokio::test]
async fn a_successor_that_has_not_said_that_it_serves_is_told_again_what_there_is_and_not_for_ever() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    let mut answer = lab.client.get(lab.url("360p/13.m4s")).send().await.unwrap();
    read(&mut answer, "part nought ").await;
    packager.kill();
    let successor = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.owned_by(Some(&successor.local_addr().unwrap().to_string()), 2, false).await;
    let _asks = ask(&lab, "360p/13.m4s"); // or nobody wants the run
    let mut counts = Vec::new();
    while counts.len() < 5 {
        let (mut connection, _) = successor.accept().await.unwrap();
        counts.push(told(&mut connection).await); // and it breaks
    }
    assert!(counts[..4].iter().all(|count| *count > 0) && counts[4] == 0, "{counts:?}");
}
