//! Viewers without a player: plain requests for a lecture's newest segment, so many a second, over connections that they leave and make anew.

use crate::playlist;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long an answer may take, a connection before it included.
const PATIENCE: Duration = Duration::from_secs(10);

/// What each viewer does.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// How often it looks: asks for a playlist, and for the newest segment that this names.
    pub every: Duration,
    /// How often it looks before it leaves its connection for another, which may lead elsewhere.
    pub stays: u32,
}

/// So many viewers of a lecture. They leave when it is dropped.
pub struct Crowd {
    playlist: Url,
    habits: Habits,
    viewers: Vec<JoinHandle<Result<Answers>>>,
    over: CancellationToken,
    _leaves: DropGuard,
}

/// What was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// Answers, each in whole.
    pub whole: u64,
    /// Requests that were made again over another connection, because the server closed the one that they came by. Browsers do so, too (RFC 9110 §9.2.2).
    pub again: u64,
}

impl Crowd {
    /// Nobody yet. They will watch by a media playlist, over HTTP in the clear.
    pub fn of(playlist: Url, habits: Habits) -> Self {
        let over = CancellationToken::new();
        Self { playlist, habits, viewers: Vec::new(), _leaves: over.clone().drop_guard(), over }
    }

    /// So many more of them.
    pub fn grows(&mut self, by: u32) {
        for _ in 0..by {
            let viewer = Viewer { playlist: self.playlist.clone(), way: None, answers: Answers::default() };
            self.viewers.push(tokio::spawn(viewer.watches(self.habits, self.over.clone())));
        }
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.viewers.len()
    }

    /// They leave. What they were answered, all of them together; an error of any who was not.
    pub async fn leaves(self) -> Result<Answers> {
        self.over.cancel();
        let of_each = try_join_all(self.viewers).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let sum = |all: Answers, one: Answers| Answers { whole: all.whole + one.whole, again: all.again + one.again };
        Ok(of_each.into_iter().fold(Answers::default(), sum))
    }
}

struct Viewer {
    playlist: Url,
    /// Its connection.
    way: Option<SendRequest<Empty<Bytes>>>,
    answers: Answers,
}

impl Viewer {
    async fn watches(mut self, habits: Habits, over: CancellationToken) -> Result<Answers> {
        let mut turn = interval(habits.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        while over.run_until_cancelled(turn.tick()).await.is_some() {
            if looks % habits.stays == 0 {
                self.way = None;
            }
            looks += 1;
            self.look().await?;
        }
        Ok(self.answers)
    }

    async fn look(&mut self) -> Result<()> {
        let text = self.get(&self.playlist.clone()).await?;
        let listed = playlist::media(std::str::from_utf8(&text)?);
        let newest = listed.segments.iter().rev().find(|segment| !segment.gap).context("no segment is listed")?;
        let segment = self.get(&self.playlist.join(&newest.uri)?).await?;
        ensure!(!segment.is_empty(), "{} is empty", newest.uri);
        Ok(())
    }

    /// The answer's body. Who is hung up on before it was answered asks once more, but not where the connection was new.
    async fn get(&mut self, url: &Url) -> Result<Bytes> {
        let was_used = self.way.is_some();
        let mut answer = self.ask_within(url).await;
        if answer.is_err() && was_used {
            (self.way, self.answers.again) = (None, self.answers.again + 1);
            answer = self.ask_within(url).await;
        }
        let answer = answer.with_context(|| url.to_string())?;
        self.answers.whole += 1;
        Ok(answer)
    }

    async fn ask_within(&mut self, url: &Url) -> Result<Bytes> {
        timeout(PATIENCE, self.ask(url)).await.with_context(|| format!("no answer in {PATIENCE:?}"))?
    }

    async fn ask(&mut self, url: &Url) -> Result<Bytes> {
        let host = format!("{}:{}", url.host_str().context("a host")?, url.port_or_known_default().context("a port")?);
        let mut way = match self.way.take() {
            Some(way) if !way.is_closed() => way,
            _ => {
                let (way, connection) = handshake(TokioIo::new(TcpStream::connect(&host).await?)).await?;
                tokio::spawn(connection); // its end is the requests' error
                way
            }
        };
        way.ready().await?;
        let request = http::Request::get(url.path()).header(http::header::HOST, host).body(Empty::new())?;
        let answer = way.send_request(request).await?;
        ensure!(answer.status() == StatusCode::OK, "it is answered with {}", answer.status());
        let body = answer.into_body().collect().await?.to_bytes();
        self.way = Some(way);
        Ok(body)
    }
}
