//! A shard as a process on a machine whose clock steps, by libfaketime: the time of its runs goes on as if nothing had been.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

#[path = "../../podkit/tests/common/clock.rs"]
mod clock;
mod common;
#[path = "../../podkit/tests/common/process.rs"]
mod process;

use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use bytes::Bytes;
use clock::Clock;
use common::*;
use lectern_contract::feed::{AccessUnit, FeedFrame, FeedRequest};
use lectern_contract::{KeyHash, RunId, TICKS_PER_SECOND, Ticks, WallMillis};
use lectern_podkit::clock::wall_now;
use lectern_podkit::tls::PeerStream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const HOUR: i64 = 3_600_000;
/// Of a time that goes on this is too much: a step of the clock is an hour, and nothing here takes minutes.
const HOLE: Ticks = Ticks(600 * TICKS_PER_SECOND);

/// What the shard's clock was read for, and each run but `r1` once: its key is its name.
const RUNS: [&str; 6] = ["r1", "w0", "w1", "w2", "w3", "w4"];

/// A shard and its machine.
struct Machine {
    shard: Option<Child>,
    clock: Clock,
    kubeconfig: PathBuf,
    rtmp: SocketAddr,
    feed: SocketAddr,
    /// Two hours ago, so that a clock that is an hour behind is not before it.
    anchor: WallMillis,
    unseen: std::slice::Iter<'static, &'static str>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

impl Machine {
    async fn start() -> Self {
        let anchor = WallMillis(wall_now().0 - 2 * HOUR as u64);
        let mut machine = Self {
            shard: None,
            clock: Clock::new(),
            kubeconfig: kubeconfig(cluster(anchor).await),
            rtmp: process::address(),
            feed: process::address(),
            anchor,
            unseen: RUNS[1..].iter(),
        };
        machine.start_shard().await;
        machine
    }

    async fn start_shard(&mut self) {
        let [relay, health] = [process::address(), process::address()];
        let mut command = Command::new(env!("CARGO_BIN_EXE_lectern-ingest"));
        command.args(["--pod-name", "shard-0"]);
        for (name, address) in [("rtmp", self.rtmp), ("feed", self.feed), ("relay", relay), ("health", health)] {
            command.arg(format!("--{name}-listen={address}"));
        }
        command.env("KUBECONFIG", &self.kubeconfig).envs(self.clock.environment());
        self.shard = Some(process::ready(command, health).await);
    }

    /// Kills the shard and starts it anew.
    async fn restart_shard(&mut self) {
        self.shard.take().unwrap().kill().await.unwrap();
        (self.rtmp, self.feed) = (process::address(), process::address());
        self.start_shard().await;
    }

    /// Sets the machine's clock so many hours from the true time.
    fn steps_to(&self, hours: i64) {
        self.clock.steps_to(hours);
    }

    /// How many hours the shard's clock is from the true time, by a run that it has not seen before.
    async fn hours_off(&mut self) -> i64 {
        let run = *self.unseen.next().unwrap();
        assert!(exit_of(publisher(self.rtmp, run, &["-t", "1"])).await.success());
        let first = FeedClient::of(self.feed, RunId::from(run), Some(Ticks(0)), None).await.next_unit().await;
        let told = self.anchor.0 + first.dts.as_millis();
        (told as i64 - wall_now().0 as i64 + HOUR / 2).div_euclid(HOUR)
    }

    async fn publish_two_seconds(&self) {
        let as_fast_as_it_plays = ["-t", "2", "-vf", "realtime", "-af", "arealtime"];
        assert!(exit_of(publisher(self.rtmp, "secret", &as_fast_as_it_plays)).await.success());
    }

    /// A reader of the lecture that has it up to `known`, as a transcoder does.
    async fn read(&self, known: Option<Ticks>) -> FeedClient {
        let socket = PeerStream::Plain(TcpStream::connect(self.feed).await.unwrap());
        let from = known.unwrap_or_default();
        FeedClient::ask(socket, FeedRequest { from: Some(from), now: known, ..FeedRequest::newest(RunId::from("r1")) }).await
    }
}

/// A Kubernetes API that knows the routes of [`RUNS`], all to `shard-0`, and nothing else, and in which nothing ever happens.
async fn cluster(anchor: WallMillis) -> SocketAddr {
    let route = |run: &str| {
        let key = KeyHash::of(if run == "r1" { "secret" } else { run });
        let placed = json!({ "keyHash": key.0, "shard": "shard-0", "epoch": 1, "anchorMillis": anchor.0 });
        let mut route = json!({ "namespace": "school", "name": run, "runId": run });
        route.as_object_mut().unwrap().extend(placed.as_object().unwrap().clone());
        route
    };
    let slice = json!({
        "apiVersion": "lectern.video/v1alpha1", "kind": "RouteSlice",
        "metadata": { "name": "routes", "namespace": "lectern", "resourceVersion": "1" },
        "spec": { "poolName": "default", "routes": RUNS.map(route) },
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = axum::Router::new().fallback(answer).with_state(slice);
    tokio::spawn(async move { axum::serve(listener, api).await });
    address
}

async fn answer(State(slice): State<Value>, uri: Uri) -> Body {
    if uri.query().is_some_and(|query| query.contains("watch=true")) {
        return Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    }
    let items: &[Value] = if uri.path().ends_with("/routeslices") { &[slice] } else { &[] };
    Body::from(json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items }).to_string())
}

fn kubeconfig(api: SocketAddr) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lectern-kubeconfig-{}-{}", std::process::id(), api.port()));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{ "name": "here", "cluster": { "server": format!("http://{api}") } }],
        "users": [{ "name": "here", "user": {} }],
        "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "here" } }],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// All access units of a publisher, up to where it has gone.
async fn until_it_goes(reader: &mut FeedClient) -> Vec<AccessUnit> {
    loop {
        let frames = reader.until_a_stop().await;
        if let read @ [_, ..] = units(&frames).as_slice() {
            return read.iter().map(|unit| (*unit).clone()).collect();
        }
    }
}

/// Time goes on, and nowhere by an hour.
fn assert_goes_on(read: &[AccessUnit]) {
    assert_times_grow(&read.iter().collect::<Vec<_>>());
    for two in read.windows(2) {
        assert!(two[1].dts.since(two[0].dts) < HOLE, "{} is followed by {}", two[0].dts, two[1].dts);
    }
}

#[tokio::test]
async fn a_clock_that_steps_an_hour_ahead_and_back_under_a_lecture_moves_nothing() {
    let mut machine = Machine::start().await;
    let _lecturer = publisher(machine.rtmp, "secret", &[]);
    let mut reader = machine.read(None).await;
    let mut read = Vec::new();
    for hours in [0, 1, 0, -1, 0] {
        machine.steps_to(hours);
        assert_eq!(machine.hours_off().await, hours, "what the shard's clock tells");
        let until = read.len() + 200; // some three seconds
        while read.len() < until {
            match reader.next().await {
                FeedFrame::AccessUnit(unit) => read.push(unit),
                FeedFrame::Config { .. } => {}
                other => panic!("{other:?} after {} access units", read.len()),
            }
        }
    }
    assert_whole(&read);
}

#[tokio::test]
async fn a_publisher_that_returns_after_a_step_goes_on_where_it_was() {
    let machine = Machine::start().await;
    let mut reader = machine.read(None).await;
    let mut read = Vec::new();
    for hours in [0, 1, -1, 0] {
        machine.steps_to(hours);
        machine.publish_two_seconds().await;
        read.extend(until_it_goes(&mut reader).await);
    }
    assert_goes_on(&read);
}

/// The shard that starts takes the run's time from its machine's clock, and hears from the transcoder that it is another.
#[tokio::test]
async fn a_shard_that_starts_anew_after_a_step_goes_on_where_its_reader_is() {
    let mut machine = Machine::start().await;
    let mut reader = machine.read(None).await;
    let mut read = Vec::new();
    for hours in [0, 1, -1, 0] {
        if let Some(known) = read.iter().map(|unit: &AccessUnit| unit.dts).max() {
            machine.steps_to(hours);
            machine.restart_shard().await;
            assert_eq!(machine.hours_off().await, hours, "what the shard's clock tells");
            reader = machine.read(Some(known)).await;
        }
        machine.publish_two_seconds().await;
        read.extend(until_it_goes(&mut reader).await);
    }
    assert_goes_on(&read);
}
