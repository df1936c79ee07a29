//! What Lectern asks of an S3, put to every S3 that it is tested with: the same sentences, two servers.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lectern_cloud::testing::Backend;
use lectern_cloud::{BucketAt, Etag, FailureKind, Keys, Objects, Precondition, PutIfError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

lectern_cloud::on_every_server! {
    what_was_put_is_read_back_with_its_media_type,
    a_missing_object_is_none_and_a_missing_bucket_an_error,
    exactly_one_of_many_creators_wins,
    exactly_one_of_many_successors_wins,
    a_stale_version_conflicts_and_changes_nothing,
    a_version_to_match_that_was_deleted_conflicts,
    what_is_noted_of_an_object_is_read_back_with_it,
    more_than_a_thousand_objects_are_listed_and_deleted,
    a_server_that_dies_is_unreachable_until_it_is_back,
    wrong_keys_are_told_from_a_dead_server,
}

async fn bucket(backend: &Backend) -> Objects {
    backend.objects("lectures").await.unwrap()
}

fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

async fn text(objects: &Objects, key: &str) -> String {
    String::from_utf8(objects.get(key).await.unwrap().unwrap().body.to_vec()).unwrap()
}

async fn what_was_put_is_read_back_with_its_media_type(backend: Backend) {
    let objects = bucket(&backend).await;
    objects.put("0a/s/a/r/live.m3u8", bytes("#EXTM3U")).await.unwrap();
    objects.put("0a/s/a/r/live.m3u8", bytes("#EXTM3U again")).await.unwrap();
    let object = objects.get("0a/s/a/r/live.m3u8").await.unwrap().unwrap();
    assert_eq!(object.body, "#EXTM3U again");
    assert_eq!(object.content_type, "application/vnd.apple.mpegurl");
}

async fn a_missing_object_is_none_and_a_missing_bucket_an_error(backend: Backend) {
    let objects = bucket(&backend).await;
    assert_eq!(objects.get("0a/s/a/r/nothing.m4s").await.unwrap(), None);
    let elsewhere = Objects::connect_with(&backend.bucket_at("nobodys-bucket"), &backend.keys()).await;
    assert_eq!(elsewhere.ensure_bucket(false).await.unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(elsewhere.get("key").await.unwrap_err().kind, FailureKind::NotFound);
}

/// The winner's number and version.
async fn race(objects: &Objects, key: &str, condition: &Precondition) -> (usize, Etag) {
    let writers: Vec<_> = (0..12)
        .map(|n| {
            let (objects, key, condition) = (objects.clone(), key.to_owned(), condition.clone());
            tokio::spawn(async move { objects.put_if(&key, bytes(format!("writer {n} after {condition:?}")), condition).await })
        })
        .collect();
    let mut won = Vec::new();
    for (n, writer) in writers.into_iter().enumerate() {
        match writer.await.unwrap() {
            Ok(etag) => won.push((n, etag)),
            Err(PutIfError::Conflict { .. }) => {}
            Err(PutIfError::Storage(error)) => panic!("writer {n}: {error}"),
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    won.remove(0)
}

async fn exactly_one_of_many_creators_wins(backend: Backend) {
    let objects = bucket(&backend).await;
    for round in 0..5 {
        let key = format!("0a/s/a/r{round}/head.json");
        let (winner, etag) = race(&objects, &key, &Precondition::Absent).await;
        let there = objects.get(&key).await.unwrap().unwrap();
        assert_eq!((there.body, there.etag), (bytes(format!("writer {winner} after Absent")), etag));
    }
}

async fn exactly_one_of_many_successors_wins(backend: Backend) {
    let objects = bucket(&backend).await;
    let mut etag = objects.put_if("head.json", bytes("first"), Precondition::Absent).await.unwrap();
    for _ in 0..5 {
        (_, etag) = race(&objects, "head.json", &Precondition::Matches(etag)).await;
    }
}

async fn a_stale_version_conflicts_and_changes_nothing(backend: Backend) {
    let objects = bucket(&backend).await;
    let old = objects.put_if("head.json", bytes("one"), Precondition::Absent).await.unwrap();
    let new = objects.put_if("head.json", bytes("two"), Precondition::Matches(old.clone())).await.unwrap();
    assert_ne!(old, new);
    let stale = objects.put_if("head.json", bytes("three"), Precondition::Matches(old)).await;
    assert!(matches!(stale, Err(PutIfError::Conflict { .. })), "{stale:?}");
    assert_eq!(text(&objects, "head.json").await, "two");
    objects.put_if("head.json", bytes("four"), Precondition::Matches(new)).await.unwrap();
}

async fn a_version_to_match_that_was_deleted_conflicts(backend: Backend) {
    let objects = bucket(&backend).await;
    let etag = objects.put_if("run/head.json", bytes("one"), Precondition::Absent).await.unwrap();
    objects.delete_prefix("run/").await.unwrap();
    let late = objects.put_if("run/head.json", bytes("two"), Precondition::Matches(etag)).await;
    assert!(matches!(late, Err(PutIfError::Conflict { .. })), "{late:?}");
}

async fn what_is_noted_of_an_object_is_read_back_with_it(backend: Backend) {
    let objects = bucket(&backend).await;
    let note = r#"{"number":29,"duration":360000,"init":1}"#;
    objects.put_new("run/29.m4s", bytes("media"), Some(note)).await.unwrap();
    let late = objects.put_new("run/29.m4s", bytes("other media"), Some("another")).await;
    assert!(matches!(late, Err(PutIfError::Conflict { .. })), "{late:?}");
    let there = objects.get("run/29.m4s").await.unwrap().unwrap();
    assert_eq!((there.body, there.note.as_deref()), (bytes("media"), Some(note)));
    objects.put_new("run/init-1.mp4", bytes("moov"), None).await.unwrap();
    assert_eq!(objects.get("run/init-1.mp4").await.unwrap().unwrap().note, None);
}

async fn more_than_a_thousand_objects_are_listed_and_deleted(backend: Backend) {
    let objects = bucket(&backend).await;
    let keys: Vec<_> = (0..1_050).map(|n| format!("run/360p/{n}.m4s")).collect();
    for some in keys.chunks(50) {
        futures_of(some, &objects).await;
    }
    objects.put("other/kept", bytes("x")).await.unwrap();
    let mut wanted = keys.clone();
    wanted.sort();
    let mut found = objects.list("run/").await.unwrap();
    found.sort();
    assert_eq!(found, wanted);
    assert_eq!(objects.delete_prefix("run/").await.unwrap(), 1_050);
    assert_eq!(objects.list("").await.unwrap(), ["other/kept"]);
    assert!(objects.delete_prefix("").await.is_err(), "an empty prefix is a whole bucket");
}

async fn futures_of(keys: &[String], objects: &Objects) {
    let writes: Vec<_> = keys
        .iter()
        .map(|key| {
            let (objects, key) = (objects.clone(), key.clone());
            tokio::spawn(async move { objects.put(&key, bytes("moof")).await })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
}

async fn a_server_that_dies_is_unreachable_until_it_is_back(mut backend: Backend) {
    let objects = bucket(&backend).await;
    objects.put("key", bytes("kept")).await.unwrap();
    backend.kill();
    let since = Instant::now();
    let error = objects.get("key").await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Unreachable, "{error}");
    assert_eq!(objects.put("key", bytes("lost")).await.unwrap_err().kind, FailureKind::Unreachable);
    let conditional = objects.put_if("key", bytes("lost"), Precondition::Absent).await;
    assert!(matches!(conditional, Err(PutIfError::Storage(ref error)) if error.is_transient()), "{conditional:?}");
    assert!(since.elapsed() < Duration::from_secs(15), "it took {:?} to say so", since.elapsed());

    backend.restart().await.unwrap();
    let objects = bucket(&backend).await; // waits until all of the server is there
    assert_eq!(text(&objects, "key").await, "kept");
    objects.put("key", bytes("new")).await.unwrap();
}

async fn wrong_keys_are_told_from_a_dead_server(backend: Backend) {
    drop(bucket(&backend).await);
    let mut keys = backend.keys();
    keys.secret = "wrong".into();
    let stranger = Objects::connect_with(&backend.bucket_at("lectures"), &keys).await;
    match stranger.put("key", bytes("x")).await {
        Err(error) => assert_eq!(error.kind, FailureKind::Denied, "{error}"),
        Ok(()) => assert!(backend.is_open_to_all(), "a wrong secret was taken"),
    }
}

/// Answers one request after the other with 404 and these bodies, each on a connection of its own.
async fn answers_404(server: TcpListener, bodies: &[&str]) {
    for body in bodies {
        let (connection, _) = server.accept().await.unwrap();
        let (mut connection, mut line, mut sent) = (BufReader::new(connection), String::new(), 0);
        while connection.read_line(&mut line).await.unwrap() > 2 {
            let length = line.to_ascii_lowercase().strip_prefix("content-length:").and_then(|length| length.trim().parse().ok());
            sent = length.unwrap_or(sent);
            line.clear();
        }
        connection.read_exact(&mut vec![0; sent]).await.unwrap();
        let answer = format!("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        connection.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// An ingress that has lost its backend for a moment says 404, too. Who takes that for "there is no head" gives up a run that it owns.
#[tokio::test]
async fn a_404_that_is_not_s3_s_word_is_asked_again() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = BucketAt::new("lectures", "eu-central-1", Some(format!("http://{}", server.local_addr().unwrap())));
    let objects = Objects::connect_with(&at, &Keys { id: "id".into(), secret: "secret".into() }).await;
    let none = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>";
    // What was answered so may have been done: whose the bytes are is looked at before there is a conflict.
    let answers = ["", "default backend - 404", none, "<html>404</html>", none, none];
    let asks = async {
        assert_eq!(objects.get("key").await.unwrap(), None);
        let written = objects.put_if("key", bytes("mine"), Precondition::Matches(Etag("\"version\"".into()))).await;
        assert!(matches!(written, Err(PutIfError::Conflict { .. })), "{written:?}");
    };
    tokio::join!(answers_404(server, &answers), asks); // all of them are asked for
}
