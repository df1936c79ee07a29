//! A planned move: the successor encodes already when it asks the living owner for the run.
//!
//! It reads the feed from the first segment that S3 has not got, keeps what its engine puts out, and asks once it is as near to
//! the live edge as the feed. The owner names a segment that it has not begun, makes all before it, and lets go of the head. What the successor
//! kept from there on is published at once: no segment is late, and none is made twice. Where anything of it fails before the owner has named a segment, it goes on;
//! what fails later leaves its successor to do what it would do after a crash, and so does an owner that is gone.

use crate::align;
use crate::child::{ChildError, ChildJob};
use crate::engine::Output;
use crate::line::{Begin, Line};
use crate::status::Status;
use bytes::BytesMut;
use lectern_contract::frame::FrameError;
use lectern_contract::head::Head;
use lectern_contract::push::{PushFrame, PushRequest};
use lectern_contract::{RunId, SegmentNumber, Ticks};
use lectern_podkit::tls::{PeerRole, PeerStream, PeerTls};
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
    /// The owner has named a segment, and makes all before it.
    pub agreed: bool,
    /// Students have segments before they are whole.
    in_parts: bool,
}

/// How the owner before has left a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Left {
    /// There was none, or S3 has all that it has shown.
    #[default]
    Stored,
    /// It has let go, and has shown what S3 does not have.
    Unstored,
    /// It does not answer.
    Dead,
}

impl Left {
    /// How the owner that `head` names has left it, where it does not answer.
    pub fn by(head: &Head) -> Self {
        match head {
            Head { address: Some(_), .. } => Self::Dead,
            Head { unstored: true, .. } => Self::Unstored,
            _ => Self::Stored,
        }
    }

    /// Whether origins may have of it what S3 does not.
    pub fn is_unstored(self) -> bool {
        self != Self::Stored
    }
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
        let line = Line::start(given, &job, head.shift, Begin::after(head, begin), peers, status, stop)?;
        Ok(Self { from: head.next_segment, line, held: Vec::new(), agreed: false, in_parts: job.parts.is_some() })
    }

    /// Whether it can go on after an owner that has `left` the run so, with segment `next`. Who leaves parts of a segment is one that dies, or that stops before it has
    /// named a segment.
    pub fn goes_on(&self, left: Left, next: SegmentNumber) -> bool {
        self.from <= next && (self.follows_parts_of_one_that(left) || (left == Left::Unstored && self.agreed))
    }

    /// Whether it can go on with the parts of a segment that students may have of an owner that has `left` the run so. What was got ready for one that lives has no keyframes
    /// within segments.
    pub fn follows_parts_of_one_that(&self, left: Left) -> bool {
        !self.in_parts || left == Left::Stored || self.line.joints_until > Ticks(0)
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

/// What an owner says that does not keep the run.
enum Answer {
    /// It makes what is before the segment that it has named.
    HandingOver(PeerStream),
    /// Nothing, any more: the claim will show what is left to do.
    Gone,
}

/// Why an owner does not hand over.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no answer within {} s", ANSWER_WITHIN.as_secs())]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("it says what it should not: {0}")]
    Frame(#[from] FrameError),
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
    let mut ready = Preroll::begin(given, head, Begin::With, peers.clone(), status, stop)?;
    let Preroll { line, held, .. } = &mut ready;
    let late = tokio::time::Instant::now() + CAUGHT_UP_WITHIN;
    while !(line.caught_up.is_cancelled() && held.iter().any(|output| matches!(output, Output::Sample { .. }))) {
        tokio::select! {
            output = line.next() => match output {
                Some(output) => held.push(output),
                None => return ended(ready.line, stop).await,
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
            answer = &mut asked => match answer {
                Ok(Answer::HandingOver(mut owner)) => {
                    // It makes its last segments, and closes the connection once it has let go, or dies.
                    ready.agreed = true;
                    let mut nothing = [0; 1];
                    let _ = ready.go_on_during(owner.read(&mut nothing)).await;
                    return Ok(Succession::Free(Box::new(ready)));
                }
                Ok(Answer::Gone) => return Ok(Succession::Free(Box::new(ready))),
                Err(refusal) => return Ok(Succession::Kept(refusal.to_string())),
            },
        }
    }
}

/// The feed is over before the run changed hands.
async fn ended(line: Line, stop: &CancellationToken) -> Result<Succession, ChildError> {
    let (broken, end) = line.end().await?;
    broken?;
    Ok(if stop.is_cancelled() { Succession::Stopped } else { Succession::Kept(format!("the feed is over: {end:?}")) })
}

/// Asks the owner at `address` for `run`, until it names the segment from which on that is its successor's, or is gone: what it refuses it says. An owner that has no time for
/// it yet says now and then that it is there.
async fn ask(address: &str, run: &RunId, peers: &PeerTls) -> Result<Answer, Refusal> {
    let mut bytes = BytesMut::new();
    PushRequest::HandOver(run.clone()).encode(&mut bytes);
    let asked = async {
        let mut socket = peers.connect(address, PeerRole::Transcoder).await?;
        socket.write_all(&bytes).await?;
        socket.flush().await?;
        io::Result::Ok(socket)
    };
    let Ok(mut socket) = timeout(ANSWER_WITHIN, asked).await? else { return Ok(Answer::Gone) };
    let mut answer = BytesMut::new();
    let mut waits = false;
    let said = loop {
        match PushFrame::decode(&mut answer)? {
            Some(PushFrame::Serving { .. }) => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!(%run, "the owner hands over once S3 is well");
                }
            }
            Some(said) => break said,
            None => match timeout(if waits { SPEAKS_AGAIN_WITHIN } else { ANSWER_WITHIN }, socket.read_buf(&mut answer)).await {
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => return Ok(Answer::Gone), // it is done, or dead
                Err(_) if waits => return Ok(Answer::Gone),
                Err(late) => return Err(late.into()),
            },
        }
    };
    match said {
        PushFrame::HandingOver { at } => {
            tracing::info!(%run, %at, "the owner hands over");
            Ok(Answer::HandingOver(socket))
        }
        PushFrame::Refused { reason } => Err(Refusal::Refused(reason)),
        _ => Err(Refusal::Refused("it knows nothing of handing over".to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What is made of an owner that answers a successor with `said`, or with nothing, and hangs up.
    async fn heard(said: Option<PushFrame>) -> Result<Answer, Refusal> {
        let owner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, run, peers) = (owner.local_addr().unwrap().to_string(), RunId::from("r1"), PeerTls::plain());
        let answers = async {
            let (mut socket, _) = owner.accept().await.unwrap();
            let (mut asked, mut bytes) = (BytesMut::new(), BytesMut::new());
            while PushRequest::decode(&mut asked).unwrap().is_none() {
                assert_ne!(socket.read_buf(&mut asked).await.unwrap(), 0, "it hung up before it asked");
            }
            said.iter().for_each(|frame| frame.encode(&mut bytes));
            socket.write_all(&bytes).await.unwrap();
        };
        tokio::join!(ask(&address, &run, &peers), answers).0
    }

    /// It may have let go, or died, a moment before: the claim shows that, and who hears no is not called again.
    #[tokio::test]
    async fn only_an_owner_that_says_so_keeps_the_run() {
        let refused = PushFrame::Refused { reason: "no time".to_owned() };
        assert!(matches!(heard(Some(refused)).await, Err(Refusal::Refused(reason)) if reason == "no time"));
        let at = SegmentNumber(7);
        assert!(matches!(heard(Some(PushFrame::HandingOver { at })).await, Ok(Answer::HandingOver(_))));
        assert!(matches!(heard(None).await, Ok(Answer::Gone)));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        assert!(matches!(ask(&closed, &RunId::from("r1"), &PeerTls::plain()).await, Ok(Answer::Gone)), "nobody is there any more");
    }
}
