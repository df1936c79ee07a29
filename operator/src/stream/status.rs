//! Writing a LiveStream's status: when it differs in a way that matters, and on a current copy only.

use super::claims::{self, ACCEPTED, ENDED, NO_CAPACITY, PLACED, PLAYABLE, RECEIVING, RECORDING};
use super::observe::Seen;
use super::validate::Refusal;
use super::{REFRESH, api, is_deleting, leave_shard, resident, status_of};
use crate::conditions::{self, Claim, Truth, find, holds};
use crate::context::{Context, Error};
use crate::events::Note;
use crate::{apply, reports};
use jiff::{SignedDuration, Timestamp};
use kube::Resource;
use lectern_contract::ShardName;
use lectern_crds::{LiveStream, LiveStreamStatus};

/// Writes `status` if it says something new, tells the news as Events, and returns the stream as it is now.
///
/// # Errors
/// A conflict where the stream has changed since it was read: the decision was made on an old copy.
pub async fn write(stream: &LiveStream, status: &LiveStreamStatus, ctx: &Context) -> Result<LiveStream, Error> {
    let old = status_of(stream);
    let settled = settle(&old, status);
    keep_book(stream, &settled, ctx);
    if settled == old {
        return Ok(stream.clone());
    }
    let written = apply::status(&api(stream, ctx), stream, &settled).await?;
    ctx.superseded.note(stream, &written);
    for note in news(&old, &settled) {
        ctx.events.publish(stream.object_ref(&()), note);
    }
    Ok(written)
}

/// The status of a stream that cannot be carried out as it stands. What it was stays, so that nothing that runs is cut.
pub fn refused(stream: &LiveStream, refusal: &Refusal, now: Timestamp) -> LiveStreamStatus {
    let mut status = status_of(stream);
    let claim = Claim { kind: ACCEPTED, truth: Truth::False, reason: refusal.reason.as_str(), message: refusal.message.clone() };
    replace(&mut status, &claim, stream.metadata.generation, now);
    status.observed_generation = stream.metadata.generation;
    status.phase = Some(if is_deleting(stream) { "Deleting" } else { "Refused" }.to_owned());
    status.last_error = Some(refusal.message.clone());
    status
}

/// The status of a stream that no shard has room for.
pub fn unplaced(stream: &LiveStream, seen: &Seen, why: &str) -> LiveStreamStatus {
    let (mut status, generation) = (status_of(stream), stream.metadata.generation);
    replace(&mut status, &claims::accepted(), generation, seen.now);
    replace(&mut status, &claims::claim(PLACED, Truth::False, NO_CAPACITY, why), generation, seen.now);
    if seen.ending {
        replace(&mut status, &claims::claim(ENDED, Truth::True, "NeverStarted", "nobody has published"), generation, seen.now);
    }
    let phase = match (is_deleting(stream), seen.ending) {
        (true, _) => "Deleting",
        (false, true) => "Ended",
        (false, false) => "Pending",
    };
    LiveStreamStatus {
        observed_generation: generation,
        phase: Some(phase.to_owned()),
        last_error: (!seen.ending).then(|| why.to_owned()),
        ..status
    }
}

/// Puts one condition in the place of the one of its type.
pub fn replace(status: &mut LiveStreamStatus, claim: &Claim, generation: Option<i64>, now: Timestamp) {
    let made = conditions::dated(&status.conditions, std::slice::from_ref(claim), generation, now);
    for condition in made {
        match status.conditions.iter_mut().find(|old| old.type_ == condition.type_) {
            Some(old) => *old = condition,
            None => status.conditions.push(condition),
        }
    }
}

/// `new` with everything taken from `old` that differs only in what moves all the time: the live edge within half a minute,
/// a bitrate within a quarter.
pub fn settle(old: &LiveStreamStatus, new: &LiveStreamStatus) -> LiveStreamStatus {
    let mut settled = new.clone();
    // A second less than the refresh, so that a reconcile that comes a little early is not lost for another half minute.
    let refreshed = SignedDuration::from_secs(REFRESH.as_secs().cast_signed() - 1);
    if let (Some(before), Some(now)) = (&old.live, &mut settled.live) {
        let is_recent = !conditions::is_past(before.at.0, refreshed, now.at.0);
        if is_recent && before.transcoder == now.transcoder {
            *now = before.clone();
        }
    }
    if let (Some(before), Some(now)) = (&old.recording, &mut settled.recording) {
        // It moves on with every piece; it is written with the live edge, or once in half a minute by itself.
        let is_recent = now.stored_until.0.duration_since(before.stored_until.0) < refreshed;
        if is_recent && before.gaps == now.gaps && settled.live == old.live {
            *now = before.clone();
        }
    }
    if let (Some(before), Some(now)) = (&old.received, &mut settled.received) {
        let (was, is) = (before.bitrate.unsigned_abs(), now.bitrate.unsigned_abs());
        if !reports::moved_by_a_quarter(was, is) {
            now.bitrate = before.bitrate;
        }
    }
    settled
}

/// What happened between two statuses, for people.
pub fn news(old: &LiveStreamStatus, new: &LiveStreamStatus) -> Vec<Note> {
    let mut notes = Vec::new();
    let became = |kind| holds(&new.conditions, kind) && !holds(&old.conditions, kind);
    let message = |kind| find(&new.conditions, kind).map_or("", |condition| condition.message.as_str());
    if let Some(placement) = &new.placement {
        match &old.placement {
            // The condition says it in the same words, and every stream has it: no news.
            None => {}
            Some(before) if before.shard != placement.shard => {
                notes.push(Note::warning("Placed", format!("moved from {} to {}: {}", before.shard, placement.shard, placement.reason)));
            }
            Some(_) => {}
        }
    }
    let full = |status: &LiveStreamStatus| conditions::reason(&status.conditions, PLACED) == Some(NO_CAPACITY);
    if full(new) && !full(old) {
        notes.push(Note::warning(NO_CAPACITY, message(PLACED)));
    }
    if became(RECEIVING) {
        notes.push(Note::normal("PublisherArrived", message(RECEIVING)));
    }
    if holds(&old.conditions, RECEIVING) && conditions::reason(&new.conditions, RECEIVING) == Some("PublisherGone") {
        notes.push(Note::normal("PublisherLeft", message(RECEIVING)));
    }
    let key = |status: &LiveStreamStatus| status.ingest.as_ref().map(|ingest| ingest.key_hash.clone());
    if key(old).is_some() && key(new) != key(old) {
        let until = new.ingest.as_ref().and_then(|ingest| ingest.previous_key_until.as_ref());
        let until = until.map_or("is shut out".to_owned(), |until| format!("may be used until {}", until.0));
        notes.push(Note::normal("KeyChanged", format!("there is a new stream key; the one before {until}")));
    }
    let trouble = |status: &LiveStreamStatus| conditions::reason(&status.conditions, RECORDING) == Some("StorageTrouble");
    let gaps = |status: &LiveStreamStatus| status.recording.as_ref().map_or(0, |recording| recording.gaps);
    if (trouble(new) && !trouble(old)) || gaps(new) > gaps(old) {
        notes.push(Note::warning("RecordingTrouble", message(RECORDING)));
    }
    if became(PLAYABLE) {
        let player = new.playback.as_ref().map_or("", |playback| playback.player.as_str());
        notes.push(Note::normal("Playable", format!("students watch at {player}")));
    }
    if became(ENDED) {
        let reason = conditions::reason(&new.conditions, ENDED).unwrap_or_default();
        notes.push(Note::normal("Ended", format!("{reason}: {}", message(ENDED))));
    }
    let refusal = |status: &LiveStreamStatus| find(&status.conditions, ACCEPTED).filter(|c| c.status == "False").map(|c| c.message.clone());
    if let Some(why) = refusal(new).filter(|_| refusal(new) != refusal(old)) {
        notes.push(Note::warning("Refused", why));
    }
    notes
}

/// A stream that has ended needs no room on its shard.
fn keep_book(stream: &LiveStream, status: &LiveStreamStatus, ctx: &Context) {
    match &status.placement {
        Some(placement) if !holds(&status.conditions, ENDED) => {
            ctx.book.note(&resident(stream, Some(status)), &ShardName(placement.shard.clone()));
        }
        // One that waits for room has noted that it does.
        None if conditions::reason(&status.conditions, PLACED) == Some(NO_CAPACITY) && !holds(&status.conditions, ENDED) => {}
        _ => leave_shard(stream, ctx),
    }
}
