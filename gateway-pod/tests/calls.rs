//! The three calls against a scripted Kubernetes API.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use cluster::{Answer, Cluster, KEY, Operator, PREFIX, VIEWING_KEY, condition};
use lectern_contract::keys::RunPrefix;
use lectern_contract::viewing::{USUAL, ViewingKey, verify};
use serde_json::{Value, json};

fn ada() -> Value {
    json!({ "userId": "ada", "name": "Algebra 1" })
}

async fn start(cluster: &Cluster, body: Value) -> Answer {
    cluster.call(Method::POST, "/v1/streams", body).await
}

async fn end(cluster: &Cluster, id: &str, body: Value) -> Answer {
    cluster.call(Method::POST, &format!("/v1/streams/{id}/end"), body).await
}

async fn watch(cluster: &Cluster, id: &str) -> Answer {
    cluster.call(Method::GET, &format!("/v1/streams/{id}/watch"), Value::Null).await
}

fn id(answer: &Answer) -> String {
    answer.body["id"].as_str().unwrap_or_else(|| panic!("no id in {} {}", answer.status, answer.body)).to_owned()
}

#[tokio::test]
async fn a_started_stream_has_an_address_a_key_and_a_player() {
    let cluster = Cluster::with(Operator::Places);
    let started = start(&cluster, ada()).await;
    assert_eq!(started.status, StatusCode::CREATED, "{}", started.body);
    let id = id(&started);
    assert!(id.starts_with("algebra-1-"), "{id}");
    assert_eq!(started.headers["location"], format!("/v1/streams/{id}/watch"));
    assert_eq!(started.headers["cache-control"], "no-store");
    assert_eq!(
        started.body,
        json!({ "id": id, "ingestUrl": "rtmp://ingest.example/live", "streamKey": "the-stream-key", "state": "waiting",
                "playerUrl": format!("https://watch.example/{id}/"), "hlsUrl": format!("https://watch.example/{id}/live.m3u8") })
    );
}

#[tokio::test]
async fn what_was_asked_for_is_in_the_live_stream_and_no_label_holds_a_name() {
    let cluster = Cluster::with(Operator::Places);
    let body =
        json!({ "userId": "ada@school.example", "name": "Algebra 1", "poolName": "gpu", "ladder": "standard", "latency": "Standard" });
    assert_eq!(start(&cluster, body).await.status, StatusCode::CREATED);
    let stream = &cluster.streams()[0];
    assert_eq!(stream["spec"]["title"], "Algebra 1");
    assert_eq!(stream["spec"]["poolName"], "gpu");
    assert_eq!(stream["spec"]["ladder"], json!({ "name": "standard" }));
    assert_eq!(stream["spec"]["latency"], "Standard");
    assert_eq!(stream["metadata"]["annotations"]["gateway.lectern.video/user-id"], "ada@school.example");
    assert!(!stream["metadata"]["labels"].to_string().contains("ada"));
}

#[tokio::test]
async fn the_addresses_of_a_signed_lecture_open_it_for_some_hours() {
    let cluster = Cluster::with(Operator::Places);
    let body = json!({ "userId": "ada", "name": "Algebra 1", "viewing": "Signed" });
    let started = start(&cluster, body).await;
    assert_eq!((started.status, &cluster.streams()[0]["spec"]["viewing"]), (StatusCode::CREATED, &json!("Signed")));
    let id = id(&started);
    cluster.change(&id, |stream| stream["status"]["playback"]["vod"] = json!("https://watch.example/vod.m3u8"));
    let watched = watch(&cluster, &id).await;
    let prefix = RunPrefix::of_key(&format!("{PREFIX}/live.m3u8")).unwrap().0;
    let now = lectern_podkit::clock::wall_now().0 / 1000;
    for url in
        [&started.body["playerUrl"], &started.body["hlsUrl"], &watched.body["playerUrl"], &watched.body["dashUrl"], &watched.body["vodUrl"]]
    {
        let (_, token) = url.as_str().unwrap().split_once("?token=").unwrap_or_else(|| panic!("{url}"));
        let until = verify([&ViewingKey::from([7; 32])], &prefix, token, now).unwrap();
        assert!((0..=60).contains(&(now + USUAL.as_secs() - until)), "until {until}");
    }
    cluster.viewing_key("c2hvcnQ=");
    let without = watch(&cluster, &id).await;
    assert_eq!((without.status, &without.body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
    cluster.viewing_key(VIEWING_KEY);
    assert_eq!(watch(&cluster, &id).await.status, StatusCode::OK);
}

#[tokio::test]
async fn no_key_is_read_for_what_everybody_may_watch() {
    let cluster = Cluster::with(Operator::Places);
    let id = id(&start(&cluster, ada()).await);
    assert_eq!(watch(&cluster, &id).await.body["playerUrl"], format!("https://watch.example/{id}/"));
    assert!(!cluster.requests().iter().any(|request| request.contains("viewing")), "{:?}", cluster.requests());
}

#[tokio::test]
async fn starting_twice_is_starting_once() {
    let cluster = Cluster::with(Operator::Places);
    let (first, second) = (start(&cluster, ada()).await, start(&cluster, ada()).await);
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.body, second.body);
    assert_eq!(cluster.streams().len(), 1);
}

#[tokio::test]
async fn two_starts_at_the_same_time_make_one_stream() {
    let cluster = Cluster::with(Operator::Places);
    let (one, other) = tokio::join!(start(&cluster, ada()), start(&cluster, ada()));
    let mut statuses = [one.status, other.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CREATED]);
    assert_eq!(id(&one), id(&other));
    let creations = cluster.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!((cluster.streams().len(), creations), (1, 2), "both must have tried, or nothing is tested");
}

#[tokio::test]
async fn other_users_and_other_names_get_streams_of_their_own() {
    let cluster = Cluster::with(Operator::Places);
    for body in [ada(), json!({ "userId": "bob", "name": "Algebra 1" }), json!({ "userId": "ada", "name": "Algebra 2" })] {
        assert_eq!(start(&cluster, body).await.status, StatusCode::CREATED);
    }
    assert_eq!(cluster.streams().len(), 3);
}

#[tokio::test]
async fn after_its_end_the_same_lecture_starts_anew() {
    let cluster = Cluster::with(Operator::Places);
    let first = id(&start(&cluster, ada()).await);
    assert_eq!(end(&cluster, &first, ada()).await.status, StatusCode::OK);
    let again = start(&cluster, ada()).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_ne!(id(&again), first);
}

#[tokio::test]
async fn an_operator_that_is_away_leaves_a_stream_to_come_back_for() {
    let cluster = Cluster::with(Operator::Sleeps);
    let pending = start(&cluster, ada()).await;
    assert_eq!(pending.status, StatusCode::ACCEPTED);
    assert_eq!(pending.body, json!({ "id": id(&pending), "state": "waiting" }));
    cluster.operator(Operator::Places);
    let later = start(&cluster, ada()).await;
    assert_eq!((later.status, id(&later)), (StatusCode::OK, id(&pending)));
    assert_eq!(later.body["streamKey"], "the-stream-key");
}

#[tokio::test]
async fn a_refused_stream_is_told_with_its_reason_and_ended() {
    let cluster = Cluster::with(Operator::Refuses);
    let refused = start(&cluster, ada()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.body["error"], json!({ "code": "refused", "message": "UnknownPool: there is no StreamPool \"x\"; make one" }));
    assert_eq!(cluster.streams()[0]["spec"]["ended"], true);
    cluster.operator(Operator::Places);
    assert_eq!(start(&cluster, ada()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_refusal_at_admission_comes_in_the_servers_own_words() {
    let cluster = Cluster::with(Operator::Places);
    cluster.refuses_creation("spec.poolName: too good to be true; choose another");
    let refused = start(&cluster, ada()).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.body["error"], json!({ "code": "inadmissible", "message": "spec.poolName: too good to be true; choose another" }));
}

#[tokio::test]
async fn ending_twice_is_ending_once() {
    let cluster = Cluster::with(Operator::Places);
    let id = id(&start(&cluster, ada()).await);
    for _ in 0..2 {
        let ended = end(&cluster, &id, ada()).await;
        assert_eq!((ended.status, ended.body), (StatusCode::OK, json!({ "id": id, "state": "ended" })));
    }
    assert_eq!(cluster.requests().iter().filter(|request| request.starts_with("PATCH")).count(), 1);
}

#[tokio::test]
async fn nobody_ends_the_stream_of_another() {
    let cluster = Cluster::with(Operator::Places);
    let id = id(&start(&cluster, ada()).await);
    for body in [json!({ "userId": "eve", "name": "Algebra 1" }), json!({ "userId": "ada", "name": "Algebra 2" })] {
        let refused = end(&cluster, &id, body).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (StatusCode::FORBIDDEN, &json!("not_your_stream")));
    }
    assert_eq!(cluster.streams()[0]["spec"]["ended"], false);
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_unknown_and_a_path_asks_the_cluster_nothing() {
    let cluster = Cluster::with(Operator::Places);
    assert_eq!(watch(&cluster, "algebra-9").await.body["error"]["code"], "unknown_stream");
    assert_eq!(end(&cluster, "algebra-9", ada()).await.status, StatusCode::NOT_FOUND);
    let before = cluster.requests().len();
    for bad in ["..%2f..%2fsecrets", "%2e%2e", "a%2fb", "A", "%ff", "a%3Fwatch=true"] {
        assert_eq!(watch(&cluster, bad).await.status, StatusCode::NOT_FOUND, "{bad}");
    }
    assert_eq!(cluster.requests().len(), before);
}

#[tokio::test]
async fn a_lecture_goes_from_waiting_over_live_and_interrupted_to_ended() {
    let cluster = Cluster::with(Operator::Places);
    let id = id(&start(&cluster, ada()).await);
    let waiting = watch(&cluster, &id).await.body;
    assert_eq!((&waiting["state"], &waiting["dashUrl"]), (&json!("waiting"), &json!(format!("https://watch.example/{id}/live.mpd"))));

    let on_air = |receiving: &str| json!([condition("Receiving", receiving, "X", ""), condition("Playable", "True", "X", "")]);
    cluster.change(&id, |stream| {
        stream["status"]["conditions"] = on_air("True");
        stream["status"]["live"] = json!({ "segment": 7, "at": "2026-01-01T00:00:14Z", "lagMillis": 120, "bitrate": 1, "transcoder": "t" });
    });
    let live = watch(&cluster, &id).await.body;
    assert_eq!(live["state"], "live");
    assert_eq!(live["liveEdge"], json!({ "segment": 7, "seenAt": "2026-01-01T00:00:14Z", "lagMillis": 120 }));

    cluster.change(&id, |stream| stream["status"]["conditions"] = on_air("False"));
    assert_eq!(watch(&cluster, &id).await.body["state"], "interrupted");

    cluster.change(&id, |stream| {
        stream["status"]["conditions"] = json!([condition("Ended", "True", "X", "")]);
        stream["status"]["playback"]["vod"] = json!("https://watch.example/vod.m3u8");
        stream["status"]["playback"]["vodDash"] = json!("https://watch.example/vod.mpd");
    });
    let ended = watch(&cluster, &id).await.body;
    assert_eq!(
        (&ended["state"], &ended["vodUrl"], ended.get("liveEdge")),
        (&json!("ended"), &json!("https://watch.example/vod.m3u8"), None)
    );
    assert_eq!(ended["vodDashUrl"], "https://watch.example/vod.mpd");
}

#[tokio::test]
async fn a_cluster_that_is_away_is_our_trouble_and_worth_another_try() {
    let cluster = Cluster::with(Operator::Places);
    cluster.away();
    let (started, watched) = tokio::join!(start(&cluster, ada()), watch(&cluster, "algebra-1"));
    for answer in [started, watched] {
        assert_eq!((answer.status, &answer.body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
        assert_eq!(answer.headers["retry-after"], "2");
        assert!(!answer.body.to_string().contains("etcd"), "the cluster's inside is nobody's business: {}", answer.body);
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_told_and_nothing_asked() {
    let cluster = Cluster::with(Operator::Places);
    for value in [
        None,
        Some("Bearer wrong-key-of-more-than-20-characters".to_owned()),
        Some(format!("Basic {KEY}")),
        Some("Bearer".into()),
        Some(String::new()),
    ] {
        for path in ["/v1/streams", "/v1/streams/algebra-1/end", "/nowhere"] {
            let mut request = Request::builder().method(Method::POST).uri(path);
            if let Some(value) = &value {
                request = request.header("authorization", value);
            }
            let answer = cluster.raw(request.body(Body::from(ada().to_string())).unwrap()).await;
            assert_eq!(
                (answer.status, &answer.body["error"]["code"]),
                (StatusCode::UNAUTHORIZED, &json!("unauthorized")),
                "{value:?} {path}"
            );
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
    assert!(cluster.requests().is_empty());
}

#[tokio::test]
async fn the_scheme_may_be_written_in_any_case() {
    let cluster = Cluster::with(Operator::Places);
    let request = Request::builder().uri("/v1/streams/algebra-1/watch").header("authorization", format!("bearer {KEY}"));
    assert_eq!(cluster.raw(request.body(Body::empty()).unwrap()).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_mistake_is_answered_in_json() {
    let cluster = Cluster::with(Operator::Places);
    let large = json!({ "userId": "ada", "name": "x".repeat(17_000) });
    for (method, path, body, status, code) in [
        (Method::GET, "/", Value::Null, 404, "no_such_path"),
        (Method::GET, "/v1/streams", Value::Null, 405, "method_not_allowed"),
        (Method::DELETE, "/v1/streams/a/watch", Value::Null, 405, "method_not_allowed"),
        (Method::POST, "/v1/streams", Value::Null, 400, "bad_request"),
        (Method::POST, "/v1/streams", json!([]), 400, "bad_request"),
        (Method::POST, "/v1/streams", json!({ "userId": "ada" }), 400, "bad_request"),
        (Method::POST, "/v1/streams", large, 413, "body_too_large"),
        (Method::POST, "/v1/streams/a/end", json!({ "userId": "ada", "name": "a", "more": 1 }), 400, "bad_request"),
    ] {
        let answer = cluster.call(method.clone(), path, body).await;
        assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (status, &json!(code)), "{method} {path}");
        assert!(!answer.body["error"]["message"].as_str().unwrap().is_empty());
    }
    assert!(cluster.requests().is_empty());
}
