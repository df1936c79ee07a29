//! When a stream moves to another shard, and what is told of it meanwhile.

use super::*;
use crate::placement::Book;
use crate::stream::place::place;

const FIRST: &str = "lectern-ingest-default-0";
const SECOND: &str = "lectern-ingest-default-1";

/// Where the lecture, which is on the first of two shards, belongs.
fn placed(lecture: &Lecture, seen: &Seen) -> Place {
    place(&lecture.stream, &wanted(), seen, &Book::default())
}

fn stays(place: &Place) -> bool {
    matches!(place, Place::Stays(held) if held.shard == FIRST)
}

/// The reason why it goes to the second shard.
fn why(place: &Place) -> &str {
    match place {
        Place::Goes { shard, reason } if shard.0 == SECOND => reason,
        other => panic!("{other:?}"),
    }
}

fn silent() -> Seen {
    Seen { shard: ShardSaid::Silent, fleet: fleet([Standing::Silent, Standing::Well]), ..seen(30) }
}

#[test]
fn a_stream_whose_shard_drains_moves_and_a_live_one_too() {
    let draining = Seen { shard: publishing(), fleet: fleet([Standing::Draining, Standing::Well]), ..seen(30) };
    for lecture in [Lecture::new(), Lecture::live()] {
        assert_eq!(why(&placed(&lecture, &draining)), "lectern-ingest-default-0 is draining; first choice of 1 by hash");
    }
}

#[test]
fn a_stream_stays_on_a_draining_shard_while_there_is_no_better_one() {
    for other in [Standing::Draining, Standing::Silent] {
        assert!(stays(&placed(&Lecture::live(), &Seen { fleet: fleet([Standing::Draining, other]), ..seen(30) })), "{other:?}");
    }
}

#[test]
fn a_stream_that_ends_is_read_to_its_end_where_it_is() {
    let draining = Seen { ending: true, fleet: fleet([Standing::Draining, Standing::Well]), ..seen(30) };
    assert!(stays(&placed(&Lecture::live(), &draining)));
}

#[test]
fn a_live_stream_on_a_silent_shard_stays_whatever_its_pod_says() {
    let mut seen = silent();
    for down in [false, true] {
        seen.fleet.owner_is_down = down;
        assert!(stays(&placed(&Lecture::live(), &seen)), "its publisher may be well");
    }
}

#[test]
fn a_stream_whose_publisher_came_in_elsewhere_is_adopted_there() {
    let mut seen = silent();
    seen.fleet.adopter = Some(SECOND.into());
    let told = why(&placed(&Lecture::live(), &seen)).to_owned();
    assert_eq!(told, "adopted: a publisher came in here while lectern-ingest-default-0 was silent");
}

#[test]
fn nobody_is_adopted_while_the_owner_reports_or_the_operator_has_just_started() {
    let mut seen = silent();
    seen.fleet.adopter = Some(SECOND.into());
    assert!(stays(&placed(&Lecture::live(), &Seen { settled: false, ..seen.clone() })), "silence says nothing yet");
    seen.fleet = Fleet { adopter: seen.fleet.adopter, ..fleet([Standing::Well, Standing::Well]) };
    assert!(stays(&placed(&Lecture::live(), &seen)), "the shards do not see each other, but the owner is well");
}

#[test]
fn a_stream_without_a_publisher_leaves_a_shard_whose_pod_is_down() {
    let mut seen = silent();
    assert!(stays(&placed(&Lecture::new(), &seen)), "the pod is ready, only its reports do not come");
    seen.fleet.owner_is_down = true;
    let told = why(&placed(&Lecture::new(), &seen)).to_owned();
    assert_eq!(told, "the pod of lectern-ingest-default-0 is down and nobody publishes there; first choice of 1 by hash");
}

#[test]
fn a_cameras_stream_leaves_a_shard_whose_pod_is_down_because_it_comes_in_nowhere_else() {
    let mut lecture = Lecture::of(json!({ "source": { "rtsp": { "url": "rtsp://camera/1" } } }));
    lecture.look(Seen { shard: publishing(), ..seen(1) });
    let mut seen = silent();
    assert!(stays(&placed(&lecture, &seen)));
    seen.fleet.owner_is_down = true;
    assert!(why(&placed(&lecture, &seen)).contains("is down"));
}

#[test]
fn a_stream_whose_shard_left_the_pool_moves() {
    let mut lecture = Lecture::live();
    let status = lecture.stream.status.as_mut().unwrap();
    status.placement.as_mut().unwrap().shard = "lectern-ingest-default-7".into();
    let Place::Goes { reason, .. } = placed(&lecture, &seen(30)) else { panic!("it stays") };
    assert!(reason.starts_with("lectern-ingest-default-7 has left the pool; "), "{reason}");
}

#[test]
fn a_new_stream_avoids_shards_that_drain_or_are_silent_while_there_is_another() {
    let fresh = || stream(json!({}));
    for bad in [Standing::Draining, Standing::Silent] {
        let first = place(&fresh(), &wanted(), &Seen { fleet: fleet([bad, Standing::Well]), ..seen(0) }, &Book::default());
        assert_eq!(why(&first), "first choice of 1 by hash");
        let none = place(&fresh(), &wanted(), &Seen { fleet: fleet([bad, bad]), ..seen(0) }, &Book::default());
        assert!(matches!(none, Place::Goes { .. }), "{bad:?} everywhere is no reason to wait");
    }
}

#[test]
fn a_draining_shard_moves_its_own_streams_only() {
    let book = Book::default();
    let mut streams: Vec<LiveStream> = (0..50)
        .map(|n| {
            let mut one = stream(json!({}));
            one.metadata.uid = Some(format!("u{n}"));
            let place = place(&one, &wanted(), &seen(0), &book);
            one.status = Some(plan(&one, &wanted(), &seen(0), &access(), &place).status);
            one
        })
        .collect();
    let draining = Seen { fleet: fleet([Standing::Draining, Standing::Well]), ..seen(10) };
    let shard_of = |stream: &LiveStream| stream.status.as_ref().unwrap().placement.as_ref().unwrap().shard.clone();
    assert!(streams.iter().any(|stream| shard_of(stream) == FIRST));
    for stream in &mut streams {
        let place = place(stream, &wanted(), &draining, &book);
        assert_eq!(matches!(place, Place::Goes { .. }), shard_of(stream) == FIRST);
    }
    assert_eq!(book.streams("default"), 50, "each is counted once");
}

#[test]
fn a_move_keeps_run_and_timeline_and_sends_no_job_to_a_transcoder_that_runs() {
    let mut lecture = Lecture::live();
    let before = lecture.status().clone();
    let place = Place::Goes { shard: SECOND.into(), reason: "lectern-ingest-default-0 is draining; …".into() };
    lecture.go(Seen { shard: publishing(), transcoder: said(1, running(Some(9))), ..seen(30) }, &place);
    let (old, new) = (before.placement.as_ref().unwrap(), lecture.status().placement.as_ref().unwrap());
    assert_eq!((new.epoch, new.anchor_millis, new.shard.as_str()), (old.epoch + 1, old.anchor_millis, SECOND));
    assert_eq!((lecture.status().run_id.as_ref(), lecture.sent()), (before.run_id.as_ref(), None));
    assert_eq!(lecture.status().conditions.iter().find(|c| c.type_ == "Placed").unwrap().message, format!("on {SECOND}: {}", new.reason));
}

#[test]
fn a_publisher_on_its_way_to_the_new_shard_has_not_left() {
    let mut lecture = Lecture::live();
    let place = Place::Goes { shard: SECOND.into(), reason: "draining".into() };
    lecture.go(Seen { shard: publishing(), transcoder: said(1, running(Some(9))), ..seen(30) }, &place);
    let moved = lecture.status().clone();
    for shard in [ShardSaid::NoPublisher, ShardSaid::Silent] {
        let arriving = Seen { shard, arriving: true, settled: false, transcoder: said(1, running(Some(9))), ..seen(31) };
        assert_eq!(*lecture.look(arriving), moved, "no news before the new shard had time to see it");
    }
    lecture.look(Seen { transcoder: said(1, running(Some(9))), ..seen(36) });
    assert_eq!((lecture.reason(RECEIVING), lecture.phase()), ("PublisherGone", "Interrupted"));
}

#[test]
fn who_publishes_and_who_stands_by_is_told() {
    let mut lecture = Lecture::live();
    let mut run = publishing_run();
    run.standby = Some("192.0.2.2:9".into());
    lecture.look(Seen { shard: ShardSaid::Run(Box::new(run.clone())), ..seen(20) });
    assert_eq!(lecture.status().received.as_ref().unwrap().standby.as_deref(), Some("192.0.2.2:9"));
    let Publisher::Publishing { backup, .. } = &mut run.publisher else { panic!() };
    (*backup, run.standby) = (true, None);
    lecture.look(Seen { shard: ShardSaid::Run(Box::new(run)), ..seen(21) });
    let told = conditions::find(&lecture.status().conditions, RECEIVING).unwrap();
    assert_eq!(told.message, "from 192.0.2.1:9 (backup)");
    let received = lecture.status().received.as_ref().unwrap();
    assert_eq!((received.backup, received.standby.as_deref()), (true, None));
}
