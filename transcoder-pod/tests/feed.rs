//! The feed's client against shards over real sockets: it finds the owner, wherever that goes.
#![allow(clippy::unwrap_used)]

#[path = "../../podkit/tests/common/ca.rs"]
mod ca;

use bytes::{Bytes, BytesMut};
use ca::Ca;
use lectern_contract::feed::{AccessUnit, Codec, FeedFrame, FeedRequest, TimedMetadata, Track};
use lectern_contract::job::LiveJob;
use lectern_contract::keys::RunPrefix;
use lectern_contract::{Epoch, Ladder, PartCount, SegmentDuration, StreamRef, Ticks, WallMillis};
use lectern_podkit::tls::{PeerRole, PeerTls};
use lectern_transcoder_pod::engine::Input;
use lectern_transcoder_pod::feed::{Feed, FeedEnd};
use lectern_transcoder_pod::status::Status;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A shard that gives each of its connections in turn what it is told to.
struct Shard {
    address: String,
    asked: JoinHandle<Vec<FeedRequest>>,
}

impl Shard {
    async fn serve(peers: PeerTls, listener: TcpListener, answers: Vec<Vec<FeedFrame>>) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for frames in answers {
                let mut socket = peers.accept(listener.accept().await.unwrap().0, PeerRole::Transcoder).await.unwrap();
                let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
                let request = loop {
                    match FeedRequest::decode(&mut input).unwrap() {
                        Some(request) => break request,
                        None => assert!(socket.read_buf(&mut input).await.unwrap() > 0),
                    }
                };
                asked.push(request);
                for frame in frames {
                    frame.encode(&mut output);
                    socket.write_all_buf(&mut output).await.unwrap();
                    socket.flush().await.unwrap();
                    // What it has may take it a while: longer than a reader lets pass between two looks for silence.
                    if frame == FeedFrame::Alive {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                }
                // Until the reader has had enough: how it hangs up is its own affair.
                while socket.read_buf(&mut input).await.is_ok_and(|count| count > 0) {}
            }
            asked
        });
        Self { address, asked }
    }

    async fn plain(answers: Vec<Vec<FeedFrame>>) -> Self {
        Self::serve(PeerTls::plain(), listener().await, answers).await
    }

    /// The requests that came.
    async fn asked(self) -> Vec<FeedRequest> {
        guarded(self.asked).await.unwrap()
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Not an expectation of speed: a test that hangs must end, too.
async fn guarded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("hung")
}

fn job(feed: &str, any_feed: Option<&str>) -> LiveJob {
    let stream = StreamRef { namespace: "school".into(), name: "algebra".into() };
    LiveJob {
        title: "Algebra".into(),
        run: "r1".into(),
        attempt: 1,
        anchor: WallMillis(0),
        feed: feed.into(),
        any_feed: any_feed.map(Into::into),
        ladder: Ladder { video: vec![], audio: vec![] },
        segment_duration: SegmentDuration::LOW_LATENCY,
        parts: None,
        dvr_window_ms: None,
        slate: None,
        prefix: RunPrefix::of(&stream, &"r1".into()),
        replaces: None,
        passed_on: 0,
        idle_after_ms: 60_000,
        stream,
    }
}

/// Reads a run to its end: why it ended, and the times of the units that the engine got.
async fn read(job: &LiveJob, peers: PeerTls) -> (FeedEnd, Vec<u64>) {
    let (end, inputs) = read_shifted(job, peers, Ticks(0)).await;
    (end, inputs.iter().filter_map(|input| if let Input::Unit(unit) = input { Some(unit.dts.0) } else { None }).collect())
}

/// The same with all that the engine got, moved by `shift`.
async fn read_shifted(job: &LiveJob, peers: PeerTls, shift: Ticks) -> (FeedEnd, Vec<Input>) {
    read_from(job, peers, None, shift).await
}

/// The same from a time on.
async fn read_from(job: &LiveJob, peers: PeerTls, from: Option<Ticks>, shift: Ticks) -> (FeedEnd, Vec<Input>) {
    let (inputs, mut taken) = mpsc::channel(8);
    let (stop, abandoned) = (CancellationToken::new(), CancellationToken::new());
    let feed = tokio::spawn(Feed::new(job, peers, (from, shift), inputs, Status::default(), stop, abandoned).run());
    let mut all = Vec::new();
    while let Some(input) = guarded(taken.recv()).await {
        all.push(input);
    }
    (guarded(feed).await.unwrap(), all)
}

fn serving(epoch: u64) -> FeedFrame {
    FeedFrame::Serving { epoch: Epoch(epoch) }
}

fn moved(shard: &Shard) -> FeedFrame {
    FeedFrame::Moved { feed: shard.address.clone() }
}

fn config() -> FeedFrame {
    FeedFrame::Config { track: Track::Audio, codec: Codec::Aac, config: Bytes::from_static(&[0x11, 0x90]) }
}

fn unit(dts: u64) -> FeedFrame {
    unit_of(Track::Audio, dts)
}

fn unit_of(track: Track, dts: u64) -> FeedFrame {
    let (dts, payload) = (Ticks(dts), Bytes::from_static(b"some"));
    FeedFrame::AccessUnit(AccessUnit { track, dts, pts: dts, keyframe: true, payload })
}

#[tokio::test]
async fn a_run_that_moves_is_followed_to_its_new_owner_over_mutual_tls() {
    let ca = Ca::new();
    let peers = |name: &str| {
        let folder = ca.folder(&format!("{name}.default.lectern.internal"));
        async move { PeerTls::load(&folder, "default").await.unwrap() }
    };
    let after = vec![serving(2), config(), unit(10), unit(20), unit(30), FeedFrame::End];
    let new = Shard::serve(peers("ingest").await, listener().await, vec![after]).await;
    let before = vec![serving(1), config(), unit(10), unit(20), moved(&new)];
    let old = Shard::serve(peers("ingest").await, listener().await, vec![before]).await;

    let (end, times) = read(&job(&old.address, None), peers("transcoder").await).await;
    assert_eq!((end, times), (FeedEnd::Ended, vec![10, 20, 30]));
    let first = &old.asked().await[0];
    assert_eq!((first.epoch, first.now), (Epoch(0), None));
    let asked = new.asked().await;
    assert_eq!((asked[0].epoch, asked[0].from), (Epoch(1), Some(Ticks(20))), "it goes on where it was");
    assert!(
        asked[0].now.is_some_and(|now| (20..5 * 90_000).contains(&now.0)),
        "{:?}: by its own clock the run has come a little further",
        asked[0].now
    );
}

#[tokio::test]
async fn an_owner_that_is_gone_is_looked_up_at_any_other_shard() {
    let owner = Shard::plain(vec![vec![serving(2), config(), unit(10), FeedFrame::End]]).await;
    let any = Shard::plain(vec![vec![moved(&owner)]]).await;
    // A port that nobody listens on: bound once, so that nobody else gets it meanwhile, and let go.
    let gone = listener().await.local_addr().unwrap().to_string();
    let (end, times) = read(&job(&gone, Some(&any.address)), PeerTls::plain()).await;
    assert_eq!((end, times), (FeedEnd::Ended, vec![10]));
    assert_eq!(any.asked().await.len(), 1);
}

#[tokio::test]
async fn an_owner_that_refuses_and_any_shard_are_asked_by_turns() {
    let refused = || vec![FeedFrame::Refused { reason: "no route yet".into() }];
    let any = Shard::plain(vec![refused(), refused()]).await;
    let owner = Shard::plain(vec![refused(), refused(), vec![serving(1), FeedFrame::End]]).await;
    let (end, _) = read(&job(&owner.address, Some(&any.address)), PeerTls::plain()).await;
    assert_eq!(end, FeedEnd::Ended);
    assert_eq!((owner.asked().await.len(), any.asked().await.len()), (3, 2));
}

#[tokio::test]
async fn an_owner_of_an_older_epoch_is_hung_up_on() {
    let stale =
        Shard::plain(vec![vec![serving(1), config(), unit(1_000), FeedFrame::End], vec![serving(3), config(), unit(30), FeedFrame::End]])
            .await;
    let newest = Shard::plain(vec![vec![serving(2), config(), unit(10), moved(&stale)]]).await;
    let (end, times) = read(&job(&newest.address, None), PeerTls::plain()).await;
    assert_eq!((end, times), (FeedEnd::Ended, vec![10, 30]), "nothing of what the stale owner said");
    let asked: Vec<_> = stale.asked().await.iter().map(|request| request.epoch).collect();
    assert_eq!(asked, [Epoch(2), Epoch(2)]);
}

#[tokio::test]
async fn what_was_said_comes_once_and_at_its_place_whoever_owns_the_run() {
    let said = |at, value: &str| TimedMetadata { at: Ticks(at), name: "onTextData".into(), value: value.into() };
    let frame = |at, value| FeedFrame::Metadata(said(at, value));
    let new = Shard::plain(vec![vec![serving(2), config(), unit(10), frame(10, "1"), unit(20), frame(20, "2"), FeedFrame::End]]).await;
    let old = Shard::plain(vec![vec![serving(1), config(), unit(10), frame(10, "1"), moved(&new)]]).await;
    let (end, inputs) = read_shifted(&job(&old.address, None), PeerTls::plain(), Ticks(5)).await;
    let heard: Vec<_> = inputs.iter().filter(|input| !matches!(input, Input::Config { .. })).collect();
    let [Input::Unit(first), Input::Said(one), Input::Unit(second), Input::Said(two)] = heard[..] else { panic!("{inputs:?}") };
    assert_eq!((end, first.dts, second.dts), (FeedEnd::Ended, Ticks(15), Ticks(25)));
    assert_eq!((one, two), (&said(15, "1"), &said(25, "2")));
}

/// A lecture whose silence is filled.
fn with_a_slate(feed: &str, any_feed: Option<&str>) -> LiveJob {
    LiveJob { slate: Some("Back soon".into()), ..job(feed, any_feed) }
}

#[tokio::test]
async fn a_shard_that_is_cut_off_is_left_for_another_and_nothing_is_filled_meanwhile() {
    let other = Shard::plain(vec![vec![serving(1), FeedFrame::Alive, config(), unit(90_000), unit(92_000), FeedFrame::End]]).await;
    // Its connection stays open, and nothing comes.
    let deaf = Shard::plain(vec![vec![serving(1), FeedFrame::Alive, config(), unit(90_000)]]).await;
    let (end, inputs) = read_shifted(&with_a_slate(&deaf.address, Some(&other.address)), PeerTls::plain(), Ticks(0)).await;
    assert_eq!(end, FeedEnd::Ended);
    let times: Vec<_> = inputs.iter().filter_map(|input| if let Input::Unit(unit) = input { Some(unit.dts.0) } else { None }).collect();
    assert_eq!(times, [90_000, 92_000]);
    assert!(!inputs.iter().any(|input| matches!(input, Input::Fill(..))), "{inputs:?}");
}

#[tokio::test]
async fn a_shard_that_is_there_and_has_nothing_has_its_silence_filled() {
    let listener = listener().await;
    let address = listener.local_addr().unwrap().to_string();
    let shard = tokio::spawn(async move {
        let mut socket = listener.accept().await.unwrap().0;
        let mut output = BytesMut::new();
        [serving(1), FeedFrame::Alive, config(), unit(90_000)].iter().for_each(|frame| frame.encode(&mut output));
        while socket.write_all(&output).await.is_ok() {
            output.clear();
            FeedFrame::Alive.encode(&mut output);
            tokio::time::sleep(Duration::from_millis(50)).await; // a shard says so four times a second; more often does no harm
        }
    });
    let (inputs, mut taken) = mpsc::channel(8);
    let (stop, abandoned) = (CancellationToken::new(), CancellationToken::new());
    let job = with_a_slate(&address, None);
    let feed = Feed::new(&job, PeerTls::plain(), (None, Ticks(0)), inputs, Status::default(), stop.clone(), abandoned);
    let feed = tokio::spawn(feed.run());
    while !matches!(guarded(taken.recv()).await, Some(Input::Fill(..))) {}
    stop.cancel();
    assert_eq!(guarded(feed).await.unwrap(), FeedEnd::Stopped);
    guarded(shard).await.unwrap();
}

/// Players that keep segments in hand wait for it, and those that keep parts cannot; of a publisher that has left there is nothing to wait for.
#[tokio::test]
async fn media_that_is_late_is_lost_at_low_latency_only() {
    let filled = async |parts: Option<PartCount>, leaves: bool| {
        let mut answer = vec![serving(1), FeedFrame::Alive, config(), unit(90_000)];
        if leaves {
            // The next one's sound comes before its pictures.
            answer.insert(3, unit_of(Track::Video, 90_000));
            answer.push(FeedFrame::Gap { from: Ticks(93_000), reason: "another publisher took over".to_owned() });
            answer.push(unit(92_000));
        }
        answer.extend([const { FeedFrame::Alive }; 5]); // 300 ms each
        answer.extend([unit(93_000), FeedFrame::End]);
        let shard = Shard::plain(vec![answer]).await;
        let job = LiveJob { parts, segment_duration: SegmentDuration::try_from(4_000).unwrap(), ..with_a_slate(&shard.address, None) };
        let (end, inputs) = read_shifted(&job, PeerTls::plain(), Ticks(0)).await;
        assert_eq!(end, FeedEnd::Ended);
        let missed = if leaves { Track::Video } else { Track::Audio };
        inputs.iter().any(|input| matches!(input, Input::Fill(track, _) if *track == missed))
    };
    let (low, standard, left) = tokio::join!(filled(Some(PartCount::LOW_LATENCY), false), filled(None, false), filled(None, true));
    assert!(low && !standard && left, "filled at low latency: {low}, otherwise: {standard}, and of a publisher that has left: {left}");
}

#[tokio::test]
async fn what_lies_between_a_predecessor_and_the_media_is_filled_unless_it_had_made_nothing() {
    let filled = async |from: Ticks| {
        let shard = Shard::plain(vec![vec![serving(1), config(), unit(900_000), FeedFrame::End]]).await;
        let (end, inputs) = read_from(&with_a_slate(&shard.address, None), PeerTls::plain(), Some(from), Ticks(0)).await;
        assert_eq!(end, FeedEnd::Ended);
        inputs.iter().filter(|input| matches!(input, Input::Fill(..))).count()
    };
    assert_eq!(filled(Ticks(720_000)).await, 2);
    assert_eq!(filled(Ticks(0)).await, 0);
}
