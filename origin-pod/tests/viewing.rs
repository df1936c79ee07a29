//! A lecture that only those can watch who have a link.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Lab, Packager, key, prefix_of, waiting};
use lectern_contract::keys::RunPrefix;
use lectern_contract::viewing::{ViewingKey, sign};
use lectern_origin_pod::metrics::{Metrics, RefusalLabels, Why};
use lectern_origin_pod::viewing::now;
use reqwest::Response;

const PLAYLIST: &str = "#EXTM3U\n360p/vod.m3u8\n";
const LIVE: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.0\n#EXTINF:2,\n1.m4s\n";
const PAGE: &str = "https://school.example";

fn signed() -> RunPrefix {
    prefix_of("algebra", "s-r1")
}

/// A link's token: for an hour, unless it has run out.
fn token(prefix: &RunPrefix) -> String {
    sign(&key(), prefix, now() + 3600)
}

fn refused(metrics: &Metrics, reason: Why) -> u64 {
    metrics.refusals.get_or_create(&RefusalLabels { reason }).get()
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

/// What a browser would send back to the lecture's objects and to its page.
fn cookies(answer: &Response) -> Vec<String> {
    let all = answer.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    all.map(|text| text.split(';').next().unwrap().to_owned()).collect()
}

async fn get(lab: &Lab, url: String, cookie: Option<&str>) -> Response {
    let request = lab.client.get(url).header("origin", PAGE);
    cookie.into_iter().fold(request, |request, cookie| request.header("cookie", cookie)).send().await.unwrap()
}

/// A recording of a run that this origin has never heard of, years later: all that is left is what lies in S3.
#[tokio::test]
async fn a_recording_is_watched_by_who_has_a_link_and_s3_is_not_asked_for_anybody_else() {
    let lab = Lab::start_for(signed()).await;
    for (path, body) in [("vod.m3u8", PLAYLIST), ("360p/vod.m3u8", "#EXTM3U\n7.m4s\n"), ("360p/7.m4s", "segment seven")] {
        lab.store(path, body).await;
    }
    let (expired, foreign) = (sign(&key(), &signed(), now() - 1), token(&prefix_of("geometry", "s-r1")));
    let unknown = sign(&ViewingKey::from([9; 32]), &signed(), now() + 3600);
    for path in
        ["vod.m3u8", "360p/vod.m3u8", "live.m3u8", "live.mpd", "vod.mpd", "360p/7.m4s", "360p/init-0.mp4", "360p/7.1.m4s", "captions/7.vtt"]
    {
        for (query, said) in [
            (String::new(), "no token"),
            ("?token=x".into(), "cut short"),
            (format!("?token={expired}"), "run out at 20"),
            (format!("?token={foreign}"), "not for this lecture"),
            (format!("?token={unknown}"), "not for this lecture"),
        ] {
            let answer = get(&lab, lab.url(path) + &query, None).await;
            assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (403, Some("no-store")), "{path}{query}");
            assert_eq!(header(&answer, "access-control-allow-origin"), Some(PAGE), "the school's page may read why");
            assert!(cookies(&answer).is_empty());
            let text = answer.text().await.unwrap();
            assert!(text.contains(said) && !text.contains('\n'), "{path}{query}: {text}");
        }
        assert_eq!(get(&lab, lab.url(path), Some(&format!("lectern-view={expired}"))).await.status(), 403, "{path}");
    }
    assert_eq!(lab.metrics.all_fetches(), 0, "nothing is looked up for who may not watch");
    let by = |why| refused(&lab.metrics, why);
    assert_eq!((by(Why::NoToken), by(Why::Malformed), by(Why::Expired), by(Why::Foreign)), (9, 9, 18, 18));
    assert_eq!(lab.metrics.runs.get(), 0, "and no run is followed");

    let answer = get(&lab, format!("{}?token={}", lab.url("vod.m3u8"), token(&signed())), None).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, Some("private, max-age=5")));
    let [objects, page] = cookies(&answer).try_into().unwrap();
    assert_eq!((objects == page, answer.text().await.unwrap().as_str()), (true, PLAYLIST));
    for (path, cache) in [("360p/vod.m3u8", "private, max-age=5"), ("360p/7.m4s", "private, max-age=3600, immutable")] {
        let answer = get(&lab, lab.url(path), Some(&format!("theme=dark; {objects}"))).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, Some(cache)), "by the cookie alone");
        assert!(cookies(&answer).is_empty());
    }
    assert_eq!(get(&lab, lab.at(&format!("/{}/vod.m3u8", prefix_of("geometry", "s-r1"))), Some(&objects)).await.status(), 403);
    let answer = lab.client.get(lab.url("360p/7.m4s")).header("cookie", &objects).header("range", "bytes=8-").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (206, "seven"));
}

#[tokio::test]
async fn a_live_lecture_at_low_latency_goes_on_by_the_cookie() {
    let lab = Lab::start_for(signed()).await;
    let packager = Packager::start_of(signed().run(), 1).await;
    packager.push("360p/1.m4s", "segment one");
    packager.push("360p/live.m3u8", LIVE);
    packager.push("live.m3u8", "#EXTM3U\n360p/live.m3u8\n");
    lab.owned_by(Some(&packager.address), 1, false).await;
    let answer = get(&lab, format!("{}?token={}", lab.url("live.m3u8"), token(&signed())), None).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, Some("private, max-age=1")));
    let cookie = cookies(&answer).swap_remove(0);
    assert_eq!(get(&lab, lab.url("360p/live.m3u8?_HLS_msn=2&_HLS_part=0"), None).await.status(), 403, "nobody is held who may not watch");
    let url = lab.url("360p/live.m3u8?_HLS_msn=2&_HLS_part=0");
    let held = async { get(&lab, url, Some(&cookie)).await };
    let pushed = async {
        waiting(&lab, 1).await;
        packager.push("360p/2.0.m4s", "part");
        packager.push("360p/live.m3u8", &format!("{LIVE}#EXT-X-PART:DURATION=0.3,URI=\"2.0.m4s\"\n"));
    };
    let (answer, ()) = tokio::join!(held, pushed);
    assert!(answer.status() == 200 && answer.text().await.unwrap().contains("2.0.m4s"));
    let part = get(&lab, lab.url("360p/2.0.m4s"), Some(&cookie)).await;
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (200, "part"));
    assert_eq!(get(&lab, lab.url("360p/2.0.m4s"), None).await.status(), 403);
    assert_eq!(lab.metrics.all_fetches(), 0);
}

#[tokio::test]
async fn the_page_is_shown_to_guests_and_other_sites_are_told_who_may_read() {
    let lab = Lab::start_for(signed()).await;
    let page = lab.at(&format!("/watch/{}", signed()));
    let answer = get(&lab, page.clone(), None).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (403, Some("no-store")));
    assert!(answer.text().await.unwrap().ends_with("no token with the request\n"));
    let answer = get(&lab, format!("{page}?token={}", token(&signed())), None).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "cache-control")), (200, Some("private, no-cache")));
    let set: Vec<_> = answer.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(set.len() == 2 && set[0].contains(&format!("; Path=/{}; Max-Age=3", signed())), "{set:?}");
    assert!(set[1].contains(&format!("; Path=/watch/{}; Max-Age=3", signed())), "{set:?}");
    assert_eq!(get(&lab, page, Some(&cookies(&answer)[1])).await.status(), 200, "when it is loaded again");
    assert_eq!(get(&lab, lab.at(&format!("/watch/{}", prefix_of("algebra", "r1"))), None).await.status(), 200, "what is public stays so");

    let preflight = lab.client.request(reqwest::Method::OPTIONS, lab.url("live.m3u8"));
    let answer = preflight.header("origin", PAGE).header("access-control-request-method", "GET").send().await.unwrap();
    let said = |answer: &Response| {
        ["access-control-allow-origin", "access-control-allow-credentials", "vary"].map(|name| header(answer, name).map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        (answer.status().as_u16(), said(&answer)),
        (204, [some(PAGE), some("true"), some("origin")]),
        "a browser asks without cookies"
    );
    let sandbox = lab.client.get(lab.url("live.m3u8")).header("origin", "null").send().await.unwrap();
    assert_eq!(said(&sandbox), [None, None, some("origin")]);
    let public = lab.at(&format!("/{}/live.m3u8", prefix_of("algebra", "r1")));
    assert_eq!(said(&get(&lab, public, None).await), [some("*"), None, None]);
}
