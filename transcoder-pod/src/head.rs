//! The ownership of a run: its head, moved by compare-and-swap only.

use crate::retry::Backoff;
use bytes::{Bytes, BytesMut};
use lectern_cloud::{Etag, Objects, Precondition, PutIfError, StorageError};
use lectern_contract::head::Head;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::push::{PushFrame, PushRequest};
use lectern_contract::{Epoch, Owner, SegmentNumber, Ticks};
use lectern_podkit::tls::{PeerRole, PeerTls};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long an owner has to answer before it is taken for dead: it is in the same cluster, and a lecture waits. Linux sends again what was lost on the way to a new
/// connection after a second, so that a longer wait would have to be that much longer. Who is taken for dead and is not finds that out when it moves the head.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// The same of one that has called for who claims the run: it lived just now, works on, and where as many encoders start as stop its answer may take seconds.
/// Should it die meanwhile, that is what its successor waits before it finds out.
const CALLER_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A run that this process owns, as far as it knows.
#[derive(Debug)]
pub struct Ownership {
    objects: Objects,
    key: String,
    head: Head,
    etag: Etag,
}

/// How a claim went. `R` is what is ready to go on with a predecessor's work.
#[derive(Debug)]
pub enum Claim<R> {
    /// The run is this process's.
    Owned {
        /// The head to move from here on.
        ownership: Box<Ownership>,
        /// There was an owner before, and all is ready to go on after it.
        ready: Option<R>,
    },
    /// The run has ended; nothing is left to do.
    Ended,
    /// Its owner is alive: the job was delivered twice, or the run is to move.
    Alive {
        /// The owner's head.
        head: Box<Head>,
        /// Where it answers.
        address: String,
    },
}

/// Why a try to take a run did not take it.
enum NotTaken {
    /// Its owner answers, at this address.
    Alive(String),
    /// Somebody was quicker, or it was an attempt of ours.
    Raced,
    Failed(StorageError),
}

impl From<StorageError> for NotTaken {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// Why a head cannot be claimed or moved.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Somebody else owns the run: stop writing at once.
    #[error("run {run} is owned by {owner} since epoch {epoch}")]
    Lost {
        /// The run.
        run: lectern_contract::RunId,
        /// Who owns it.
        owner: Owner,
        /// Since when.
        epoch: Epoch,
    },
    /// The object at the head's place is none of this run.
    #[error("{key} is no head of run {run}: {what}")]
    Malformed {
        /// Its key.
        key: String,
        /// The run.
        run: lectern_contract::RunId,
        /// What is wrong with it.
        what: String,
    },
    /// S3 did not do it; whether it happened is unknown.
    #[error("the head of the run cannot be moved: {0}")]
    Storage(#[from] StorageError),
}

impl Ownership {
    /// Tries once to make `owner`, serving its push at `address`, the owner of the job's run.
    ///
    /// An owner that still answers at its address keeps the run. A race is decided by S3; who loses it looks again.
    ///
    /// Each answer may take S3 a while, and students wait for all of them: so `list` is done while the head is read, and `get_ready` to go on after the owner
    /// that it names, while that is asked whether it lives and the head is moved. Where it is not moved, what was got ready is dropped.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] is final; after [`HeadError::Storage`] try again.
    pub async fn claim<L, R, Listing, Readying>(
        objects: &Objects,
        peers: &PeerTls,
        job: &LiveJob,
        (owner, address): (&Owner, &str),
        list: impl Fn() -> Listing,
        get_ready: impl Fn(L, Head) -> Readying,
    ) -> Result<Claim<R>, HeadError>
    where
        Listing: Future<Output = Result<L, StorageError>>,
        Readying: Future<Output = Result<R, StorageError>>,
    {
        let key = job.prefix.key(&ObjectName::Head);
        loop {
            let (found, listed) = tokio::try_join!(read(objects, &key, job), async { Ok(list().await?) })?;
            let (before, precondition) = match found {
                None => (None, Precondition::Absent),
                Some((there, _)) if there.ended => return Ok(Claim::Ended),
                Some((there, etag)) => (Some(there), Precondition::Matches(etag)),
            };
            let head = Head {
                run: job.run.clone(),
                owner: owner.clone(),
                epoch: before.as_ref().map_or(Epoch(1), |before| before.epoch.next()),
                address: Some(address.to_owned()),
                unstored: false,
                next_segment: before.as_ref().map_or(SegmentNumber(0), |before| before.next_segment),
                begins: before.as_ref().and_then(|before| before.begins),
                shift: before.as_ref().map_or(Ticks(0), |before| before.shift),
                ended: false,
            };
            let taking = async {
                if let Some(before) = before.as_ref().filter(|before| before.owner != *owner)
                    && let Some(address) = &before.address
                    && lives(before, address, peers, if job.replaces == Some(before.epoch) { CALLER_ANSWERS_WITHIN } else { ANSWER_WITHIN })
                        .await
                {
                    return Err(NotTaken::Alive(address.clone()));
                }
                objects.put_if(&key, encode(&head), precondition).await.map_err(|error| match error {
                    PutIfError::Conflict { .. } => NotTaken::Raced,
                    PutIfError::Storage(error) => NotTaken::Failed(error),
                })
            };
            let getting_ready = async {
                match &before {
                    Some(before) => Ok(Some(get_ready(listed, before.clone()).await?)),
                    None => Ok(None),
                }
            };
            match (tokio::try_join!(taking, getting_ready), before) {
                (Ok((etag, ready)), _) => {
                    return Ok(Claim::Owned { ownership: Box::new(Self { objects: objects.clone(), key, head, etag }), ready });
                }
                (Err(NotTaken::Alive(address)), Some(before)) => return Ok(Claim::Alive { head: Box::new(before), address }),
                (Err(NotTaken::Failed(error)), _) => return Err(error.into()),
                (Err(NotTaken::Raced | NotTaken::Alive(_)), _) => {}
            }
        }
    }

    /// The head as this process last wrote it.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Moves the head.
    ///
    /// # Errors
    /// [`HeadError::Lost`] is final. After [`HeadError::Storage`] the same change may be made again: an attempt that went
    /// through unseen is recognised by its owner and epoch, and gone on from.
    pub async fn change(&mut self, change: impl Fn(&mut Head)) -> Result<(), HeadError> {
        loop {
            let mut wanted = self.head.clone();
            change(&mut wanted);
            match self.objects.put_if(&self.key, encode(&wanted), Precondition::Matches(self.etag.clone())).await {
                Ok(etag) => {
                    (self.head, self.etag) = (wanted, etag);
                    return Ok(());
                }
                Err(PutIfError::Storage(error)) => return Err(error.into()),
                Err(PutIfError::Conflict { .. }) => {}
            }
            let gone = || HeadError::Lost { run: self.head.run.clone(), owner: Owner("nobody".into()), epoch: self.head.epoch };
            let object = self.objects.get(&self.key).await?.ok_or_else(gone)?;
            let there: Head = serde_json::from_slice(&object.body).map_err(|error| HeadError::Malformed {
                key: self.key.clone(),
                run: self.head.run.clone(),
                what: error.to_string(),
            })?;
            if (&there.owner, there.epoch) != (&self.head.owner, self.head.epoch) {
                return Err(HeadError::Lost { run: there.run, owner: there.owner, epoch: there.epoch });
            }
            (self.head, self.etag) = (there, object.etag);
        }
    }

    /// Like [`Ownership::change`], patient with S3 for as long as `patience`; tells `trouble` while it fails.
    ///
    /// # Errors
    /// As [`Ownership::change`]; [`HeadError::Storage`] only after `patience`.
    pub async fn change_patiently(
        &mut self,
        patience: Duration,
        change: impl Fn(&mut Head),
        trouble: impl Fn(Option<String>),
    ) -> Result<(), HeadError> {
        let since = tokio::time::Instant::now();
        let mut backoff = Backoff::default();
        loop {
            match self.change(&change).await {
                Err(HeadError::Storage(error)) if since.elapsed() < patience => {
                    trouble(Some(error.to_string()));
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                other => {
                    trouble(None);
                    return other;
                }
            }
        }
    }
}

/// The head of the job's run, which is at `key`, and its version; `None` where nobody has claimed the run yet.
pub(crate) async fn read(objects: &Objects, key: &str, job: &LiveJob) -> Result<Option<(Head, Etag)>, HeadError> {
    let Some(object) = objects.get(key).await? else { return Ok(None) };
    let malformed = |what: String| HeadError::Malformed { key: key.to_owned(), run: job.run.clone(), what };
    let head: Head = serde_json::from_slice(&object.body).map_err(|error| malformed(error.to_string()))?;
    if head.run != job.run {
        return Err(malformed(format!("it is of run {}", head.run)));
    }
    Ok(Some((head, object.etag)))
}

fn encode(head: &Head) -> Bytes {
    serde_json::to_vec(head).unwrap_or_default().into() // a Head has only strings and numbers: it always encodes
}

/// Whether the owner that `head` names still works for the run, at `address`, and says so `within` that time.
async fn lives(head: &Head, address: &str, peers: &PeerTls, within: Duration) -> bool {
    match tokio::time::timeout(within, ask(address, head, peers)).await {
        Ok(Ok(alive)) => alive,
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn ask(address: &str, head: &Head, peers: &PeerTls) -> io::Result<bool> {
    let mut socket = peers.connect(address, PeerRole::Transcoder).await?;
    let mut bytes = BytesMut::new();
    PushRequest::Objects(head.run.clone()).encode(&mut bytes);
    socket.write_all(&bytes).await?;
    socket.flush().await?;
    // Silence is no life: a frozen process still has its connections accepted by the kernel.
    let mut answer = BytesMut::new();
    loop {
        if let Some(said) = PushFrame::decode(&mut answer).map_err(io::Error::other)? {
            return Ok(matches!(said, PushFrame::Serving { epoch } if epoch >= head.epoch));
        }
        if socket.read_buf(&mut answer).await? == 0 {
            return Ok(false);
        }
    }
}
