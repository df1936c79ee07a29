//! The conditions of a LiveStream, each a pure function of what was seen and what was said before.
//!
//! Every reason is a word of a closed set, and no message holds a number that moves from second to second.

use super::observe::{HeadSeen, Seen, says_ended};
use crate::conditions::{self, Claim, Truth};
use crate::reports::{ShardSaid, TranscoderSaid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lectern_contract::report::{Publisher, TranscoderState};
use lectern_crds::{DispatchStatus, LiveStreamStatus, PlacementStatus, RecordingStatus};

/// The spec can be carried out.
pub const ACCEPTED: &str = "Accepted";
/// A shard owns the stream.
pub const PLACED: &str = "Placed";
/// The reason of `Placed` of a stream that no shard of its pool has room for.
pub const NO_CAPACITY: &str = "NoCapacity";
/// Media arrives at the shard.
pub const RECEIVING: &str = "Receiving";
/// Segments come out of a transcoder.
pub const TRANSCODING: &str = "Transcoding";
/// Students can watch.
pub const PLAYABLE: &str = "Playable";
/// What the publisher sends is kept as it came.
pub const RECORDING: &str = "Recording";
/// The run is complete.
pub const ENDED: &str = "Ended";

/// Reasons of `Transcoding` that outlive the report that gave them: a transcoder repeats its last words for a minute only.
const LASTING: [&str; 3] = ["Idle", "Failed", "StreamEnded"];

/// All reasons of `Recording` that a later look may repeat.
const RECORDING_REASONS: [&str; 7] =
    ["Recording", "RecordingWithGaps", "NothingStored", "NoPublisher", "NotBegun", "StorageTrouble", "ShardSilent"];

/// What the claims are made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What was seen.
    pub seen: &'a Seen,
    /// The status as it stands.
    pub old: &'a LiveStreamStatus,
    /// The dispatch as it will stand.
    pub dispatch: Option<&'a DispatchStatus>,
    /// How to publish, for people.
    pub how: String,
}

impl Facts<'_> {
    fn old(&self, kind: &'static str) -> Option<&Condition> {
        conditions::find(&self.old.conditions, kind)
    }

    /// The condition as it stands, said again.
    fn again(&self, kind: &'static str, reasons: &[&'static str]) -> Option<Claim> {
        let old = self.old(kind)?;
        let reason = reasons.iter().find(|reason| **reason == old.reason)?;
        let truth = [Truth::True, Truth::False, Truth::Unknown].into_iter().find(|truth| truth.as_str() == old.status)?;
        Some(Claim { kind, truth, reason, message: old.message.clone() })
    }

    /// The transcoder's words, if they are fresh and about the dispatch as it stands.
    fn transcoder(&self) -> Option<&TranscoderSaid> {
        let said = self.seen.transcoder.as_ref().filter(|said| said.fresh)?;
        let answered = self.dispatch.is_none_or(|dispatch| i64::from(said.run.attempt) >= i64::from(dispatch.attempt));
        let works =
            matches!(said.run.state, TranscoderState::Running { .. } | TranscoderState::Starting { .. } | TranscoderState::Ended { .. });
        (answered || works).then_some(said)
    }
}

/// `Accepted`, of a stream that is.
pub fn accepted() -> Claim {
    claim(ACCEPTED, Truth::True, "Accepted", "")
}

/// `Placed`.
pub fn placed(placement: Option<&PlacementStatus>) -> Claim {
    match placement {
        Some(placement) => claim(PLACED, Truth::True, "Placed", format!("on {}: {}", placement.shard, placement.reason)),
        None => claim(PLACED, Truth::False, "NoShards", "the pool has no ingest shards"),
    }
}

/// `Receiving`.
pub fn receiving(facts: &Facts<'_>) -> Claim {
    let no = |reason, message: &str| claim(RECEIVING, Truth::False, reason, message);
    let as_before = || facts.again(RECEIVING, &["Publishing", "PublisherGone", "NoPublisherYet", "ShardSilent"]);
    match &facts.seen.shard {
        ShardSaid::Run(run) => match &run.publisher {
            Publisher::Publishing { remote, backup, .. } => {
                let which = if *backup { " (backup)" } else { "" };
                claim(RECEIVING, Truth::True, "Publishing", format!("from {remote}{which}"))
            }
            Publisher::Gone { reason } => no("PublisherGone", reason),
        },
        ShardSaid::NoPublisher if facts.seen.arriving => as_before().unwrap_or_else(|| no("NoPublisherYet", &facts.how)),
        ShardSaid::NoPublisher if facts.dispatch.is_some() => no("PublisherGone", "the shard has not seen the publisher since it started"),
        ShardSaid::NoPublisher => no("NoPublisherYet", &facts.how),
        ShardSaid::Silent if facts.old.placement.is_none() => no("NoPublisherYet", &facts.how),
        ShardSaid::Silent if !facts.seen.settled => as_before().unwrap_or_else(|| no("NoPublisherYet", &facts.how)),
        ShardSaid::Silent => {
            let shard = facts.old.placement.as_ref().map_or("", |placement| placement.shard.as_str());
            claim(RECEIVING, Truth::Unknown, "ShardSilent", format!("the shard {shard} does not report"))
        }
    }
}

/// `Transcoding`.
pub fn transcoding(facts: &Facts<'_>) -> Claim {
    let no = |reason, message: &str| claim(TRANSCODING, Truth::False, reason, message);
    let Some(dispatch) = facts.dispatch else { return no("NoPublisherYet", "a transcoder is called when media arrives") };
    if let Some(said) = facts.transcoder() {
        let pod = &said.pod;
        match &said.run.state {
            TranscoderState::Running { trouble, remark, .. } => {
                let said =
                    [Some(format!("in {pod}")), trouble.clone(), remark.clone()].into_iter().flatten().collect::<Vec<_>>().join("; ");
                return claim(TRANSCODING, Truth::True, "Running", said);
            }
            TranscoderState::Starting { waiting_for: None } => return no("Starting", &format!("in {pod}")),
            TranscoderState::Starting { waiting_for: Some(what) } if what.starts_with("S3") => return no("StorageUnreachable", what),
            TranscoderState::Starting { waiting_for: Some(what) } => return no("Starting", what),
            TranscoderState::Idle => return no("Idle", "the source was silent; a transcoder is called when it returns"),
            TranscoderState::Ended { .. } => return no("StreamEnded", ""),
            TranscoderState::Failed { reason } => return no("Failed", reason),
            TranscoderState::Lost => {}
        }
    }
    let same_attempt = facts.old.dispatch.as_ref().is_some_and(|old| old.attempt == dispatch.attempt);
    let before = facts.old(TRANSCODING).map(|old| old.reason.as_str()).filter(|_| same_attempt);
    let waiting = || no("WaitingForTranscoder", "the job is in the queue; no transcoder has taken it yet");
    match before {
        Some(reason) if LASTING.contains(&reason) => facts.again(TRANSCODING, &LASTING).unwrap_or_else(waiting),
        Some("Running" | "Starting" | "StorageUnreachable") if !facts.seen.settled => {
            facts.again(TRANSCODING, &["Running", "Starting", "StorageUnreachable"]).unwrap_or_else(waiting)
        }
        Some("Running" | "Starting" | "StorageUnreachable" | "TranscoderSilent") => {
            let message = "its transcoder does not report; the queue hands the job to another one soon";
            claim(TRANSCODING, Truth::Unknown, "TranscoderSilent", message)
        }
        Some("QueueUnreachable") if dispatch.at.is_none() => facts.again(TRANSCODING, &["QueueUnreachable"]).unwrap_or_else(waiting),
        // A job that went past the queue is not in it at the next look either.
        Some("WaitingForTranscoder") => facts.again(TRANSCODING, &["WaitingForTranscoder"]).unwrap_or_else(waiting),
        _ => waiting(),
    }
}

/// `Transcoding` of a stream whose job could not be sent. The message of an earlier try stays: every error has a request id
/// of its own, and each change of a status wakes the controller.
pub fn queue_unreachable(old: &[Condition], message: &str) -> Claim {
    let before = conditions::find(old, TRANSCODING).filter(|condition| condition.reason == "QueueUnreachable");
    claim(TRANSCODING, Truth::False, "QueueUnreachable", before.map_or(message, |condition| &condition.message))
}

/// `Transcoding` of a stream whose job was given to a pod directly.
pub fn past_the_queue(pod: &str) -> Claim {
    claim(TRANSCODING, Truth::False, "WaitingForTranscoder", format!("the queue cannot be reached; the job is given to {pod} directly"))
}

/// `Playable`. Once true it stays: what was published can be watched.
pub fn playable(facts: &Facts<'_>) -> Claim {
    let yes = || claim(PLAYABLE, Truth::True, "SegmentsConfirmed", "");
    let state = facts.seen.transcoder.as_ref().map(|said| &said.run.state);
    match state {
        Some(TranscoderState::Running { confirmed: Some(_), .. } | TranscoderState::Ended { first: Some(_), .. }) => yes(),
        _ if facts.old(PLAYABLE).is_some_and(|old| old.status == "True") => yes(),
        _ => claim(PLAYABLE, Truth::False, "NoSegmentYet", "no segment has reached the bucket in every rendition yet"),
    }
}

/// `Ended`.
pub fn ended(facts: &Facts<'_>) -> Claim {
    let yes = |reason, message: &str| claim(ENDED, Truth::True, reason, message);
    let no = |reason, message: &str| claim(ENDED, Truth::False, reason, message);
    if let Some(done) = facts.old(ENDED).filter(|old| old.status == "True") {
        return facts.again(ENDED, &["Completed", "NeverStarted", "Incomplete"]).unwrap_or_else(|| yes("Completed", &done.message));
    }
    if !facts.seen.ending {
        return no("NotEnded", "set spec.ended to true to end the stream");
    }
    if facts.dispatch.is_none() {
        return yes("NeverStarted", "nobody has published");
    }
    if let Some(said) = facts.seen.transcoder.as_ref().filter(|said| says_ended(said)) {
        return match &said.run.state {
            TranscoderState::Ended { first: Some(first), last: Some(last) } => yes("Completed", &format!("segments {first} to {last}")),
            _ => yes("Completed", "no segment came out"),
        };
    }
    let failed = transcoding(facts);
    match &facts.seen.head {
        HeadSeen::Ended => yes("Completed", ""),
        _ if failed.reason == "Failed" => yes("Incomplete", &failed.message),
        HeadSeen::Unreadable(error) => {
            let before = facts.old(ENDED).filter(|old| old.reason == "StorageUnreachable");
            no("StorageUnreachable", before.map_or(error.as_str(), |old| &old.message))
        }
        _ => no("Finishing", "the transcoder closes the playlists"),
    }
}

/// `Recording`: of the original, `stored` being how far it is.
pub fn recording(facts: &Facts<'_>, wanted: bool, stored: Option<&RecordingStatus>, ended: bool) -> Claim {
    let no = |reason, message: &str| claim(RECORDING, Truth::False, reason, message);
    let gaps = stored.map_or(0, |stored| stored.gaps);
    let lacking = match gaps {
        0 => String::new(),
        1 => "one gap, because S3 was away for too long".to_owned(),
        gaps => format!("{gaps} gaps, because S3 was away for too long"),
    };
    if ended {
        return match stored {
            Some(_) => no("StreamEnded", &lacking),
            None => no("NothingStored", "nothing of the original was stored"),
        };
    }
    if !wanted {
        return no("NotWanted", "set spec.record.original to true to keep what the publisher sends");
    }
    let run = match &facts.seen.shard {
        ShardSaid::Run(run) => run,
        ShardSaid::Silent if facts.old.placement.is_none() => return no("NoPublisher", &lacking),
        ShardSaid::Silent if facts.seen.settled => return claim(RECORDING, Truth::Unknown, "ShardSilent", lacking),
        ShardSaid::NoPublisher if !facts.seen.arriving => return no("NoPublisher", &lacking),
        // Too early to say anything else than before.
        ShardSaid::Silent | ShardSaid::NoPublisher => {
            return facts.again(RECORDING, &RECORDING_REASONS).unwrap_or_else(|| no("NoPublisher", &lacking));
        }
    };
    let publishes = matches!(run.publisher, Publisher::Publishing { .. });
    match run.recording.as_ref().map(|recording| &recording.trouble) {
        // The first words stay while it lasts: they may hold times and ids that are others each time.
        Some(Some(trouble)) => facts.again(RECORDING, &["StorageTrouble"]).unwrap_or_else(|| no("StorageTrouble", trouble)),
        _ if !publishes => no("NoPublisher", &lacking),
        _ if stored.is_none() => no("NothingStored", "the first piece is stored some ten seconds after the publisher came"),
        Some(None) if gaps > 0 => claim(RECORDING, Truth::True, "RecordingWithGaps", lacking),
        Some(None) => claim(RECORDING, Truth::True, "Recording", ""),
        None => no("NotBegun", "the shard has not begun to record yet"),
    }
}

/// The one word for people.
pub fn phase(claims: &[Claim], ever_published: bool, ending: bool) -> &'static str {
    let holds = |kind| claims.iter().any(|claim| claim.kind == kind && claim.truth == Truth::True);
    match () {
        () if holds(ENDED) => "Ended",
        () if ending => "Ending",
        () if holds(RECEIVING) && holds(PLAYABLE) && holds(TRANSCODING) => "Live",
        () if holds(RECEIVING) => "Receiving",
        () if ever_published => "Interrupted",
        () => "Waiting",
    }
}

/// A claim.
pub fn claim(kind: &'static str, truth: Truth, reason: &'static str, message: impl Into<String>) -> Claim {
    Claim { kind, truth, reason, message: message.into() }
}
