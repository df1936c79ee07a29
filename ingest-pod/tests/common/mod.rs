//! A whole shard in this process on loopback ports, real publishers, and a reader of the feed.

#![allow(dead_code, reason = "each test file uses its part")]

use bytes::BytesMut;
use lectern_cloud::Objects;
use lectern_contract::feed::{AccessUnit, FeedFrame, FeedRequest, Track};
use lectern_contract::{Epoch, KeyHash, RunId, ShardName, StreamRef, Ticks, WallMillis};
use lectern_crds::Takeover;
use lectern_ingest_pod::gate::{Gate, GateLimits};
use lectern_ingest_pod::memory::Memory;
use lectern_ingest_pod::metrics::Metrics;
use lectern_ingest_pod::relay::{self, Owners};
use lectern_ingest_pod::routes::{Keys, Route, RouteTable};
use lectern_ingest_pod::rtmp::Pump;
use lectern_ingest_pod::rtsp::{Known, Timing};
use lectern_ingest_pod::shard::Shard;
use lectern_ingest_pod::stream::Limits;
use lectern_ingest_pod::{feed, net, original, rtmp, rtsp};
use lectern_podkit::CancellationToken;
use lectern_podkit::clock::wall_now;
use lectern_podkit::tls::{PeerStream, PeerTls};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Not an expectation of speed: a test that hangs must end, too.
const WATCHDOG: Duration = Duration::from_secs(120);

/// A picture's length at the test publisher's thirty a second; stamps are whole milliseconds.
const PICTURE: RangeInclusive<u64> = 2_970..=3_060;
/// 1024 samples of sound at 44.1 kHz, in whole milliseconds.
const SOUND: RangeInclusive<u64> = 2_070..=2_160;

/// Cameras that hang are noticed soon enough for a test.
const IMPATIENT: Timing = Timing {
    answer: Duration::from_secs(2),
    silence: Duration::from_secs(2),
    teardown: Duration::from_millis(500),
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_millis(500),
};

pub async fn guarded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(WATCHDOG, work).await.unwrap_or_else(|_| panic!("hung while waiting for {what}"))
}

/// A shard, named after its relay's address so that `{shard}` reaches it.
pub struct TestShard {
    pub name: ShardName,
    pub shard: Arc<Shard>,
    pub metrics: Metrics,
    pub gate: Gate,
    pub rtmp: SocketAddr,
    pub feed: SocketAddr,
    /// The credentials of cameras, in the place of the pool's Secret.
    pub cameras: watch::Sender<Known>,
    routes: watch::Sender<Arc<RouteTable>>,
    stop: CancellationToken,
}

impl Drop for TestShard {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestShard {
    pub async fn start(limits: Limits) -> Self {
        Self::start_among(limits, PeerTls::plain()).await
    }

    /// A shard with a certificate. The feed of shard `a` is at `feed-of-a`, for those who are sent there.
    pub async fn start_among(limits: Limits, peers: PeerTls) -> Self {
        Self::start_with(limits, GateLimits::default(), peers).await
    }

    /// One that reaches the feeds of all others at `feed`.
    pub async fn start_before(feed: SocketAddr, peers: PeerTls) -> Self {
        Self::start_where(&feed.to_string(), Limits::default(), GateLimits::default(), peers).await
    }

    pub async fn start_with(limits: Limits, gate: GateLimits, peers: PeerTls) -> Self {
        Self::start_where("feed-of-{shard}", limits, gate, peers).await
    }

    async fn start_where(feeds: &str, limits: Limits, gate: GateLimits, peers: PeerTls) -> Self {
        let [rtmp_at, feed_at, relay_at] = [listener(), listener(), listener()];
        let (rtmp, feed) = (rtmp_at.local_addr().unwrap(), feed_at.local_addr().unwrap());
        let name = ShardName(relay_at.local_addr().unwrap().to_string());
        let (routes, seen) = watch::channel(Arc::default());
        let (metrics, stop) = (Metrics::default(), CancellationToken::new());
        let shard = Shard::new(name.clone(), seen, limits, Memory::new(1 << 30), metrics.clone());
        let pump = Pump::start(1, rtmp::BATCH, &metrics, &shard.draining()).unwrap();
        let owners = Owners::new("{shard}".into(), feeds.into(), peers.clone());
        let gate = Gate::new(gate);
        let context = Arc::new(rtmp::Context { shard: shard.clone(), owners: owners.clone(), pump, gate: gate.clone() });
        tokio::spawn(shard.clone().follow_routes(stop.clone()));
        tokio::spawn(rtmp::serve(rtmp_at, context, None, stop.clone().into()));
        tokio::spawn(feed::serve(feed_at, shard.clone(), owners, net::Open::default(), stop.clone()));
        tokio::spawn(relay::serve(relay_at, shard.clone(), peers, net::Open::default(), stop.clone()));
        let (cameras, credentials) = watch::channel(Known::default());
        tokio::spawn(rtsp::run(shard.clone(), credentials, IMPATIENT, stop.clone()));
        Self { name, shard, metrics, gate, rtmp, feed, cameras, routes, stop }
    }

    /// A shard that owns one stream, `school/algebra`, run `r1`, key `secret`.
    pub async fn with_a_stream() -> Self {
        let shard = Self::start(Limits::default()).await;
        shard.route([shard.own_route()]);
        shard
    }

    /// Records originals. The shard's end is heard by the recorders as well; the task ends once they have.
    pub fn record(&self, objects: Objects) -> JoinHandle<()> {
        let recording = original::run(self.shard.clone(), Some(objects), self.stop.clone());
        tokio::spawn(async move { recording.await.unwrap_or_else(|never| match never {}) })
    }

    pub fn own_route(&self) -> Route {
        route_to(&self.name)
    }

    pub fn route<const N: usize>(&self, routes: [Route; N]) {
        self.routes.send_replace(Arc::new(routes.into_iter().collect()));
    }

    pub async fn read(&self, from: Option<Ticks>) -> FeedClient {
        FeedClient::open(self.feed, from, None).await
    }

    /// As [`TestShard::read`], of somebody for whom the run is at `now`.
    pub async fn read_as_of(&self, from: Option<Ticks>, now: Ticks) -> FeedClient {
        let socket = PeerStream::Plain(TcpStream::connect(self.feed).await.unwrap());
        FeedClient::ask(socket, FeedRequest { from, now: Some(now), ..FeedRequest::newest(RunId::from("r1")) }).await
    }

    /// Publishes two seconds as fast as they can be encoded, to the end.
    pub async fn publish_two_seconds(&self) {
        let mut ffmpeg = publisher(self.rtmp, "secret", &["-t", "2"]);
        let status = guarded("ffmpeg to publish", ffmpeg.wait()).await.unwrap();
        assert!(status.success(), "ffmpeg: {status}");
    }
}

pub fn route_to(shard: &ShardName) -> Route {
    Route {
        keys: Keys::only(KeyHash::of("secret")),
        takeover: Takeover::default(),
        stream: StreamRef { namespace: "school".into(), name: "algebra".into() },
        run: RunId::from("r1"),
        shard: shard.clone(),
        epoch: Epoch(1),
        anchor: WallMillis(wall_now().0),
        ended: false,
        camera: None,
        original: None,
    }
}

fn listener() -> TcpListener {
    net::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

/// ffmpeg, publishing a test picture and a tone with a keyframe every second; killed when dropped.
pub fn publisher(rtmp: SocketAddr, key: &str, limit: &[&str]) -> Child {
    publisher_with(rtmp, key, limit, &["-c:v", "libx264", "-preset", "ultrafast", "-g", "30", "-pix_fmt", "yuv420p", "-c:a", "aac"])
}

pub fn publisher_with(rtmp: SocketAddr, key: &str, limit: &[&str], codecs: &[&str]) -> Child {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "fatal", "-nostdin"]);
    if limit.is_empty() {
        command.arg("-re"); // endless: at the pace of a real lecturer
    }
    command.args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"]);
    if limit.is_empty() {
        command.arg("-re");
    }
    command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"]).args(limit).args(codecs);
    command.args(["-f", "flv"]).arg(format!("rtmp://{rtmp}/live/{key}"));
    command.stdin(Stdio::null()).kill_on_drop(true).spawn().expect("ffmpeg is installed (scripts/install)")
}

pub async fn exit_of(mut child: Child) -> ExitStatus {
    guarded("ffmpeg to exit", child.wait()).await.unwrap()
}

/// A reader of a run.
pub struct FeedClient {
    socket: PeerStream,
    input: BytesMut,
    /// The epoch of the owner that serves it, once it has said so.
    pub serving: Option<Epoch>,
}

impl FeedClient {
    /// Of run `r1`.
    pub async fn open(feed: SocketAddr, from: Option<Ticks>, receive_buffer: Option<u32>) -> Self {
        Self::of(feed, RunId::from("r1"), from, receive_buffer).await
    }

    pub async fn of(feed: SocketAddr, run: RunId, from: Option<Ticks>, receive_buffer: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        let socket = PeerStream::Plain(socket.connect(feed).await.unwrap());
        Self::ask(socket, FeedRequest { from, ..FeedRequest::newest(run) }).await
    }

    pub async fn ask(mut socket: PeerStream, wanted: FeedRequest) -> Self {
        let mut request = BytesMut::new();
        wanted.encode(&mut request);
        socket.write_all(&request).await.unwrap();
        socket.flush().await.unwrap();
        Self { socket, input: BytesMut::new(), serving: None }
    }

    /// The next frame after the owner's greeting.
    pub async fn next(&mut self) -> FeedFrame {
        self.try_next().await.unwrap().expect("the feed was closed")
    }

    /// As `next`; `None` where the connection ends.
    pub async fn try_next(&mut self) -> std::io::Result<Option<FeedFrame>> {
        guarded("a frame of the feed", async {
            loop {
                match FeedFrame::decode(&mut self.input).unwrap() {
                    Some(FeedFrame::Serving { epoch }) => {
                        assert_eq!(self.serving.replace(epoch), None, "the owner greets once, first");
                    }
                    Some(frame) => return Ok(Some(frame)),
                    None if self.socket.read_buf(&mut self.input).await? == 0 => return Ok(None),
                    None => {}
                }
            }
        })
        .await
    }

    /// The next access unit, over all else.
    pub async fn next_unit(&mut self) -> AccessUnit {
        loop {
            if let FeedFrame::AccessUnit(unit) = self.next().await {
                return unit;
            }
        }
    }

    /// All frames up to and including the next Gap, End, Moved or Refused.
    pub async fn until_a_stop(&mut self) -> Vec<FeedFrame> {
        let mut frames = Vec::new();
        loop {
            frames.push(self.next().await);
            if let Some(FeedFrame::Gap { .. } | FeedFrame::End | FeedFrame::Moved { .. } | FeedFrame::Refused { .. }) = frames.last() {
                return frames;
            }
        }
    }
}

pub fn units(frames: &[FeedFrame]) -> Vec<&AccessUnit> {
    let units = frames.iter().filter_map(|frame| match frame {
        FeedFrame::AccessUnit(unit) => Some(unit),
        _ => None,
    });
    units.collect()
}

pub fn assert_times_grow(units: &[&AccessUnit]) {
    for track in [Track::Video, Track::Audio] {
        let times: Vec<_> = units.iter().filter(|unit| unit.track == track).map(|unit| unit.dts).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{track:?}: {times:?}");
    }
}

/// Every step from one access unit of a track to the next is one access unit long.
pub fn assert_whole(units: &[AccessUnit]) {
    for (track, step) in [(Track::Video, PICTURE), (Track::Audio, SOUND)] {
        let times: Vec<Ticks> = units.iter().filter(|unit| unit.track == track).map(|unit| unit.dts).collect();
        assert!(times.len() > 60, "{track:?}: {}", times.len());
        for (at, two) in times.windows(2).enumerate() {
            let length = two[1].0.wrapping_sub(two[0].0);
            assert!(step.contains(&length), "{track:?}: {length} ticks after the {at}th, at {}", two[0]);
        }
    }
}

/// x264's AVCDecoderConfigurationRecord for 1280x720.
pub fn record() -> Vec<u8> {
    let hex = "0164001fffe1001a6764001facd9405005bb0110000003001000000303c0f183196001000468ef8fcbfdf8f800";
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
