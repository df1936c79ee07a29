//! A way to a server on this machine that can be cut or lose answers, and tells when a word passes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Gone with the test.
pub struct Way {
    pub endpoint: String,
    cut: watch::Sender<bool>,
    passed: watch::Receiver<u32>,
    to_lose: Arc<AtomicU32>,
}

impl Way {
    /// To `port`; it counts the requests with `word` in them.
    pub async fn to(port: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (cut, seen) = watch::channel(false);
        let (told, passed) = watch::channel(0);
        let to_lose = Arc::new(AtomicU32::new(0));
        let loses = to_lose.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, port, word, (seen.clone(), loses.clone()), told.clone()));
            }
        });
        Self { endpoint, cut, passed, to_lose }
    }

    /// Breaks the connections of the next so many answers, before anything of them is heard.
    pub fn loses_answers(&self, count: u32) {
        self.to_lose.store(count, Ordering::Relaxed);
    }

    /// How many of them there are still to come.
    pub fn answers_to_lose(&self) -> u32 {
        self.to_lose.load(Ordering::Relaxed)
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

async fn pass_on(
    client: TcpStream,
    port: u16,
    word: &str,
    (mut cut, to_lose): (watch::Receiver<bool>, Arc<AtomicU32>),
    told: watch::Sender<u32>,
) {
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
            if to_lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                break;
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
