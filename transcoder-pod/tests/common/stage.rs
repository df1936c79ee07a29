//! A whole pod, and what it works with: S3 and SQS, a feed, a job.
#![allow(dead_code)] // each test binary uses its part

use crate::common::{folder, ladder, shard, tool};
use lectern_cloud::testing::Backend;
use lectern_cloud::{Etag, Objects, Queue};
use lectern_contract::feed::FeedFrame;
use lectern_contract::head::Head;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::{ObjectName, RunPrefix};
use lectern_contract::ledger::{Ended, Ledger};
use lectern_contract::message::Message as _;
use lectern_contract::{PartCount, SegmentDuration, StreamRef, WallMillis};
use lectern_transcoder_pod::publish::NEWEST;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A pod's process; stopped the hard way when dropped.
pub struct Pod(Child);

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pod {
    pub fn start(name: &str, backend: &Backend) -> Self {
        Self::start_with(name, backend, &[], Stdio::inherit())
    }

    pub fn start_with(name: &str, backend: &Backend, arguments: &[&str], log: Stdio) -> Self {
        Self::start_at(name, &backend.endpoint(), backend, arguments, log)
    }

    /// One that reaches S3 and SQS at `endpoint`.
    pub fn start_at(name: &str, endpoint: &str, backend: &Backend, arguments: &[&str], log: Stdio) -> Self {
        let mut command = Self::command(name, [endpoint, endpoint], backend);
        Self(command.args(arguments).stderr(log).spawn().unwrap())
    }

    /// Starts `command`.
    pub fn spawn(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// What starts one that reaches S3 and SQS at these, with the keys of `backend`.
    pub fn command(name: &str, [bucket, queue]: [&str; 2], backend: &Backend) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lectern-transcoder"));
        command.args(["supervise", "--pod-name", name, "--bucket", "lectures", "--queue", "jobs", "--health-listen", "127.0.0.1:0"]);
        command.args(["--bucket-endpoint", bucket, "--queue-endpoint", queue]);
        command.envs(backend.environment()).stdin(Stdio::null());
        command
    }

    pub fn signal(pid: &str, signal: &str) {
        assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
    }

    /// Asks the pod to stop, as a kubelet does.
    pub fn terminate(&self) {
        Self::signal(&self.0.id().to_string(), "-TERM");
    }

    /// Stops the whole pod where it is, as a hypervisor does that moves its machine; or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        std::iter::once(self.0.id().to_string()).chain(self.children()).for_each(|pid| Self::signal(&pid, signal));
    }

    pub fn children(&self) -> Vec<String> {
        // It fails where there are none.
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &self.0.id().to_string()]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    /// Kills the pod's child as the kernel does when memory runs out.
    pub fn kill_child(&self) {
        Self::signal(&self.children()[0], "-KILL");
    }

    /// The same of the one that is none of `spared`.
    pub fn kill_child_beside(&self, spared: &[String]) {
        let children = self.children();
        let child = children.iter().find(|child| !spared.contains(child));
        Self::signal(child.unwrap_or_else(|| panic!("no child beside {spared:?}")), "-KILL");
    }

    /// Where it serves health and metrics, once it does: it listens nowhere else, and children are other processes (`/proc/PID/net/tcp`, proc(5)).
    fn health_port(&self) -> Option<u16> {
        let process = format!("/proc/{}", self.0.id());
        let files = std::fs::read_dir(format!("{process}/fd")).unwrap();
        let sockets: Vec<String> = files
            .filter_map(|file| {
                let file = std::fs::read_link(file.ok()?.path()).ok()?;
                Some(file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            })
            .collect();
        let table = std::fs::read_to_string(format!("{process}/net/tcp")).unwrap();
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields[3] == "0A" && sockets.iter().any(|socket| socket == fields[9]);
            let (_, port) = fields[1].split_once(':').filter(|_| listens)?;
            u16::from_str_radix(port, 16).ok()
        })
    }

    /// Waits until its metrics have all these lines.
    pub async fn until_measured(&self, lines: &[&str]) {
        let since = Instant::now();
        loop {
            let measured = match self.health_port() {
                Some(port) => metrics(port).await,
                None => String::new(),
            };
            if lines.iter().all(|line| measured.lines().any(|measured| measured == *line)) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "not measured: {lines:?}\n{measured}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until a pod that logs there says so.
pub async fn until_said(log: &Path, what: &str) {
    let since = Instant::now();
    loop {
        let said = std::fs::read_to_string(log).unwrap();
        if said.contains(what) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "nobody says {what:?}:\n{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a process on this machine says of itself.
async fn metrics(port: u16) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A job that waits for a pod.
pub struct Stage {
    /// Who has the queue.
    pub backend: Backend,
    pub objects: Objects,
    pub queue: Queue,
    pub job: LiveJob,
}

impl Stage {
    /// With the queue and the objects in one place.
    pub async fn set(frames: Vec<FeedFrame>) -> Self {
        let backend = Backend::ministack().await.unwrap();
        let objects = backend.objects("lectures").await.unwrap();
        Self::set_with(frames, backend, objects).await
    }

    /// With the queue of `backend`, and `objects` wherever they are.
    pub async fn set_with(frames: Vec<FeedFrame>, backend: Backend, objects: Objects) -> Self {
        let stage = Self::prepared(frames, backend, objects).await;
        stage.queue.send(&stage.job.to_message()).await.unwrap();
        stage
    }

    /// The same with a job that nobody has been given yet.
    pub async fn prepared(frames: Vec<FeedFrame>, backend: Backend, objects: Objects) -> Self {
        let queue = backend.queue("jobs").await.unwrap();
        let stream = StreamRef { namespace: "school".into(), name: "algebra".into() };
        let job = LiveJob {
            title: "Algebra".into(),
            run: "r1".into(),
            attempt: 1,
            anchor: WallMillis(1_700_000_000_000),
            feed: shard::serve(frames).await.to_string(),
            any_feed: None,
            ladder: ladder(),
            segment_duration: SegmentDuration::LOW_LATENCY,
            parts: Some(PartCount::LOW_LATENCY),
            dvr_window_ms: None,
            slate: Some("Back soon".into()),
            prefix: RunPrefix::of(&stream, &"r1".into()),
            replaces: None,
            passed_on: 0,
            idle_after_ms: 20_000,
            stream,
        };
        Self { backend, objects, queue, job }
    }

    pub async fn get(&self, name: &ObjectName) -> Option<bytes::Bytes> {
        self.objects.get(&self.job.prefix.key(name)).await.unwrap().map(|object| object.body)
    }

    pub async fn head(&self) -> Option<Head> {
        self.get(&ObjectName::Head).await.map(|body| serde_json::from_slice(&body).unwrap())
    }

    pub async fn until(&self, what: &str, within: Duration, holds: impl Fn(&Head) -> bool) -> Head {
        let since = Instant::now();
        loop {
            let head = self.head().await;
            match head {
                Some(head) if holds(&head) => return head,
                _ => assert!(since.elapsed() < within, "not within {within:?}: {what}; {head:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the queue holds so many messages, those included that are hidden while somebody works on them.
    pub async fn until_left(&self, count: u64) {
        let since = Instant::now();
        loop {
            let depth = self.queue.depth().await.unwrap();
            if depth.all() == count {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{count} should be left in the queue: {depth:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The run's objects: the version and the size of each, by its key.
    pub async fn stored(&self) -> BTreeMap<String, (Etag, usize)> {
        let mut stored = BTreeMap::new();
        for key in self.objects.list(self.job.prefix.as_str()).await.unwrap() {
            let object = self.objects.get(&key).await.unwrap().unwrap();
            stored.insert(key, (object.etag, object.body.len()));
        }
        stored
    }

    pub async fn text(&self, name: ObjectName) -> String {
        let body = self.get(&name).await.unwrap_or_else(|| panic!("{name} is not there"));
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Every number from the ledgers, by rendition.
    pub async fn numbers(&self) -> BTreeMap<String, Vec<u64>> {
        let ended: Ended = serde_json::from_slice(&self.get(&ObjectName::Ended).await.unwrap()).unwrap();
        let names: Vec<&str> = ended.renditions.iter().map(|r| r.name.as_str()).collect();
        assert!(names.starts_with(&["360p", "180p", "audio"]) && (names.len() == 3 || names[3..] == ["captions"]), "{names:?}");
        let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for minute in ended.minutes {
            let ledger: Ledger = serde_json::from_slice(&self.get(&ObjectName::Ledger(minute)).await.unwrap()).unwrap();
            for (rendition, segments) in ledger.segments {
                // Whole, but for the first (pictures begin within it) and the last.
                let whole = segments.iter().skip(1).take(segments.len().saturating_sub(2));
                let whole_ticks = self.job.segment_duration.ticks().0;
                let nominal = |ticks: u64| ticks.abs_diff(whole_ticks) <= if rendition == "audio" { 1920 } else { 0 };
                assert!(whole.clone().all(|segment| nominal(segment.duration.0)), "{rendition}: {segments:?}");
                numbers.entry(rendition).or_default().extend(segments.iter().map(|segment| segment.number.0));
            }
        }
        numbers
    }

    /// Every rendition has these numbers, and no others.
    pub async fn has_all(&self, wanted: std::ops::Range<u64>) {
        for (rendition, numbers) in self.numbers().await {
            assert_eq!(numbers, wanted.clone().collect::<Vec<_>>(), "{rendition}");
        }
    }

    /// Copies the run to disk; the path of its live playlist.
    pub async fn copy(&self, name: &str) -> String {
        let folder = folder(name);
        for key in self.objects.list(self.job.prefix.as_str()).await.unwrap() {
            let path = folder.join(key.strip_prefix(&format!("{}/", self.job.prefix)).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.objects.get(&key).await.unwrap().unwrap().body).unwrap();
        }
        folder.join("live.m3u8").to_str().unwrap().to_owned()
    }

    /// Copies the run to disk and plays it with ffmpeg.
    pub async fn play(&self, name: &str) {
        let copied = self.copy(name).await;
        let folder = Path::new(&copied).parent().unwrap();
        let playlist = std::fs::read_to_string(folder.join("360p/live.m3u8")).unwrap();
        assert!(playlist.ends_with("#EXT-X-ENDLIST\n") && !playlist.contains("GAP"), "{playlist}");
        let mpd = std::fs::read_to_string(folder.join("live.mpd")).unwrap();
        assert!(mpd.contains(" type=\"static\"") && mpd.contains(" mediaPresentationDuration=\"") && !mpd.contains("UTCTiming"), "{mpd}");
        for name in ["live.m3u8", "live.mpd"] {
            let path = folder.join(name);
            let complaints = tool(
                "ffmpeg",
                &["-v", "error", "-xerror", "-allowed_extensions", "ALL", "-i", path.to_str().unwrap(), "-map", "0", "-f", "null", "-"],
            );
            assert_eq!(complaints.trim(), "", "{name}");
            // All three renditions, each to its end: what a reader took for another segment would be missing.
            let packets = tool(
                "ffprobe",
                &[
                    "-v",
                    "error",
                    "-allowed_extensions",
                    "ALL",
                    "-count_packets",
                    "-show_entries",
                    "stream=nb_read_packets,width",
                    "-of",
                    "csv=p=0",
                    path.to_str().unwrap(),
                ],
            );
            let pictures = |width: &str| {
                packets.lines().filter(|line| line.starts_with(width)).filter_map(|line| line.split(',').nth(1)?.parse::<u64>().ok()).max()
            };
            let whole = std::fs::read_dir(folder.join("360p"))
                .unwrap()
                .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "m4s"))
                .count()
                .min(NEWEST) as u64; // of a longer lecture no more are listed
            for width in ["640", "320"] {
                assert!(pictures(width).is_some_and(|n| n > (whole - 2) * 60), "{name}, {whole} segments listed: {packets}");
            }
            // GStreamer chooses one rendition, and tells of each buffer that comes to a sink.
            let uri = format!("uri=file://{}", path.display());
            let sinks =
                "name=all all. ! video/x-raw ! fakesink name=pictures silent=false all. ! audio/x-raw ! fakesink name=sounds silent=false";
            let arguments: Vec<&str> = ["-v", "uridecodebin", &uri].into_iter().chain(sinks.split(' ')).collect();
            let told = tool("gst-launch-1.0", &arguments);
            let came = |sink: &str| told.lines().filter(|line| line.contains(sink) && line.contains("last-message = chain")).count() as u64;
            let (pictures, sounds) = (came("GstFakeSink:pictures"), came("GstFakeSink:sounds"));
            assert!(
                pictures > (whole - 2) * 60 && sounds > (whole - 2) * 90,
                "{name}: {pictures} pictures and {sounds} sounds for GStreamer"
            );
        }
    }
}
