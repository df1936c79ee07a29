//! A way to a server on this machine that can be cut, lose answers or say another thing, and tells when a word passes.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Gone with the test.
pub struct Way {
    pub endpoint: String,
    cut: watch::Sender<bool>,
    passed: watch::Receiver<u32>,
    fate: Arc<Fate>,
}

/// What becomes of answers.
#[derive(Default)]
struct Fate {
    to_lose: AtomicU32,
    /// What is said in the place of what.
    instead: OnceLock<(String, String)>,
}

impl Way {
    /// To `port`; it counts the requests with `word` in them.
    pub async fn to(port: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (cut, seen) = watch::channel(false);
        let (told, passed) = watch::channel(0);
        let fate = Arc::new(Fate::default());
        let theirs = fate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, port, word, (seen.clone(), theirs.clone()), told.clone()));
            }
        });
        Self { endpoint, cut, passed, fate }
    }

    /// Breaks the connections of the next so many answers, before anything of them is heard.
    pub fn loses_answers(&self, count: u32) {
        self.fate.to_lose.store(count, Ordering::Relaxed);
    }

    /// How many of them there are still to come.
    pub fn answers_to_lose(&self) -> u32 {
        self.fate.to_lose.load(Ordering::Relaxed)
    }

    /// From now on and once for all, answers say `instead` in the place of `word`, which is as long.
    pub fn says(&self, instead: &str, word: &str) {
        assert_eq!(word.len(), instead.len(), "the answer's length is told before it");
        self.fate.instead.set((word.to_owned(), instead.to_owned())).unwrap();
    }

    /// Waits until the word passes once more.
    pub async fn until_the_next(&mut self) {
        self.passed.mark_unchanged();
        self.passed.changed().await.unwrap();
    }

    /// Breaks all connections, and new ones at once, for so long.
    pub async fn is_away(&self, span: Duration) {
        self.cut.send_replace(true);
        tokio::time::sleep(span).await;
        self.cut.send_replace(false);
    }

    /// The same for good, or until it is back.
    pub fn is_gone(&self) {
        self.cut.send_replace(true);
    }

    pub fn is_back(&self) {
        self.cut.send_replace(false);
    }
}

async fn pass_on(client: TcpStream, port: u16, word: &str, (mut cut, fate): (watch::Receiver<bool>, Arc<Fate>), told: watch::Sender<u32>) {
    if *cut.borrow_and_update() {
        return;
    }
    let (mut from, mut back) = client.into_split();
    let (mut answers, mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap().into_split();
    let asks = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if bytes[..count].windows(word.len()).any(|window| window == word.as_bytes()) {
                told.send_modify(|passed| *passed += 1);
            }
            if server.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    let answers = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = answers.read(&mut bytes).await {
            if fate.to_lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                break;
            }
            if let Some((word, instead)) = fate.instead.get() {
                // What is looked for is short, and sent in one go.
                for at in 0..=count.saturating_sub(word.len()) {
                    if bytes[at..count].starts_with(word.as_bytes()) {
                        bytes[at..at + word.len()].copy_from_slice(instead.as_bytes());
                    }
                }
            }
            if back.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = cut.changed() => {}
        () = asks => {}
        () = answers => {}
    }
}
