//! One camera: asked, played and read until something fails, and then again.

use super::Timing;
use super::backoff::Backoff;
use super::credentials::{Credentials, Known};
use super::reason::PullError;
use super::tracks::Tracks;
use crate::routes::{Camera, Route};
use crate::shard::Shard;
use crate::stream::Publication;
use futures::{FutureExt, StreamExt};
use lectern_contract::feed::Track;
use lectern_contract::{RunId, StreamRef};
use lectern_crds::RtspTransport;
use retina::client::{
    Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup, SessionOptions, SetupOptions, TcpTransportOptions,
    Transport, UdpTransportOptions,
};
use retina::codec::FrameFormat;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// A camera that is to be pulled for a run.
pub(super) struct Pull {
    shard: Arc<Shard>,
    run: RunId,
    stream: StreamRef,
    camera: Camera,
    /// The URL may hold a password, whatever the API server checked: people are told the host.
    host: String,
    credentials: watch::Receiver<Known>,
    /// Those of the last try.
    tried: Option<Credentials>,
    timing: Timing,
}

/// When media came.
#[derive(Debug, Default)]
struct Heard(Option<(Instant, Instant)>);

impl Heard {
    fn now(&mut self, now: Instant) {
        let first = self.0.map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    fn span(&self) -> Option<Duration> {
        self.0.map(|(first, last)| last - first)
    }
}

impl Pull {
    pub(super) fn new(shard: Arc<Shard>, route: &Route, credentials: watch::Receiver<Known>, timing: Timing, camera: Camera) -> Self {
        let host = camera.url.host_str().unwrap_or("camera").to_owned();
        Self { shard, run: route.run.clone(), stream: route.stream.clone(), camera, host, credentials, tried: None, timing }
    }

    /// Pulls until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(self.timing.first_pause, self.timing.longest_pause);
        loop {
            let (why, media_for) = self.once(&stop).await;
            if stop.is_cancelled() {
                return;
            }
            let reason = why.to_string();
            self.shard.explain(&self.run, &reason);
            let pause = match why {
                PullError::NoCredentials => None,
                _ => Some(backoff.pause(media_for, rand::random())),
            };
            let wait_ms = pause.map(|pause| pause.as_millis() as u64);
            tracing::warn!(stream = %self.stream, host = self.host, reason, wait_ms, "a camera is not pulled; it is tried again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                () = self.new_credentials() => backoff.reset(),
            }
        }
    }

    /// Pulls once, until something fails; says what, and for how long media came. A session that was begun is ended.
    async fn once(&mut self, stop: &CancellationToken) -> (PullError, Option<Duration>) {
        let sessions = Arc::new(SessionGroup::default());
        let mut heard = Heard::default();
        // The camera's bytes are parsed in this task: a panic must not end the pull for good.
        let pulled = AssertUnwindSafe(self.pull(sessions.clone(), &mut heard, stop)).catch_unwind().await;
        let why = pulled.unwrap_or_else(|_panic| {
            self.shard.metrics().panics.inc();
            PullError::Panicked
        });
        // Dropping a session has begun its teardown.
        let _ = timeout(self.timing.teardown, sessions.await_teardown()).await;
        (why, heard.span())
    }

    async fn pull(&mut self, sessions: Arc<SessionGroup>, heard: &mut Heard, stop: &CancellationToken) -> PullError {
        let connected = tokio::select! {
            () = stop.cancelled() => Err(PullError::Stopped),
            connected = self.connect(sessions) => connected,
        };
        let (media, tracks) = match connected {
            Ok(connected) => connected,
            Err(why) => return why,
        };
        let route = self.shard.routes().borrow().by_run(&self.run).cloned();
        let Some(route) = route.filter(|route| self.shard.owns(route)) else { return PullError::Stopped };
        match self.shard.pull(&route, &self.host) {
            Err(occupied) => occupied.into(),
            Ok(mut publication) => {
                let why = self.receive(&mut publication, media, tracks, heard, stop).await;
                publication.leave(why.to_string());
                why
            }
        }
    }

    /// Describes, sets up and plays.
    async fn connect(&mut self, sessions: Arc<SessionGroup>) -> Result<(Demuxed, Tracks), PullError> {
        self.tried = self.camera.credentials.as_ref().and_then(|key| self.credentials.borrow().of(key).cloned());
        if self.camera.credentials.is_some() && self.tried.is_none() {
            return Err(PullError::NoCredentials);
        }
        let with_credentials = self.tried.is_some();
        let credentials =
            self.tried.clone().map(|known| retina::client::Credentials { username: known.username, password: known.password });
        let options = SessionOptions::default().user_agent("lectern".to_owned()).session_group(sessions).creds(credentials);
        let mut session = self.answer("DESCRIBE", with_credentials, Session::describe(self.camera.url.clone(), options)).await?;
        let tracks =
            Tracks::chosen(session.streams(), self.shard.metrics().camera_packets_lost.clone()).map_err(PullError::NothingToPull)?;
        for stream in tracks.streams() {
            self.answer("SETUP", with_credentials, session.setup(stream, self.setup())).await?;
        }
        let media = self.answer("PLAY", with_credentials, play(session)).await?;
        Ok((media, tracks))
    }

    fn setup(&self) -> SetupOptions {
        let transport = match self.camera.transport {
            RtspTransport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
            RtspTransport::Udp => Transport::Udp(UdpTransportOptions::default()),
        };
        SetupOptions::default().transport(transport).frame_format(FrameFormat::MP4)
    }

    async fn answer<T>(
        &self,
        what: &'static str,
        with_credentials: bool,
        asked: impl Future<Output = Result<T, retina::Error>>,
    ) -> Result<T, PullError> {
        let answered = timeout(self.timing.answer, asked).await.map_err(|_| PullError::NoAnswer(what, self.timing.answer))?;
        answered.map_err(|error| PullError::rtsp(&error, with_credentials))
    }

    /// Hands on what the camera sends, until something fails.
    async fn receive(
        &self,
        publication: &mut Publication,
        mut media: Demuxed,
        mut tracks: Tracks,
        heard: &mut Heard,
        stop: &CancellationToken,
    ) -> PullError {
        let silence = self.timing.silence;
        // Reports of a camera whose encoder hangs are no media: only frames move these on.
        let (mut last, mut last_picture) = (Instant::now(), Instant::now());
        loop {
            let item = tokio::select! {
                closing = publication.closing() => return closing.into(),
                () = stop.cancelled() => return PullError::Stopped,
                item = timeout_at(last + silence, media.next()) => item,
            };
            let item = match item {
                Err(_) => return PullError::Silent(silence),
                Ok(None) => return PullError::Ended,
                Ok(Some(Err(error))) => return PullError::rtsp(&error, self.camera.credentials.is_some()),
                Ok(Some(Ok(item))) => item,
            };
            let now = Instant::now();
            match tracks.take(publication, media.streams(), item, now) {
                Err(error) => return error.into(),
                Ok(None) => {}
                Ok(Some(track)) => {
                    last = now;
                    last_picture = if track == Track::Video { now } else { last_picture };
                    heard.now(now);
                }
            }
            if tracks.has_video() && now - last_picture > silence {
                return PullError::NoPicture(silence);
            }
        }
    }

    /// Waits until this camera's credentials are others than those of the last try.
    async fn new_credentials(&mut self) {
        let Some(key) = &self.camera.credentials else { return std::future::pending().await };
        if self.credentials.wait_for(|known| known.of(key) != self.tried.as_ref()).await.is_err() {
            std::future::pending().await // nobody can change them any more
        }
    }
}

async fn play(session: Session<Described>) -> Result<Demuxed, retina::Error> {
    // Some cameras leave RTP-Info out: `Clocks` does without.
    let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    session.play(options).await?.demuxed()
}
