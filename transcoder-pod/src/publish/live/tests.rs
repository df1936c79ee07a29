use super::*;
use lectern_media::cmaf::{Sample, segment_head};

fn names(mut bytes: impl Buf) -> Vec<String> {
    let mut input = BytesMut::from(&bytes.copy_to_bytes(bytes.remaining())[..]);
    let mut names = Vec::new();
    while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
        names.push(match frame {
            PushFrame::Object { name, .. } => name,
            PushFrame::Joined { name, parts } => format!("{name} = {parts}"),
            other => format!("{other:?}"),
        });
    }
    names
}

fn segment(number: u64) -> ObjectName {
    ObjectName::Segment("a".into(), SegmentNumber(number))
}

#[test]
fn a_subscriber_gets_what_is_named_before_what_names_it() {
    let live = Live::new("r".into());
    for name in [ObjectName::Multivariant, ObjectName::MediaPlaylist("a".into()), segment(1), ObjectName::Init("a".into(), 0), segment(2)] {
        live.put(name, Bytes::from_static(b"x"));
    }
    live.retain("a", |number| number.0 > 1, |_| false);
    let (now, later) = live.subscribe(&"r".into());
    assert_eq!(names(now), ["a/init-0.mp4", "a/2.m4s", "a/live.m3u8", "live.m3u8"]);
    let mut later = later.unwrap();
    live.put(segment(3), Bytes::from_static(b"x"));
    live.close(PushFrame::Ended);
    assert_eq!(names(later.try_recv().unwrap()), ["a/3.m4s"]);
    assert_eq!(names(later.try_recv().unwrap()), ["Ended"]);
    assert!(live.subscribe(&"r".into()).1.is_none());
}

#[test]
fn a_segment_is_sent_once_to_who_got_its_parts() {
    let live = Live::new("r".into());
    let (_, early) = live.subscribe(&"r".into());
    for part in 0..2 {
        live.put(ObjectName::Part("a".into(), SegmentNumber(1), part), Bytes::from_static(b"x"));
    }
    live.put_joined("a", SegmentNumber(1), 2, Bytes::from_static(b"xx").into());
    let mut early = early.unwrap();
    let heard: Vec<String> = std::iter::from_fn(|| early.try_recv().ok()).flat_map(names).collect();
    assert_eq!(heard, ["a/1.0.m4s", "a/1.1.m4s", "a/1.m4s = 2"]);
    // Who comes later gets it whole, and the parts for as long as playlists name them.
    assert_eq!(names(live.subscribe(&"r".into()).0), ["a/1.0.m4s", "a/1.1.m4s", "a/1.m4s"]);
    live.retain("a", |_| true, |_| false);
    assert_eq!(names(live.subscribe(&"r".into()).0), ["a/1.m4s"]);
}

#[test]
fn parts_of_a_segment_that_did_not_get_whole_are_left_unstored() {
    let live = Live::new("r".into());
    let part =
        |rendition: &str, number: u64| live.put(ObjectName::Part(rendition.into(), SegmentNumber(number), 0), Bytes::from_static(b"x"));
    let whole = |rendition: &str, number: u64| live.put_joined(rendition, SegmentNumber(number), 1, Bytes::from_static(b"x").into());
    assert!(!live.leaves_unstored());
    part("a", 7);
    assert!(live.leaves_unstored());
    whole("a", 7);
    assert!(!live.leaves_unstored(), "its uploader has it");
    live.retain("a", |number| number.0 > 7, |_| true);
    part("a", 8);
    whole("a", 8);
    assert!(!live.leaves_unstored(), "later subscribers find the other one in S3");
    part("b", 8);
    assert!(live.leaves_unstored());
}

#[test]
fn a_slow_subscriber_is_dropped_and_the_others_are_not() {
    let live = Live::new("r".into());
    let (_, slow) = live.subscribe(&"r".into());
    let mut slow = slow.unwrap();
    for number in 0..=WAITING as u64 {
        live.put(segment(number), Bytes::new());
    }
    let (_, quick) = live.subscribe(&"r".into());
    live.put(segment(9999), Bytes::new());
    assert_eq!(names(quick.unwrap().try_recv().unwrap()), ["a/9999.m4s"]);
    let mut got = 0;
    while slow.try_recv().is_ok() {
        got += 1;
    }
    assert_eq!(got, WAITING, "what had been queued still arrives; then the line is cut");
    assert!(matches!(slow.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}

#[test]
fn everybody_hears_first_under_which_epoch_it_is_served() {
    let live = Live::new("r".into());
    let (now, later) = live.subscribe(&"r".into());
    assert_eq!(names(now), [""; 0], "it is not ours yet");
    live.own(Epoch(3));
    live.put(segment(1), Bytes::from_static(b"x"));
    let mut later = later.unwrap();
    assert_eq!(names(later.try_recv().unwrap()), ["Serving { epoch: Epoch(3) }"]);
    assert_eq!(names(live.subscribe(&"r".into()).0), ["Serving { epoch: Epoch(3) }", "a/1.m4s"]);
}

#[test]
fn another_run_is_refused() {
    let (said, later) = Live::new("r".into()).subscribe(&"s".into());
    assert!(names(said)[0].starts_with("Refused") && later.is_none());
}

fn part(index: u32) -> ObjectName {
    ObjectName::Part("a".into(), SegmentNumber(7), index)
}

/// A part that begins at `start`.
fn made(start: u64, text: &'static str) -> Body {
    let sample = Sample { data: Bytes::from_static(text.as_bytes()), duration: 1, composition_offset: 0, sync: true };
    Body::of(vec![segment_head(1, start, None, &[], std::slice::from_ref(&sample)).unwrap(), sample.data])
}

fn bytes(mut body: impl Buf) -> Bytes {
    body.copy_to_bytes(body.remaining())
}

/// What an origin has of segment 7: a part.
fn begun() -> Held {
    let (init, parts) = (Bytes::from_static(b"moov"), vec![bytes(made(0, "old"))]);
    Held { rendition: "a".into(), number: SegmentNumber(7), init, whole: false, parts }
}

/// Of a rendition whose segment 7 has two parts.
fn make_segment(live: &Live) {
    live.put(ObjectName::Init("a".into(), 0), Bytes::from_static(b"moov"));
    let parts = [made(0, "new"), made(1, "newer")];
    let mut whole = Body::default();
    for (index, body) in (0..).zip(&parts) {
        live.put_pieces(part(index), body.clone());
        whole.append(body);
    }
    live.put_joined("a", SegmentNumber(7), 2, whole);
}

/// All bodies that a new subscriber gets, by name.
fn got(live: &Live) -> std::collections::HashMap<String, Bytes> {
    let mut input = BytesMut::from(&live.subscribe(&"r".into()).0[..]);
    let mut got = std::collections::HashMap::new();
    while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
        if let PushFrame::Object { name, body } = frame {
            got.insert(name, body);
        }
    }
    got
}

#[test]
fn what_an_origin_holds_is_put_out_by_all_whenever_the_first_one_comes() {
    let whole = [bytes(made(0, "old")), bytes(made(1, "newer"))].concat();
    for early in [true, false] {
        let live = Live::new("r".into());
        if early {
            assert!(live.inherit(&"r".into(), begun()));
        }
        make_segment(&live);
        if !early {
            assert!(live.inherit(&"r".into(), begun()));
        }
        let got = got(&live);
        assert_eq!(
            (&got["a/7.0.m4s"], &got["a/7.1.m4s"], &got["a/7.m4s"][..]),
            (&bytes(made(0, "old")), &bytes(made(1, "newer")), &whole[..])
        );
        let mut own = made(0, "new");
        own.append(&made(1, "newer"));
        assert_eq!(bytes(live.settled("a", SegmentNumber(7), own)), whole, "S3 gets the same");
    }
}

#[test]
fn what_others_have_had_already_stays() {
    let live = Live::new("r".into());
    let (_, _first) = live.subscribe(&"r".into());
    make_segment(&live);
    assert!(live.inherit(&"r".into(), begun()), "who comes late keeps what it has");
    assert_eq!(got(&live)["a/7.0.m4s"], bytes(made(0, "new")));
    assert!(live.inherit(&"another".into(), begun()), "and hears later that this is not its run");
}

#[test]
fn who_holds_what_cannot_be_gone_on_with_is_told() {
    let other = Held { init: Bytes::from_static(b"other"), ..begun() };
    let live = Live::new("r".into());
    live.put(ObjectName::Init("a".into(), 0), Bytes::from_static(b"moov"));
    assert!(!live.inherit(&"r".into(), other.clone()));
    // It is known only later that it needs something else, and that its parts begin at other times.
    for (held, init) in [(other, "a/init-0.mp4"), (Held { parts: vec![bytes(made(5, "old"))], ..begun() }, "a/init-0.mp4")] {
        let live = Live::new("r".into());
        assert!(live.inherit(&"r".into(), held));
        let (_, heard) = live.subscribe(&"r".into());
        make_segment(&live);
        let mut heard = heard.unwrap();
        let said: Vec<String> = std::iter::from_fn(|| heard.try_recv().ok()).flat_map(names).collect();
        let at = said.iter().position(|said| said.starts_with("Anew")).unwrap();
        assert!(said.iter().position(|said| said == "a/7.0.m4s").unwrap() > at && said.contains(&init.to_owned()), "{said:?}");
        assert_eq!(got(&live)["a/7.0.m4s"], bytes(made(0, "new")));
    }
}

#[test]
fn what_was_whole_with_other_parts_changes_nothing() {
    let live = Live::new("r".into());
    make_segment(&live);
    assert!(!live.inherit(&"r".into(), Held { whole: true, ..begun() }), "it was whole with one part");
    assert_eq!(got(&live)["a/7.0.m4s"], bytes(made(0, "new")));
}
