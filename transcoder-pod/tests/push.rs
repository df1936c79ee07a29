//! The push server over real sockets: who gets what.
#![allow(clippy::unwrap_used)]

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;

use bytes::{Bytes, BytesMut};
use ca::Ca;
use lectern_contract::keys::ObjectName;
use lectern_contract::push::{Held, PushFrame, PushRequest};
use lectern_contract::{Epoch, SegmentNumber};
use lectern_podkit::tls::{PeerRole, PeerStream, PeerTls};
use lectern_transcoder_pod::publish::{Live, serve_push};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn peer(ca: &Ca, role: PeerRole) -> PeerTls {
    PeerTls::load(&ca.folder(&role.dns_name("default")), "default").await.unwrap()
}

/// What is answered to `request` until nothing more comes; empty where the connection is refused.
async fn answers(peers: &PeerTls, address: &str, request: PushRequest) -> Vec<PushFrame> {
    answers_to(peers, address, [request]).await
}

async fn answers_to(peers: &PeerTls, address: &str, requests: impl IntoIterator<Item = PushRequest>) -> Vec<PushFrame> {
    let Ok(mut socket) = peers.connect(address, PeerRole::Transcoder).await else { return Vec::new() };
    let (mut bytes, mut input, mut answers) = (BytesMut::new(), BytesMut::new(), Vec::new());
    requests.into_iter().for_each(|request| request.encode(&mut bytes));
    if socket.write_all(&bytes).await.and(socket.flush().await).is_err() {
        return answers;
    }
    while socket.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
        while let Some(frame) = PushFrame::decode(&mut input).unwrap() {
            answers.push(frame);
        }
    }
    answers
}

/// A connection over which `request` was made.
async fn asked(peers: &PeerTls, address: &str, request: PushRequest) -> PeerStream {
    let (mut socket, mut bytes) = (peers.connect(address, PeerRole::Transcoder).await.unwrap(), BytesMut::new());
    request.encode(&mut bytes);
    socket.write_all(&bytes).await.unwrap();
    socket.flush().await.unwrap();
    socket
}

/// A run that is pushed.
struct Served {
    ca: Ca,
    live: Live,
    address: String,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let (ca, live, stop) = (Ca::new(), Live::new("r".into()), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(serve_push(listener, live.clone(), peer(&ca, PeerRole::Transcoder).await, stop.clone()));
        Self { ca, live, address, stop, server }
    }
}

#[tokio::test]
async fn origins_get_objects_transcoders_the_run_and_others_nothing() {
    let Served { ca, live, address, stop, server } = Served::start().await;
    live.put(ObjectName::Multivariant, Bytes::from_static(b"#EXTM3U"));
    let mut successors = live.successors();
    let owner = live.clone();
    let owner = tokio::spawn(async move {
        let asked = successors.recv().await.unwrap();
        asked.send(Some(SegmentNumber(7))).unwrap();
        tokio::task::yield_now().await;
        owner.close(PushFrame::Ended);
        successors
    });

    let (origin, transcoder) = (peer(&ca, PeerRole::Origin).await, peer(&ca, PeerRole::Transcoder).await);
    let hand_over = || PushRequest::HandOver("r".into());
    let objects = || PushRequest::Objects("r".into());
    for (who, peers) in [
        ("an origin", &origin),
        ("a shard", &peer(&ca, PeerRole::Ingest).await),
        ("a stranger", &peer(&Ca::new(), PeerRole::Transcoder).await),
    ] {
        assert_eq!(answers(peers, &address, hand_over()).await, [], "{who}");
    }
    for (who, peers) in [("a shard", &peer(&ca, PeerRole::Ingest).await), ("a stranger", &peer(&Ca::new(), PeerRole::Origin).await)] {
        assert_eq!(answers(peers, &address, objects()).await, [], "{who}");
    }
    let another = answers(&transcoder, &address, PushRequest::HandOver("another".into())).await;
    assert!(matches!(&another[..], [PushFrame::Refused { .. }]), "{another:?}");

    let handed = answers(&transcoder, &address, hand_over()).await;
    assert_eq!(handed, [PushFrame::HandingOver { at: SegmentNumber(7) }], "and the connection ends when the owner has let go");
    let heard = answers(&origin, &address, objects()).await;
    assert!(matches!(&heard[..], [PushFrame::Object { .. }, PushFrame::Ended]), "{heard:?}");
    drop(owner.await.unwrap());
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), server).await.expect("hung").unwrap();
}

/// A successor that has to wait tells its owner from one that is frozen; one that is done before it would hand over lets go, and refuses nothing.
#[tokio::test]
async fn an_owner_that_has_no_time_to_hand_over_says_that_it_is_there() {
    let Served { ca, live, address, stop, server } = Served::start().await;
    live.own(Epoch(3));
    let mut successors = live.successors();
    let transcoder = peer(&ca, PeerRole::Transcoder).await;
    let (mut socket, mut input) = (asked(&transcoder, &address, PushRequest::HandOver("r".into())).await, BytesMut::new());
    let mut gone = successors.recv().await.unwrap();
    assert_ne!(socket.read_buf(&mut input).await.unwrap(), 0);
    assert_eq!(PushFrame::decode(&mut input).unwrap(), Some(PushFrame::Serving { epoch: Epoch(3) }));
    drop(socket);
    gone.closed().await; // nobody is told any more

    let waits = tokio::spawn(async move { answers(&transcoder, &address, PushRequest::HandOver("r".into())).await });
    drop(successors.recv().await.unwrap());
    live.close(PushFrame::Ended);
    let heard = waits.await.unwrap();
    assert!(heard.iter().all(|frame| matches!(frame, PushFrame::Serving { .. })), "{heard:?}");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), server).await.expect("hung").unwrap();
}

/// An origin tells one that waits for a lecturer from one that is frozen.
#[tokio::test]
async fn who_owns_a_run_and_has_nothing_to_push_says_that_it_is_there() {
    let Served { ca, live, address, stop, server } = Served::start().await;
    live.own(Epoch(3));
    let mut socket = asked(&peer(&ca, PeerRole::Origin).await, &address, PushRequest::Objects("r".into())).await;
    let (mut input, mut heard) = (BytesMut::new(), Vec::new());
    while heard.len() < 3 {
        assert_ne!(socket.read_buf(&mut input).await.unwrap(), 0, "{heard:?}");
        heard.extend(std::iter::from_fn(|| PushFrame::decode(&mut input).unwrap()));
    }
    assert_eq!(heard, vec![PushFrame::Serving { epoch: Epoch(3) }; 3]);
    drop(socket);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), server).await.expect("hung").unwrap();
}

/// A job that comes twice sends its second child to ask, while the first one waits for what origins have shown of a dead predecessor's.
#[tokio::test]
async fn a_transcoder_that_asks_whether_the_owner_lives_is_no_origin() {
    let Served { ca, live, address, stop, server } = Served::start().await;
    let (origin, transcoder) = (peer(&ca, PeerRole::Origin).await, peer(&ca, PeerRole::Transcoder).await);
    let asks = tokio::spawn(async move { (answers(&transcoder, &address, PushRequest::Objects("r".into())).await, address) });
    tokio::task::yield_now().await;
    live.own(Epoch(3)); // the head tells of it a little earlier
    live.put(ObjectName::Init("a".into(), 0), Bytes::from_static(b"moov"));
    live.put(ObjectName::Part("a".into(), SegmentNumber(7), 0), Bytes::from_static(b"mine"));
    let (said, address) = asks.await.unwrap();
    assert_eq!(said, [PushFrame::Serving { epoch: Epoch(3) }]);
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
        () = live.has_heard_origins(Duration::ZERO) => panic!("no origin has come"),
    }

    let held = Held {
        rendition: "a".into(),
        number: SegmentNumber(7),
        init: Bytes::from_static(b"moov"),
        whole: false,
        parts: vec![Bytes::from_static(b"shown")],
    };
    live.close(PushFrame::Ended);
    let heard = answers_to(&origin, &address, [PushRequest::Holds { run: "r".into(), held }, PushRequest::Objects("r".into())]).await;
    assert!(!heard.iter().any(|frame| matches!(frame, PushFrame::Anew { .. })), "what students have had is made anew: {heard:?}");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), server).await.expect("hung").unwrap();
}

#[tokio::test]
async fn origins_may_say_what_they_hold_and_not_without_end() {
    let Served { ca, live, address, stop, server } = Served::start().await;
    live.put(ObjectName::Init("a".into(), 0), Bytes::from_static(b"moov"));
    live.close(PushFrame::Ended);
    let held = |number: u64, init: &'static [u8]| {
        let held = Held {
            rendition: "a".into(),
            number: SegmentNumber(number),
            init: Bytes::from_static(init),
            whole: true,
            parts: vec![Bytes::new()],
        };
        PushRequest::Holds { run: "r".into(), held }
    };
    let objects = || PushRequest::Objects("r".into());
    let (origin, transcoder) = (peer(&ca, PeerRole::Origin).await, peer(&ca, PeerRole::Transcoder).await);
    let heard = answers_to(&origin, &address, [held(7, b"moov"), held(8, b"another"), objects()]).await;
    let anew = PushFrame::Anew { rendition: "a".into(), number: SegmentNumber(8) };
    assert!(matches!(&heard[..], [first, PushFrame::Object { .. }, PushFrame::Ended] if *first == anew), "{heard:?}");
    assert_eq!(answers_to(&transcoder, &address, [held(7, b"moov"), objects()]).await, [], "a transcoder is no origin");
    let endless = (0..600).map(|number| held(number, b"moov"));
    assert_eq!(answers_to(&origin, &address, endless.chain([objects()])).await, [], "more than it can hold");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), server).await.expect("hung").unwrap();
}
