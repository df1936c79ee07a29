//! A planned move: the successor encodes already when it asks the living owner for the run.
//!
//! It reads the feed from the first segment that S3 has not got, keeps what its engine puts out, and asks once it is as near to
//! the live edge as the feed. The owner names a segment that it has not begun, makes all before it, and lets go of the head. What the successor
//! kept from there on is published at once: no segment is late, and none is made twice. Where anything of it fails, nobody has lost anything:
//! the owner goes on, or its successor does what it would do after a crash.

use crate::align;
use crate::child::{ChildError, ChildJob};
use crate::engine::Output;
use crate::line::{Begin, Line};
use crate::status::Status;
use bytes::BytesMut;
use lectern_contract::head::Head;
use lectern_contract::push::{PushFrame, PushRequest};
use lectern_contract::{RunId, SegmentNumber};
use lectern_podkit::tls::{PeerRole, PeerTls};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// A machine that has not caught up with the feed by then is no better place for the run.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(20);
/// How long the owner may take to connect, and for its first word: it works on meanwhile, and where as many encoders start as stop nobody is quick. Who is sent away is
/// not called again.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// The same between two words of one that has this successor wait. It says one a second, and its silence is its death.
const SPEAKS_AGAIN_WITHIN: Duration = Duration::from_secs(3);
/// How long a successor waits for its time with what it has made in hand, which grows. Then it gets ready anew.
const WAITS_FOR: Duration = Duration::from_secs(30);

/// A successor's line that runs, and what it has put out so far.
#[derive(Debug)]
pub struct Preroll {
    /// The first segment that it can make.
    pub from: SegmentNumber,
    /// Where more comes from.
    pub line: Line,
    /// Since `from`.
    pub held: Vec<Output>,
}

impl Preroll {
    /// Begins to encode where the owner that `head` names has left off, or will, as `begin` makes of its next segment.
    ///
    /// # Errors
    /// [`ChildError::Thread`].
    pub fn begin(
        given: &ChildJob,
        head: &Head,
        begin: fn(SegmentNumber) -> Begin,
        peers: PeerTls,
        status: Status,
        stop: &CancellationToken,
    ) -> Result<Self, ChildError> {
        let job = align::shifted(given.job.clone(), head.shift);
        let from = head.next_segment;
        Ok(Self { from, line: Line::start(given, &job, head.shift, Begin::after(head, begin), peers, status, stop)?, held: Vec::new() })
    }

    /// Holds what the line puts out until `other` is done: an engine that nobody takes anything from is one that does not keep up.
    pub async fn go_on_during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                Some(output) = self.line.next() => self.held.push(output),
            }
        }
    }
}

/// How a successor fared.
#[derive(Debug)]
pub enum Succession {
    /// The owner has let go, or is gone: the run is to be claimed.
    Free(Box<Preroll>),
    /// The owner has no time for it yet, and what was made until now is of no use any more.
    Later,
    /// The owner keeps the run.
    Kept(String),
    /// This process is asked to stop.
    Stopped,
}

/// Why an owner does not hand over.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", ANSWER_WITHIN.as_secs())]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Refused(String),
}

/// Gets ready to go on after the owner that `head` names, and asks it for the run.
///
/// # Errors
/// The engine cannot be started, or breaks.
pub async fn succeed(
    given: &ChildJob,
    head: &Head,
    address: &str,
    peers: PeerTls,
    status: Status,
    stop: &CancellationToken,
) -> Result<Succession, ChildError> {
    // One before the first that the owner can name: players want its parts from who goes on (`foregoing.rs`).
    let Preroll { from, mut line, mut held } = Preroll::begin(given, head, Begin::With, peers.clone(), status.clone(), stop)?;
    let late = tokio::time::Instant::now() + CAUGHT_UP_WITHIN;
    while !(status.is_at_live_edge() && held.iter().any(|output| matches!(output, Output::Sample { .. }))) {
        tokio::select! {
            output = line.next() => match output {
                Some(output) => held.push(output),
                None => return ended(line, stop).await,
            },
            () = sleep_until(late) => return Ok(Succession::Kept(format!("this pod did not catch up with the feed within {CAUGHT_UP_WITHIN:?}"))),
        }
    }
    let asked = ask(address, &given.job.run, &peers);
    tokio::pin!(asked);
    let mut over = false;
    let later = tokio::time::Instant::now() + WAITS_FOR;
    loop {
        tokio::select! {
            output = line.next(), if !over => match output {
                Some(output) => held.push(output),
                None => over = true, // once the owner hands over somebody has to close the run
            },
            () = sleep_until(later), if !over => return Ok(Succession::Later),
            answer = &mut asked => return Ok(match answer {
                Ok(()) => Succession::Free(Box::new(Preroll { from, line, held })),
                Err(refusal) => Succession::Kept(refusal.to_string()),
            }),
        }
    }
}

/// The feed is over before the run changed hands.
async fn ended(line: Line, stop: &CancellationToken) -> Result<Succession, ChildError> {
    let (broken, end) = line.end().await?;
    broken?;
    Ok(if stop.is_cancelled() { Succession::Stopped } else { Succession::Kept(format!("the feed is over: {end:?}")) })
}

/// Asks the owner at `address` for `run`, and waits until it has let go, for it has given up the segments to come; also until its connection
/// breaks, when the claim will show what is left to do. An owner that has no time for it yet says now and then that it is there.
async fn ask(address: &str, run: &RunId, peers: &PeerTls) -> Result<(), Refusal> {
    let mut socket = timeout(ANSWER_WITHIN, peers.connect(address, PeerRole::Transcoder)).await??;
    let mut bytes = BytesMut::new();
    PushRequest::HandOver(run.clone()).encode(&mut bytes);
    socket.write_all(&bytes).await?;
    socket.flush().await?;
    let mut answer = BytesMut::new();
    let mut waits = false;
    let said = loop {
        match PushFrame::decode(&mut answer).map_err(io::Error::other)? {
            Some(PushFrame::Serving { .. }) => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!(%run, "the owner hands over once S3 is well");
                }
            }
            Some(said) => break said,
            None => match timeout(if waits { SPEAKS_AGAIN_WITHIN } else { ANSWER_WITHIN }, socket.read_buf(&mut answer)).await {
                Ok(Ok(count)) if count > 0 => {}
                Ok(Ok(_)) => return Ok(()), // it is done, or gone
                Ok(Err(_)) | Err(_) if waits => return Ok(()),
                Ok(Err(broken)) => return Err(broken.into()),
                Err(late) => return Err(late.into()),
            },
        }
    };
    match said {
        PushFrame::HandingOver { at } => tracing::info!(%run, %at, "the owner hands over"),
        PushFrame::Refused { reason } => return Err(Refusal::Refused(reason)),
        _ => return Err(Refusal::Refused("it knows nothing of handing over".to_owned())),
    }
    let mut nothing = [0; 1];
    let _ = socket.read(&mut nothing).await;
    Ok(())
}
