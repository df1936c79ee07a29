//! A child's work: it takes the run, encodes its feed, publishes, and leaves it in good order.

use super::{ChildError, ChildJob};
use crate::align;
use crate::feed::FeedEnd;
use crate::head::{Claim, HeadError, Ownership};
use crate::line::{Begin, Line};
use crate::publish::{
    Event, Keeper, KeeperError, Live, Parting, Restored, Uploader, Written, empty_window, list, marked, restore, successors_in_calm,
};
use crate::retry::Backoff;
use crate::status::Status;
use crate::studio::Studio;
use crate::succession::{self, Left, Preroll, Succession};
use lectern_cloud::Objects;
use lectern_contract::head::Head;
use lectern_contract::job::LiveJob;
use lectern_contract::keys::ObjectName;
use lectern_contract::report::TranscoderState;
use lectern_contract::{Epoch, SegmentNumber};
use lectern_podkit::tls::PeerTls;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long renditions may take to come to where the successor goes on, beside a segment's length; then the rest of them is its.
const THROUGH_WITHIN: Duration = Duration::from_secs(5);
/// How long a pod that is being stopped waits for what it has made to be stored.
const STORED_WITHIN: Duration = Duration::from_secs(10);
/// The same where a successor is ready to publish: students have its predecessor's last segment in hand for about as long.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(2);
/// How long S3 may take for the head of a new run to say where its media begins; then another child tries.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);

enum Claimed {
    /// With a line that has begun already, where that was possible.
    Owned(Box<Ownership>, Taken, Option<Preroll>),
    /// The owner is alive, and is to hand over.
    Planned(Box<Head>, String),
    Final(TranscoderState),
    Stopped,
}

/// What there is of a run.
#[derive(Debug, Default)]
struct Taken {
    restored: Restored,
    left: Left,
}

/// What a child works with.
pub(super) struct Seat {
    pub given: ChildJob,
    pub peers: PeerTls,
    pub objects: Objects,
    pub live: Live,
    pub status: Status,
    pub stop: CancellationToken,
}

impl Seat {
    /// Takes the run, with the owner's help where it moves, and does the job.
    pub async fn take(self, address: &str, epoch: &AtomicU64) -> Result<Option<TranscoderState>, ChildError> {
        let mut preroll = None;
        loop {
            match self.claim(address, preroll.is_none()).await {
                Claimed::Owned(ownership, taken, begun) => {
                    let Head { epoch: since, next_segment: next, .. } = *ownership.head();
                    epoch.store(since.0, Ordering::Relaxed);
                    self.live.own(since);
                    tracing::info!(run = %self.given.job.run, epoch = %since, %next, address, "the run is ours");
                    // A predecessor that died on the way may have left more to do than the line began with, and parts that it cannot follow.
                    let preroll = preroll.or(begun).filter(|preroll: &Preroll| preroll.goes_on(taken.left, next));
                    if preroll.as_ref().is_some_and(|preroll| !preroll.follows_parts_of_one_that(taken.left)) {
                        let all = self.given.job.ladder.video.iter().map(|rendition| rendition.name.clone());
                        self.live.goes_on_only_after_whole(all.collect());
                    }
                    return self.work(*ownership, taken, preroll).await;
                }
                Claimed::Planned(head, owner) => {
                    let (peers, status) = (self.peers.clone(), self.status.clone());
                    tracing::info!(run = %self.given.job.run, owner, epoch = %head.epoch, "getting ready to go on for a living owner");
                    match succession::succeed(&self.given, &head, &owner, peers, status, &self.stop).await? {
                        Succession::Free(ready) => preroll = Some(*ready),
                        Succession::Later => {}
                        Succession::Kept(why) => {
                            tracing::warn!(run = %self.given.job.run, why, "the run stays where it is");
                            return Ok(Some(TranscoderState::Lost));
                        }
                        Succession::Stopped => return Ok(None),
                    }
                }
                Claimed::Final(state) => return Ok(Some(state)),
                Claimed::Stopped => return Ok(None),
            }
        }
    }

    /// Claims the run and learns what a predecessor did, for as long as S3 takes. Whether an owner that is alive may be asked for it.
    async fn claim(&self, address: &str, may_ask: bool) -> Claimed {
        let Self { objects, given, status, stop, .. } = self;
        let mut backoff = Backoff::default();
        loop {
            let attempt = async {
                let owner = (&given.owner, address);
                let is_first = may_ask && backoff.failures() == 0; // where S3 fails again and again, engines are not started again and again
                let get_ready = async |listing, head: Head| {
                    let mut begun = if is_first { self.begin_after(&head) } else { None };
                    let restoring = restore(objects, &given.job, listing, head.next_segment);
                    let restored = match &mut begun {
                        Some(begun) => begun.go_on_during(restoring).await?,
                        None => restoring.await?,
                    };
                    Ok((Taken { restored, left: Left::by(&head) }, begun))
                };
                let claim = Ownership::claim(objects, &self.peers, &given.job, owner, || list(objects, &given.job), get_ready);
                Ok::<_, HeadError>(match claim.await? {
                    Claim::Owned { ownership, ready } => {
                        let (taken, begun) = ready.unwrap_or_default();
                        Claimed::Owned(ownership, taken, begun)
                    }
                    Claim::Ended => Claimed::Final(TranscoderState::Ended { first: None, last: None }),
                    Claim::Alive { head, address } if may_ask && given.job.replaces == Some(head.epoch) => Claimed::Planned(head, address),
                    Claim::Alive { head, .. } => {
                        tracing::info!(owner = %head.owner, "the run has a living owner");
                        Claimed::Final(TranscoderState::Lost)
                    }
                })
            };
            let error = tokio::select! {
                () = stop.cancelled() => return Claimed::Stopped,
                claimed = attempt => match claimed {
                    Ok(claimed) => return claimed,
                    Err(HeadError::Lost { .. }) => return Claimed::Final(TranscoderState::Lost),
                    Err(error @ HeadError::Malformed { .. }) => return Claimed::Final(TranscoderState::Failed { reason: error.to_string() }),
                    Err(HeadError::Storage(error)) => error,
                },
            };
            if backoff.failures().is_multiple_of(16) {
                tracing::warn!(%error, "the run cannot be claimed; trying on");
            }
            status.waiting_for(Some(format!("S3 cannot be reached: {error}")));
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Begins to encode where the dead owner that `head` names has left off, before it is known that it is dead: students wait for these pictures. An owner that
    /// is to hand over, should it live, is succeeded in another way.
    fn begin_after(&self, head: &Head) -> Option<Preroll> {
        if self.given.job.replaces.is_some() {
            return None;
        }
        // What fails here is tried once more, and told of, when the run is ours.
        Preroll::begin(&self.given, head, Begin::Within, self.peers.clone(), self.status.clone(), &self.stop).ok()
    }

    /// Encodes and publishes until the feed is over, or a successor goes on.
    async fn work(
        self,
        mut ownership: Ownership,
        Taken { restored, left }: Taken,
        preroll: Option<Preroll>,
    ) -> Result<Option<TranscoderState>, ChildError> {
        let Self { given, peers, objects, live, status, stop } = self;
        let job = &given.job;
        status.waiting_for(None);
        status.trouble("caution", given.caution.clone());
        let Head { epoch, next_segment: next, .. } = *ownership.head();
        let taken_over = next > SegmentNumber(0) || epoch > Epoch(1);
        if !taken_over && let Some(seen) = align::look(job, given.passthrough && job.parts.is_none(), &peers).await {
            let begin = |head: &mut Head| (head.begins, head.shift) = (Some(seen.begins), seen.shift);
            match ownership.change_patiently(BEGUN_WITHIN, begin, |trouble| status.trouble("head", trouble)).await {
                Ok(()) => {}
                Err(HeadError::Lost { .. }) => return Ok(Some(TranscoderState::Lost)),
                Err(error) => return Err(KeeperError::from(error).into()),
            }
        }
        let shift = ownership.head().shift;
        let job = align::shifted(job.clone(), shift);
        let (mut line, held) = match preroll {
            Some(Preroll { line, held, .. }) => (line, held),
            None => {
                let begin = match taken_over {
                    true => Begin::after(ownership.head(), if left.is_unstored() { Begin::Within } else { Begin::With }),
                    false => ownership.head().begins.map_or(Begin::Newest, Begin::First),
                };
                (Line::start(&given, &job, shift, begin, peers, status.clone(), &stop)?, Vec::new())
            }
        };

        line.predecessor.is_known(restored.inits.iter().map(|(name, (_, init))| (name.clone(), init.clone())));

        let (events, heard) = mpsc::unbounded_channel();
        let mut successors = successors_in_calm(&live, objects.clone(), &job, status.clone());
        let mut studio = Studio::new(job.clone(), &restored, next, live.clone(), status.clone(), events.clone());
        studio.goes_on_within(line.joints_until);
        if let Some(mib) = given.backlog_mib {
            studio.holds_for_s3((mib as usize) << 20);
        }
        let mut uploads = uploads(&studio, &job, (&objects, epoch), &restored, (&live, left), (&status, &events));
        drop(events);
        let mut keeper = tokio::spawn(Keeper::new(objects, job.clone(), status.clone(), ownership, restored).run(heard));
        for output in held {
            studio.take(output)?; // what is a predecessor's is dropped there
        }

        // Until the engine has put out its last, or the successor's segment is reached; or until the keeper finds that the run is somebody else's.
        let (mut leaving, mut late) = (false, Instant::now() + Duration::from_secs(86_400));
        loop {
            tokio::select! {
                output = line.next() => match output {
                    Some(output) => studio.take(output)?,
                    None => break,
                },
                Some(asked) = successors.recv() => {
                    let at = studio.leave_the_rest();
                    let _ = asked.send(at); // it may be gone again; who asks next is told the same
                    if let Some(at) = at.filter(|_| !std::mem::replace(&mut leaving, true)) {
                        tracing::info!(run = %job.run, %at, "a successor goes on");
                        late = Instant::now() + THROUGH_WITHIN + Duration::from(job.segment_duration);
                    }
                },
                () = sleep_until(late), if leaving => {
                    line.stop();
                    late += Duration::from_secs(86_400);
                }
                kept = &mut keeper => return match kept? {
                    Err(KeeperError::Head(HeadError::Lost { owner, epoch, .. })) => {
                        tracing::warn!(%owner, %epoch, "the run is lost");
                        Ok(Some(TranscoderState::Lost))
                    }
                    Err(error) => Err(error.into()),
                    Ok(_) => Err(ChildError::Thread("the keeper ended early".to_owned())),
                },
            }
            if leaving && studio.is_through() {
                line.stop();
            }
        }
        let (broken, end) = line.end().await?;
        tracing::info!(?end, "the feed is over");
        studio.close(end == FeedEnd::Ended);

        // A pod that is being stopped cannot wait for an S3 that is away, and students cannot where a successor does: it makes those segments anew, or has them from origins.
        let hurry = match end {
            FeedEnd::Stopped if leaving => HANDED_OVER_WITHIN,
            FeedEnd::Stopped | FeedEnd::EngineGone => STORED_WITHIN,
            FeedEnd::Ended | FeedEnd::Idle => Duration::from_secs(3600),
        };
        let uploaded = tokio::time::timeout(hurry, async { while uploads.join_next().await.is_some() {} }).await;
        if uploaded.is_err() {
            tracing::warn!("S3 is away; segments are left to the successor");
            uploads.shutdown().await;
        }
        let unstored = uploaded.is_err() || live.leaves_unstored();
        let parting = if end == FeedEnd::Ended { Parting::Ended } else { Parting::Released { unstored } };
        let (first, last) = match keeper.await? {
            Ok(keeper) => match keeper.part(parting).await {
                Ok(span) => span,
                Err(KeeperError::Head(HeadError::Lost { .. })) => return Ok(Some(TranscoderState::Lost)),
                Err(error) => return Err(error.into()),
            },
            Err(KeeperError::Head(HeadError::Lost { .. })) => return Ok(Some(TranscoderState::Lost)),
            Err(error) => return Err(error.into()),
        };
        broken?;
        Ok(match end {
            FeedEnd::Ended => Some(TranscoderState::Ended { first, last }),
            FeedEnd::Idle => Some(TranscoderState::Idle),
            // The successor has a job of its own.
            FeedEnd::Stopped if leaving => Some(TranscoderState::Lost),
            FeedEnd::Stopped | FeedEnd::EngineGone => None,
        })
    }
}

fn uploads(
    studio: &Studio,
    job: &LiveJob,
    (objects, epoch): (&Objects, Epoch),
    restored: &Restored,
    (live, left): (&Live, Left),
    (status, keeper): (&Status, &mpsc::UnboundedSender<Event>),
) -> JoinSet<()> {
    let mut uploads = JoinSet::new();
    for (at, (name, backlog)) in studio.backlogs().enumerate() {
        let uploader = Uploader {
            at,
            window: restored.windows.get(&name).cloned().unwrap_or_else(|| empty_window(job)),
            playlist: Written::new(objects.clone(), job.prefix.key(&ObjectName::MediaPlaylist(name.clone())), epoch, marked),
            name,
            objects: objects.clone(),
            job: job.clone(),
            backlog,
            live: live.clone(),
            after_death: left.is_unstored(),
            keeper: keeper.clone(),
            status: status.clone(),
        };
        uploads.spawn(uploader.run());
    }
    uploads
}
