//! An origin as it runs, with MiniStack as its S3 and a packager that speaks the push.

#![allow(dead_code)] // each test binary uses its part

use bytes::{Bytes, BytesMut};
use lectern_cloud::testing::Backend;
use lectern_cloud::{Objects, Precondition};
use lectern_contract::head::Head;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::push::{Held, PushFrame, PushRequest};
use lectern_contract::viewing::ViewingKey;
use lectern_contract::{Epoch, RunId, SegmentNumber, StreamRef, Ticks};
use lectern_origin_pod::{http, metrics::Metrics, pages::Pages, runs::Runs, store::Store, viewing::Viewing};
use lectern_podkit::CancellationToken;
use lectern_podkit::tls::PeerTls;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};

pub struct Lab {
    pub backend: Backend,
    pub objects: Objects,
    pub metrics: Metrics,
    pub client: reqwest::Client,
    pub router: axum::Router,
    /// The run of [`Lab::url`], [`Lab::store`] and [`Lab::owned_by`].
    prefix: RunPrefix,
    base: String,
    stop: CancellationToken,
}

pub fn prefix() -> RunPrefix {
    prefix_of("algebra", "r1")
}

pub fn prefix_of(name: &str, run: &str) -> RunPrefix {
    RunPrefix::of(&StreamRef { namespace: "school".into(), name: name.into() }, &run.into())
}

/// What signs the links to the lab's lectures.
pub fn key() -> ViewingKey {
    ViewingKey::from([1; 32])
}

pub fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

impl Lab {
    pub async fn start() -> Self {
        Self::start_for(prefix()).await
    }

    pub async fn start_for(prefix: RunPrefix) -> Self {
        Self::start_at(Backend::ministack().await.unwrap(), prefix).await
    }

    pub async fn start_at(backend: Backend, prefix: RunPrefix) -> Self {
        let objects = backend.objects("lectures").await.unwrap();
        let metrics = Metrics::default();
        let store = Store::new(objects.clone(), 1 << 20, metrics.clone());
        let runs = Runs::new(store, 1 << 20, PeerTls::plain(), metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(runs.clone().sweep(stop.clone()));
        let router = http::router(runs, Pages::load(std::path::Path::new("/nowhere")), Viewing::of([key()]), metrics.clone());
        tokio::spawn(http::serve(listener, router.clone(), stop.clone()));
        Self { backend, objects, metrics, client: reqwest::Client::new(), router, prefix, base, stop }
    }

    /// Asks the origin there from now on, in place of its own.
    pub fn asks(&mut self, origin: SocketAddr) {
        self.base = format!("http://{origin}");
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}/{}/{path}", self.base, self.prefix)
    }

    /// Any path of the origin.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub async fn eventually(&self, path: &str, wanted: &str) {
        let since = Instant::now();
        let mut last = (0, String::new());
        while since.elapsed() < Duration::from_secs(20) {
            last = self.get(path).await;
            if last.0 == 200 && last.1 == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} is not {wanted:?} but {last:?}");
    }

    pub async fn store(&self, path: &str, body: &str) {
        self.objects.put(&format!("{}/{path}", self.prefix), bytes(body)).await.unwrap();
    }

    /// Writes the head: `packager` owns the run now.
    pub async fn owned_by(&self, address: Option<&str>, epoch: u64, ended: bool) {
        let head = Head {
            run: self.prefix.run(),
            owner: format!("transcoder-{epoch}").as_str().into(),
            epoch: Epoch(epoch),
            address: address.map(str::to_owned),
            next_segment: SegmentNumber(0),
            unstored: false,
            begins: None,
            shift: Ticks(0),
            ended,
        };
        let key = self.prefix.key(&ObjectName::Head);
        let condition = match self.objects.get(&key).await.unwrap() {
            Some(there) => Precondition::Matches(there.etag),
            None => Precondition::Absent,
        };
        self.objects.put_if(&key, Bytes::from(serde_json::to_vec(&head).unwrap()), condition).await.unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until `n` requests wait.
pub async fn waiting(lab: &Lab, n: i64) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while lab.metrics.waiting.get() != n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} requests wait, not {n}", lab.metrics.waiting.get()));
}

/// A packager: sends all that it has to whoever subscribes, then what is pushed.
pub struct Packager {
    pub address: String,
    kept: Arc<Mutex<Vec<PushFrame>>>,
    news: broadcast::Sender<PushFrame>,
    told: Arc<Mutex<Vec<Held>>>,
    task: JoinHandle<()>,
}

impl Packager {
    /// The run's first owner.
    pub async fn start() -> Self {
        Self::start_under(1).await
    }

    pub async fn start_under(epoch: u64) -> Self {
        Self::start_of(prefix().run(), epoch).await
    }

    pub async fn start_of(run: RunId, epoch: u64) -> Self {
        Self::start_with(run, vec![PushFrame::Serving { epoch: Epoch(epoch) }]).await
    }

    /// One that does not say under which epoch it pushes.
    pub async fn start_unannounced() -> Self {
        Self::start_with(prefix().run(), Vec::new()).await
    }

    async fn start_with(run: RunId, first: Vec<PushFrame>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let kept = Arc::new(Mutex::new(first));
        let (news, _) = broadcast::channel(256);
        let told = Arc::new(Mutex::default());
        let (all, feed, hears) = (kept.clone(), news.clone(), told.clone());
        let task = tokio::spawn(async move {
            let mut readers = JoinSet::new(); // aborted with this task
            while let Ok((connection, _)) = listener.accept().await {
                readers.spawn(serve(connection, run.clone(), all.clone(), feed.clone(), hears.clone()));
            }
        });
        Self { address, kept, news, told, task }
    }

    pub fn push(&self, name: &str, body: &str) {
        self.send(PushFrame::Object { name: name.into(), body: bytes(body) });
    }

    pub fn join(&self, name: &str, parts: u32) {
        self.send(PushFrame::Joined { name: name.into(), parts });
    }

    /// What the origin has of this segment is of no use.
    pub fn make_anew(&self, rendition: &str, number: u64) {
        self.send(PushFrame::Anew { rendition: rendition.into(), number: SegmentNumber(number) });
    }

    /// What origins have said that they hold.
    pub fn told(&self) -> Vec<Held> {
        self.told.lock().unwrap().clone()
    }

    pub fn end(&self) {
        self.send(PushFrame::Ended);
    }

    fn send(&self, frame: PushFrame) {
        let mut kept = self.kept.lock().unwrap();
        kept.push(frame.clone());
        let _ = self.news.send(frame); // nobody may have subscribed yet
    }

    /// As SIGKILL would: connections break, nobody listens.
    pub fn kill(self) {
        self.task.abort();
    }
}

async fn serve(
    mut connection: TcpStream,
    run: RunId,
    kept: Arc<Mutex<Vec<PushFrame>>>,
    news: broadcast::Sender<PushFrame>,
    told: Arc<Mutex<Vec<Held>>>,
) {
    let mut input = BytesMut::new();
    let request = loop {
        match PushRequest::decode(&mut input).unwrap() {
            Some(PushRequest::Holds { run: of, held }) => {
                assert_eq!(of, run);
                told.lock().unwrap().push(held);
                continue;
            }
            Some(request) => break request,
            None => {}
        }
        assert_ne!(connection.read_buf(&mut input).await.unwrap(), 0, "the origin hung up before it asked");
    };
    assert_eq!(request, PushRequest::Objects(run));
    let mut out = BytesMut::new();
    let mut later = {
        let kept = kept.lock().unwrap();
        kept.iter().for_each(|frame| frame.encode(&mut out));
        news.subscribe()
    };
    while connection.write_all(&out).await.is_ok() {
        out.clear();
        match later.recv().await {
            Ok(frame) => frame.encode(&mut out),
            Err(_) => return,
        }
    }
}
