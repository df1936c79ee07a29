//! Who may read a shard's runs and relay to it, and which shard serves a run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;
mod common;

use bytes::BytesMut;
use ca::Ca;
use common::*;
use lectern_contract::feed::{FeedFrame, FeedRequest, Track};
use lectern_contract::relay::{Asked, RelayFrame};
use lectern_contract::{Epoch, KeyHash, RunId, StreamRef};
use lectern_ingest_pod::routes::Route;
use lectern_ingest_pod::stream::Limits;
use lectern_podkit::tls::{PeerRole, PeerStream, PeerTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn peer(ca: &Ca, role: PeerRole) -> PeerTls {
    PeerTls::load(&ca.folder(&role.dns_name("default")), "default").await.unwrap()
}

fn request(run: &str, epoch: u64) -> FeedRequest {
    FeedRequest { epoch: Epoch(epoch), ..FeedRequest::newest(RunId::from(run)) }
}

/// What a shard answers first to a reader that has heard of `epoch`.
async fn answer(shard: &TestShard, run: &str, epoch: u64) -> FeedFrame {
    let socket = PeerStream::Plain(TcpStream::connect(shard.feed).await.unwrap());
    FeedClient::ask(socket, request(run, epoch)).await.next().await
}

#[tokio::test]
async fn transcoders_read_over_mutual_tls_and_nobody_else_does() {
    let ca = Ca::new();
    let shard = TestShard::start_among(Limits::default(), peer(&ca, PeerRole::Ingest).await).await;
    shard.route([shard.own_route()]);
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    let address = shard.feed.to_string();
    let transcoder = peer(&ca, PeerRole::Transcoder).await;
    let socket = transcoder.connect(&address, PeerRole::Ingest).await.unwrap();
    let mut reader = FeedClient::ask(socket, request("r1", 0)).await;
    assert!(reader.next_unit().await.keyframe);
    assert_eq!(reader.serving, Some(Epoch(1)));

    // In the clear, with the wrong role, and with the right one of another CA.
    let in_the_clear = PeerStream::Plain(TcpStream::connect(shard.feed).await.unwrap());
    let origin = peer(&ca, PeerRole::Origin).await.connect(&address, PeerRole::Ingest).await.unwrap();
    for mut socket in [in_the_clear, origin] {
        let mut bytes = BytesMut::new();
        request("r1", 0).encode(&mut bytes);
        // It may be hung up on before it has asked.
        let _ = socket.write_all(&bytes).await;
        let _ = socket.flush().await;
        let mut said = Vec::new();
        let _ = guarded("the shard to hang up", socket.read_to_end(&mut said)).await;
        // A TLS alert at most.
        assert!(!matches!(FeedFrame::decode(&mut BytesMut::from(&said[..])), Ok(Some(_))), "{said:?}");
    }
    assert!(peer(&Ca::new(), PeerRole::Transcoder).await.connect(&address, PeerRole::Ingest).await.is_err());

    for _ in 0..30 {
        assert!(matches!(reader.next().await, FeedFrame::AccessUnit(_)), "the reader was disturbed");
    }
}

#[tokio::test]
async fn the_owner_says_under_which_epoch_it_serves() {
    let shard = TestShard::start(Limits::default()).await;
    shard.route([Route { epoch: Epoch(7), ..shard.own_route() }]);
    let mut reader = shard.read(None).await;
    shard.publish_two_seconds().await;
    reader.next_unit().await;
    assert_eq!(reader.serving, Some(Epoch(7)));
}

#[tokio::test]
async fn another_shard_names_the_owner_and_an_unknown_run_is_refused() {
    let shard = TestShard::start(Limits::default()).await;
    shard.route([route_to(&"b".into())]);
    assert_eq!(answer(&shard, "r1", 1).await, FeedFrame::Moved { feed: "feed-of-b".into() });
    assert!(matches!(answer(&shard, "r2", 0).await, FeedFrame::Refused { .. }));
}

#[tokio::test]
async fn a_reader_that_does_not_reach_the_owner_reads_through_another_shard() {
    let ca = Ca::new();
    let peers = peer(&ca, PeerRole::Ingest).await;
    let owner = TestShard::start_among(Limits::default(), peers.clone()).await;
    let another = TestShard::start_before(owner.feed, peers).await;
    for shard in [&owner, &another] {
        shard.route([owner.own_route()]);
    }
    let transcoder = peer(&ca, PeerRole::Transcoder).await;
    let ask = async |through| {
        let socket = transcoder.connect(&another.feed.to_string(), PeerRole::Ingest).await.unwrap();
        FeedClient::ask(socket, FeedRequest { through, ..request("r1", 0) }).await
    };
    assert_eq!(
        ask(false).await.next().await,
        FeedFrame::Moved { feed: owner.feed.to_string() },
        "who does not ask for it is sent to the owner"
    );
    let mut reader = ask(true).await;
    owner.publish_two_seconds().await;
    let frames = reader.until_a_stop().await;
    assert_eq!(units(&frames).iter().filter(|unit| unit.track == Track::Video).count(), 60);
    assert_eq!((reader.serving, another.metrics.feeds_passed_on.get()), (Some(Epoch(1)), 1));
    // The owner's last word is the reader's, too.
    owner.route([Route { epoch: Epoch(2), ..route_to(&"b".into()) }]);
    assert_eq!(reader.next().await, FeedFrame::Moved { feed: "feed-of-b".into() });
    assert_eq!(reader.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn a_shard_that_does_not_reach_the_owner_either_names_it_and_serves_once_it_owns_the_stream() {
    // It takes connections and never says anything, as a frozen process does.
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = frozen.local_addr().unwrap();
    let shard = TestShard::start_before(address, PeerTls::plain()).await;
    let ask = async || {
        let socket = PeerStream::Plain(TcpStream::connect(shard.feed).await.unwrap());
        FeedClient::ask(socket, FeedRequest { through: true, alive: true, ..request("r1", 0) }).await
    };
    shard.route([route_to(&"b".into())]);
    assert_eq!(ask().await.next().await, FeedFrame::Moved { feed: address.to_string() });
    let mut asked = vec![frozen.accept().await.unwrap()];
    // Again where this machine lets the shard's patience pass before the route has changed.
    let mut reader = loop {
        let mut reader = ask().await;
        asked.push(guarded("the shard to ask the owner", frozen.accept()).await.unwrap());
        shard.route([Route { epoch: Epoch(2), ..shard.own_route() }]);
        match reader.next().await {
            FeedFrame::Moved { .. } => shard.route([route_to(&"b".into())]),
            frame => {
                assert_eq!(frame, FeedFrame::Alive);
                break reader;
            }
        }
    };
    shard.publish_two_seconds().await;
    reader.next_unit().await;
    assert_eq!(reader.serving, Some(Epoch(2)));
}

#[tokio::test]
async fn a_shard_whose_routes_are_older_than_what_the_reader_has_heard_refuses() {
    let shard = TestShard::with_a_stream().await;
    for owner in [shard.name.clone(), "b".into()] {
        shard.route([Route { epoch: Epoch(3), ..route_to(&owner) }]);
        let FeedFrame::Refused { reason } = answer(&shard, "r1", 4).await else { panic!("it served {owner}") };
        assert!(reason.contains("epoch 3") && reason.contains("epoch 4"), "{reason}");
    }
}

#[tokio::test]
async fn readers_of_a_run_that_moves_are_sent_after_it() {
    let shard = TestShard::with_a_stream().await;
    let _lecturer = publisher(shard.rtmp, "secret", &[]);
    let mut reader = shard.read(None).await;
    reader.next_unit().await;
    shard.route([Route { epoch: Epoch(2), ..route_to(&"b".into()) }]);
    assert_eq!(reader.until_a_stop().await.last(), Some(&FeedFrame::Moved { feed: "feed-of-b".into() }));
    assert_eq!(reader.try_next().await.unwrap(), None);
}

#[tokio::test]
async fn a_publisher_is_handed_on_over_mutual_tls() {
    let ca = Ca::new();
    let shard = async || TestShard::start_among(Limits::default(), peer(&ca, PeerRole::Ingest).await).await;
    let (door, owner) = (shard().await, shard().await);
    for shard in [&door, &owner] {
        shard.route([route_to(&owner.name)]);
    }
    let socket = peer(&ca, PeerRole::Transcoder).await.connect(&owner.feed.to_string(), PeerRole::Ingest).await.unwrap();
    let mut reader = FeedClient::ask(socket, request("r1", 0)).await;
    door.publish_two_seconds().await;
    let frames = reader.until_a_stop().await;
    assert_eq!(units(&frames).iter().filter(|unit| unit.track == Track::Video).count(), 60);
    assert!(matches!(frames.last(), Some(FeedFrame::Gap { .. })), "the publisher's end reaches the owner");
}

#[tokio::test]
async fn only_shards_may_relay() {
    let ca = Ca::new();
    let owner = TestShard::start_among(Limits::default(), peer(&ca, PeerRole::Ingest).await).await;
    owner.route([owner.own_route()]);
    let transcoder = peer(&ca, PeerRole::Transcoder).await;
    let mut relay = Relay(transcoder.connect(&owner.name.0, PeerRole::Ingest).await.unwrap(), BytesMut::new());
    assert_eq!(relay.hello(1).await, None);
    let shard = peer(&ca, PeerRole::Ingest).await;
    let mut relay = Relay(shard.connect(&owner.name.0, PeerRole::Ingest).await.unwrap(), BytesMut::new());
    assert_eq!(relay.hello(1).await, Some(RelayFrame::Accepted { heirs: true }));
}

#[tokio::test]
async fn an_owner_accepts_a_relayed_publisher_under_its_own_epoch_only() {
    let owner = TestShard::start(Limits::default()).await;
    let at = |epoch| Route { epoch: Epoch(epoch), ..owner.own_route() };
    owner.route([at(2)]);
    let mut newer = Relay::to(&owner).await;
    let waiting = tokio::spawn(async move { newer.hello(3).await });
    // The accepting shard has missed a move: it is told so at once.
    let Some(RelayFrame::NotMine { reason }) = Relay::to(&owner).await.hello(1).await else { panic!("an old epoch was accepted") };
    assert!(reason.contains("epoch 2"), "{reason}");
    // The owner has missed one: it waits for its routes.
    owner.route([at(3)]);
    assert_eq!(guarded("the owner to catch up", waiting).await.unwrap(), Some(RelayFrame::Accepted { heirs: true }));
    // And not for ever.
    let Some(RelayFrame::NotMine { reason }) = Relay::to(&owner).await.hello(4).await else { panic!("a newer epoch was accepted") };
    assert!(reason.contains("not yet 4"), "{reason}");
    // Nor under any, once another shard owns the stream.
    owner.route([Route { epoch: Epoch(5), ..route_to(&"b".into()) }]);
    assert!(matches!(Relay::to(&owner).await.hello(5).await, Some(RelayFrame::NotMine { .. })));
}

/// The accepting shard's end of a relay.
struct Relay(PeerStream, BytesMut);

impl Relay {
    async fn to(owner: &TestShard) -> Self {
        Self(PeerStream::Plain(TcpStream::connect(&owner.name.0).await.unwrap()), BytesMut::new())
    }

    /// Says hello, and what the owner answers; `None` where it hangs up.
    async fn hello(&mut self, epoch: u64) -> Option<RelayFrame> {
        let hello = RelayFrame::Hello {
            key: KeyHash::of("secret"),
            stream: StreamRef { namespace: "school".into(), name: "algebra".into() },
            epoch: Epoch(epoch),
            asked: Asked::NOW,
            remote: "192.0.2.1:9".into(),
            heirs: true,
        };
        let mut bytes = BytesMut::new();
        hello.encode(&mut bytes);
        self.0.write_all(&bytes).await.ok()?;
        self.0.flush().await.ok()?;
        guarded("the owner's answer", async {
            loop {
                match RelayFrame::decode(&mut self.1).unwrap() {
                    Some(frame) => return Some(frame),
                    None if self.0.read_buf(&mut self.1).await.ok()? == 0 => return None,
                    None => {}
                }
            }
        })
        .await
    }
}
