//! A pool that has no room.

use super::*;
use crate::placement::Book;
use crate::stream::claims::{NO_CAPACITY, PLACED};
use crate::stream::place::place;
use crate::stream::status::unplaced;

/// A pool of two shards that take one stream each.
fn small(seen: Seen) -> Seen {
    let mut pool = pool().spec;
    pool.ingest.capacity = serde_json::from_value(json!({ "streams": 1 })).unwrap();
    Seen { pool: Some(pool), ..seen }
}

fn named(uid: &str) -> LiveStream {
    let mut stream = stream(json!({}));
    stream.metadata.uid = Some(uid.to_owned());
    stream
}

/// Where a stream goes, and its status then.
fn placed(stream: &mut LiveStream, seen: &Seen, book: &Book) -> Place {
    let wanted = validate(stream, seen).unwrap();
    let place = place(stream, &wanted, seen, book);
    stream.status = Some(match &place {
        Place::Full(why) => unplaced(stream, seen, why),
        place => plan(stream, &wanted, seen, &access(), place).status,
    });
    place
}

fn told<'a>(stream: &'a LiveStream, kind: &str) -> (&'a str, &'a str) {
    let condition = conditions::find(&stream.status.as_ref().unwrap().conditions, kind).unwrap();
    (&condition.status, &condition.reason)
}

#[test]
fn a_stream_waits_where_no_shard_has_room_and_says_so_once() {
    let (book, mut streams) = (Book::default(), ["a", "b", "c"].map(named));
    let places: Vec<Place> = streams.iter_mut().map(|stream| placed(stream, &small(seen(0)), &book)).collect();
    assert!(matches!(places.as_slice(), [Place::Goes { .. }, Place::Goes { .. }, Place::Full(_)]), "{places:?}");
    let status = streams[2].status.clone().unwrap();
    assert_eq!(told(&streams[2], PLACED), ("False", NO_CAPACITY));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!((status.ingest, status.run_id), (None, None), "nothing to publish to");
    assert!(status.last_error.unwrap().contains("2 of 2 streams"));

    let before = LiveStreamStatus::default();
    let now = streams[2].status.clone().unwrap();
    let reasons = |notes: Vec<crate::events::Note>| notes.iter().map(|note| note.reason).collect::<Vec<_>>();
    assert_eq!(reasons(news(&before, &now)), [NO_CAPACITY]);
    placed(&mut streams[2], &small(seen(30)), &book);
    assert_eq!(reasons(news(&now, streams[2].status.as_ref().unwrap())), Vec::<&str>::new());
    assert_eq!(settle(&now, streams[2].status.as_ref().unwrap()), now, "and nothing is written");

    let one = crate::stream::resident(&streams[0], None);
    assert_eq!(book.remove(&one).map(|woken| woken.name), Some("algebra".to_owned()));
    assert!(matches!(placed(&mut streams[2], &small(seen(40)), &book), Place::Goes { .. }));
    assert_eq!((told(&streams[2], PLACED).0, streams[2].status.as_ref().unwrap().last_error.as_ref()), ("True", None));
}

#[test]
fn one_that_waits_for_room_can_end() {
    let (book, mut streams) = (Book::default(), ["a", "b", "c"].map(named));
    for stream in &mut streams {
        placed(stream, &Seen { ending: stream.metadata.uid.as_deref() == Some("c"), ..small(seen(0)) }, &book);
    }
    assert_eq!(told(&streams[2], ENDED), ("True", "NeverStarted"));
    let status = streams[2].status.as_ref().unwrap();
    assert_eq!((status.phase.as_deref(), status.last_error.as_ref()), (Some("Ended"), None));
}

#[test]
fn one_whose_shard_drains_moves_although_the_pool_is_full() {
    let (book, mut streams) = (Book::default(), ["a", "b"].map(named));
    for stream in &mut streams {
        placed(stream, &small(seen(0)), &book);
    }
    let shard_of = |stream: &LiveStream| stream.status.as_ref().unwrap().placement.as_ref().unwrap().shard.clone();
    let first = usize::from(shard_of(&streams[0]) != "lectern-ingest-default-0");
    let draining = Seen { fleet: fleet([Standing::Draining, Standing::Well]), ..small(seen(10)) };
    let Place::Goes { shard, reason } = placed(&mut streams[first], &draining, &book) else { panic!("it stays") };
    assert_eq!(shard.0, "lectern-ingest-default-1");
    assert!(reason.contains("is draining; over its capacity (1 of 1 streams)"), "{reason}");
}
