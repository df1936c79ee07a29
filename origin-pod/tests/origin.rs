//! The origin between a packager, an S3 and players.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Lab, Packager, prefix};
use std::time::{Duration, Instant};

const ONE: &str = "#EXTM3U\n#EXTINF:2,\n1.m4s\n";
const TWO: &str = "#EXTM3U\n#EXTINF:2,\n1.m4s\n#EXTINF:2,\n2.m4s\n";
const FINAL: &str = "#EXTM3U\n#EXTINF:2,\n1.m4s\n#EXTINF:2,\n2.m4s\n#EXT-X-ENDLIST\n";

/// What the origin looks at in an MPD.
fn mpd(kind: &str, newest: u64) -> String {
    format!(
        "<MPD type=\"{kind}\"><SegmentTemplate startNumber=\"{newest}\"><SegmentTimeline><S t=\"0\" d=\"2\"/></SegmentTimeline></MPD>\n"
    )
}

async fn lecture(lab: &Lab) -> Packager {
    let packager = Packager::start().await;
    packager.push("360p/init-0.mp4", "ftyp");
    packager.push("360p/1.m4s", "segment one");
    packager.push("360p/live.m3u8", ONE);
    packager.push("live.m3u8", "#EXTM3U\n360p/live.m3u8\n");
    packager.push("live.mpd", &mpd("dynamic", 1));
    lab.owned_by(Some(&packager.address), 1, false).await;
    packager
}

#[tokio::test]
async fn what_is_pushed_is_served_from_memory_and_s3_is_not_asked() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    assert_eq!(lab.get("live.m3u8").await, (200, "#EXTM3U\n360p/live.m3u8\n".into()), "the first request waits for the first objects");
    assert_eq!(lab.get("360p/1.m4s").await, (200, "segment one".into()));
    assert_eq!(lab.get("360p/live.m3u8").await, (200, ONE.into()));
    packager.push("360p/2.m4s", "segment two");
    packager.push("360p/live.m3u8", TWO);
    lab.eventually("360p/live.m3u8", TWO).await;
    assert_eq!(lab.get("360p/2.m4s").await, (200, "segment two".into()), "a playlist never runs ahead of its segments");
    assert_eq!(lab.metrics.all_fetches(), 0);
    assert_eq!(lab.metrics.subscribed.get(), 1);
}

#[tokio::test]
async fn headers_say_what_it_is_and_how_long_it_keeps() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    for (path, media_type, cache) in [
        ("live.m3u8", "application/vnd.apple.mpegurl", "public, max-age=1"),
        ("live.mpd", "application/dash+xml", "public, max-age=1"),
        ("360p/init-0.mp4", "video/mp4", "public, max-age=1209600, immutable"),
        ("360p/1.m4s", "video/mp4", "public, max-age=1209600, immutable"),
    ] {
        for method in [reqwest::Method::GET, reqwest::Method::HEAD] {
            let answer = lab.client.request(method.clone(), lab.url(path)).send().await.unwrap();
            let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!((header("content-type"), header("cache-control")), (media_type.into(), cache.into()), "{method} {path}");
            assert_eq!(header("access-control-allow-origin"), "*");
            assert_ne!(header("content-length"), "0", "{method} {path}");
            assert_eq!(answer.bytes().await.unwrap().is_empty(), method == reqwest::Method::HEAD);
        }
    }
}

#[tokio::test]
async fn an_mpd_is_served_as_it_is_pushed_and_never_goes_back() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    assert_eq!(lab.get("live.mpd").await, (200, mpd("dynamic", 1)));
    packager.push("live.mpd", &mpd("dynamic", 3));
    lab.eventually("live.mpd", &mpd("dynamic", 3)).await;
    packager.push("live.mpd", &mpd("dynamic", 2)); // a successor's first
    packager.push("360p/live.m3u8", TWO);
    lab.eventually("360p/live.m3u8", TWO).await;
    assert_eq!(lab.get("live.mpd").await, (200, mpd("dynamic", 3)));
    packager.push("live.mpd", &mpd("static", 3));
    lab.eventually("live.mpd", &mpd("static", 3)).await;
    // Players take their clock from the `Date` of the object, also on a page of another host (UTCTiming in the MPD).
    let answer = lab.client.head(lab.url("live.mpd")).send().await.unwrap();
    assert!(answer.headers().contains_key("date"));
    assert!(answer.headers()["access-control-expose-headers"].to_str().unwrap().contains("date"));
    assert_eq!(lab.metrics.all_fetches(), 0);
}

#[tokio::test]
async fn a_part_of_a_segment_can_be_asked_for() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    let ask = async |range: &str| {
        let answer = lab.client.get(lab.url("360p/1.m4s")).header("range", range).send().await.unwrap();
        let shown = answer.headers().get("content-range").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), shown, answer.text().await.unwrap())
    };
    assert_eq!(ask("bytes=0-6").await, (206, Some("bytes 0-6/11".into()), "segment".into()));
    assert_eq!(ask("bytes=-3").await, (206, Some("bytes 8-10/11".into()), "one".into()));
    assert_eq!(ask("bytes=11-").await, (416, Some("bytes */11".into()), String::new()));
    assert_eq!(ask("bytes=0-1,3-4").await, (200, None, "segment one".into()));
}

#[tokio::test]
async fn fifty_players_that_ask_at_once_make_one_request_to_s3() {
    let lab = Lab::start().await;
    lab.owned_by(None, 1, true).await;
    lab.store("360p/7.m4s", "segment seven").await;
    let asks: Vec<_> = (0..50).map(|_| tokio::spawn(lab.client.get(lab.url("360p/7.m4s")).send())).collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap().unwrap().text().await.unwrap(), "segment seven");
    }
    assert_eq!(lab.metrics.all_fetches(), 1);
    assert_eq!(lab.get("360p/7.m4s").await.0, 200);
    assert_eq!(lab.metrics.all_fetches(), 1, "and it stays at hand");
}

#[tokio::test]
async fn fifty_players_make_one_subscription() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    let asks: Vec<_> = (0..50).map(|_| tokio::spawn(lab.client.get(lab.url("live.m3u8")).send())).collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((lab.metrics.subscribed.get(), lab.metrics.subscriptions.get(), lab.metrics.all_fetches()), (1, 1, 0));
}

#[tokio::test]
async fn what_was_not_pushed_comes_from_s3() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    lab.store("360p/0.m4s", "segment nought").await;
    lab.store("vod.m3u8", FINAL).await;
    assert_eq!(lab.get("360p/0.m4s").await, (200, "segment nought".into()));
    assert_eq!(lab.get("vod.m3u8").await, (200, FINAL.into()));
}

/// Nobody holds half an hour in memory: what a playlist names and was not pushed is in S3.
#[tokio::test]
async fn the_far_end_of_a_long_window_comes_from_s3_and_the_near_end_from_memory() {
    let lab = Lab::start().await;
    let playlist = (1..=900).fold(String::from("#EXTM3U\n"), |text, number| format!("{text}#EXTINF:2.00000,\n{number}.m4s\n"));
    lab.store("360p/1.m4s", "the beginning").await;
    let packager = Packager::start().await;
    packager.push("360p/900.m4s", "the end");
    packager.push("360p/live.m3u8", &playlist);
    lab.owned_by(Some(&packager.address), 1, false).await;
    assert_eq!(lab.get("360p/live.m3u8").await, (200, playlist));
    assert_eq!(lab.get("360p/900.m4s").await, (200, "the end".into()));
    assert_eq!(lab.metrics.all_fetches(), 0);
    for _ in 0..2 {
        assert_eq!(lab.get("360p/1.m4s").await, (200, "the beginning".into()));
    }
    assert_eq!(lab.metrics.all_fetches(), 1, "and from memory who comes next");
}

#[tokio::test]
async fn a_lecture_that_has_not_begun_is_a_404_that_no_cache_keeps() {
    let lab = Lab::start().await;
    let answer = lab.client.get(lab.url("live.m3u8")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["cache-control"].to_str().unwrap()), (404, "no-store"));
    assert!(answer.text().await.unwrap().contains("has not begun"));
    let _packager = lecture(&lab).await;
    lab.eventually("live.m3u8", "#EXTM3U\n360p/live.m3u8\n").await;
}

#[tokio::test]
async fn private_objects_and_paths_that_climb_are_refused() {
    let lab = Lab::start().await;
    let _packager = lecture(&lab).await;
    lab.store("ended.json", "{}").await;
    lab.store("ledger/0.ledger.json", "{}").await;
    lab.store("original/1.mp4", "secret").await;
    for path in
        ["head.json", "ended.json", "ledger/0.ledger.json", "original/1.mp4", "360p/%2e%2e/head.json", "360p//1.m4s", "360p/1.m4s%00"]
    {
        let (status, body) = lab.get(path).await;
        assert_eq!(status, 404, "{path}: {body}");
    }
    // reqwest tidies `..` away before it asks, so this one is written by hand.
    let raw = raw_get(&lab, &format!("/{}/360p/../head.json", prefix())).await;
    assert!(raw.starts_with("HTTP/1.1 404"), "{raw}");
    assert_eq!(lab.client.post(lab.url("live.m3u8")).send().await.unwrap().status(), 405);
}

async fn raw_get(lab: &Lab, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(lab.at("").trim_start_matches("http://")).await.unwrap();
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_packager_that_dies_is_replaced_by_whom_the_head_names_then() {
    let lab = Lab::start().await;
    let first = lecture(&lab).await;
    lab.eventually("360p/live.m3u8", ONE).await;
    first.kill();
    assert_eq!(lab.get("360p/live.m3u8").await, (200, ONE.into()), "players are served on");

    let second = Packager::start_under(2).await;
    second.push("360p/2.m4s", "segment two");
    second.push("360p/live.m3u8", TWO);
    lab.owned_by(Some(&second.address), 2, false).await;
    let since = Instant::now();
    lab.eventually("360p/live.m3u8", TWO).await;
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?}", since.elapsed());
    assert_eq!(lab.get("360p/2.m4s").await, (200, "segment two".into()));
    assert_eq!(lab.get("360p/1.m4s").await, (200, "segment one".into()), "the first one's segments are still there");
    assert_eq!(lab.metrics.subscribed.get(), 2);
}

/// Its connection stands, and nothing comes of it.
#[tokio::test]
async fn a_packager_that_is_frozen_is_left_for_its_successor() {
    let lab = Lab::start().await;
    let _frozen = lecture(&lab).await;
    lab.eventually("360p/live.m3u8", ONE).await;
    let second = Packager::start_under(2).await;
    second.push("360p/live.m3u8", TWO);
    lab.owned_by(Some(&second.address), 2, false).await;
    lab.eventually("360p/live.m3u8", TWO).await;
    assert_eq!(lab.get("360p/1.m4s").await, (200, "segment one".into()));
}

#[tokio::test]
async fn who_pushes_under_an_older_epoch_is_not_listened_to() {
    is_not_listened_to(Packager::start_under(1).await).await;
}

#[tokio::test]
async fn who_pushes_without_a_word_of_its_epoch_is_not_listened_to() {
    is_not_listened_to(Packager::start_unannounced().await).await;
}

async fn is_not_listened_to(stale: Packager) {
    let lab = Lab::start().await;
    let owner = Packager::start_under(2).await;
    owner.push("360p/live.m3u8", "of the owner");
    lab.owned_by(Some(&owner.address), 2, false).await;
    lab.eventually("360p/live.m3u8", "of the owner").await;
    stale.push("360p/live.m3u8", "of one that was frozen");
    lab.owned_by(Some(&stale.address), 2, false).await; // its address was given to another since
    owner.kill();
    let asked = lab.metrics.subscribed.get();
    while lab.metrics.subscribed.get() < asked + 3 {
        assert_eq!(lab.get("360p/live.m3u8").await, (200, "of the owner".into()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let successor = Packager::start_under(3).await;
    successor.push("360p/live.m3u8", "of its successor");
    lab.owned_by(Some(&successor.address), 3, false).await;
    lab.eventually("360p/live.m3u8", "of its successor").await;
}

#[tokio::test]
async fn an_ended_run_stays_final() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    lab.eventually("360p/live.m3u8", ONE).await;
    packager.push("360p/live.m3u8", FINAL);
    packager.end();
    lab.eventually("360p/live.m3u8", FINAL).await;
    packager.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lab.get("360p/live.m3u8").await, (200, FINAL.into()));
    assert_eq!(lab.metrics.subscribed.get(), 1, "nobody is looked for any more");
}

#[tokio::test]
async fn an_end_that_was_missed_is_found_in_s3() {
    let lab = Lab::start().await;
    let packager = lecture(&lab).await;
    lab.eventually("360p/live.m3u8", ONE).await;
    lab.store("360p/live.m3u8", FINAL).await;
    lab.owned_by(None, 1, true).await;
    packager.kill();
    lab.eventually("360p/live.m3u8", FINAL).await;
}

#[tokio::test]
async fn without_s3_memory_is_served_and_all_else_is_a_503() {
    let mut lab = Lab::start().await;
    let packager = lecture(&lab).await;
    lab.eventually("360p/live.m3u8", ONE).await;
    lab.backend.kill();
    packager.push("360p/2.m4s", "segment two");
    packager.push("360p/live.m3u8", TWO);
    lab.eventually("360p/live.m3u8", TWO).await;
    assert_eq!(lab.get("360p/2.m4s").await, (200, "segment two".into()));
    let answer = lab.client.get(lab.url("360p/0.m4s")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    lab.backend.restart().await.unwrap();
    lab.store("360p/0.m4s", "segment nought").await;
    lab.eventually("360p/0.m4s", "segment nought").await;
}

#[tokio::test]
async fn the_player_page_is_there_for_what_can_be_a_run() {
    let lab = Lab::start().await;
    let get = async |path: String| {
        let answer = lab.client.get(lab.at(&path)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, page) = get(format!("/watch/{}", prefix())).await;
    assert_eq!(status, 200);
    assert!(!page.contains("://"), "nothing on the page comes from elsewhere");
    for file in ["/player/player.js", "/player/player.css", "/"] {
        assert_eq!(get(file.into()).await.0, 200, "{file}");
    }
    assert_eq!(get("/watch/zz/a/b/c".into()).await.0, 404);
    assert_eq!(get("/player/hls.min.js".into()).await.0, 404, "the folder of this test has none");
}
