//! Answers that are lost or late: a writer's own write is told from another's, and a busy owner from a dead one.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::{Bytes, BytesMut};
use common::claim::{claim, job, try_to_claim};
use common::way::Way;
use lectern_cloud::testing::Backend;
use lectern_cloud::{BucketAt, Objects, Precondition, PutIfError};
use lectern_contract::job::LiveJob;
use lectern_contract::push::PushFrame;
use lectern_contract::{Epoch, SegmentNumber, Ticks};
use lectern_transcoder_pod::head::{Claim, HeadError};
use serde_json::json;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// A bucket, and the same by a way that can lose answers.
async fn bucket() -> (Backend, Objects, Objects, Way) {
    let backend = Backend::ministack().await.unwrap();
    let way = Way::to(backend.port(), "PUT").await;
    let at = backend.bucket_at("lectures");
    let by_the_way = BucketAt::new(at.name, at.region, Some(way.endpoint.clone()));
    let objects = backend.objects("lectures").await.unwrap();
    let through = Objects::connect_with(&by_the_way, &backend.keys()).await;
    (backend, objects, through, way)
}

#[tokio::test]
async fn a_write_that_was_carried_out_unheard_is_ones_own_and_one_before_it_is_not() {
    let (_backend, objects, through, way) = bucket().await;
    let put =
        async |body: &'static str| through.put_if("0a/s/a/r/head.json", Bytes::from_static(body.as_bytes()), Precondition::Absent).await;
    way.loses_answers(1);
    let etag = put("mine").await.unwrap();
    let there = objects.get("0a/s/a/r/head.json").await.unwrap().unwrap();
    assert_eq!((&there.body[..], &there.etag), (&b"mine"[..], &etag));
    assert_eq!(way.answers_to_lose(), 0);

    way.loses_answers(1);
    let taken = put("yours").await.unwrap_err();
    assert!(matches!(taken, PutIfError::Conflict { .. }), "{taken}");
    assert_eq!(&objects.get("0a/s/a/r/head.json").await.unwrap().unwrap().body[..], b"mine");
    assert_eq!(way.answers_to_lose(), 0);
}

#[tokio::test]
async fn a_head_that_was_moved_unheard_is_moved_on_and_one_that_another_has_taken_is_lost() {
    let (_backend, objects, through, way) = bucket().await;
    let job = job(&json!({ "video": [], "audio": [] }));
    let mut ours = claim(&through, &job, "pod-a/1").await;
    way.loses_answers(100);
    let unheard = ours.change(|head| head.next_segment = SegmentNumber(7)).await.unwrap_err();
    assert!(matches!(unheard, HeadError::Storage(_)), "{unheard}");
    assert_eq!(ours.head().next_segment, SegmentNumber(0), "nobody has said that it was carried out, and it was");
    way.loses_answers(0);
    ours.change(|head| head.shift = Ticks(90_000)).await.unwrap();
    assert_eq!((ours.head().next_segment, ours.head().shift), (SegmentNumber(7), Ticks(90_000)), "it goes on from there");
    ours.change(|head| head.next_segment = SegmentNumber(8)).await.unwrap();
    assert_eq!((ours.head().next_segment, ours.head().epoch), (SegmentNumber(8), Epoch(1)));

    let theirs = claim(&objects, &job, "pod-b/1").await;
    assert_eq!((theirs.head().epoch, theirs.head().next_segment), (Epoch(2), SegmentNumber(8)));
    way.loses_answers(1);
    let lost = ours.change(|head| head.next_segment = SegmentNumber(9)).await.unwrap_err();
    assert!(matches!(lost, HeadError::Lost { epoch: Epoch(2), .. }), "{lost}");
}

/// Where six encoders start at once, one that lives may need a second for its answer. Who was called by it waits; who comes after it has fallen silent does not.
#[tokio::test]
async fn an_owner_that_has_called_its_successor_may_take_a_while_to_answer() {
    let (_backend, objects, ..) = bucket().await;
    let (listener, job) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), job(&json!({ "video": [], "audio": [] })));
    let address = listener.local_addr().unwrap().to_string();
    assert!(matches!(try_to_claim(&objects, &job, "pod-a/1", &address).await, Claim::Owned { .. }));
    tokio::spawn(async move {
        while let Ok((mut asking, _)) = listener.accept().await {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut answer = BytesMut::new();
                PushFrame::Serving { epoch: Epoch(1) }.encode(&mut answer);
                asking.write_all(&answer).await
            });
        }
    });
    let called = LiveJob { replaces: Some(Epoch(1)), ..job.clone() };
    let alive = try_to_claim(&objects, &called, "pod-b/1", "127.0.0.1:1").await;
    assert!(matches!(&alive, Claim::Alive { head, .. } if head.epoch == Epoch(1)), "{alive:?}");
    let taken = try_to_claim(&objects, &job, "pod-c/1", "127.0.0.1:1").await;
    assert!(matches!(&taken, Claim::Owned { ownership, .. } if ownership.head().epoch == Epoch(2)), "{taken:?}");
}
